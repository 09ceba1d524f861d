"""The layer against published implementations, and the weights of one of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from crfrnn import PRESETS, CrfRnn
from crfrnn.filters import LatticeFilter, Normalized
from crfrnn.importers import from_crfasrnn
from crfrnn.inference import mean_field
from crfrnn.kernels import rounded
from tests.crfrnn.problems import Array, image_cases

Reference = Mapping[str, Array]


def published(reference: Reference, name: str, spatial_filter: Any) -> tuple[Tensor, Tensor]:
    """(ours, theirs): the marginals of one case of the reference arrays, (L, N)."""
    given = image_cases(reference)[name]
    unary = torch.from_numpy(reference[f"{name}/unary_logits"])[None]
    image = torch.from_numpy(reference[f"{name}/image"]).permute(2, 0, 1)[None]
    crf = CrfRnn(
        unary.shape[1],
        theta_alpha=given["sxy"],
        theta_beta=given["srgb"],
        theta_gamma=given["sxy_gaussian"],
        normalization=given["normalization"],
        kernel_weights="matrix",
        num_iterations_eval=given["iterations"],
        spatial_filter=spatial_filter,
    ).eval()
    # That API's signs: a scalar attracts, a vector or a matrix is an energy.
    crf.potentials.compatibility.matrix.data = torch.eye(crf.num_labels)
    for kernel, key in (("spatial", "compat_gaussian"), ("bilateral", "compat_bilateral")):
        value = torch.tensor(given[key], dtype=torch.float32)
        if value.ndim == 0:
            matrix = -value * torch.eye(crf.num_labels)
        else:
            matrix = torch.diag(value) if value.ndim == 1 else (value + value.t()) / 2
        crf.potentials.weight(kernel).data = matrix
    q = crf(unary, image).softmax(1)[0].detach().flatten(1)
    return q, torch.from_numpy(reference[f"{name}/q"]).flatten(1)


@pytest.mark.data
def test_equals_the_cpp_dense_crf(reference: Reference) -> None:
    """With its own spatial lattice, and near it by default."""
    for name in image_cases(reference):
        ours, theirs = published(reference, name, "lattice")
        # The same arithmetic in another order, amplified by up to 10 sharpening iterations.
        assert (ours - theirs).abs().max() < 1e-3, name
        assert (ours.argmax(0) == theirs.argmax(0)).all(), name
        if name != "norm_none":  # there the lattice's own factor does not cancel
            ours, _ = published(reference, name, "separable")
            assert (ours.argmax(0) == theirs.argmax(0)).double().mean() >= 0.99, name
            assert (ours - theirs).abs().mean() < 0.01, name


@pytest.mark.data
def test_agrees_with_the_cpp_dense_crf_on_a_volume(reference: Reference) -> None:
    """A grey 3-D volume with generic features: the loop and the lattice are not tied to images."""
    guide = torch.from_numpy(reference["volume/guide"]).flatten()
    unary = torch.from_numpy(reference["volume/unary_logits"])
    depth, height, width = unary.shape[1:]
    place = torch.cartesian_prod(
        torch.arange(depth).float(), torch.arange(height).float(), torch.arange(width).float()
    )
    spatial = place / torch.tensor([2.0, 3.0, 3.0])
    bilateral = torch.cat([place / torch.tensor([4.0, 8.0, 8.0]), guide[:, None] / 20], dim=1)
    ones = torch.ones(1, len(guide), 1)
    kernels = [
        Normalized(LatticeFilter(features[None]), "symmetric", ones)
        for features in (spatial, bilateral)
    ]
    pairwise = [[-2 * torch.eye(2), -6 * torch.eye(2)]]
    logits = mean_field(unary.flatten(1).t()[None].contiguous(), kernels, pairwise, 5)
    theirs = torch.from_numpy(reference["volume/q"]).flatten(1)
    ours = logits.softmax(-1)[0].t()
    assert (ours.argmax(0) == theirs.argmax(0)).double().mean() >= 0.995
    assert (ours - theirs).abs().mean() < 0.01


# a public CRF-as-RNN layer: its own outputs, and strict loading of its weights


NAMES = ("spatial_ker_weights", "bilateral_ker_weights", "compatibility_matrix")
ARRAYS = dict(zip(NAMES, np.random.default_rng(0).normal(size=(3, 5, 5)).astype("f4"), strict=True))
State = dict[str, Any]


def with_prefix(prefix: str) -> State:
    return {prefix + name: torch.tensor(value) for name, value in ARRAYS.items()}


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


@pytest.mark.data
@pytest.mark.parametrize("spatial_filter", ["lattice", "separable"])
def test_equals_the_layer_and_its_gradients(spatial_filter: Any, reference: Reference) -> None:
    theirs = {k[9:]: torch.from_numpy(v) for k, v in reference.items() if k.startswith("crfasrnn/")}
    held = ("spatial_weights", "bilateral_weights", "compatibility")
    crf = from_crfasrnn(
        {name: theirs[key] for name, key in zip(NAMES, held, strict=True)},
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
