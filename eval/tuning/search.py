"""The post-hoc CRF of a comparison: its grid searched with the logits at hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from torch import Tensor

from data import VOID, Sample, SegmentationDataset
from eval.inference import Coarse, image_of, labels_of, own_share
from eval.metrics import confusion_matrix, mean_iou
from eval.tuning.filtered import filtered
from eval.tuning.grid import Grid, SearchConfig, evenly_spaced
from eval.tuning.method import SEARCHED
from models import CrfConfig, CrfForm, Segmenter
from models.crf import post_hoc_config
from models.layers import stretch
from runtime import distributed

CALIBRATION_STRIDE = 7  # of the labelled pixels: neighbours say the same twice

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
        form: of the CRF; what acts in training alone is left out (`post_hoc_config`).
        dataset: the tune split.
        coarse: the network's logits of its images.
        config: the grid.
        progress: called with (images done, images in all) of each stage.

    Returns:
        The best values in that form, with scalar weights, a Potts compatibility and, if
        wished, a calibrated `output_scale`; and every setting tried with its score, in order.
    """
    chosen = own_share(evenly_spaced(config.num_images, len(dataset)))
    base = post_hoc_config(form)
    scored: dict[CrfConfig, float] = {}
    rows: list[Row] = []

    def score(stage: str, settings: Sequence[CrfConfig]) -> list[float]:
        confusions = {s: np.zeros((len(dataset.classes),) * 2, dtype=np.int64) for s in settings}
        for done, index in enumerate(chosen):
            sample = dataset[index]
            for setting, counts in score_image(segmenter, sample, coarse[sample.name], settings):
                confusions[setting] += counts
            progress(done + 1, len(chosen))
        everywhere = distributed.gathered(list(confusions.values()))
        confusions = {s: sum(counts) for s, *counts in zip(settings, *everywhere, strict=True)}
        for setting in settings:
            scored[setting] = float(np.nan_to_num(mean_iou(confusions[setting], dataset.scored)))
            values = {name: getattr(setting, name) for name in SEARCHED}
            rows.append({**values, "stage": stage, "miou": scored[setting]})
        return [scored[setting] for setting in settings]

    Grid(config, base).run(score)
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
        torch.cat([part for parts in distributed.gathered(found) for part in parts])
        for found in (rows, labels)
    )
    all_rows = all_rows.double()  # the minimum is flat: in float32 it is found to 3e-4 alone
    fitted = minimize_scalar(
        lambda log_scale: F.cross_entropy(all_rows * math.exp(log_scale), all_labels).item(),
        bounds=(math.log(1e-2), math.log(1e2)),
        method="bounded",
    )
    return math.exp(fitted.x)


def score_image(
    segmenter: Segmenter, sample: Sample, coarse: Tensor, settings: Sequence[CrfConfig]
) -> Iterator[tuple[CrfConfig, np.ndarray[Any, np.dtype[np.int64]]]]:
    """The confusion matrix of one image under every setting."""
    for setting, logits in refined(segmenter, sample, coarse, settings):
        yield setting, confusion_of(logits[0], sample.mask)


def confusion_of(logits: Tensor, mask: Tensor) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The confusion matrix (L, L) of one image, truth in its rows, from its logits (L, H, W)."""
    return confusion_matrix(mask.numpy(), labels_of(logits).numpy(), len(logits))


@torch.no_grad()
def refined(
    segmenter: Segmenter, sample: Sample, coarse: Tensor, settings: Sequence[CrfConfig]
) -> Iterator[tuple[CrfConfig, Tensor]]:
    """The CRF's logits of one image, (1, L, H, W), under every setting."""
    image = image_of(sample, segmenter.device)
    unary = segmenter.enlarge(coarse.to(segmenter.device), image.shape[2:])
    for found in filtered(unary, image, settings):
        yield found.setting, stretch(found.logits, image.shape[2:])
