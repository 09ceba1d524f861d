"""The API that pydensecrf users know, on this library's filters: change only the import.

    import crfrnn.densecrf as dcrf
    from crfrnn.densecrf import unary_from_labels, create_pairwise_bilateral

or not even that: `crfrnn.densecrf.install()` answers to the package's own name.

That API's conventions hold here, and only here: unaries are ENERGIES, -log P, (L, N); a
scalar `compat` is a Potts weight and attracts, a vector or a matrix is an energy, so a
positive vector repels; every kernel, the spatial one too, goes through the permutohedral
lattice. It runs on the CPU and learns nothing: `crfrnn.CrfRnn` does both better.

Kept on purpose: constructors count width before height, `sxy` is (x, y) while `sdims`
follows the axes of an array, and `chdim=-1` means that there is no channel axis.
"""

from __future__ import annotations

import math
import sys
import types
import warnings
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NoReturn, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from crfrnn.arrays import (
    Array,
    Floats,
    check_array,
    check_floating,
    check_probabilities,
    check_rgb,
    tensor,
)
from crfrnn.checks import check_count, check_free, check_label_floor, check_positive
from crfrnn.cpu import empty
from crfrnn.filters import Filter, LatticeFilter, Normalization, Normalized
from crfrnn.inference import (
    MeanField,
    mean_field,
    mean_field_step,
    mean_field_update,
    without_unlikely_labels,
)
from crfrnn.ops import pixel_major, rows_softmax

__all__ = [
    "CONST_KERNEL",
    "DIAG_KERNEL",
    "FULL_KERNEL",
    "NORMALIZE_AFTER",
    "NORMALIZE_BEFORE",
    "NORMALIZE_SYMMETRIC",
    "NO_NORMALIZATION",
    "ConstUnary",
    "DenseCRF",
    "DenseCRF2D",
    "KernelType",
    "LogisticUnary",
    "NormalizationType",
    "compute_unary",
    "create_pairwise_bilateral",
    "create_pairwise_gaussian",
    "install",
    "softmax_to_unary",
    "unary_from_labels",
    "unary_from_softmax",
]


# Normalisations and kernel types, as enum members and as module constants.


class NormalizationType(IntEnum):
    """How the rows and columns of K are brought to sum one; D = diag(K 1)."""

    NO_NORMALIZATION = 0  # K
    NORMALIZE_BEFORE = 1  # K D^-1
    NORMALIZE_AFTER = 2  # D^-1 K
    NORMALIZE_SYMMETRIC = 3  # D^-1/2 K D^-1/2


class KernelType(IntEnum):
    """How many parameters a kernel's precision matrix has for learning.

    All three start at the identity and only learning moves them apart: for inference,
    which is what this API offers, they are one and the same kernel.
    """

    CONST_KERNEL = 0
    DIAG_KERNEL = 1
    FULL_KERNEL = 2


NO_NORMALIZATION = NormalizationType.NO_NORMALIZATION
NORMALIZE_BEFORE = NormalizationType.NORMALIZE_BEFORE
NORMALIZE_AFTER = NormalizationType.NORMALIZE_AFTER
NORMALIZE_SYMMETRIC = NormalizationType.NORMALIZE_SYMMETRIC
CONST_KERNEL = KernelType.CONST_KERNEL
DIAG_KERNEL = KernelType.DIAG_KERNEL
FULL_KERNEL = KernelType.FULL_KERNEL

NAMES: dict[NormalizationType, Normalization] = {
    NO_NORMALIZATION: "none",
    NORMALIZE_BEFORE: "before",
    NORMALIZE_AFTER: "after",
    NORMALIZE_SYMMETRIC: "symmetric",
}

Constant = TypeVar("Constant", NormalizationType, KernelType)


