"""Where images are measured: network, data and prepared pictures of one process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from data import Split
from eval.inference import image_of
from eval.tuning.filtered import filtered
from eval.tuning.logits import LogitsFolder
from eval.tuning.objective import Measured
from eval.tuning.picture import Picture, measure, measure_network, prepare, rows
from models import CrfConfig
from models.layers import stretch
from runtime.checkpoint import load_segmenter, read_checkpoint
from runtime.distributed import DeviceName, device_named
from runtime.run_folder import split_of

LEARNT = (
    "theta_gamma", "spatial_weight", "theta_alpha", "theta_beta", "bilateral_weight",
    "output_scale",
)  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """What a bench is made of, as another process can be told.

    Attributes:
        checkpoint: the file; its network's logits are refined.
        network: digest of that file.
        split: of its data set.
        data_root: where that lies now, if not where it was.
        logits: folder of the network's logits.
        trimap_width: pixels.
        resolution: of the CRF.
        device: that network and CRF run on.
    """

    checkpoint: Path
    network: str
    split: Split
    data_root: Path | None
    logits: Path
    trimap_width: int
    resolution: int
    device: DeviceName


@dataclass(frozen=True)
class Answer:
    """What came of a task, and what it took.

    Attributes:
        value: of the task.
        cpu_seconds: of all threads of this process.
        remarks: lines for the person.
    """

    value: Any
    cpu_seconds: float
    remarks: tuple[str, ...]


class Bench:
    """Measures images; keeps them prepared, two megabytes each."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        checkpoint = read_checkpoint(problem.checkpoint)
        self.dataset = split_of(checkpoint["data"], problem.split, problem.data_root)
        self.segmenter = load_segmenter(checkpoint).to(device_named(problem.device))
        self.logits = LogitsFolder(problem.logits, problem.network)
        self._pictures: dict[int, tuple[float, Picture]] = {}  # the last floor's, by position
        self._remarks: list[str] = []

    def network_alone(self, index: int, floor: float) -> Answer:
        """The scores of the network, which runs where its logits are not yet on the disk."""
        began = time.process_time()
        measured = measure_network(self.segmenter, self._picture(index, floor))
        return self._answer(measured, began)

    def settings(self, index: int, floor: float, settings: Sequence[CrfConfig]) -> Answer:
        """The scores of some settings, in their order."""
        began = time.process_time()
        found = dict(measure(self.segmenter, self._picture(index, floor), settings))
        measured: list[Measured] = [found[setting] for setting in settings]
        return self._answer(measured, began)

    def slope(self, index: int, floor: float, setting: CrfConfig) -> Answer:
        """Summed NLL of an image, its gradient by the logarithms of `LEARNT`, and its pixels.

        The gradient is that of the same CrfRnn, unrolled, with the network frozen.
        """
        began = time.process_time()
        picture = self._picture(index, floor)
        learns = replace(setting, learn_theta=True, learn_output_scale=True)
        unary = self.segmenter.enlarge(picture.coarse, picture.image.shape[2:])
        (found,) = filtered(unary, picture.image.float(), [learns])
        logits = stretch(found.logits, unary.shape[2:])
        nll = F.cross_entropy(rows(picture, found, logits), picture.sampled_truth, reduction="sum")
        potentials = found.crf.potentials
        spatial, bilateral = potentials.kernel("spatial"), potentials.kernel("bilateral")
        weights = [potentials.weight(name) for name in ("spatial", "bilateral")]
        grads = torch.autograd.grad(
            nll,
            [
                spatial.log_theta("position"),
                weights[0],
                bilateral.log_theta("position"),
                bilateral.log_theta("guide"),
                weights[1],
                found.crf.log_output_scale,
            ],
        )
        by_log = [grad.sum().item() for grad in grads]
        by_log[1] *= setting.spatial_weight  # d / d log w = w d / dw
        by_log[4] *= setting.bilateral_weight
        return self._answer((nll.item(), by_log, len(picture.sampled)), began)

    def _picture(self, index: int, floor: float) -> Picture:
        if index not in self._pictures or self._pictures[index][0] != floor:
            sample = self.dataset[index]

            def run_network() -> torch.Tensor:
                with torch.no_grad():
                    image = image_of(sample, self.segmenter.device)
                    return self.segmenter.coarse_unary(image).cpu()

            coarse, remark = self.logits.of(sample, run_network)
            if remark is not None:
                self._remarks.append(remark)
            picture = prepare(
                self.segmenter,
                sample,
                coarse,
                band="void" if self.dataset.has_void else "edge",
                width=self.problem.trimap_width,
                floor=floor,
                resolution=self.problem.resolution,
            )
            self._pictures[index] = floor, picture
        return self._pictures[index][1]

    def _answer(self, value: Any, began: float) -> Answer:
        remarks, self._remarks = tuple(self._remarks), []
        return Answer(value, time.process_time() - began, remarks)
