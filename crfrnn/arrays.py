"""NumPy arrays from users: checked once, with one voice, before any arithmetic.

A float64, float16, read-only or strided array has one meaning and is accepted; what could
mean two things (channels first, values in 0..1, labels last) is refused with the way out.
No function here changes its input.
"""

from __future__ import annotations

import warnings
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

Array: TypeAlias = npt.NDArray[Any]
Floats: TypeAlias = npt.NDArray[np.float32]

# A float16 softmax over 21 labels sums to one within 2e-3; a sigmoid or a logit does not.
SUM_TOLERANCE = 1e-2


def check_array(name: str, value: object, expected: str) -> Array:
    """The value itself; raise unless it is a NumPy array with at least one element.

    Args:
        name: of the argument.
        value: the argument.
        expected: its shape and dtype in words, for the message.
    """
    if isinstance(value, torch.Tensor):
        raise TypeError(
            f"{name} must be a NumPy array {expected}, got a torch.Tensor: pass "
            f"{name}.detach().cpu().numpy(), or use crfrnn.CrfRnn, which works on tensors."
        )
    if not isinstance(value, np.ndarray):
        raise TypeError(
            f"{name} must be a NumPy array {expected}, got {type(value).__name__}: pass "
            f"np.asarray({name})."
        )
    if value.size == 0:
        raise ValueError(f"{name} must be {expected} with at least one element, got {value.shape}.")
    return value


def check_floating(name: str, value: Array, advice: str) -> None:
    """Raise unless the array is of a floating dtype; advice says what to do."""
    if value.dtype.kind != "f":
        raise TypeError(f"{name} must be floating point, got {value.dtype}. {advice}")


def check_rgb(name: str, value: object, shape: tuple[int, int], origin: str) -> Array:
    """The value itself; raise unless it is an (H, W, 3) uint8 image.

    Args:
        name: of the argument.
        value: the argument.
        shape: (H, W), what the image must match.
        origin: where that shape was given, for the message.
    """
    height, width = shape
    wanted = (height, width, 3)
    image = check_array(name, value, f"{wanted} of uint8")
    if image.shape != wanted:
        raise ValueError(
            f"{name} must be (H, W, 3) = {wanted} to match {origin}, got {image.shape}."
            + _shape_advice(name, image.shape, height, width)
        )
    if image.dtype != np.uint8:
        raise TypeError(
            f"{name} must be uint8 RGB in 0..255, got {image.dtype}." + _range_advice(name, image)
        )
    return image


def _shape_advice(name: str, shape: tuple[int, ...], height: int, width: int) -> str:
    if shape == (3, height, width):
        return f" Channels come last: pass np.moveaxis({name}, 0, -1)."
    if shape == (width, height, 3):
        return (
            f" Height and width are swapped: pass {name}.transpose(1, 0, 2), or swap the two "
            "numbers where the size was given. An array is indexed (row, column) = (H, W)."
        )
    if shape == (height, width):
        return f" A grey image has three equal channels: pass np.stack([{name}] * 3, axis=-1)."
    if shape == (height, width, 1):
        return f" A grey image has three equal channels: pass np.repeat({name}, 3, axis=2)."
    if shape == (height, width, 4):
        return f" Leave the alpha channel out: pass {name}[..., :3]."
    if len(shape) == 4 and shape[0] == 1:
        return f" One image at a time: pass {name}[0]."
    return " Resize one to the other."


def _range_advice(name: str, image: Array) -> str:
    if image.dtype.kind not in "iuf":
        return " Pass the image as it was loaded."
    low, high = image.min(), image.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        return " It holds NaN or infinite values: pass the image as it was loaded."
    came = f" Its values are in {low:.4g}..{high:.4g}"
    if low < 0 or high > 255:
        return (
            f"{came}, which is not RGB in 0..255 (mean-subtracted or standardised?): pass the "
            "image as it was loaded, before normalisation."
        )
    if image.dtype.kind == "f" and high <= 1:
        return f"{came}: pass ({name} * 255).round().astype(np.uint8)."
    rounding = ".round()" if image.dtype.kind == "f" else ""
    return f"{came}: pass {name}{rounding}.astype(np.uint8)."


def check_probabilities(name: str, value: object) -> Array:
    """Return the value; raise unless it holds probabilities with the labels on axis 0.

    Values that do not sum to one, such as class activation maps, pass with a warning.

    Args:
        name: of the argument.
        value: the argument, (L, ...).
    """
    probabilities = check_array(name, value, "(L, H, W) of floats, labels first")
    check_floating(name, probabilities, "Probabilities of 0..255 are divided by 255 first.")
    if probabilities.ndim == 0:
        raise ValueError(f"{name} must be (L, ...), labels first, got a single number.")
    low, high = probabilities.min(), probabilities.max()
    if np.isnan(low) or np.isnan(high):
        raise ValueError(f"{name} must be finite, got NaN. Look for 0 / 0 ahead of the CRF.")
    if low < -SUM_TOLERANCE or high > 1 + SUM_TOLERANCE:
        raise ValueError(
            f"{name} must be probabilities in 0..1, got values in {low:.4g}..{high:.4g}. Logits "
            "go through a softmax over the labels first."
        )
    if not sums_to_one(probabilities, axis=0):
        sums = probabilities.sum(0, dtype=np.float64)
        came = f"{name} has the shape {probabilities.shape} and sums over axis 0 of " + (
            f"{sums.min():.4g} to {sums.max():.4g}"
        )
        if advice := _sum_advice(name, probabilities):
            raise ValueError(f"{came}, not one over the labels.{advice}")
        if sums.min() <= 0:
            raise ValueError(
                f"{came}: {int((sums <= 0).sum())} pixels have no probability at all. Give them "
                f"1 / L for each of the L labels: {name}[:, sums == 0] = 1 / len({name})."
            )
        warnings.warn(
            f"{came}, not one: only their ratios count. Sigmoid outputs are no distribution over "
            "labels: refine each map p on its own, as np.stack([1 - p, p]).",
            UserWarning,
            stacklevel=3,
        )
    return probabilities


def _sum_advice(name: str, probabilities: Array) -> str:
    """Words for labels on another axis, or for a single map; empty for anything else."""
    if probabilities.ndim > 1 and sums_to_one(probabilities, axis=-1):
        return f" The labels are on the last axis: pass np.moveaxis({name}, -1, 0)."
    if probabilities.ndim > 2 and sums_to_one(probabilities, axis=1):
        return f" Axis 0 looks like a batch: pass one image at a time, {name}[0]."
    if probabilities.ndim < 3 or probabilities.shape[0] == 1:
        return (
            " One map of the foreground is two labels, background and foreground: pass "
            "np.stack([1 - p, p]) of the (H, W) map p."
        )
    return ""


def sums_to_one(values: Array, *, axis: int) -> bool:
    """Tell whether all sums along the axis are one, within the rounding of a float16 softmax."""
    sums = values.sum(axis, dtype=np.promote_types(values.dtype, np.float32))
    return bool(np.abs(sums - 1).max() <= SUM_TOLERANCE)


def tensor(value: Array, dtype: npt.DTypeLike = np.float32) -> torch.Tensor:
    """A copy as a contiguous tensor, whatever the array's strides, byte order and flags."""
    return torch.from_numpy(np.array(value, dtype=dtype, order="C"))
