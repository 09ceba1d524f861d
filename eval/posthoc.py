"""The post-hoc CRF: its settings found by search, as DeepLab did.

Chen et al., "Semantic Image Segmentation with Deep Convolutional Nets and Fully
Connected CRFs", ICLR 2015, section 5.2: on a hundred validation images, the spatial
kernel fixed, a coarse grid over the bilateral weight and widths, then a finer search
around the best.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby, product
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from crfrnn import CrfRnn
from data import VOID, Sample, SegmentationDataset
from eval import processes
from eval.inference import Coarse, image_of, own_share
from eval.metrics import mean_iou
from models import CrfConfig, CrfForm, Segmenter
from models.crf import build_crf
from models.resize import shrink, shrink_image, stretch

CALIBRATION_STRIDE = 7  # of the labelled pixels: neighbours say the same twice

SEARCHED = ("theta_gamma", "spatial_weight", "theta_alpha", "theta_beta", "bilateral_weight")


@dataclass(frozen=True)
class SearchConfig:
    """The grid of the coarse stage, and how it is refined.

    Widths in pixels of the full-resolution image and grey levels of 0..255.

    Attributes:
        num_images: of the tune split, evenly spaced; all of them if there are fewer.
        theta_gamma, spatial_weight: of the spatial kernel; DeepLab fixes both.
        theta_alpha, theta_beta, bilateral_weight: of the bilateral kernel.
        calibrate: end with the temperature of the CRF's output, see `calibrate`.
        rounds: of the fine stage. The first moves one value at a time by half a step of
            the grid both ways, each further one by half of the step before.
    """

    num_images: int = 100
    theta_gamma: tuple[float, ...] = (3.0,)
    spatial_weight: tuple[float, ...] = (3.0,)
    theta_alpha: tuple[float, ...] = (30.0, 60.0, 100.0)
    theta_beta: tuple[float, ...] = (3.0, 6.0)
    bilateral_weight: tuple[float, ...] = (3.0, 6.0)
    rounds: int = 1
    calibrate: bool = True

    def __post_init__(self) -> None:
        for name in SEARCHED:
            values = getattr(self, name)
            if not values or not all(value > 0 for value in values):
                raise ValueError(f"search.{name} must hold values above 0, got {values}.")
        if self.num_images < 1 or self.rounds < 0:
            raise ValueError(
                "search.num_images must be at least 1 and search.rounds at least 0, got "
                f"{self.num_images} and {self.rounds}."
            )


Row = dict[str, Any]  # the five searched values, "stage" and "miou"


def search(
    segmenter: Segmenter,
    form: CrfForm,
    dataset: SegmentationDataset,
    coarse: Coarse,
    config: SearchConfig,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[CrfConfig, list[Row]]:
    """The setting with the highest mean IoU on the tune split.

    Args:
        segmenter: whose network made `coarse`; its CRF, if any, is not used.
        form: normalisation, iterations, filters and resolution of the CRF.
        dataset: the tune split.
        coarse: the network's logits of its images.
        config: the grid.
        progress: called with (images done, images in all) of each stage.

    Returns:
        The best values in that form, with scalar weights, a Potts compatibility and, if
        wished, a calibrated `output_scale`; and every setting tried with its score, in order.
    """
    count = min(config.num_images, len(dataset))
    chosen = own_share(np.linspace(0, len(dataset) - 1, count).round().astype(int).tolist())
    base = replace(CrfConfig(**asdict(form)), kernel_weights="scalar", compatibility="potts")
    scored: dict[CrfConfig, float] = {}
    rows: list[Row] = []

    def score(stage: str, candidates: Sequence[CrfConfig]) -> None:
        new = [c for c in dict.fromkeys(candidates) if c not in scored]
        confusions = {c: np.zeros((len(dataset.classes),) * 2, dtype=np.int64) for c in new}
        for done, index in enumerate(chosen):
            sample = dataset[index]
            for setting, counts in score_image(segmenter, sample, coarse[sample.name], new):
                confusions[setting] += counts
            progress(done + 1, len(chosen))
        everywhere = processes.gathered(list(confusions.values()))
        confusions = {c: sum(counts) for c, *counts in zip(new, *everywhere, strict=True)}
        for setting in new:
            scored[setting] = float(np.nan_to_num(mean_iou(confusions[setting], dataset.scored)))
            values = {name: getattr(setting, name) for name in SEARCHED}
            rows.append({**values, "stage": stage, "miou": scored[setting]})

    grids = {name: getattr(config, name) for name in SEARCHED}
    score(
        "coarse",
        [replace(base, **dict(zip(grids, v, strict=True))) for v in product(*grids.values())],
    )
    for round_ in range(config.rounds):
        best = max(scored, key=scored.__getitem__)
        score(f"fine {round_ + 1}", neighbours(best, grids, 0.5 ** (round_ + 1)))
    best = max(scored, key=scored.__getitem__)
    if config.calibrate:
        scale = calibrate(segmenter, best, (dataset[index] for index in chosen), coarse)
        best = replace(best, output_scale=scale)
    return best, rows


@torch.no_grad()
def calibrate(
    segmenter: Segmenter, setting: CrfConfig, samples: Iterable[Sample], coarse: Coarse
) -> float:
    """The factor on the CRF's logits with the least cross-entropy: temperature scaling.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2. It
    changes no prediction; it is where a training by likelihood has to start, because
    mean-field marginals are far too sure and the gradient of their errors would undo both
    CRF and network.
    """
    rows, labels = [], []
    for sample in samples:
        ((_, logits),) = refined(segmenter, sample, coarse[sample.name], [setting])
        labelled = (sample.mask != VOID).flatten().nonzero()[::CALIBRATION_STRIDE, 0]
        rows.append(logits[0].flatten(1).t()[labelled.to(logits.device)].cpu())
        labels.append(sample.mask.flatten()[labelled])
    # Lists: a process may have no image of the search.
    all_rows, all_labels = (
        torch.cat([part for parts in processes.gathered(found) for part in parts])
        for found in (rows, labels)
    )
    all_rows = all_rows.double()  # the minimum is flat: in float32 it is found to 3e-4 alone
    fitted = minimize_scalar(
        lambda log_scale: F.cross_entropy(all_rows * math.exp(log_scale), all_labels).item(),
        bounds=(math.log(1e-2), math.log(1e2)),
        method="bounded",
    )
    return math.exp(fitted.x)


def neighbours(
    setting: CrfConfig, grids: dict[str, tuple[float, ...]], fraction: float
) -> list[CrfConfig]:
    """The settings one move away: a searched value up or down by a fraction of its grid's step."""
    moved = []
    for name, grid in grids.items():
        if len(grid) < 2:
            continue  # held fixed
        value = getattr(setting, name)
        step = fraction * float(np.diff(sorted(grid)).min())
        candidates = (value - step, value + step)
        moved += [replace(setting, **{name: v}) for v in candidates if v > 0]
    return moved