def constant(name: str, value: object, kind: type[Constant]) -> Constant:
    """The member of the enum; an integer will do, a member of the other enum will not.

    Both are integers, so that swapped arguments would otherwise pass in silence.
    """
    is_number = isinstance(value, int) and not isinstance(value, (bool, IntEnum))
    if isinstance(value, kind) or (is_number and value in {int(member) for member in kind}):
        return kind(value)
    raise ValueError(
        f"{name} must be one of {', '.join(member.name for member in kind)}, got {value!r}."
    )


# Unary and pairwise energies as users give them, checked and brought to one form.

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
    low, high = u.min(), u.max()  # NaN where one is
    if not low > -np.inf or not high >= low or (high == np.inf and (u == np.inf).all(0).any()):
        raise ValueError(
            "u must hold energies above -inf, with one finite label for each variable, got NaN or "
            "infinite values. unary_from_softmax clips probabilities of 0."
        )
    # 1e-3: a softmax in float16 sums to one that closely, energies do not.
    if num_labels > 1 and low >= 0 and high <= 1 and np.abs(u.sum(0) - 1).max() < 1e-3:
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


# Kernel features for a grid of any dimension, and the widths that scale them.
#
# exp(-|f_i - f_j|^2 / 2) over these features is the spatial kernel or the bilateral kernel of
# Krahenbuhl and Koltun (NIPS 2011, section 2); `DenseCRF.addPairwiseEnergy` takes them.

Widths: TypeAlias = float | np.number[Any] | Sequence[float] | Array


def create_pairwise_gaussian(sdims: Widths, shape: Sequence[int] | Array) -> Floats:
    """Features of the spatial kernel: positions / theta.

    Args:
        sdims: theta for each axis of `shape`, in its order, in pixels: (y, x) for an image,
            where `sxy` of `DenseCRF2D` is (x, y). A number stands for all axes.
        shape: the grid, for example (H, W) or (D, H, W).

    Returns:
        (d, N) float32, d axes and N grid points in row-major order.

    Raises:
        ValueError: a shape without axes, as many widths as there are not axes, or a width
            that is not above 0.
    """
    grid = _grid(shape)
    return _scaled(grid, widths("sdims", sdims, len(grid), "axes of shape"))


def create_pairwise_bilateral(sdims: Widths, schan: Widths, img: Array, chdim: int = -1) -> Floats:
    """Features of the bilateral kernel: positions / theta_alpha, values / theta_beta.

    Args:
        sdims: theta_alpha for each axis of the grid, in the array's order, in pixels.
        schan: theta_beta for each channel, in the unit of `img`.
        img: any number of axes, any real dtype, not modified.
        chdim: the channel axis; -1 (the default) says that `img` HAS NONE and is one grey
            channel. An (H, W, 3) image needs chdim=2.

    Returns:
        (d, N) float32: the grid's axes, then the channels.

    Raises:
        ValueError: as many widths as there are not axes or channels, an axis that does not
            exist, values that are not finite.
        TypeError: no array of real numbers.
    """
    check_array("img", img, "of any shape")
    if img.dtype.kind not in "biuf":
        raise TypeError(f"img must hold real numbers, got {img.dtype}.")
    if not -img.ndim <= chdim < img.ndim:
        raise ValueError(
            f"chdim must be an axis of an img of shape {img.shape} (or -1: no channel axis), "
            f"got {chdim}."
        )
    channels = img[np.newaxis] if chdim == -1 else np.moveaxis(img, chdim, 0)
    features = (channels.ndim - 1 + len(channels)) * math.prod(channels.shape[1:])
    check_free(2 * 4 * features, f"features of an img of {img.shape}")
    if not np.isfinite(channels).all():
        raise ValueError("img must be finite, got NaN or infinite values: fill them first.")
    grid = _grid(channels.shape[1:])
    axes = f"axes of an img of shape {img.shape} with chdim={chdim}"
    if chdim == -1:
        axes += f" (-1: no channel axis; pass chdim={img.ndim - 1} where the last axis is one)"
    positions = _scaled(grid, widths("sdims", sdims, len(grid), axes))
    values = _scaled(channels, widths("schan", schan, len(channels), "channels"))
    return np.concatenate([positions, values])


