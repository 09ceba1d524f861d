"""Weights of a public CRF-as-RNN layer: its own outputs and gradients, and strict loading."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from crfrnn import PRESETS, CrfRnn
from crfrnn.importers import from_crfasrnn
from crfrnn.kernels import rounded

REFERENCE = np.load(Path(__file__).parent / "crf_reference.npz")
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


# errors


def compatibility(crf: CrfRnn) -> Tensor:
    """The parameter behind mu."""
    parameter: Tensor = next(crf.potentials.compatibility.parameters())
    return parameter


def without(name: str) -> State:
    return {key: value for key, value in ARRAYS.items() if key != name}


@pytest.mark.parametrize(
    ("state", "error", "message"),
    [
        ({}, ValueError, r"must hold spatial_ker_weights.*it has nothing"),
        ({"conv.weight": ARRAYS}, ValueError, r"it has conv\.weight"),
        (with_prefix("old_"), ValueError, "must hold spatial_ker_weights"),
        (without("compatibility_matrix"), ValueError, "lacks compatibility_matrix"),
        (without("spatial_ker_weights"), ValueError, "lacks spatial_ker_weights; it has bilat"),
        (ARRAYS | {"gamma": np.ones(1)}, ValueError, "holds gamma beside"),
        (with_prefix("crf.") | {"crf.gamma": 1}, ValueError, r"holds crf\.gamma beside"),
        (with_prefix("a.") | with_prefix("b."), ValueError, r"\['a\.', 'b\.'\]: pass prefix="),
        (ARRAYS | {"compatibility_matrix": np.eye(4)}, ValueError, r"one shape.*\(4, 4\)"),
        (ARRAYS | {"spatial_ker_weights": np.ones(5)}, ValueError, r"weights must be \(L, L\)"),
        (ARRAYS | {"spatial_ker_weights": np.ones((5, 4))}, ValueError, r"got \(5, 4\)"),
        (ARRAYS | {"spatial_ker_weights": np.full((5, 5), np.inf)}, ValueError, "be finite"),
        (ARRAYS | {"spatial_ker_weights": np.ones((5, 5), int)}, TypeError, "floating-point.*int"),
        (ARRAYS | {"spatial_ker_weights": 3.0}, TypeError, r"\(L, L\), got float"),
    ],
)
def test_loading_is_strict(state: State, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
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
    image = torch.from_numpy(CASE["image"]).permute(2, 0, 1)[None]
    out = crf(unary, image)
    out.backward(torch.from_numpy(CASE["grad_out"])[None])

    def gradient(of: Tensor) -> Tensor:
        assert of.grad is not None
        return of.grad

    pairs: dict[str, tuple[Tensor, str]] = {
        "output": (out[0], "out_logits"),
        "unary": (gradient(unary)[0], "grad_unary"),
        "spatial": (
            gradient(crf.potentials.weight("spatial")),
            "grad_spatial_weights",
        ),
        "bilateral": (
            gradient(crf.potentials.weight("bilateral")),
            "grad_bilateral_weights",
        ),
        # mu = -C, so the gradients differ in sign as well
        "compatibility": (-gradient(compatibility(crf)), "grad_compatibility"),
    }
    for name, (ours, key) in pairs.items():
        theirs = torch.from_numpy(CASE[key])
        error = ((ours - theirs).norm() / theirs.norm()).item()
        assert error < 0.02, f"{name}: relative L2 {error:.4f}"  # what is asked for


# parameters


@pytest.mark.parametrize(
    "state",
    [
        lambda: ARRAYS,
        lambda: with_prefix(""),
        lambda: with_prefix("crf."),
        lambda: OrderedDict(with_prefix("module.crfrnn.") | {"module.conv.weight": torch.ones(1)}),
        lambda: {name: value.astype(np.float64) for name, value in ARRAYS.items()},
    ],
)
def test_every_form_of_the_state_gives_the_same_layer(state: Callable[[], State]) -> None:
    crf = from_crfasrnn(state())
    assert torch.equal(crf.potentials.weight("spatial"), torch.from_numpy(CASE["spatial_weights"]))
    assert torch.equal(
        crf.potentials.weight("bilateral"),
        torch.from_numpy(CASE["bilateral_weights"]),
    )
    assert torch.equal(compatibility(crf), -torch.from_numpy(CASE["compatibility"]))
    assert all(p.dtype == torch.float32 for p in crf.parameters())


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
    assert compatibility(crf).requires_grad


def test_the_state_is_copied() -> None:
    state = with_prefix("")
    crf = from_crfasrnn(state)
    for value in state.values():
        value.data.zero_()
    assert compatibility(crf).abs().sum() > 0
    assert crf.potentials.weight("spatial").abs().sum() > 0
