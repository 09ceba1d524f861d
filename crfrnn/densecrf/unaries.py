"""Unary energies, -log P, from a hard labelling or from a network's probabilities."""

from __future__ import annotations

import warnings

import numpy as np

from crfrnn.arrays import Array, Floats, check_array, check_probabilities
from crfrnn.checks import check_count


def unary_from_labels(
    labels: Array, n_labels: int, gt_prob: float, zero_unsure: bool = True
) -> Floats:
    """Energies that trust a labelling with probability `gt_prob`.

    The named label gets -log gt_prob, every other one -log((1 - gt_prob) / (L - 1)).

    Args:
        labels: integers of any shape, N elements. With `zero_unsure`: 1..L for the labels
            and 0 for "unknown"; without: 0..L-1.
        n_labels: L; with `zero_unsure` the 0 is not counted.
        gt_prob: certainty of the labelling, in (0, 1).
        zero_unsure: 0 is no label and gets log L for every label.

    Returns:
        (L, N) float32 energies.

    Raises:
        ValueError: labels out of range, fewer than two labels, gt_prob outside (0, 1).
        TypeError: labels that are not an array of integers.

    Warns:
        UserWarning: `labels` are exactly 0..L-1 although 0 means "unknown": whether 0 was
            counted as a label cannot be told from them.
    """
    check_array("labels", labels, "of integers")
    if labels.dtype.kind not in "iu":
        raise TypeError(
            f"labels must be integers, got {labels.dtype}: pass labels.astype(np.int64). A boolean "
            "mask then has n_labels=2 with zero_unsure=False."
        )
    check_count("n_labels", n_labels, 1)
    if n_labels < 2:
        raise ValueError(
            "n_labels must be at least 2, got 1: one label leaves nothing to decide. A mask of 0 "
            "and 1 has two labels: pass n_labels=2, zero_unsure=False."
        )
    if not 0 < gt_prob < 1:
        raise ValueError(f"gt_prob must be in (0, 1), both ends left out, got {gt_prob!r}.")
    # Signed and wide, because 0 - 1 wraps in an unsigned dtype.
    index = labels.reshape(-1).astype(np.int64) - (1 if zero_unsure else 0)
    _check_range(index, n_labels, zero_unsure=zero_unsure)

    energies = np.full((n_labels, index.size), -np.log((1 - gt_prob) / (n_labels - 1)), np.float32)
    sure = np.flatnonzero(index >= 0)
    energies[index[sure], sure] = -np.log(gt_prob)
    energies[:, index < 0] = np.log(n_labels)
    return energies


def _check_range(index: Array, n_labels: int, *, zero_unsure: bool) -> None:
    """Raise for labels out of range; warn where 0 may have been meant as a label."""
    shift = 1 if zero_unsure else 0
    low, high = index.min() + shift, index.max() + shift
    if low < 0 or high > n_labels - 1 + shift:
        words = f"0..{n_labels} (0 = unknown)" if zero_unsure else f"0..{n_labels - 1}"
        raise ValueError(
            f"labels must be in {words} for n_labels={n_labels} and zero_unsure={zero_unsure}, got "
            f"{low}..{high}. A void label such as 255 becomes 0 with zero_unsure=True and the "
            "others move up by one."
        )
    if zero_unsure and np.array_equal(np.unique(index), np.arange(-1, n_labels - 1)):
        warnings.warn(
            f"labels are 0..{n_labels - 1} with n_labels={n_labels} and zero_unsure=True: 0 is "
            f"taken as unknown, and label {n_labels} never occurs. If 0 is a label, pass "
            "zero_unsure=False.",
            UserWarning,
            stacklevel=3,
        )


def unary_from_softmax(sm: Array, scale: float | None = None, clip: float | None = 1e-5) -> Floats:
    """Energies -log P from probabilities, such as a network's softmax.

    Args:
        sm: (L, ...) probabilities, labels first, that sum to one over axis 0; not modified.
        scale: trust in `sm`, in (0, 1]: P becomes scale P + (1 - scale) / L.
        clip: P below this is raised to it, which keeps the energy finite; None leaves P of 0
            at an infinite energy, "impossible".

    Returns:
        (L, N) float32 energies.

    Raises:
        ValueError: not probabilities over axis 0; scale or clip out of range.
        TypeError: no floating-point array.
    """
    check_probabilities("sm", sm)
    if scale is not None and not 0 < scale <= 1:
        raise ValueError(f"scale must be in (0, 1] or None, got {scale!r}.")
    if clip is not None and not 0 < clip < 1:
        raise ValueError(f"clip must be in (0, 1) or None, got {clip!r}.")
    # Rounding may leave a probability an ulp outside 0..1.
    p = np.clip(sm.reshape(sm.shape[0], -1).astype(np.float64), 0, 1)
    if scale is not None:
        p = scale * p + (1 - scale) / len(p)
    if clip is not None:
        p = p.clip(clip, 1)
    with np.errstate(divide="ignore"):  # only without clip, where it is what was asked for
        # + 0.0 turns the -0.0 of a certain label into 0.0.
        return (0.0 - np.log(p)).astype(np.float32)


def softmax_to_unary(sm: Array, GT_PROB: float = 1) -> Floats:
    """Deprecated name of `unary_from_softmax(sm, scale=GT_PROB, clip=None)`."""
    warnings.warn(
        "softmax_to_unary is deprecated: use unary_from_softmax(sm, scale), which also clips.",
        DeprecationWarning,
        stacklevel=2,
    )
    return unary_from_softmax(sm, None if GT_PROB == 1 else GT_PROB, clip=None)


def compute_unary(labels: Array, M: int, GT_PROB: float = 0.5) -> Floats:
    """Deprecated name of `unary_from_labels(labels, M, GT_PROB)`."""
    warnings.warn(
        "compute_unary is deprecated: use unary_from_labels(labels, n_labels, gt_prob).",
        DeprecationWarning,
        stacklevel=2,
    )
    return unary_from_labels(labels, M, GT_PROB)