def widths(name: str, value: Widths, count: int, what: str) -> tuple[float, ...]:
    """One width per axis or channel; a number stands for all of them."""
    given = np.asarray(value)
    if given.shape not in {(), (count,)}:
        raise ValueError(
            f"{name} must be a number or {count}, one for each of the {what}; got shape "
            f"{given.shape}."
        )
    for theta in given.flat:
        check_positive(name, theta, "one standard deviation")
    return tuple(float(theta) for theta in np.broadcast_to(given, (count,)))


def _grid(shape: Sequence[int] | Array) -> Array:
    """Row-major coordinates of each point, (d, *shape)."""
    if len(shape) == 0:
        raise ValueError("shape must have at least one axis, for example (H, W), got none.")
    for size in shape:
        check_count("shape", size, 1)
    return np.indices(tuple(int(size) for size in shape), dtype=np.float32)


def _scaled(values: Array, thetas: tuple[float, ...]) -> Floats:
    """Each row of (d, ...) divided by its theta: (d, N) float32."""
    rows = values.reshape(len(values), -1).astype(np.float32)
    return rows / np.array(thetas, dtype=np.float32)[:, np.newaxis]


# Unary energies, -log P, from a hard labelling or from a network's probabilities.


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
        sm: (L, ...) probabilities, labels first; not modified. Where they do not sum to one over
            axis 0 (class activation maps), a warning says so: it changes no marginal but where
            `clip` or `scale` acts, because log of the sum is a constant of the pixel.
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
    p = tensor(sm).flatten(1).clamp_(0, 1)
    if scale is not None:
        p.mul_(scale).add_((1 - scale) / len(p))
    if clip is not None:
        p.clamp_(clip, 1)
    # + 0.0 turns the -0.0 of a certain label into 0.0.
    energies: Floats = p.log_().neg_().add_(0.0).numpy()
    return energies


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


# DenseCRF and DenseCRF2D: energies in, marginals out, as NumPy arrays.
#
# With U the unary energies, K_m the normalised kernels and C_m the label compatibilities as
# energies (a scalar weight w is C = -w I),
#
#     E(x) = sum_i U_i(x_i) + sum_m sum_{i<j} C_m(x_i, x_j) K_m[i, j]
#     q_{t+1} = softmax(-U - sum_m C_m K_m q_t),   q_0 = softmax(-U)
#
# Krahenbuhl and Koltun, NIPS 2011, algorithm 1. The messages include the self term K[i, i], as
# they do there.


