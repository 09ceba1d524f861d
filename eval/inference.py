"""Whole-image inference: batches of a size, windows, scales, mirror images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar, cast

import torch
import tyro
from torch import Tensor

from crfrnn import CrfRnn
from crfrnn.kernels import GaussianKernel
from data import Sample, SegmentationDataset
from eval.metrics import Scorer, SplitCounts, joined
from eval.prediction_files import write_mask
from models import Segmenter, SegmenterOutput
from models.deeplab_v2 import rescale, resize
from models.layers import shrink, shrink_image, stretch
from runtime import distributed

# A large image through a network in overlapping windows, stitched to one map.
#
# Windows start on the grid of the network's cells, so a window's logits sit on the pixels that
# those of the whole image would sit on. The last window of an axis ends at the border of the
# image.
#
# Where windows overlap by o pixels, the outer quarter of the overlap counts nothing, because
# there a window sees the least of what surrounds it; across the middle half the weight rises
# linearly from 0 to 1. At the border of the image, where no other window is, the weight stays 1.
# So a network that sees at most o / 4 pixels in every direction gives what it gives on the whole
# image.


def window_starts(size: int, side: int, advance: int, step: int) -> list[int]:
    """List where the windows of one axis begin: multiples of `step`, every pixel covered.

    Args:
        size: of the image, pixels.
        side: of a window, pixels; a window that reaches past the border is cut there.
        advance: from one window to the next, a multiple of `step`, at most `side`.
        step: pixels of a cell of the network.
    """
    last = math.ceil(max(0, size - side) / step) * step
    return [*range(0, last, advance), last]


def taper(start: int, end: int, size: int, overlap: int) -> Tensor:
    """Compute the weight of the pixels start..end - 1 of an axis: see the module. (end - start,).

    Args:
        start: of the window, pixels of the image.
        end: of the window, behind its last pixel.
        size: of the image, pixels.
        overlap: of two neighbouring windows, pixels, at least 1.
    """
    centres = torch.arange(end - start) + 0.5
    inside = torch.full_like(centres, math.inf)  # pixels to the nearest cut that is no border
    if start > 0:
        inside = torch.minimum(inside, centres)
    if end < size:
        inside = torch.minimum(inside, (end - start) - centres)
    return ((inside - overlap / 4) / (overlap / 2)).clamp(0, 1)


def stitched(
    logits_of: Callable[[Tensor], Tensor], image: Tensor, *, window: int, overlap: float, step: int
) -> Tensor:
    """Compute the log of the weighted mean of the windows' softmax: (B, L, H, W).

    Args:
        logits_of: (B, 3, h, w) -> (B, L, h, w) logits.
        image: (B, 3, H, W).
        window: side of a window, pixels; rounded up to whole cells and a pixel.
        overlap: of neighbouring windows, as a share of the side, 0..1.
        step: pixels of a cell: windows begin at its multiples.
    """
    height, width = image.shape[2:]
    side = math.ceil((window - 1) / step) * step + 1
    advance = max(step, math.floor(side * (1 - overlap) / step) * step)
    if side >= max(height, width):
        return logits_of(image)
    total: Tensor | None = None
    weights = image.new_zeros(height, width)
    for top in window_starts(height, side, advance, step):
        bottom = min(top + side, height)
        rows = taper(top, bottom, height, side - advance).to(image.device)
        for left in window_starts(width, side, advance, step):
            right = min(left + side, width)
            columns = taper(left, right, width, side - advance).to(image.device)
            weight = rows[:, None] * columns
            q = logits_of(image[..., top:bottom, left:right]).softmax(1)
            if total is None:
                total = q.new_zeros(*q.shape[:2], height, width)
            total[..., top:bottom, left:right] += weight * q
            weights[top:bottom, left:right] += weight
    assert total is not None  # there is always a window
    return log_probabilities(total / weights)


def log_probabilities(q: Tensor) -> Tensor:
    """log q, finite: a softmax that has rounded to 0 counts as the smallest normal number."""
    return q.clamp_min(torch.finfo(q.dtype).tiny).log()


# Images of many sizes through a network that wants one size a batch.

T = TypeVar("T")

WAITING = 8  # batches' worth of items that may wait for others of their size


def batches_by_size(
    items: Iterable[T], size_of: Callable[[T], tuple[int, ...]], batch_size: int
) -> Iterator[list[tuple[int, T]]]:
    """Put items of one size together, while they arrive.

    A batch leaves as soon as it is full. At most `WAITING` batches' worth of items wait: then the
    fullest incomplete batch leaves, and at the end all others.

    Args:
        items: in any order of sizes; read one by one.
        size_of: what has to be equal in a batch, for example
            `lambda sample: segmenter.padded_size(sample.image.shape[1:])`.
        batch_size: the largest.

    Yields:
        Pairs of an item and its place in `items`, which recovers the order: every item once.

    Raises:
        ValueError: batch_size is below 1.
    """
    if batch_size < 1:
        raise ValueError(f"the batch size must be at least 1, got {batch_size}.")
    waiting: dict[tuple[int, ...], list[tuple[int, T]]] = {}
    for place, item in enumerate(items):
        size = size_of(item)
        batch = waiting.setdefault(size, [])
        batch.append((place, item))
        if len(batch) < batch_size:
            if sum(map(len, waiting.values())) < WAITING * batch_size:
                continue
            size = max(waiting, key=lambda s: len(waiting[s]))
        yield waiting.pop(size)
    yield from waiting.values()


def coarse_together(segmenter: Segmenter, images: Sequence[Tensor]) -> list[Tensor]:
    """`Segmenter.coarse_unary` of every image, from one pass for those that pad to one size.

    What differs from one pass an image is rounding: a convolution may sum in another order where
    the batch has another size. The padding is the same, so nothing else does.

    Args:
        segmenter: in eval mode, so that the images of a batch do not see each other.
        images: (B, 3, H, W) each, RGB in 0..255, on its device.

    Returns:
        (B, L, h, w) logits at the network's stride, for each image.
    """
    padded = [segmenter.network_input(image.float()) for image in images]
    alike: dict[tuple[int, ...], list[int]] = {}
    for place, image in enumerate(padded):
        alike.setdefault(tuple(image.shape[2:]), []).append(place)
    found: dict[int, Tensor] = {}
    for places in alike.values():
        logits = segmenter.network(torch.cat([padded[place] for place in places]))
        parts = logits.split([len(padded[place]) for place in places])
        found.update(zip(places, parts, strict=True))
    return [found[place] for place in range(len(images))]


def unaries_together(segmenter: Segmenter, images: Sequence[Tensor]) -> list[Tensor]:
    """`Segmenter.unary` of every image likewise: (B, L, H, W) each, at its own size."""
    coarse = coarse_together(segmenter, images)
    return [
        segmenter.enlarge(logits, image.shape[2:])
        for logits, image in zip(coarse, images, strict=True)
    ]


# Whole images at native size: at several scales, mirrored, in windows, with the CRF behind.
#
# Pixel centres: resizing puts the centres of the corner pixels on each other (align_corners), as
# the networks here do inside, so pixel i of an axis of n pixels sits at i (m - 1) / (n - 1) of
# one of m. A scale s of n pixels is round((n - 1) s) + 1 pixels, and the way back is exact for
# whatever is linear in position. Mirroring maps pixel i to n - 1 - i. Images are not smoothed
# before they are made smaller, as those of DeepLab v2's input pyramid are not.
#
# Scales and mirroring as in Chen et al., "Rethinking Atrous Convolution for Semantic Image
# Segmentation", 2017, section 4.1: {0.5, 0.75, 1, 1.25, 1.5, 1.75}, the mean of the
# probabilities.

Fusion = Literal["mean", "max"]


@dataclass(frozen=True)
class InferenceConfig:
    """Options of predicting a whole image; by default once, at its own scale.

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
        overlap: of neighbouring windows, as a share of their side; see `eval.inference`.

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
    """Compute the logits of images of one size before and after the CRF, at that size.

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
    """Compute the network's logits of every image, (B, L, H, W) each, whole or stitched."""
    if config.window is None:
        return unaries_together(segmenter, images)
    step = segmenter.size_step
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
        """Add one more map, (B, L, H, W)."""
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
    """Copy a CRF so that theta_alpha and theta_gamma are `scale` times as many pixels."""
    other = deepcopy(crf)
    for module in other.potentials.kernels.values():
        kernel = cast(GaussianKernel, module)
        if kernel.has_position:
            kernel.log_theta("position").add_(math.log(scale))
    return other


