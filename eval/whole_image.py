"""Whole images at native size: at several scales, mirrored, in windows, with the CRF behind.

Pixel centres: resizing puts the centres of the corner pixels on each other (align_corners), as
the networks here do inside, so pixel i of an axis of n pixels sits at i (m - 1) / (n - 1) of one
of m. A scale s of n pixels is round((n - 1) s) + 1 pixels, and the way back is exact for whatever
is linear in position. Mirroring maps pixel i to n - 1 - i. Images are not smoothed before they are
made smaller, as those of DeepLab v2's input pyramid are not.

Scales and mirroring as in Chen et al., "Rethinking Atrous Convolution for Semantic Image
Segmentation", 2017, section 4.1: {0.5, 0.75, 1, 1.25, 1.5, 1.75}, the mean of the probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Annotated, Literal, cast

import torch
import tyro
from torch import Tensor

from crfrnn import CrfRnn
from crfrnn.kernels import GaussianKernel
from eval.size_batches import unaries_together
from eval.windows import log_probabilities, stitched
from models import Segmenter, SegmenterOutput
from models.deeplab_v2 import rescale, resize
from models.layers import shrink, shrink_image, stretch

Fusion = Literal["mean", "max"]


@dataclass(frozen=True)
class InferenceConfig:
    """How a whole image is predicted; as it is here, once and as it is.

    Attributes:
        scales: of the image; DeepLab v3 takes 0.5 0.75 1 1.25 1.5 1.75.
        flip: every scale mirrored, too.
        fusion: "mean" of the probabilities, or "max" of the logits as in DeepLab v2's pyramid,
            which its networks with several scales have inside already: this is for those here.
        crf: "fused", once on the log of what scales, mirrors and windows give together; or
            "per_scale", on every scale's own image with widths in proportion, and the mean of
            the marginals.
        window: side of the windows that an image (at every scale) is cut into, pixels; none takes
            it whole.
        overlap: of neighbouring windows, as a share of their side; see `eval.windows`.

    Raises:
        ValueError: a value out of its range.
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    fusion: Fusion = "mean"
    crf: Annotated[Literal["fused", "per_scale"], tyro.conf.arg(name="inference.crf")] = "fused"
    window: int | None = None
    overlap: float = 1 / 3

    def __post_init__(self) -> None:
        if not self.scales or not all(0 < s < math.inf for s in self.scales):
            raise ValueError(f"scales must be one or more numbers above 0, got {self.scales}.")
        if self.window is not None and self.window < 2:
            raise ValueError(f"window must be at least 2 pixels, got {self.window}.")
        if not 0 <= self.overlap < 1:
            raise ValueError(f"overlap must be a share in [0, 1), got {self.overlap}.")
        if self.fusion == "max" and self.window is not None:
            raise ValueError(
                "fusion 'max' compares logits, and windows are stitched as probabilities: leave "
                "fusion at 'mean', or window out."
            )


def infer(segmenter: Segmenter, image: Tensor, config: InferenceConfig) -> SegmenterOutput:
    """The logits of images of one size before and after the CRF, at that size.

    With the default config these are, bit for bit, those of `segmenter(image)`. Where several
    maps are fused by their mean they are log-probabilities. One scale is in memory at a time.

    Args:
        segmenter: in eval mode.
        image: (B, 3, H, W), RGB in 0..255, on its device.
        config: scales and so on.

    Returns:
        (B, L, H, W) each; the CRF's is None without one.

    Raises:
        ValueError: the CRF is to run per scale and there is none; a window smaller than what the
            segmenter pads every image to.
    """
    return infer_each(segmenter, [image], config)[0]


