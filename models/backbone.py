"""What every backbone written here is, and how weights from elsewhere get into it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from torch import Tensor, nn


class Backbone(nn.Module, ABC):
    """Normalised image to feature maps, the coarsest last. Abstract.

    Args:
        channels: of every feature map.
    """

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.channels = channels

    @abstractmethod
    def forward(self, image: Tensor) -> Sequence[Tensor]:
        """Feature maps of a normalised image (B, 3, H, W)."""

    @abstractmethod
    def load_pretrained(self, state: Mapping[str, Tensor]) -> None:
        """Load the state dict of the classifier that this backbone was cut from.

        Raises:
            ValueError: it is another architecture's.
        """


def load_state(module: nn.Module, state: Mapping[str, Tensor], unused: tuple[str, ...]) -> None:
    """Load every key of a module, strictly.

    Args:
        module: whose state dict must be matched, key for key and shape for shape.
        state: what to load.
        unused: beginnings of the keys that may be there besides: the classifier's.

    Raises:
        ValueError: of another architecture; says which keys.
    """
    used = {k: v for k, v in state.items() if not k.startswith(unused or "\0")}
    problems = mismatches(module, used)
    if problems:
        raise ValueError(
            f"these are the weights of another architecture ({len(problems)} differences: "
            f"{'; '.join(problems[:5])}). Build the network they were saved from, or give others."
        )
    module.load_state_dict(dict(used))


def mismatches(module: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Where a state dict does not fit a module, sorted; empty if it fits."""
    expected = module.state_dict()
    return sorted(
        [
            *(f"missing {key}" for key in expected.keys() - state.keys()),
            *(f"unexpected {key}" for key in state.keys() - expected.keys()),
            *(
                f"{key} is {tuple(state[key].shape)}, expected {tuple(expected[key].shape)}"
                for key in expected.keys() & state.keys()
                if state[key].shape != expected[key].shape
            ),
        ]
    )
