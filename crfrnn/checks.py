"""Shape, dtype and range errors in one voice: what was expected, what came, what to do."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

FLOAT32 = torch.finfo(torch.float32)
NUMBERS = (int, float, np.integer, np.floating)


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Raise unless value is one of the choices; name the nearest."""
    choices = list(choices)
    if value not in choices:
        near = difflib.get_close_matches(str(value), choices, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{name} must be one of {choices}, got {value!r}.{hint}")


def check_positive(name: str, value: object, unit: str) -> None:
    """Raise unless value is a number above zero, and still is one in float32."""
    if not (isinstance(value, NUMBERS) and FLOAT32.tiny <= value <= FLOAT32.max):
        raise ValueError(f"{name} must be a finite number above 0 ({unit}), got {value!r}.")


def check_finite(name: str, value: object) -> None:
    """Raise unless value is a finite number."""
    if not (isinstance(value, NUMBERS) and math.isfinite(value)):
        raise ValueError(f"{name} must be a finite number, got {value!r}.")


def check_count(name: str, value: object, minimum: int) -> None:
    """Raise unless value is an integer (Python's or NumPy's) of at least the minimum."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < minimum:
        raise ValueError(f"{name} must be an integer of at least {minimum}, got {value!r}.")


def check_between(name: str, value: object, interval: Literal["[0, 1)", "(0, 1]"]) -> None:
    """Raise unless value is a number of the interval."""
    inside = isinstance(value, NUMBERS) and (
        0 <= value < 1 if interval == "[0, 1)" else 0 < value <= 1
    )
    if not inside:
        raise ValueError(f"{name} must be a number in {interval}, got {value!r}.")


def check_rows(unary: object) -> None:
    """Raise unless unary is (B, N, L) floating point with at least one of each."""
    if not isinstance(unary, Tensor):
        raise TypeError(f"unary must be a torch.Tensor (B, N, L), got {type(unary).__name__}.")
    if unary.ndim != 3 or unary.numel() == 0:
        raise ValueError(
            f"unary must be (B, N, L) rows, pixel-major, none of them 0, got "
            f"{tuple(unary.shape)}. unary.flatten(2).transpose(1, 2) makes rows of (B, L, H, W)."
        )
    if not unary.is_floating_point():
        raise TypeError(
            f"unary must be floating-point logits (higher = likelier), got {unary.dtype}."
        )


def check_penalties(penalties: Sequence[Tensor] | Tensor, num_kernels: int, like: Tensor) -> None:
    """Raise unless there is one (L, L) penalty per kernel, in the dtype of like (B, N, L)."""
    single = isinstance(penalties, Tensor)  # a sequence too, of its rows
    if single or len(penalties) != num_kernels:
        came = "one tensor" if single else f"{len(penalties)} of them"
        raise ValueError(
            f"penalties must be a sequence of {num_kernels} (L, L) tensors, one per kernel, "
            f"got {came}. An inference takes a sequence over iterations of such sequences: "
            "pass [penalties] where all iterations share them."
        )
    num_labels = like.shape[-1]
    for penalty in penalties:
        if tuple(penalty.shape) != (num_labels, num_labels):
            raise ValueError(
                f"a penalty must be ({num_labels}, {num_labels}) for a unary of {num_labels} "
                f"labels, got {tuple(penalty.shape)}."
            )
        if penalty.dtype != like.dtype or penalty.device != like.device:
            raise TypeError(
                f"a penalty must be {like.dtype} on {like.device} like the unary, got "
                f"{penalty.dtype} on {penalty.device}. Pass penalty.to(unary)."
            )


def check_pairwise(pairwise: Sequence[Sequence[Tensor]], num_kernels: int, unary: Tensor) -> None:
    """Raise unless pairwise holds penalties for at least one iteration."""
    if len(pairwise) == 0:
        raise ValueError(
            "pairwise must hold the penalties of at least one iteration, got an empty sequence. "
            "Without kernels, pass [[]]."
        )
    for penalties in pairwise:
        check_penalties(penalties, num_kernels, unary)


def check_unary(unary: object, num_labels: int) -> None:
    """Raise unless unary is (B, L, H, W) floating logits without NaN or +inf."""
    if not isinstance(unary, Tensor):
        raise TypeError(
            f"unary must be a torch.Tensor (B, {num_labels}, H, W), got {type(unary).__name__}."
        )
    if unary.ndim != 4 or unary.shape[1] != num_labels:
        raise ValueError(
            f"unary must be (B, {num_labels}, H, W) logits, got {tuple(unary.shape)}. "
            f"num_labels of this layer is {num_labels}; the label axis is axis 1."
        )
    if not unary.is_floating_point():
        raise TypeError(
            f"unary must be floating-point logits (higher = likelier), got {unary.dtype}."
        )
    if unary.numel() == 0:
        raise ValueError(f"unary must hold at least one pixel, got {tuple(unary.shape)}.")
    if not torch.isfinite(unary).all():
        raise ValueError(
            "unary must be finite, got NaN or infinite values. Probabilities of exactly 0 have "
            "an infinite logarithm: clamp them first, for example p.clamp_min(1e-5).log()."
        )


def check_image(image: object, unary: Tensor) -> None:
    """Raise unless image is (B, 3, H, W) RGB in 0..255 on the grid of the unary."""
    if not isinstance(image, Tensor):
        raise TypeError(
            f"image must be a torch.Tensor (B, 3, H, W), got {type(image).__name__}: "
            "torch.from_numpy(image).permute(2, 0, 1)[None] makes one of an (H, W, 3) array."
        )
    expected = (unary.shape[0], 3, *unary.shape[2:])
    if tuple(image.shape) != expected:
        raise ValueError(
            f"image must be {expected} to match a unary of {tuple(unary.shape)}, got "
            f"{tuple(image.shape)}. Resize the unary to the image (bilinear) or the image to the "
            "unary; channels come before height and width."
        )
    if image.device != unary.device:
        raise ValueError(
            f"image and unary must be on one device, got {image.device} and {unary.device}."
        )
    if image.requires_grad:
        raise NotImplementedError(
            "image requires a gradient, but the CRF does not differentiate its kernels with "
            "respect to the image yet. Pass image.detach()."
        )
    if image.dtype == torch.uint8:
        return
    if not image.is_floating_point():
        raise TypeError(f"image must be uint8 or floating point in 0..255, got {image.dtype}.")
    low, high = image.aminmax()
    if not (torch.isfinite(low) and torch.isfinite(high)):
        raise ValueError("image must be finite, got NaN or infinite values.")
    if low < 0 or high > 255 or 0 < high <= 1:  # all 0 is a black image in either range
        raise ValueError(
            f"image must be RGB in 0..255, got values in {low:.4g}..{high:.4g}. theta_beta is in "
            "grey levels of 0..255: pass the image as it was before normalisation (uint8, or "
            "floating point multiplied back to 0..255 with the mean added again)."
        )


def check_features(features: Tensor) -> None:
    """Raise unless features are (B, N, d) and finite."""
    if features.ndim != 3 or features.shape[2] == 0:
        raise ValueError(f"features must be (B, N, d), got {tuple(features.shape)}.")
    if not torch.isfinite(features).all():
        raise ValueError(
            "features must be finite, got NaN or infinite values. Check the guide, and that no "
            "theta is 0."
        )