# Whole images at native size: never crops, never resized labels.

# image name -> the network's logits at its stride, (1, L, h, w), on the CPU
Coarse = dict[str, Tensor]


@torch.no_grad()
def coarse_unaries(segmenter: Segmenter, dataset: SegmentationDataset) -> Coarse:
    """Run the network once per image; a hundred kilobytes each, so many CRFs can share them.

    Of several processes each has its share of the images, see `samples`.
    """
    segmenter.eval()
    device = segmenter.device
    return {s.name: segmenter.coarse_unary(image_of(s, device)).cpu() for s in samples(dataset)}


@torch.no_grad()
def final_logits(segmenter: Segmenter, sample: Sample, coarse: Tensor, *, use_crf: bool) -> Tensor:
    """Compute the logits of one image at its own size, (L, H, W).

    Args:
        segmenter: in eval mode.
        sample: the image.
        coarse: its `coarse_unaries` entry.
        use_crf: take the CRF's logits instead of the network's.
    """
    image = image_of(sample, segmenter.device)
    logits = segmenter.enlarge(coarse.to(segmenter.device), image.shape[2:])
    if use_crf:
        logits = segmenter.refine(logits, image)
    return logits[0]


def evaluate(
    segmenter: Segmenter,
    dataset: SegmentationDataset,
    coarse: Coarse,
    *,
    use_crf: bool = True,
    save_to: Path | None = None,
) -> SplitCounts:
    """Count what a data set's scores come from, with the CRF where the segmenter has one.

    Several processes count on their share each, and every image counts once.

    Args:
        segmenter: network and CRF; only the CRF runs here.
        dataset: a split.
        coarse: the network's logits of every image of the split.
        use_crf: off scores the network alone.
        save_to: folder for the predictions as palette PNGs, or none.

    Returns:
        The counts of all images, in the data set's order, the same in every process.
    """
    segmenter.eval()
    scorer = Scorer(dataset.classes, dataset.scored, band="void" if dataset.has_void else "edge")
    use_crf = use_crf and segmenter.crf is not None
    for sample in samples(dataset):
        logits = final_logits(segmenter, sample, coarse[sample.name], use_crf=use_crf)
        prediction = labels_of(logits)
        scorer.update(sample.name, prediction, sample.mask, logits)
        if save_to is not None:
            write_mask(save_to / f"{sample.name}.png", prediction.numpy(), dataset.palette)
    return joined(distributed.gathered(scorer.counts()), dataset.names)


def labels_of(logits: Tensor) -> Tensor:
    """Take the most likely label of every pixel of one image, (L, H, W) to (H, W), on the CPU."""
    return logits.max(0).indices.cpu()  # argmax takes six times as long


def samples(dataset: SegmentationDataset) -> Iterator[Sample]:
    """Choose this process's samples of a split, in order: every n-th of n processes, none twice."""
    for index in own_share(range(len(dataset))):
        yield dataset[index]


def own_share(indices: Sequence[int]) -> list[int]:
    """Those of some samples of a split whose logits this process has."""
    n = distributed.num_processes()
    return [index for index in indices if index % n == distributed.rank()]


def image_of(sample: Sample, device: torch.device) -> Tensor:
    """Convert an image to what the models take: (1, 3, H, W) float32, RGB in 0..255."""
    return sample.image[None].to(device).float()
