"""Weights of a public CRF-as-RNN layer: its own outputs and gradients, and strict loading."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from crfrnn import PRESETS, CrfRnn
from crfrnn.importers import from_crfasrnn
from crfrnn.kernels import rounded
from tests.crfrnn.published import REFERENCE

CASE = {
    key.removeprefix("crfasrnn/"): REFERENCE[key]
    for key in REFERENCE.files
    if key.startswith("crfasrnn/")
}
ARRAYS = {
    "spatial_ker_weights": CASE["spatial_weights"],
    "bilateral_ker_weights": CASE["bilateral_weights"],
    "compatibility_matrix": CASE["compatibility"],
}
State = dict[str, Any]


def with_prefix(prefix: str) -> State:
    return {prefix + name: torch.tensor(value) for name, value in ARRAYS.items()}


def without(name: str) -> State:
    return {key: value for key, value in ARRAYS.items() if key != name}


def compatibility(crf: CrfRnn) -> Tensor:
    """The parameter behind mu."""
    parameter: Tensor = next(crf.potentials.compatibility.parameters())
    return parameter


# errors


@pytest.mark.parametrize(
    ("state", "error", "words"),
    [
        ({}, ValueError, r"must hold spatial_ker_weights.*it has nothing"),
        (with_prefix("old_"), ValueError, "must hold spatial_ker_weights"),
        (without("compatibility_matrix"), ValueError, "lacks compatibility_matrix"),
        (with_prefix("crf.") | {"crf.gamma": 1}, ValueError, r"holds crf\.gamma beside"),
        (with_prefix("a.") | with_prefix("b."), ValueError, r"\['a\.', 'b\.'\]: pass prefix="),
        (ARRAYS | {"compatibility_matrix": np.eye(4)}, ValueError, r"one shape.*\(4, 4\)"),
        (ARRAYS | {"spatial_ker_weights": np.ones((5, 4))}, ValueError, r"\(L, L\), got \(5, 4"),
        (ARRAYS | {"spatial_ker_weights": np.full((5, 5), np.inf)}, ValueError, "be finite"),
        (ARRAYS | {"spatial_ker_weights": np.ones((5, 5), int)}, TypeError, "floating-point.*int"),
    ],
)
def test_loading_is_strict(state: State, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        from_crfasrnn(state)


def test_a_prefix_that_is_given_must_fit() -> None:
    with pytest.raises(ValueError, match=r"lacks crf\.spatial_ker_weights"):
        from_crfasrnn(with_prefix("crfrnn."), prefix="crf.")


# oracle


@pytest.mark.parametrize("spatial_filter", ["lattice", "separable"])
def test_equals_the_layer_and_its_gradients(spatial_filter: Any) -> None:
    crf = from_crfasrnn(
        ARRAYS,
        theta_alpha=30,
        theta_beta=12,
        theta_gamma=3,
        num_iterations=4,
        spatial_filter=spatial_filter,
    )
    unary = torch.from_numpy(CASE["unary_logits"])[None].requires_grad_()
    out = crf(unary, torch.from_numpy(CASE["image"]).permute(2, 0, 1)[None])
    parts = crf.potentials
    wanted = [unary, parts.weight("spatial"), parts.weight("bilateral"), compatibility(crf)]
    grads = torch.autograd.grad(out, wanted, torch.from_numpy(CASE["grad_out"])[None])
    pairs = {
        "out_logits": out[0],
        "grad_unary": grads[0][0],
        "grad_spatial_weights": grads[1],
        "grad_bilateral_weights": grads[2],
        "grad_compatibility": -grads[3],  # mu = -C
    }
    for name, ours in pairs.items():
        theirs = torch.from_numpy(CASE[name])
        error = ((ours - theirs).norm() / theirs.norm()).item()
        assert error < 0.02, f"{name}: relative L2 {error:.4f}"  # what is asked for


# parameters


@pytest.mark.parametrize(
    "state",
    [
        ARRAYS,
        with_prefix(""),
        OrderedDict(with_prefix("module.crfrnn.") | {"module.conv.weight": torch.ones(1)}),
        {name: value.astype(np.float64) for name, value in ARRAYS.items()},
    ],
)
def test_every_form_of_the_state_gives_a_layer_of_its_own(state: State) -> None:
    state = {key: value + 0 for key, value in state.items()}
    crf = from_crfasrnn(state)
    for value in state.values():
        value[...] = 0  # the layer has copied it
    for name in ("spatial", "bilateral"):
        expected = torch.from_numpy(CASE[f"{name}_weights"])
        assert torch.equal(crf.potentials.weight(name), expected)
    assert torch.equal(compatibility(crf), -torch.from_numpy(CASE["compatibility"]))
    assert all(p.dtype == torch.float32 and p.requires_grad for p in crf.parameters())


def test_one_of_several_layers_by_its_prefix() -> None:
    other = {key: value * 2 for key, value in with_prefix("b.").items()}
    crf = from_crfasrnn(with_prefix("a.") | other, prefix="b.")
    assert torch.equal(compatibility(crf), -2 * torch.from_numpy(CASE["compatibility"]))


def test_the_defaults_are_those_of_the_layer() -> None:
    crf = from_crfasrnn(ARRAYS)
    for name in ("theta_alpha", "theta_beta", "theta_gamma"):
        assert rounded(getattr(crf.potentials, name)) == getattr(PRESETS["crf_rnn"], name)
    assert (crf.num_iterations, crf.num_iterations_eval) == (5, 10)
    assert crf.potentials.normalization == "after"
