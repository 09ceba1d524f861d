"""Weights of a public CRF-as-RNN layer: its own outputs, and strict loading."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch

from crfrnn import PRESETS
from crfrnn.importers import from_crfasrnn
from crfrnn.kernels import rounded
from tests.crfrnn.problems import REFERENCE

ARRAYS = {
    "spatial_ker_weights": REFERENCE["crfasrnn/spatial_weights"],
    "bilateral_ker_weights": REFERENCE["crfasrnn/bilateral_weights"],
    "compatibility_matrix": REFERENCE["crfasrnn/compatibility"],
}
State = dict[str, Any]


def with_prefix(prefix: str) -> State:
    return {prefix + name: torch.tensor(value) for name, value in ARRAYS.items()}


# errors


@pytest.mark.parametrize(
    ("state", "error", "words"),
    [
        ({}, ValueError, r"must hold spatial_ker_weights.*it has nothing"),
        (with_prefix("crf.") | {"crf.gamma": 1}, ValueError, r"holds crf\.gamma beside"),
        (with_prefix("a.") | with_prefix("b."), ValueError, r"\['a\.', 'b\.'\]: pass prefix="),
        (ARRAYS | {"compatibility_matrix": np.eye(4)}, ValueError, r"one shape.*\(4, 4\)"),
        (ARRAYS | {"spatial_ker_weights": np.ones((5, 4))}, ValueError, r"\(L, L\), got \(5, 4"),
        (ARRAYS | {"spatial_ker_weights": np.full((5, 5), np.inf)}, ValueError, "be finite"),
        (ARRAYS | {"spatial_ker_weights": np.ones((5, 5), int)}, TypeError, "floating-point.*int"),
    ],
)
def test_loading_is_strict(state: State, error: type[Exception], words: str) -> None:
    """A missing matrix: trap 14."""
    with pytest.raises(error, match=words):
        from_crfasrnn(state)
    with pytest.raises(ValueError, match=r"lacks crf\.spatial_ker_weights"):
        from_crfasrnn(with_prefix("crfrnn."), prefix="crf.")


# oracle


@pytest.mark.parametrize("spatial_filter", ["lattice", "separable"])
def test_equals_the_layer_and_its_gradients(spatial_filter: Any) -> None:
    theirs = {k[9:]: torch.from_numpy(v) for k, v in REFERENCE.items() if k.startswith("crfasrnn/")}
    crf = from_crfasrnn(
        ARRAYS,
        theta_alpha=30,
        theta_beta=12,
        theta_gamma=3,
        num_iterations=4,
        spatial_filter=spatial_filter,
    )
    unary = theirs["unary_logits"][None].clone().requires_grad_()
    out = crf(unary, theirs["image"].permute(2, 0, 1)[None])
    out.backward(theirs["grad_out"][None])
    parts = crf.potentials
    pairs = {
        "out_logits": out[0],
        "grad_unary": unary.grad[0],  # type: ignore[index]
        "grad_spatial_weights": parts.weight("spatial").grad,
        "grad_bilateral_weights": parts.weight("bilateral").grad,
        "grad_compatibility": -parts.compatibility.matrix.grad,  # type: ignore[operator]
    }  # that layer ADDS its messages
    for name, ours in pairs.items():
        error = (ours - theirs[name]).norm() / theirs[name].norm()
        assert error < 0.02, f"{name}: relative L2 {error:.4f}"  # what is asked for


# parameters


@pytest.mark.parametrize(
    ("state", "prefix"),
    [
        (ARRAYS, None),
        (OrderedDict(with_prefix("module.crfrnn.") | {"module.conv.weight": torch.ones(1)}), None),
        ({name: value.astype(np.float64) for name, value in ARRAYS.items()}, None),
        (with_prefix("b.") | {k: v * 2 for k, v in with_prefix("a.").items()}, "b."),
    ],
)
def test_every_form_of_the_state_gives_a_layer_of_its_own(state: State, prefix: Any) -> None:
    state = {key: value + 0 for key, value in state.items()}
    crf = from_crfasrnn(state) if prefix is None else from_crfasrnn(state, prefix=prefix)
    for value in state.values():
        value[...] = 0  # the layer has copied it
    parts = crf.potentials
    for parameter, expected in (
        (parts.weight("spatial"), ARRAYS["spatial_ker_weights"]),
        (parts.weight("bilateral"), ARRAYS["bilateral_ker_weights"]),
        (next(parts.compatibility.parameters()), -ARRAYS["compatibility_matrix"]),
    ):
        assert torch.equal(parameter, torch.from_numpy(expected))
        assert parameter.requires_grad
    for name in ("theta_alpha", "theta_beta", "theta_gamma"):
        assert rounded(getattr(parts, name)) == getattr(PRESETS["crf_rnn"], name)
