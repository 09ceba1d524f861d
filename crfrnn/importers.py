"""Weights of other CRF layers, brought into `CrfRnn`.

The public PyTorch layers of CRF-as-RNN (Zheng et al., ICCV 2015) compute

    x_{t+1} = unary + C (S (K_s q_t) + B (K_b q_t)),   q_t = softmax(x_t)

with C, S and B of (L, L) and both kernels normalised "after". Their messages are ADDED,
the penalty of `CrfRnn` is subtracted: mu = -C, W_s = S, W_b = B.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crfrnn.arrays import Array
from crfrnn.crf import CrfRnn
from crfrnn.kernels import FilterName

SPATIAL = "spatial_ker_weights"
BILATERAL = "bilateral_ker_weights"
COMPATIBILITY = "compatibility_matrix"
KEYS = (SPATIAL, BILATERAL, COMPATIBILITY)


def from_crfasrnn(
    state: Mapping[str, Tensor | Array],
    *,
    prefix: str | None = None,
    theta_alpha: float = 160.0,
    theta_beta: float = 3.0,
    theta_gamma: float = 3.0,
    num_iterations: int = 5,
    num_iterations_eval: int = 10,
    spatial_filter: FilterName = "lattice",
) -> CrfRnn:
    """A `CrfRnn` that computes what a trained PyTorch CRF-as-RNN layer computes.

    The three matrices are in the state; the widths and the number of iterations are not:
    the defaults are that layer's own (and 10 iterations at test, as its network uses).
    Call the result as `crf(unary, image)`; that layer takes the image first. Its image may
    be mean-subtracted or BGR, since the kernel only sees differences; here it is RGB in
    0..255.

    Args:
        state: the layer's state_dict, or arrays by the same names; or the state_dict of a
            whole network that holds it. Not modified.
        prefix: what precedes the three names, such as "crfrnn."; None finds it. Below a
            prefix, nothing but the three may stand; without one, nothing else at all.
        theta_alpha: bilateral kernel, position, pixels.
        theta_beta: bilateral kernel, colour, grey levels.
        theta_gamma: spatial kernel, position, pixels.
        num_iterations: T in train mode.
        num_iterations_eval: T in eval mode.
        spatial_filter: "lattice" is what that layer uses; "separable" is exact and faster.

    Returns:
        A layer with full compatibility, L x L kernel weights and normalisation "after".

    Raises:
        ValueError: one of the three names is missing or something else is there, several
            layers without a prefix to tell them apart, shapes that are not one (L, L), values
            that are not finite.
        TypeError: a value that is no floating-point array or tensor.
    """
    matrices = _matrices(state, _only_prefix(state) if prefix is None else prefix)
    crf = CrfRnn.from_preset(
        "crf_rnn",
        len(matrices[COMPATIBILITY]),
        theta_alpha=theta_alpha,
        theta_beta=theta_beta,
        theta_gamma=theta_gamma,
        num_iterations=num_iterations,
        num_iterations_eval=num_iterations_eval,
        kernel_weights="matrix",
        compatibility="full",
        spatial_filter=spatial_filter,
    )
    _assign(crf, matrices)
    return crf


def _assign(crf: CrfRnn, matrices: Mapping[str, Tensor]) -> None:
    """The one place where their names and signs meet ours."""
    with torch.no_grad():
        crf.potentials.weight("spatial").copy_(matrices[SPATIAL])
        crf.potentials.weight("bilateral").copy_(matrices[BILATERAL])
        next(crf.potentials.compatibility.parameters()).copy_(-matrices[COMPATIBILITY])


def _only_prefix(state: Mapping[str, Any]) -> str:
    """Return what precedes the three names in `state`; raise where that is not one thing."""
    prefixes = {
        key.removesuffix(name) for key in state for name in KEYS if f".{key}".endswith(f".{name}")
    }
    if not prefixes:
        raise ValueError(
            f"state must hold {', '.join(KEYS)}, with or without a prefix; it has "
            f"{_shown(state)}. Pass the state_dict() of the CRF layer or of its network."
        )
    if len(prefixes) > 1:
        raise ValueError(
            f"state holds CRF weights under several prefixes, {sorted(prefixes)}: pass "
            "prefix= to choose one."
        )
    return prefixes.pop()


def _matrices(state: Mapping[str, Tensor | Array], prefix: str) -> dict[str, Tensor]:
    """The three (L, L) float32 matrices below the prefix."""
    below = {key.removeprefix(prefix): key for key in state if key.startswith(prefix)}
    missing = [prefix + name for name in KEYS if name not in below]
    if missing:
        raise ValueError(f"state lacks {', '.join(missing)}; it has {_shown(state)}.")
    extra = [key for name, key in below.items() if name not in KEYS]
    if extra:
        raise ValueError(
            f"state holds {_shown(extra)} beside {', '.join(KEYS)}: a layer with more parameters "
            "computes something else. If they belong to the network, pass the three alone."
        )
    matrices = {name: _matrix(below[name], state[below[name]]) for name in KEYS}
    shapes = {below[name]: tuple(matrix.shape) for name, matrix in matrices.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"the three matrices must be of one shape (L, L), got {shapes}.")
    return matrices


def _matrix(key: str, value: object) -> Tensor:
    """A finite, square float32 copy."""
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(value.copy())
    if not (isinstance(value, Tensor) and value.is_floating_point()):
        came = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{key} must be a floating-point tensor or array (L, L), got {came}.")
    if value.ndim != 2 or value.shape[0] != value.shape[1] or value.numel() == 0:
        raise ValueError(f"{key} must be (L, L), got {tuple(value.shape)}.")
    if not torch.isfinite(value).all():
        raise ValueError(f"{key} must be finite, got NaN or infinite values.")
    return value.detach().to("cpu", torch.float32)


def _shown(keys: Iterable[str]) -> str:
    """Up to eight names."""
    names = list(keys)
    rest = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return (", ".join(names[:8]) or "nothing") + rest
