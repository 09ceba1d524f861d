"""Unary and pairwise energies as users give them, checked and brought to one form."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch

from crfrnn.arrays import Array, check_array, check_floating

Compat: TypeAlias = float | np.number[Any] | Array


def unary_energy(u: object, num_labels: int, num_variables: int) -> Array:
    """The energies themselves; raise unless they are (L, N) and can be -log P.

    Args:
        u: the argument of `setUnaryEnergy`.
        num_labels: L.
        num_variables: N.
    """
    shape = (num_labels, num_variables)
    u = check_array("u", u, f"(L, N) = {shape} of energies")
    check_floating("u", u, "Energies are -log P: unary_from_softmax makes them.")
    if u.shape != shape:
        raise ValueError(
            f"u must be (L, N) = {shape} energies, got {u.shape}."
            + _shape_advice(u.shape, num_labels, num_variables)
        )
    if np.isnan(u).any() or (u == -np.inf).any() or (u == np.inf).all(0).any():
        raise ValueError(
            "u must hold energies above -inf, with one finite label for each variable, got NaN or "
            "infinite values. unary_from_softmax clips probabilities of 0."
        )
    # 1e-3: a softmax in float16 sums to one that closely, energies do not.
    if num_labels > 1 and u.min() >= 0 and np.abs(u.sum(0, dtype=np.float64) - 1).max() < 1e-3:
        raise ValueError(
            "u must be energies -log P, but its columns sum to one, as probabilities do: pass "
            "unary_from_softmax(u). Where they are energies, add 1: a constant changes nothing."
        )
    return u


def _shape_advice(shape: tuple[int, ...], num_labels: int, num_variables: int) -> str:
    if shape == (num_variables, num_labels):
        return " Labels come first: pass u.T."
    if len(shape) > 2 and np.prod(shape) == num_labels * num_variables:
        if shape[0] == num_labels:
            return f" Flatten the grid: pass u.reshape({num_labels}, -1)."
        if shape[-1] == num_labels:
            return (
                " Labels come first and the grid is flat: pass "
                f"np.moveaxis(u, -1, 0).reshape({num_labels}, -1)."
            )
    return (
        f" This CRF was made for {num_variables} variables and {num_labels} labels; constructors "
        "count variables first: DenseCRF(nvar, nlabels), DenseCRF2D(w, h, nlabels)."
    )


def compatibility_energy(compat: object, num_labels: int) -> Array:
    """C: the (L, L) energy that a scalar, vector or matrix `compat` stands for.

    A scalar w is a Potts weight and attracts: C = -w I. A vector v is C = diag(v) and a
    matrix M is C = (M + M') / 2, both energies: what is positive repels.

    Args:
        compat: a number, (L,) or (L, L), real and finite.
        num_labels: L.
    """
    if isinstance(compat, torch.Tensor):
        raise TypeError("compat must be a number or a NumPy array: pass compat.numpy().")
    value = np.asarray(compat)
    if value.dtype.kind not in "iuf":
        raise TypeError(f"compat must be a number or an array of numbers, got {value.dtype}.")
    if not np.isfinite(value).all():
        raise ValueError("compat must be finite, got NaN or infinite values.")
    value = value.astype(np.float32)
    if value.ndim == 0:
        return -value * np.eye(num_labels, dtype=np.float32)
    if value.shape == (num_labels,):
        return np.diag(value)
    if value.shape == (num_labels, num_labels):
        return np.asarray((value + value.T) / 2)
    raise ValueError(
        f"compat must be a number, (L,) = ({num_labels},) or (L, L) = ({num_labels}, "
        f"{num_labels}), got {value.shape}."
    )
