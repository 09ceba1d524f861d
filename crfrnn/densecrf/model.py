"""DenseCRF and DenseCRF2D: energies in, marginals out, as NumPy arrays.

With U the unary energies, K_m the normalised kernels and C_m the label compatibilities as
energies (a scalar weight w is C = -w I),

    E(x) = sum_i U_i(x_i) + sum_m sum_{i<j} C_m(x_i, x_j) K_m[i, j]
    q_{t+1} = softmax(-U - sum_m C_m K_m q_t),   q_0 = softmax(-U)

Krahenbuhl and Koltun, NIPS 2011, algorithm 1. The messages include the self term K[i, i], as
they do there.
"""

from __future__ import annotations

from typing import NoReturn

import numpy as np
import torch
from torch import Tensor

from crfrnn import rows
from crfrnn.arrays import Array, Floats, check_array, check_floating, check_rgb, tensor
from crfrnn.checks import check_count
from crfrnn.densecrf.constants import (
    DIAG_KERNEL,
    NAMES,
    NORMALIZE_SYMMETRIC,
    KernelType,
    NormalizationType,
    constant,
)
from crfrnn.densecrf.energies import Compat, compatibility_energy, unary_energy
from crfrnn.densecrf.features import Widths, widths
from crfrnn.filtering import Filter, LatticeFilter, Normalized


class DenseCRF:
    """A fully connected CRF over N variables with any kernel features.

    Args:
        nvar: N.
        nlabels: L.
    """

    def __init__(self, nvar: int, nlabels: int) -> None:
        check_count("nvar", nvar, 1)
        check_count("nlabels", nlabels, 1)
        self._num_variables, self._num_labels = int(nvar), int(nlabels)
        self._energy: Tensor | None = None  # (1, N, L)
        self._pairwise: list[tuple[Filter, Tensor]] = []  # K_m and C_m, (L, L)

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
        self._energy = tensor(checked.T)[None]

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
        self._pairwise.append((lattice, tensor(energy)))

    def inference(self, niter: int) -> Floats:
        """Marginals after `niter` mean-field updates: (L, N) float32, columns sum to one."""
        check_count("niter", niter, 0)
        q = torch.softmax(-self._unary(), dim=-1)
        for _ in range(niter):
            q = self._updated(q)
        return _labels_first(q)

    def startInference(self) -> tuple[Floats, Floats, Floats]:
        """(Q, tmp1, tmp2) for `stepInference`: Q = q_0; the other two are kept for their place."""
        unused = np.empty((0, 0), np.float32)
        return _labels_first(torch.softmax(-self._unary(), dim=-1)), unused, unused

    def stepInference(self, Q: Floats, tmp1: Floats, tmp2: Floats) -> None:
        """One mean-field update of Q, in place.

        Args:
            Q: (L, N) float32 of `startInference`; overwritten.
            tmp1: unused, as is tmp2: they held the C++ code's memory.
            tmp2: unused.
        """
        self._check_marginals(Q)
        Q[...] = _labels_first(self._updated(tensor(Q.T)[None]))

    def klDivergence(self, Q: Floats) -> float:
        """sum_i sum_l [q log q + U q + q (sum_m C_m K_m q)], summed over all variables.

        This is that API's number: KL(Q || P) up to the unknown log Z, hence often negative,
        and with every pair counted twice: there is no factor 1/2.

        Args:
            Q: (L, N) float32 marginals, not modified.
        """
        self._check_marginals(Q)
        q = tensor(Q.T)[None]
        unary = self._unary()
        # 0 times the infinite energy of an impossible label is 0.
        total = torch.where(q > 0, unary * q, 0).sum(dtype=torch.float64)
        total += torch.xlogy(q, q).sum(dtype=torch.float64)
        total += (q * self._messages(q)).sum(dtype=torch.float64)
        return total.item()

    def setUnary(self, u: object) -> NoReturn:
        """Not offered: unary objects; `setUnaryEnergy` takes the array itself."""
        raise NotImplementedError(
            "Unary objects are not offered: pass setUnaryEnergy(u) the array."
        )

    def _unary(self) -> Tensor:
        if self._energy is None:
            raise RuntimeError("No unary energies yet: call setUnaryEnergy before inference.")
        return self._energy

    def _updated(self, q: Tensor) -> Tensor:
        """softmax(-U - sum_m C_m K_m q): (1, N, L)."""
        return torch.softmax(-self._unary() - self._messages(q), dim=-1)

    def _messages(self, q: Tensor) -> Tensor:
        """sum_m C_m K_m q: (1, N, L)."""
        total = torch.zeros_like(q)
        with torch.autocast("cpu", enabled=False):  # float32 whatever surrounds the call
            for kernel, energy in self._pairwise:
                total = total + rows.product(kernel(q), energy.t())
        return total

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
            f"{len(self._pairwise)} kernels"
        )


class DenseCRF2D(DenseCRF):
    """A fully connected CRF over the pixels of an image.

    Args:
        w: width W, pixels. The width comes first.
        h: height H, pixels.
        nlabels: L.
    """

    def __init__(self, w: int, h: int, nlabels: int) -> None:
        check_count("w", w, 1)
        check_count("h", h, 1)
        super().__init__(int(w) * int(h), nlabels)
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
            f"{len(self._pairwise)} kernels"
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


def _labels_first(q: Tensor) -> Floats:
    """(1, N, L) -> (L, N), its own memory."""
    return np.ascontiguousarray(q[0].numpy().T)