@torch.no_grad()
def infer_each(
    segmenter: Segmenter, images: Sequence[Tensor], config: InferenceConfig
) -> list[SegmenterOutput]:
    """`infer` of images of several sizes; the network takes those that pad to one size at once.

    Args:
        segmenter: in eval mode.
        images: (B, 3, H, W) each.
        config: scales and so on.
    """
    check_possible(segmenter, config)
    images = [image.float() for image in images]
    unaries = [Fused(config.fusion) for _ in images]
    refined = [Fused("mean") for _ in images]
    for scale in config.scales:
        scaled = [rescale(image, scale) for image in images]
        of_scale = [Fused(config.fusion) for _ in images]
        for mirror in (False, True) if config.flip else (False,):
            maps = unaries_at([x.flip(3) if mirror else x for x in scaled], segmenter, config)
            for image, logits, everywhere, here in zip(
                images, maps, unaries, of_scale, strict=True
            ):
                logits = logits.flip(3) if mirror else logits
                everywhere.add(resize(logits, image.shape[2:]))
                if config.crf == "per_scale":
                    here.add(logits)
        if config.crf == "per_scale":
            for image, small, here, result in zip(images, scaled, of_scale, refined, strict=True):
                logits = refine_at(segmenter, here.result(), small, scale)
                result.add(resize(logits, image.shape[2:]))
    outputs = []
    for image, unary, result in zip(images, unaries, refined, strict=True):
        logits, crf = unary.result(), None
        if config.crf == "per_scale":
            crf = result.result()
        elif segmenter.crf is not None:
            crf = segmenter.refine(logits, image)
        outputs.append(SegmenterOutput(logits, crf))
    return outputs


def check_possible(segmenter: Segmenter, config: InferenceConfig) -> None:
    """Raise ValueError where a config asks for what this segmenter cannot do."""
    if config.crf == "per_scale" and segmenter.crf is None:
        raise ValueError(
            "inference.crf 'per_scale' is for a CRF, and there is none behind this network: leave "
            "it at 'fused', or put a CRF there."
        )
    minimum = segmenter.config.min_size
    if config.window is not None and config.window < minimum:
        raise ValueError(
            f"this network pads every image to at least {minimum} pixels, so windows of "
            f"{config.window} would be mostly padding: pass --window {minimum} or more."
        )


def unaries_at(
    images: Sequence[Tensor], segmenter: Segmenter, config: InferenceConfig
) -> list[Tensor]:
    """The network's logits of every image, (B, L, H, W) each, whole or stitched."""
    if config.window is None:
        return unaries_together(segmenter, images)
    step = segmenter.network.size_step
    return [
        stitched(segmenter.unary, image, window=config.window, overlap=config.overlap, step=step)
        for image in images
    ]


class Fused:
    """The fusion of maps that come one after the other; a single one stays as it is.

    Args:
        rule: "mean" of the softmax, "max" of the logits.
    """

    def __init__(self, rule: Fusion) -> None:
        self.rule = rule
        self.count = 0
        self._total: Tensor | None = None

    def add(self, logits: Tensor) -> None:
        """One more map, (B, L, H, W)."""
        self.count += 1
        if self._total is None:
            self._total = logits
        elif self.rule == "max":
            self._total = torch.maximum(self._total, logits)
        else:
            before = self._total.softmax(1) if self.count == 2 else self._total
            self._total = before + logits.softmax(1)

    def result(self) -> Tensor:
        """Their fusion, (B, L, H, W): logits, or the log of the mean."""
        assert self._total is not None  # a config has at least one scale
        if self.rule == "max" or self.count == 1:
            return self._total
        return log_probabilities(self._total / self.count)


def refine_at(segmenter: Segmenter, unary: Tensor, image: Tensor, scale: float) -> Tensor:
    """`Segmenter.refine` on an image that is `scale` times as large as the widths are for."""
    assert segmenter.crf is not None  # checked at the beginning
    crf = segmenter.crf if scale == 1 else with_widths_scaled(segmenter.crf, scale)
    # Interpolation may round past the range that the CRF asks for.
    guide = shrink_image(image, segmenter.resolution)
    return stretch(crf(shrink(unary, segmenter.resolution), guide), unary.shape[2:])


def with_widths_scaled(crf: CrfRnn, scale: float) -> CrfRnn:
    """A copy whose theta_alpha and theta_gamma are `scale` times as many pixels."""
    other = deepcopy(crf)
    for module in other.potentials.kernels.values():
        kernel = cast(GaussianKernel, module)
        if kernel.has_position:
            kernel.log_theta("position").add_(math.log(scale))
    return other