class DenseCRF:
    """A fully connected CRF over N variables with any kernel features.

    Args:
        nvar: N.
        nlabels: L.
        label_floor: in `inference`, leave out the labels whose probability exp(-U) is below this
            for every variable; not of that API. See `crfrnn.CrfRnn`.
    """

    def __init__(self, nvar: int, nlabels: int, *, label_floor: float = 0.0) -> None:
        check_count("nvar", nvar, 1)
        check_count("nlabels", nlabels, 1)
        check_label_floor(label_floor, nlabels)
        self._label_floor = label_floor
        if nlabels == 1:
            warnings.warn(
                "nlabels is 1: one label leaves nothing to decide, and the mask is 0 everywhere. A "
                "foreground map p is two labels: unary_from_softmax(np.stack([1 - p, p])).",
                UserWarning,
                stacklevel=2,
            )
        self._num_variables, self._num_labels = int(nvar), int(nlabels)
        self._unary: Tensor | None = None  # (1, N, L): -U
        self._has_impossible = False  # an infinite energy
        self._kernels: list[Filter] = []
        self._penalties: list[Tensor] = []  # C_m, (L, L)
        # Q as it was last returned, (L, N), and its logits, (1, N, L).
        self._stepped: tuple[Floats, Tensor] | None = None

    def setUnaryEnergy(self, u: Array, f: object = None) -> None:
        """Set the unary energies, in place of any set before.

        Args:
            u: (L, N) energies -log P; +inf makes a label impossible. Copied.
            f: features of a logistic unary there; not offered here.

        Raises:
            ValueError: another shape, NaN, a variable with no possible label, or columns
                that sum to one like probabilities.
            TypeError: no floating-point array.
            NotImplementedError: f is given.
        """
        if f is not None:
            raise NotImplementedError(
                "A logistic unary, u and f, is not offered: pass its energies, "
                "setUnaryEnergy(u @ f)."
            )
        checked = unary_energy(u, self._num_labels, self._num_variables)
        self._has_impossible = bool(np.isposinf(checked.max()))
        self._unary = pixel_major(tensor(checked).neg_()[None])

    def addPairwiseEnergy(
        self,
        features: Array,
        compat: Compat,
        kernel: KernelType = DIAG_KERNEL,
        normalization: NormalizationType = NORMALIZE_SYMMETRIC,
    ) -> None:
        """Add a kernel exp(-|f_i - f_j|^2 / 2) over the given features.

        Args:
            features: (d, N), already divided by theta. Copied.
            compat: a number w attracts equal labels, C = -w I; (L,) is C = diag(v) and
                (L, L) is C = (M + M') / 2, both energies: positive values repel.
            kernel: any `KernelType`: they differ only in what could be learnt.
            normalization: a `NormalizationType`.

        Raises:
            ValueError: a shape or constant that does not fit, values that are not finite,
                features spread wider than the lattice can hold.
            TypeError: no floating-point array.
        """
        check_array("features", features, f"(d, N) = (d, {self._num_variables})")
        check_floating("features", features, "Positions and values are divided by theta first.")
        if features.ndim != 2 or features.shape[1] != self._num_variables:
            came_turned = features.ndim == 2 and features.shape[0] == self._num_variables
            advice = " Pass features.T." if came_turned else " One row per feature, the grid flat."
            raise ValueError(
                f"features must be (d, N) = (d, {self._num_variables}), got {features.shape}."
                + advice
            )
        if not np.isfinite(features).all():
            raise ValueError(
                "features must be finite, got NaN or infinite values. Check that no width is 0."
            )
        constant("kernel", kernel, KernelType)
        name = NAMES[constant("normalization", normalization, NormalizationType)]
        energy = compatibility_energy(compat, self._num_labels)
        rows = tensor(features.T)[None]
        lattice = Normalized(LatticeFilter(rows), name, rows.new_ones(1, self._num_variables, 1))
        self._kernels.append(lattice)
        self._penalties.append(tensor(energy))

    @torch.no_grad()
    def inference(self, niter: int) -> Floats:
        """Marginals after `niter` mean-field updates: (L, N) float32, columns sum to one."""
        check_count("niter", niter, 0)
        with torch.autocast("cpu", enabled=False):  # float32 whatever surrounds the call
            problem = self._logits(), self._kernels, [self._penalties], niter
            if self._label_floor > 0:
                logits = without_unlikely_labels(MeanField(), *problem, self._label_floor)
            else:
                logits = mean_field(*problem)
        return self._marginals(logits)

    def startInference(self) -> tuple[Floats, Floats, Floats]:
        """(Q, tmp1, tmp2) for `stepInference`: Q = q_0; the other two are kept for their place."""
        q, unused = self.inference(0), np.empty((0, 0), np.float32)
        self._stepped = q.copy(), self._logits()
        return q, unused, unused

    @torch.no_grad()
    def stepInference(self, Q: Floats, tmp1: Floats, tmp2: Floats) -> None:
        """One mean-field update of Q, in place.

        Args:
            Q: (L, N) float32 of `startInference`; overwritten.
            tmp1: unused, as is tmp2: they held the C++ code's memory.
            tmp2: unused.
        """
        self._check_marginals(Q)
        # A logarithm would lose the last bits of the logits.
        unchanged = self._stepped is not None and np.array_equal(self._stepped[0], Q)
        logits = self._stepped[1] if unchanged and self._stepped else _rows(Q).log_()
        with torch.autocast("cpu", enabled=False):
            logits = mean_field_step(
                logits, self._logits(), self._kernels, self._penalties, damping=0.0
            )
        Q[...] = self._marginals(logits)
        self._stepped = Q.copy(), logits

    def klDivergence(self, Q: Floats) -> float:
        """sum_i sum_l [q log q + U q + q (sum_m C_m K_m q)], summed over all variables.

        This is that API's number: KL(Q || P) up to the unknown log Z, hence often negative,
        and with every pair counted twice: there is no factor 1/2.

        Args:
            Q: (L, N) float32 marginals, not modified.
        """
        self._check_marginals(Q)
        q, unary = _rows(Q), self._logits()
        # 0 times the infinite energy of an impossible label is 0.
        total = torch.xlogy(q, q) - torch.where(q > 0, unary * q, 0)
        with torch.autocast("cpu", enabled=False):
            nothing = torch.zeros_like(q)
            total -= q * mean_field_update(q, nothing, self._kernels, self._penalties)
        return total.sum(dtype=torch.float64).item()

    def setUnary(self, u: object) -> NoReturn:
        """Not offered: unary objects; `setUnaryEnergy` takes the array itself."""
        raise NotImplementedError(
            "Unary objects are not offered: pass setUnaryEnergy(u) the array."
        )

    def _logits(self) -> Tensor:
        if self._unary is None:
            raise RuntimeError("No unary energies yet: call setUnaryEnergy before inference.")
        return self._unary

    def _marginals(self, logits: Tensor) -> Floats:
        """Q of logits (1, N, L), with 0, not 1e-38, for an impossible label: (L, N)."""
        q: Tensor = rows_softmax(logits, "automatic")
        q = q.masked_fill_(logits == -math.inf, 0) if self._has_impossible else q
        return _labels_first(q)

    def _check_marginals(self, Q: Array) -> None:
        shape = (self._num_labels, self._num_variables)
        if not (isinstance(Q, np.ndarray) and Q.dtype == np.float32 and Q.shape == shape):
            came = f"{Q.shape} {Q.dtype}" if isinstance(Q, np.ndarray) else type(Q).__name__
            raise ValueError(
                f"Q must be the (L, N) = {shape} float32 array of startInference, got {came}."
            )

    def __repr__(self) -> str:
        return (
            f"DenseCRF(nvar={self._num_variables}, nlabels={self._num_labels}), "
            f"{len(self._kernels)} kernels"
        )


