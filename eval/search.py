"""Score settings of a post-hoc CRF on labelled images: the search of training and of `tune`.

Labels that the network holds possible nowhere in an image cannot win there. With Potts, one weight
per kernel and undamped mean field, a label l with q_l = 0 has

    logits_l = unary_l - sum_m w_m K_m 1,

because the others' messages add up to K_m 1. Below a floor of their probability such labels are
left out of the loop, where rows are short then, and put back at the end: the likelihood counts all
labels. On forty images of VOC's animals and three settings, a floor of 0.03 leaves 3.7 of 21 labels
on average and moves mIoU by less than 1e-5, trimap mIoU by 4e-5 and NLL by 1e-5.

The likelihood is that of the CRF's own output at its best temperature,

    NLL(s) = -mean_i log softmax(s z_i)[y_i],   NLL = min_s NLL(s),

with s the `output_scale` (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017,
section 4.2). At s = 1 it would measure little but how overconfident mean field is. NLL(s) is convex
in s, and known with its derivative at the scales of `LOG_SCALES`; between them a cubic
Hermite spline is off by less than 1e-4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.interpolate import CubicHermiteSpline
from scipy.optimize import minimize_scalar
from torch import Tensor

from crfrnn import CrfRnn
from crfrnn.filters import Filter
from data import VOID, Sample, SegmentationDataset, label_pixels
from eval.grid import AXES, Direction, SearchConfig, Setting, coarse_to_fine, evenly_spaced
from eval.inference import Coarse, image_of, labels_of, own_share
from eval.metrics import confusion_matrix, mean_iou
from eval.metrics.boundary import Band, band_distance
from models import CrfConfig, CrfForm, Segmenter
from models.crf import build_crf, post_hoc_config
from models.layers import shrink, shrink_image, stretch
from runtime import distributed

Objective = Literal["miou", "trimap", "nll"]

LOG_SCALES = math.log(2) * np.arange(-7, 1.5, 0.5)
LIKELIHOOD_STRIDE = 31  # of the labelled pixels: thousands of each image, and an odd step
CALIBRATION_STRIDE = 7  # of the labelled pixels: neighbours say the same twice

# What a setting is judged by. Every image gives exact counts and a curve; the scores of all images
# come from their sums.


class Measured(NamedTuple):
    """The counts of one image under one setting.

    Attributes:
        counts: (2, L, L) pixels, rows = truth: of the whole image, and of its trimap band.
        curve: (2, S), the summed NLL of the pixels at every scale, and its derivative by log s.
        pixels: how many were summed.
    """

    counts: npt.NDArray[np.int64]
    curve: npt.NDArray[np.float64]
    pixels: int


@dataclass(frozen=True)
class Scores:
    """The scores of all images under one setting.

    Attributes:
        miou, trimap_miou: in 0..1, None where there is nothing to count.
        nll: nats for each pixel, at the best temperature; None without a labelled pixel.
        output_scale: that temperature's inverse.
    """

    miou: float | None
    trimap_miou: float | None
    nll: float | None
    output_scale: float

    def value(self, objective: Objective) -> float:
        """Return what is maximised; -inf where the objective has nothing to count."""
        score = {"miou": self.miou, "trimap": self.trimap_miou, "nll": self.nll}[objective]
        if score is None:
            return -math.inf
        return -score if objective == "nll" else score


def total(measured: Sequence[Measured], scored: Sequence[int]) -> Scores:
    """Score some images, whose mIoU is that of the scored ids."""
    counts = np.sum([m.counts for m in measured], axis=0)
    shares = [float(mean_iou(confusion, scored)) for confusion in counts]
    miou, trimap_miou = (None if math.isnan(share) else share for share in shares)
    pixels = sum(m.pixels for m in measured)
    if pixels == 0:
        return Scores(miou, trimap_miou, None, 1.0)
    nll, slope = np.stack([m.curve for m in measured]).sum(0) / pixels
    spline = CubicHermiteSpline(LOG_SCALES, nll, slope)
    flat = spline.derivative().roots(extrapolate=False)
    places = np.concatenate([LOG_SCALES[[0, -1]], flat[np.isfinite(flat)]])
    best = places[np.argmin(spline(places))]
    return Scores(miou, trimap_miou, float(spline(best)), math.exp(best))


def likelihood_curve(logits: Tensor, truth: Tensor) -> npt.NDArray[np.float64]:
    """Return `Measured.curve` of logits (P, L) with their labels (P,)."""
    curve = np.zeros((2, len(LOG_SCALES)))
    own = logits.gather(1, truth[:, None])[:, 0]
    for k, scale in enumerate(np.exp(LOG_SCALES)):
        log_q = F.log_softmax(logits * scale, dim=1)
        expected = (log_q.exp() * logits).sum(1)
        curve[0, k] = -log_q.gather(1, truth[:, None]).sum(dtype=torch.float64)
        curve[1, k] = scale * (expected - own).sum(dtype=torch.float64)
    return curve


def direction_of(direction: Direction, train: SegmentationDataset) -> Tensor:
    """Return d (L,) of a bias b: unary_l - b d_l goes into the CRF.

    d_l = 1 for label 0 and 0 for the others ("background"), or d_l = log pi_l + constant, pi_l the
    label's share of the training pixels ("prior": Menon et al., "Long-tail learning via logit
    adjustment", ICLR 2021, section 4.2). Labels that no training pixel has count as the rarest
    that has.
    """
    if direction == "background":
        d = torch.zeros(len(train.classes))
        d[0] = 1.0
        return d
    pixels = label_pixels(train)
    rarest = pixels[pixels > 0].min()
    return (pixels.clamp(min=rarest) / rarest).log()


# One image under many settings.


def by_widths(settings: Sequence[Setting]) -> list[list[Setting]]:
    """Group the settings that share their filters, which are most of the cost."""

    def widths(setting: Setting) -> tuple[float, ...]:
        crf = setting.crf
        return () if crf is None else (crf.theta_gamma, crf.theta_alpha, crf.theta_beta)

    return [list(group) for _, group in groupby(sorted(settings, key=widths), key=widths)]


class Refined(NamedTuple):
    """Hold what a setting makes of an image.

    Attributes:
        setting: the CRF and the bias.
        prediction: (H, W) labels, on the CPU.
        sampled: (S, L) logits of the pixels whose likelihood counts.
    """

    setting: Setting
    prediction: Tensor
    sampled: Tensor


class Enlarger(Protocol):
    """What made the logits, and knows how they fill an image: a `Segmenter`, or stored maps."""

    @property
    def device(self) -> torch.device:
        """Where the CRF runs."""

    def enlarge(self, coarse: Tensor, size: torch.Size) -> Tensor:
        """Enlarge logits (1, L, h, w) to the size (H, W) of the image."""


class PreparedImage:
    """An image that any number of settings can be measured on.

    Args:
        segmenter: what made `coarse`; its CRF, if any, is not used.
        sample: the image and its labels.
        coarse: (1, L, h, w) logits.
        direction: (L,) of the bias, see `direction_of`; needed by settings with a bias.
        stride: every so many labelled pixels the likelihood of one counts; 0 for none.
        trimap_width: of the band, pixels; 0 for none.
        band: rule of the trimap, see `eval.metrics.boundary`.
        floor: labels whose probability is below it in all pixels are left out; 0 for none.

    Attributes:
        truth: (S,) labels of the pixels whose likelihood counts.
    """

    def __init__(
        self,
        segmenter: Enlarger,
        sample: Sample,
        coarse: Tensor,
        direction: Tensor | None = None,
        *,
        stride: int = LIKELIHOOD_STRIDE,
        trimap_width: int = 0,
        band: Band = "void",
        floor: float = 0.0,
    ) -> None:
        self.segmenter = segmenter
        self.sample = sample
        self.coarse = coarse.to(segmenter.device)
        self.direction = None if direction is None else direction.to(segmenter.device)
        self.floor = floor
        mask = sample.mask.flatten()
        labelled = (mask != VOID).nonzero()[:, 0]
        sampled = labelled[::stride] if stride else labelled[:0]
        self.truth = mask[sampled].to(segmenter.device)
        self._sampled = sampled.to(segmenter.device)
        in_band = np.zeros(sample.mask.shape, dtype=bool)
        if trimap_width:
            in_band = band_distance(sample.mask.numpy(), band) <= trimap_width
        self._masks = sample.mask.numpy(), np.where(in_band, sample.mask.numpy(), VOID)

    def measure(self, settings: Sequence[Setting]) -> list[Measured]:
        """Count the image under every setting, in their order."""
        measured = {r.setting: self._measured(r) for r in self.refined(settings)}
        return [measured[setting] for setting in settings]

    def _measured(self, refined: Refined) -> Measured:
        num_classes = self.coarse.shape[1]
        predicted = refined.prediction.numpy()
        return Measured(
            np.stack([confusion_matrix(mask, predicted, num_classes) for mask in self._masks]),
            likelihood_curve(refined.sampled, self.truth),
            len(self.truth),
        )

    @torch.no_grad()
    def refined(self, settings: Sequence[Setting]) -> Iterator[Refined]:
        """Yield what every setting makes of the image, those of the same widths together."""
        image = image_of(self.sample, self.segmenter.device)
        size = image.shape[2:]
        unaries = {s.bias: self._unary(s.bias, size) for s in settings}
        starts: dict[float, _Start] = {}
        for same in by_widths(settings):
            kernels: list[Filter] = []
            degrees: list[Tensor] = []
            for setting in same:
                unary = unaries[setting.bias]
                if setting.crf is None:
                    yield Refined(setting, labels_of(unary[0]), self._at_sampled(unary))
                    continue
                resolution = setting.crf.resolution
                if setting.bias not in starts:
                    starts[setting.bias] = self._start(unary, resolution)
                small, kept, rest, unused = starts[setting.bias]
                crf = build_crf(setting.crf, len(kept)).to(unary.device).eval()
                if not kernels:
                    kernels = crf.potentials.build_kernels(shrink_image(image, resolution))
                    if self.floor > 0:
                        one = small.new_ones(1, small[0, 0].numel(), 1)
                        degrees = [k(one).reshape(1, 1, *small.shape[2:]) for k in kernels]
                logits = stretch(crf.infer(small, kernels), size)
                sampled = unary.new_empty(len(self.truth), unary.shape[1])
                sampled[:, kept] = self._at_sampled(logits)
                if len(rest):
                    paid = self._at_sampled(stretch(_paid(crf, degrees), size))
                    sampled[:, rest] = crf.log_output_scale.exp() * (unused - paid)
                yield Refined(setting, kept.cpu()[labels_of(logits[0])], sampled)

    def _unary(self, bias: float, size: torch.Size) -> Tensor:
        """Logits that go into the CRF, (1, L, H, W)."""
        unary = self.segmenter.enlarge(self.coarse, size)
        if bias == 0:
            return unary
        assert self.direction is not None, "a bias needs its direction"
        return unary - bias * self.direction[:, None, None]

    def _start(self, unary: Tensor, resolution: int) -> _Start:
        small = shrink(unary, resolution)
        labels = torch.arange(unary.shape[1], device=unary.device)
        if self.floor == 0:
            return _Start(small, labels, labels[:0], small)
        possible = unary.softmax(1).amax((0, 2, 3)) >= self.floor
        kept, rest = labels[possible], labels[~possible]
        unused = small[:, rest]
        if len(rest):
            unused = self._at_sampled(stretch(unused, unary.shape[2:]))
        return _Start(small[:, kept], kept, rest, unused)

    def _at_sampled(self, logits: Tensor) -> Tensor:
        return logits[0].flatten(1)[:, self._sampled].t()


class _Start(NamedTuple):
    """Hold what goes into the CRF, and what does not.

    Attributes:
        small: (1, k, h, w) logits of the labels that are kept, on the grid of the CRF.
        kept, rest: ids of these labels, (k,), and of the others, (L - k,).
        unused: logits of the others at the sampled pixels, (S, L - k).
    """

    small: Tensor
    kept: Tensor
    rest: Tensor
    unused: Tensor


def _paid(crf: CrfRnn, degrees: Sequence[Tensor]) -> Tensor:
    """Return what a label pays that nobody takes: sum_m w_m K_m 1, from K_m 1 of its kernels."""
    # () where tied, (T,) where every iteration has its own: the last one counts.
    weights = [crf.potentials.weight(name).reshape(-1)[-1] for name in crf.potentials.kernels]
    return torch.stack([w * k for w, k in zip(weights, degrees, strict=True)]).sum(0)


# The search of a comparison, with the logits at hand.

Row = dict[str, Any]  # the searched values, "stage" and "miou"


def search(
    segmenter: Segmenter,
    form: CrfForm,
    dataset: SegmentationDataset,
    coarse: Coarse,
    config: SearchConfig,
    direction: Tensor | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[CrfConfig, float, list[Row]]:
    """Find the setting with the highest mean IoU on the tune split.

    Several processes measure their share of the images each, and find the same.

    Args:
        segmenter: whose network made `coarse`; its CRF, if any, is not used.
        form: of the CRF; what acts in training alone is left out (`post_hoc_config`).
        dataset: the tune split.
        coarse: the network's logits of its images.
        config: the grid.
        direction: (L,) of the bias, where the grid has one.
        progress: called with (images done, images in all) of each stage.

    Returns:
        The best values in that form, with scalar weights, a Potts compatibility and, if
        wished, a calibrated `output_scale`; the best bias; and every setting tried with its
        score, in order.
    """
    own = own_share(evenly_spaced(config.num_images, len(dataset)))
    rows: list[Row] = []

    def images(stride: int) -> Iterator[PreparedImage]:
        for index in own:
            sample = dataset[index]
            yield PreparedImage(
                segmenter,
                sample,
                coarse[sample.name],
                direction,
                stride=stride,
                floor=config.label_floor,
            )

    def score(stage: str, settings: Sequence[Setting]) -> list[float]:
        measured = []
        for image in images(stride=0):
            measured.append(image.measure(settings))
            progress(len(measured), len(own))
        of_images = [found for part in distributed.gathered(measured) for found in part]
        values = []
        for setting, *of_setting in zip(settings, *of_images, strict=True):
            values.append(total(of_setting, dataset.scored).miou or 0.0)
            row = {name: getattr(setting.crf, name) for name in AXES}
            row |= {"bias": setting.bias} if config.bias else {}
            rows.append({**row, "stage": stage, "miou": values[-1]})
        return values

    best = coarse_to_fine(config, post_hoc_config(form), score)
    assert best.crf is not None
    crf = best.crf
    if config.calibrate:
        scale = calibrate(images(CALIBRATION_STRIDE), best)
        crf = replace(crf, output_scale=scale)
    return crf, best.bias, rows


def calibrate(images: Iterable[PreparedImage], setting: Setting) -> float:
    """Return the factor on the CRF's logits with the least cross-entropy: temperature scaling.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2. It
    changes no prediction; it is where a training by likelihood has to start, because
    mean-field marginals are far too sure and the gradient of their errors would undo both
    CRF and network.
    """
    measured = []
    for image in images:
        (refined,) = image.refined([setting])
        measured.append((refined.sampled.cpu(), image.truth.cpu()))
    everywhere = [pair for part in distributed.gathered(measured) for pair in part]
    logits, labels = (torch.cat(column) for column in zip(*everywhere, strict=True))
    logits = logits.double()  # the minimum is flat: in float32 it is found to 3e-4 alone
    fitted = minimize_scalar(
        lambda log_scale: F.cross_entropy(logits * math.exp(log_scale), labels).item(),
        bounds=(math.log(1e-2), math.log(1e2)),
        method="bounded",
    )
    return math.exp(fitted.x)
