"""One call for a mask: a network's maps and a photograph in, sharper maps or a mask out.

Arrays of NumPy or tensors of PyTorch, one image, a batch or a list; what came in goes out.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from crfrnn.checks import check_between, check_choice, check_count, check_free
from crfrnn.cpu import empty
from crfrnn.crf import CrfRnn
from crfrnn.filters import Normalization

CLIP = 1e-5  # keeps -log P finite; what the users of post-hoc CRFs clip at
MASK_FLOOR = 1e-3  # a label that is less likely at every pixel is in no mask
SUM_TOLERANCE = 1e-2  # a float16 softmax over 21 labels sums to one within 2e-3

Kind = Literal["probabilities", "logits", "labels"]
Nodata = Literal["error", "uniform", "leave_out"]
Output = Literal["probabilities", "mask"]
Maps: TypeAlias = npt.NDArray[Any] | Tensor
Many: TypeAlias = Maps | Sequence[Maps]


def refine(
    maps: Many,
    image: Many,
    preset: str = "deeplab_v2_resnet101",
    *,
    kind: Kind | None = None,
    certainty: float = 0.7,
    num_labels: int | None = None,
    background: float | None = None,
    nodata: Nodata = "error",
    where: Many | None = None,
    output: Output = "probabilities",
    confidence: float = 0.0,
    unsure: int = 255,
    num_iterations: int | None = None,
    theta_alpha: float | None = None,
    theta_beta: float | None = None,
    theta_gamma: float | None = None,
    bilateral_weight: float | None = None,
    spatial_weight: float | None = None,
    normalization: Normalization | None = None,
    label_floor: float | None = None,
    label_bias: Sequence[float] | None = None,
    output_scale: float = 1.0,
) -> Any:
    """Refine a network's maps with the edges of the image, by a dense CRF.

    q_0 = P, q_{t+1} = softmax(log P + sum_m w_m K_m q_t) with a spatial and a bilateral
    Gaussian kernel and Potts compatibility (Krahenbuhl and Koltun, NIPS 2011): `CrfRnn` in
    eval mode, without gradient.

    Args:
        maps: (L, H, W), labels first. Floats in 0..1 are probabilities; where they do not sum
            to one over the labels (class activation maps) they are divided by their sum, with
            one warning. uint8 of 0..255 are the same, stored as images. (H, W) or (1, H, W)
            floats in 0..1 are the probability of the foreground: two labels. (H, W) integers
            or booleans are a label map, (L, H, W) of 0 and 1 a one-hot one. A batch (B, L, H, W)
            or a list of images of any sizes.
        image: (H, W, 3) or (3, H, W) RGB in 0..255, (H, W) grey; uint8, or floats. For a batch or
            list of maps as many images.
        preset: of `crfrnn.PRESETS`; the settings below win over it.
        kind: "probabilities", "logits" or "labels", where the values do not say it: logits are
            never guessed, and (H, W) of uint8 is a label map unless this is "probabilities".
        certainty: of a label map: P of its label; the others share 1 - P. In (1/L, 1).
        num_labels: L of a label map; default: its highest label + 1, at least 2.
        background: alpha of the rule (1 - max_l maps)^alpha, put before the maps as label 0.
        nodata: for pixels where every map is 0, NaN or masked: "error", "uniform" (1/L, which the
            CRF fills), or "leave_out" (neither send nor receive; 1/L comes back).
        where: (H, W) bool: True where q may change; elsewhere P is held, and still sends.
        output: "probabilities", or "mask": the likeliest label of each pixel.
        confidence: of a mask: pixels whose highest q is below it become `unsure`.
        unsure: that value, and the value of a label map that names no label (1/L there).
        num_iterations: T.
        theta_alpha: bilateral kernel, position, pixels.
        theta_beta: bilateral kernel, colour, grey levels of 0..255.
        theta_gamma: spatial kernel, position, pixels.
        bilateral_weight: w of the bilateral kernel.
        spatial_weight: w of the spatial kernel.
        normalization: "symmetric", "after", "before" or "none".
        label_floor: leave out of each image the labels whose P is below this at every pixel, at
            most 1 / L; default: 1e-3 for a mask, 0 for probabilities. See `CrfRnn`.
        label_bias: L numbers, nats, that are taken from log P; `python -m eval tune` finds them.
        output_scale: s of the probabilities q^s / sum q^s that come back: below 1 they are less
            sure. The likeliest label stays.

    Returns:
        Of maps as NumPy arrays, NumPy arrays; of tensors, tensors on their device; of a list, a
        list. Probabilities: (L, H, W) float32 that sum to one over the labels. A mask: (H, W)
        uint8 (int64 where L or `unsure` exceeds 255).

    Raises:
        ValueError: shapes that do not fit, values that have no meaning as P, an unknown preset,
            a setting out of range.
        TypeError: neither NumPy array nor tensor.
    """
    check_choice("nodata", nodata, get_args(Nodata))
    check_choice("output", output, get_args(Output))
    check_between("confidence", confidence, "[0, 1)")
    if kind is not None:
        check_choice("kind", kind, get_args(Kind))
    if num_iterations is not None:  # here, so that the message names this argument
        check_count("num_iterations", num_iterations, 0)
    settings = {
        "num_iterations_eval": num_iterations,
        "theta_alpha": theta_alpha,
        "theta_beta": theta_beta,
        "theta_gamma": theta_gamma,
        "bilateral_weight": bilateral_weight,
        "spatial_weight": spatial_weight,
        "normalization": normalization,
    }
    settings = {name: value for name, value in settings.items() if value is not None}
    reader = MapReader(kind, certainty, num_labels, background, nodata, unsure)

    is_list, many_maps, many_images, many_where = _as_lists(maps, image, where)
    problems = []
    for one_maps, one_image, one_where in zip(many_maps, many_images, many_where, strict=True):
        p, valid = reader.read(one_maps)
        p = p if label_bias is None else _biased(p, label_bias)
        problems.append((p, _image(one_image, p), valid, _where(one_where, p)))
    crf: CrfRnn | None = None
    results: list[Any] = []
    with torch.no_grad():
        for part in _batches(problems, whole=_is_batch(maps)):
            num_labels, device = len(part[0][0]), part[0][0].device
            if crf is None or crf.num_labels != num_labels:
                floor = label_floor
                if floor is None:
                    floor = min(MASK_FLOOR, 1 / num_labels) if output == "mask" else 0.0
                crf = CrfRnn.from_preset(
                    preset,
                    num_labels,
                    label_floor=floor,
                    output_scale=output_scale,
                    kernel_weights="scalar",
                    compatibility="potts",
                    **settings,
                ).eval()
            for (_, _, valid, _), q in zip(part, _refined(crf.to(device), part), strict=True):
                answer = q if output == "probabilities" else _mask(q, valid, confidence, unsure)
                results.append(answer.numpy() if isinstance(many_maps[0], np.ndarray) else answer)
    if is_list:
        return results
    if not _is_batch(maps):
        return results[0]
    return np.stack(results) if isinstance(maps, np.ndarray) else torch.stack(results)


Problem: TypeAlias = tuple[Tensor, Tensor, Tensor | None, Tensor | None]  # P, image, valid, free


def _batches(problems: list[Problem], *, whole: bool) -> list[list[Problem]]:
    """All images in one call of the layer where that is possible, else one by one."""
    plain = all(
        valid is None and free is None and p.shape == problems[0][0].shape
        for p, _, valid, free in problems
    )
    return [problems] if whole and plain else [[problem] for problem in problems]


def _refined(crf: CrfRnn, problems: list[Problem]) -> Tensor:
    """q, (B, L, H, W) float32, of images of one size.

    Args:
        crf: for L labels, with one weight per kernel and Potts compatibility.
        problems: P (L, H, W) that sums to one; the image (3, H, W); `valid`, (H, W) bool, False
            for a pixel that is left out; `free`, (H, W) bool, False for a pixel whose P is held.
            More than one have neither.
    """
    p = torch.stack([one_p for one_p, *_ in problems])
    image = torch.stack([one_image for _, one_image, *_ in problems])
    _, _, valid, free = problems[0]
    unary = p.clamp(CLIP, 1).log_()
    mask = None if valid is None else valid[None]
    if free is None:
        q = crf.marginals(unary, image, mask=mask)
        return empty(*q.shape).copy_(q) if q.device.type == "cpu" else q.contiguous()
    # Held pixels ask for the plain loop: their q is put back after every update.
    kernels = crf.potentials.build_kernels(image.float(), None, mask)
    penalties = crf.potentials.penalties(unary.dtype)[0]
    rows, held = (x.flatten(2).transpose(1, 2) for x in (unary, p))
    q = held
    for _ in range(crf.num_iterations_eval):
        messages = torch.zeros_like(rows)
        for kernel, penalty in zip(kernels, penalties, strict=True):
            messages += kernel(q) @ penalty.t()
        q = torch.where(free.flatten()[None, :, None], (rows - messages).softmax(-1), held)
    scale = crf.log_output_scale.exp()
    if scale != 1:
        q = torch.where(free.flatten()[None, :, None], (q.log() * scale).softmax(-1), held)
    return q.transpose(1, 2).reshape(p.shape).contiguous()


def _mask(q: Tensor, valid: Tensor | None, confidence: float, unsure: int) -> Tensor:
    """The likeliest label of each pixel, (H, W); `unsure` below the confidence."""
    if confidence > 0 or valid is not None:
        check_count("unsure", unsure, len(q))  # not a label
    highest, mask = q.max(dim=0)
    mask = mask.masked_fill(highest < confidence, unsure) if confidence > 0 else mask
    mask = mask if valid is None else mask.masked_fill(~valid, unsure)
    return mask.to(torch.uint8) if max(len(q) - 1, unsure) <= 255 else mask


def _biased(p: Tensor, label_bias: Sequence[float]) -> Tensor:
    """P (L, H, W) with a bias taken from its logarithm."""
    bias = torch.as_tensor(label_bias, dtype=p.dtype, device=p.device)
    if bias.shape != (len(p),) or not bias.isfinite().all():
        raise ValueError(
            f"label_bias must be {len(p)} finite numbers, one for each label, got {label_bias!r}."
        )
    return (p.clamp(CLIP, 1).log() - bias[:, None, None]).softmax(0)


# Reading what users have: every kind of map becomes P, (L, H, W) float32.


@dataclass(frozen=True)
class MapReader:
    """Turn one image's maps of any kind into probabilities."""

    kind: Kind | None
    certainty: float
    num_labels: int | None
    background: float | None
    nodata: Nodata
    unsure: int

    def read(self, maps: Maps) -> tuple[Tensor, Tensor | None]:
        """P, (L, H, W) float32, and the pixels that are left out as False, (H, W), or None."""
        if isinstance(maps, (np.ndarray, Tensor)):
            device = maps.device if isinstance(maps, Tensor) else "cpu"
            check_free(5 * 4 * math.prod(maps.shape), f"maps of {tuple(maps.shape)}", device)
        masked = None
        if isinstance(maps, np.ma.MaskedArray):
            hidden = np.ma.getmaskarray(maps)
            masked = torch.from_numpy(hidden if hidden.ndim == 2 else hidden.any(0))
        values = _tensor("maps", maps)
        if values.ndim not in (2, 3) or values.numel() == 0:
            raise ValueError(
                f"maps must be (L, H, W), labels first, or (H, W), got {tuple(values.shape)}; a "
                "batch is (B, L, H, W)."
            )
        is_float = values.dtype.is_floating_point
        one_hot = not is_float and values.ndim == 3 and len(values) > 1 and _is_one_hot(values)
        kind = self.kind or ("labels" if one_hot or (not is_float and values.ndim == 2) else None)
        if kind == "labels":
            return self._labels(values, masked)
        if not is_float:
            values = self._eight_bit(values)
        values = values.float()
        if values.ndim == 2:
            values = values[None]
        empty = values.isnan().all(0) if kind == "logits" else _empty(values)
        empty = empty if masked is None else empty | masked.to(empty.device)
        values = values.masked_fill(empty, 0)
        self._check_nodata(empty, len(values))
        if not values.isfinite().all() and not (kind == "logits" and not values.isnan().any()):
            raise ValueError(_not_finite(values))
        if kind == "logits":
            return self._filled(_softmax(values), empty)
        return self._filled(self._probabilities(values, empty), empty)

    def _labels(self, values: Tensor, masked: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """P of a label map (H, W) or a one-hot one (L, H, W)."""
        if values.dtype.is_floating_point:
            raise TypeError(f"maps of kind 'labels' must be integers, got {values.dtype}.")
        if values.ndim == 3:
            if not _is_one_hot(values):
                raise ValueError("maps of kind 'labels' must be (H, W), or one-hot (L, H, W).")
            num_labels, labels = len(values), values.long().argmax(0)
        else:
            labels = values.long()
            named = labels[labels != self.unsure]
            highest = int(named.max()) if named.numel() else 0
            num_labels = self.num_labels or max(2, highest + 1)
            if named.numel() and (int(named.min()) < 0 or highest >= num_labels):
                raise ValueError(
                    f"labels must be in 0..{num_labels - 1}, or {self.unsure} for unsure, got "
                    f"{int(named.min())}..{highest}: pass num_labels, or unsure."
                )
            if self.num_labels is None and highest == 0:
                raise ValueError(
                    f"the label map names label 0 alone (and {self.unsure}, unsure): nothing to "
                    "decide. A mask of 0 and 255 is mask > 127; a soft map of 0..255 has "
                    "kind='probabilities'; otherwise pass num_labels."
                )
        if not 1 / num_labels < self.certainty < 1:
            raise ValueError(
                f"certainty must be above 1/L = {1 / num_labels:.3g} and below 1, got "
                f"{self.certainty!r}."
            )
        other = (1 - self.certainty) / (num_labels - 1)
        unknown = labels == self.unsure if values.ndim == 2 else torch.zeros_like(labels).bool()
        p = torch.full((num_labels, *labels.shape), other, device=values.device)
        p.scatter_(0, labels.masked_fill(unknown, 0)[None], self.certainty)
        p = torch.where(unknown, 1 / num_labels, p)
        empty = torch.zeros_like(unknown) if masked is None else masked.to(unknown.device)
        self._check_nodata(empty, num_labels)
        return self._filled(p, empty)

    def _eight_bit(self, values: Tensor) -> Tensor:
        """Floats in 0..1 of soft maps that are stored as 0..255."""
        if values.dtype != torch.uint8:
            raise TypeError(
                f"maps must be floats, uint8 of 0..255, a label map (H, W) or one-hot (L, H, W) of "
                f"0 and 1; got {tuple(values.shape)} of {values.dtype}."
            )
        return values.float() / 255

    def _probabilities(self, values: Tensor, empty: Tensor) -> Tensor:
        low, high = float(values.min()), float(values.max())
        if low < -SUM_TOLERANCE or high > 1 + SUM_TOLERANCE:
            raise ValueError(
                f"maps must be probabilities in 0..1, got values in {low:.4g}..{high:.4g}. Logits "
                "are passed with kind='logits'; other scores are divided by their maximum first."
            )
        values = values.clamp(0, 1)
        if self.background is not None:
            if not self.background > 0:
                raise ValueError(f"background must be above 0, got {self.background!r}.")
            rule = (1 - values.amax(0, keepdim=True)) ** self.background
            values = torch.cat([rule, values])
        elif len(values) == 1:  # one map of the foreground
            values = torch.cat([1 - values, values])
        sums = values.sum(0)
        # Rounding to 1/255 moves each of L maps by up to 1/510.
        tolerance = max(SUM_TOLERANCE, len(values) / 510)
        far = ((sums - 1).abs() > tolerance) & ~empty
        if far.any():
            where = _labels_elsewhere(values)
            if where:
                raise ValueError(where)
            if self.background is None:
                warnings.warn(
                    f"maps do not sum to one over the {len(values)} labels (sums from "
                    f"{float(sums[~empty].min()):.3g} to {float(sums.max()):.3g}): they are "
                    "divided by their sum. Independent sigmoids are refined one by one instead.",
                    UserWarning,
                    stacklevel=4,
                )
        return values / sums.clamp(min=torch.finfo(torch.float32).tiny)

    def _check_nodata(self, empty: Tensor, num_maps: int) -> None:
        # One map of 0 is a sure background, not a pixel without data; see `_empty`.
        count = int(empty.sum())
        if count and self.nodata == "error":
            raise ValueError(
                f"{count} of {empty.numel()} pixels have no probability (all {num_maps} maps are "
                "0, NaN or masked there): pass nodata='uniform' to fill them, or 'leave_out'."
            )

    def _filled(self, p: Tensor, empty: Tensor) -> tuple[Tensor, Tensor | None]:
        if not empty.any():
            return p, None
        p = p.masked_fill(empty, 1 / len(p))
        return p, ~empty if self.nodata == "leave_out" else None


def _empty(values: Tensor) -> Tensor:
    """(H, W): pixels without any probability. A single map of 0 is a sure background."""
    nothing = values.isnan().all(0)
    return nothing if len(values) == 1 else nothing | (values == 0).all(0)


def _softmax(logits: Tensor) -> Tensor:
    """P of (L, H, W) logits; one map is the logit of the foreground."""
    if len(logits) == 1:
        p = logits.sigmoid()
        return torch.cat([1 - p, p])
    if (logits == torch.inf).any() or (logits == -torch.inf).all(0).any():
        raise ValueError("logits must have one finite value at every pixel and none of +inf.")
    return logits.softmax(0)


def _is_one_hot(values: Tensor) -> bool:
    small = values.to(torch.int64)
    return bool(((small == 0) | (small == 1)).all() and (small.sum(0) == 1).all())


def _labels_elsewhere(values: Tensor) -> str:
    """An error's words where the labels are on another axis than the first."""
    for axis, name in ((2, "last"), (1, "second")):
        if values.ndim == 3 and values.shape[axis] > 1:
            sums = values.sum(axis)
            if bool(((sums - 1).abs() <= SUM_TOLERANCE).all()):
                return (
                    f"maps must be (L, H, W), labels first: {tuple(values.shape)} sums to one over "
                    f"the {name} axis. Pass np.moveaxis(maps, {axis}, 0)."
                )
    return ""


def _not_finite(values: Tensor) -> str:
    bad = (~values.isfinite()).any(0)
    row, column = (int(i) for i in bad.nonzero()[0])
    return (
        f"maps must be finite: {int(bad.sum())} pixels hold NaN or infinite values beside others, "
        f"the first at row {row}, column {column}. Look for 0 / 0 ahead of the CRF."
    )


# Images, and the pairing of maps with images.


def _image(image: Maps, p: Tensor) -> Tensor:
    """(3, H, W) on the device of P, uint8 or float32, in 0..255."""
    values = _tensor("image", image)
    height, width = p.shape[1:]
    if values.shape == (height, width):
        values = values[..., None].expand(height, width, 3)
    last = tuple(values.shape) == (height, width, 3)
    first = tuple(values.shape) == (3, height, width)
    if first and (not last or isinstance(image, Tensor)):
        values = values.permute(1, 2, 0)
    elif not last:
        raise ValueError(
            f"image must be (H, W, 3) or (3, H, W) = (3, {height}, {width}) to match maps of "
            f"{tuple(p.shape)}, got {tuple(values.shape)}.{_image_advice(values, height, width)}"
        )
    if values.dtype != torch.uint8:
        if not values.dtype.is_floating_point:
            low, high = int(values.min()), int(values.max())
            if low < 0 or high > 255:
                raise ValueError(
                    f"image must be RGB in 0..255, got {values.dtype} in {low}..{high}: divide by "
                    "the highest value that its format can hold, times 255."
                )
            values = values.to(torch.uint8)
        else:
            values = values.float()
    return values.permute(2, 0, 1).to(p.device)


def _image_advice(image: Tensor, height: int, width: int) -> str:
    shape = tuple(image.shape)
    if shape == (width, height, 3):
        return " Height and width are swapped: pass image.transpose(1, 0, 2)."
    if shape == (height, width, 4):
        return " Leave the alpha channel out: pass image[..., :3]."
    return " Resize one to the other."


def _where(where: Maps | None, p: Tensor) -> Tensor | None:
    if where is None:
        return None
    free = _tensor("where", where)
    if free.dtype != torch.bool or free.shape != p.shape[1:]:
        raise ValueError(
            f"where must be (H, W) = {tuple(p.shape[1:])} of bool, True where q may change; got "
            f"{tuple(free.shape)} of {free.dtype}."
        )
    return free.to(p.device)


def _tensor(name: str, value: object) -> Tensor:
    """A tensor without gradient; a NumPy array is copied where its layout asks for it."""
    if isinstance(value, Tensor):
        return value.detach()
    if not isinstance(value, np.ndarray):
        raise TypeError(
            f"{name} must be a NumPy array or a torch.Tensor, got {type(value).__name__}: pass "
            f"np.asarray({name})."
        )
    value = np.ma.getdata(value)
    if value.dtype.kind not in "biuf":
        raise TypeError(f"{name} must hold numbers, got {value.dtype}.")
    if value.dtype.kind == "u" and value.dtype != np.uint8:
        value = value.astype(np.int64)  # torch has no arithmetic on wider unsigned types
    if value.dtype.kind == "f" and value.dtype not in (np.float16, np.float32, np.float64):
        value = value.astype(np.float64)
    return torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("="), order="C"))


def _is_batch(maps: object) -> bool:
    return isinstance(maps, (np.ndarray, Tensor)) and maps.ndim == 4


def _as_lists(
    maps: Many, image: Many, where: Many | None
) -> tuple[bool, list[Maps], list[Maps], list[Maps | None]]:
    """Tell whether a list came, and the maps, images and free pixels of each image."""
    is_list = isinstance(maps, (list, tuple))
    if not is_list and not _is_batch(maps):
        return False, [maps], [image], [where]  # type: ignore[list-item]
    images = list(image)
    wheres: list[Maps | None] = [None] * len(maps) if where is None else list(where)
    if not len(maps) == len(images) == len(wheres):
        raise ValueError(
            f"as many images as maps are expected: {len(maps)} maps, {len(images)} images"
            + (f", {len(wheres)} of where." if where is not None else ".")
        )
    return is_list, list(maps), images, wheres