class DenseCRF2D(DenseCRF):
    """A fully connected CRF over the pixels of an image.

    Args:
        w: width W, pixels. The width comes first.
        h: height H, pixels.
        nlabels: L.
        label_floor: as for `DenseCRF`.
    """

    def __init__(self, w: int, h: int, nlabels: int, *, label_floor: float = 0.0) -> None:
        check_count("w", w, 1)
        check_count("h", h, 1)
        super().__init__(int(w) * int(h), nlabels, label_floor=label_floor)
        self._shape = (int(h), int(w))

    def addPairwiseGaussian(
        self,
        sxy: Widths,
        compat: Compat,
        kernel: KernelType = DIAG_KERNEL,
        normalization: NormalizationType = NORMALIZE_SYMMETRIC,
    ) -> None:
        """Add the spatial kernel exp(-|p_i - p_j|^2 / (2 theta_gamma^2)).

        Args:
            sxy: theta_gamma, pixels: a number or (x, y).
            compat: as for `addPairwiseEnergy`, which also names what is raised.
            kernel: any `KernelType`.
            normalization: a `NormalizationType`.
        """
        self.addPairwiseEnergy(self._positions(sxy), compat, kernel, normalization)

    def addPairwiseBilateral(
        self,
        sxy: Widths,
        srgb: Widths,
        rgbim: Array,
        compat: Compat,
        kernel: KernelType = DIAG_KERNEL,
        normalization: NormalizationType = NORMALIZE_SYMMETRIC,
    ) -> None:
        """Add exp(-|p_i - p_j|^2 / (2 theta_alpha^2) - |I_i - I_j|^2 / (2 theta_beta^2)).

        Args:
            sxy: theta_alpha, pixels: a number or (x, y).
            srgb: theta_beta, grey levels of 0..255: a number or (r, g, b).
            rgbim: (H, W, 3) uint8 RGB; for other data see `create_pairwise_bilateral`.
            compat: as for `addPairwiseEnergy`, which also names what is raised.
            kernel: any `KernelType`.
            normalization: a `NormalizationType`.
        """
        height, width = self._shape
        check_rgb("rgbim", rgbim, self._shape, f"DenseCRF2D(w={width}, h={height}, ...)")
        theta = np.array(widths("srgb", srgb, 3, "channels r, g, b"), np.float32)
        colour = rgbim.reshape(-1, 3).T / theta[:, np.newaxis]
        features = np.concatenate([self._positions(sxy), colour])
        self.addPairwiseEnergy(features, compat, kernel, normalization)

    def _positions(self, sxy: Widths) -> Floats:
        """(x, y) / theta of each pixel in row-major order: (2, HW)."""
        theta = np.array(widths("sxy", sxy, 2, "axes x, y"), np.float32)
        y, x = np.indices(self._shape, dtype=np.float32).reshape(2, -1)
        return np.stack([x, y]) / theta[:, np.newaxis]

    def __repr__(self) -> str:
        height, width = self._shape
        return (
            f"DenseCRF2D(w={width}, h={height}, nlabels={self._num_labels}), "
            f"{len(self._kernels)} kernels"
        )