def score_image(
    segmenter: Segmenter, sample: Sample, coarse: Tensor, settings: Sequence[CrfConfig]
) -> Iterator[tuple[CrfConfig, np.ndarray[Any, np.dtype[np.int64]]]]:
    """The confusion matrix of one image under every setting."""
    for setting, logits in refined(segmenter, sample, coarse, settings):
        counts = multiclass_confusion_matrix(
            logits.argmax(1).cpu(),
            sample.mask[None],
            num_classes=logits.shape[1],
            ignore_index=VOID,
            validate_args=False,
        )
        yield setting, counts.numpy()


@torch.no_grad()
def refined(
    segmenter: Segmenter, sample: Sample, coarse: Tensor, settings: Sequence[CrfConfig]
) -> Iterator[tuple[CrfConfig, Tensor]]:
    """The CRF's logits of one image, (1, L, H, W), under every setting.

    Settings that share their widths share the filters: these are most of the cost.
    """
    image = image_of(sample, segmenter.device)
    unary = segmenter.enlarge(coarse.to(segmenter.device), image.shape[2:])

    def widths(setting: CrfConfig) -> tuple[float, ...]:
        return setting.theta_gamma, setting.theta_alpha, setting.theta_beta

    for _, group in groupby(sorted(settings, key=widths), key=widths):
        same = list(group)
        crfs: list[CrfRnn] = [build_crf(s, len(coarse[0])).to(unary.device).eval() for s in same]
        small_unary = shrink(unary, same[0].resolution)
        kernels = crfs[0].potentials.build_kernels(shrink_image(image, same[0].resolution))
        for setting, crf in zip(same, crfs, strict=True):
            yield setting, stretch(crf.infer(small_unary, kernels), image.shape[2:])
