"""How the authors trained each DeepLab.

Numbers of the papers and of the authors' published definitions; `note` says what they leave
open. `python -m models describe` shows them, and the recipes of `train` that carry a paper's name
read them here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class PublishedRecipe:
    """SGD with momentum 0.9 on PASCAL VOC 2012 with the SBD annotations.

    Attributes:
        crop: pixels.
        batch: images.
        steps: iterations.
        lr: of the backbone's weights, at the first step.
        schedule: "step" divides by 10 every 2000 iterations, "poly" is (1 - t / T)^0.9.
        head_multiplier: of the head's learning rate.
        weight_decay: of weights.
        bias_multiplier: of the learning rate of biases.
        label_stride: pixels from one label of the loss to the next.
        note: what else belongs to it.
    """

    crop: int
    batch: int
    steps: int
    lr: float
    schedule: Literal["step", "poly"]
    head_multiplier: float
    weight_decay: float
    bias_multiplier: float = 1
    label_stride: Literal[1, 8] = 1
    note: str = ""

    def __str__(self) -> str:
        """One line for tables."""
        text = (
            f"crop {self.crop}, batch {self.batch}, {self.steps // 1000}k steps, "
            f"lr {self.lr:g} {self.schedule}, head x{self.head_multiplier:g}, "
            f"biases x{self.bias_multiplier:g}, decay {self.weight_decay:g}, "
            f"labels at stride {self.label_stride}"
        )
        return f"{text}; {self.note}" if self.note else text


V1 = PublishedRecipe(321, 20, 6_000, 1e-3, "step", 10, 5e-4, 2, 8)
V1_MSC = PublishedRecipe(321, 20, 6_000, 1e-3, "step", 10, 5e-4, 2, 8, "only the branches learn")
V2_VGG = PublishedRecipe(321, 10, 20_000, 1e-3, "poly", 10, 5e-4, 2, 8)
V2_RESNET = PublishedRecipe(321, 10, 20_000, 2.5e-4, "poly", 10, 5e-4, 2, 8, "frozen BN")
V3 = PublishedRecipe(513, 16, 30_000, 7e-3, "poly", 1, 1e-4)
V3_STRIDE_8 = PublishedRecipe(
    513, 16, 30_000, 1e-3, "poly", 1, 1e-4, note="from stride 16, frozen BN"
)
V3PLUS_RESNET = PublishedRecipe(513, 16, 30_000, 7e-3, "poly", 1, 1e-4)
V3PLUS_XCEPTION = PublishedRecipe(
    513, 16, 30_000, 7e-3, "poly", 1, 4e-5, note="depthwise weights do not decay"
)