def ConstUnary(*_: object) -> NoReturn:
    """Not offered: `setUnaryEnergy` takes the array itself."""
    raise NotImplementedError("ConstUnary is not offered: pass the array to setUnaryEnergy(u).")


def LogisticUnary(*_: object) -> NoReturn:
    """Not offered: compute the energies and pass them to `setUnaryEnergy`."""
    raise NotImplementedError(
        "LogisticUnary is not offered: pass the energies themselves, setUnaryEnergy(L @ f), or "
        "learn the unary as a network before crfrnn.CrfRnn."
    )


def _rows(Q: Floats) -> Tensor:
    """(L, N) -> (1, N, L), its own memory."""
    return pixel_major(tensor(Q)[None])


def _labels_first(q: Tensor) -> Floats:
    """(1, N, L) -> (L, N), its own memory."""
    result: Floats = empty(*q.shape[:0:-1]).copy_(q[0].t()).numpy()
    return result


def install() -> None:
    """Answer to `import pydensecrf` for the rest of this process, so that scripts run unchanged.

    `import pydensecrf.densecrf as dcrf`, `from pydensecrf.utils import ...` and `import
    pydensecrf.utils as utils` give this module. Call it ahead of those imports; a child process
    that is not forked calls it again.

    Raises:
        RuntimeError: the package itself is imported already.
    """
    present = sys.modules.get("pydensecrf")
    this = sys.modules[__name__]
    if present is not None and getattr(present, "densecrf", None) is not this:
        raise RuntimeError(
            "pydensecrf is imported already: call crfrnn.densecrf.install() before it is."
        )
    package = types.ModuleType("pydensecrf", "Names of pydensecrf, served by crfrnn.densecrf.")
    package.__path__ = []  # a package: `import pydensecrf.densecrf` looks for it in sys.modules
    package.__dict__.update(densecrf=this, utils=this)
    names = {"pydensecrf": package, "pydensecrf.densecrf": this, "pydensecrf.utils": this}
    sys.modules.update(names)
