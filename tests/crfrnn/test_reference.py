"""The layer against published implementations: the cases of crf_reference.npz."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from crfrnn import CrfRnn
from crfrnn.filtering import LatticeFilter, Normalized
from crfrnn.inference import mean_field

REFERENCE = np.load(Path(__file__).parent / "crf_reference.npz")
META = {line.split(": ")[0]: line.split(": ", 1)[1] for line in REFERENCE["meta"].tolist()}


def published(name: str, spatial_filter: str) -> tuple[Tensor, Tensor]:
    """(ours, theirs): the marginals of one case of the reference file, (L, N)."""
    settings = dict(re.findall(r"(\w+)=(\[\[.*?\]\]|\[.*?\]|[\w.]+)", META[name]))
    unary = torch.from_numpy(REFERENCE[f"{name}/unary_logits"])[None]
    image = torch.from_numpy(REFERENCE[f"{name}/image"]).permute(2, 0, 1)[None]
    crf = CrfRnn(
        unary.shape[1],
        theta_alpha=float(settings["sxy"]),
        theta_beta=float(settings["srgb"]),
        theta_gamma=float(settings["sxy_gaussian"]),
        normalization=settings["normalization"],
        kernel_weights="matrix",
        num_iterations_eval=int(settings["iterations"]),
        spatial_filter=spatial_filter,  # type: ignore[arg-type]
    ).eval()
    # That API's signs: a scalar attracts, a vector or a matrix is an energy.
    crf.potentials.compatibility.matrix.data = torch.eye(crf.num_labels)
    for weight, key in (
        (crf.potentials.weight("spatial"), "compat_gaussian"),
        (crf.potentials.weight("bilateral"), "compat_bilateral"),
    ):
        value = torch.tensor(ast.literal_eval(settings[key]), dtype=torch.float32)
        if value.ndim == 0:
            weight.data = -value * torch.eye(crf.num_labels)
        else:
            weight.data = torch.diag(value) if value.ndim == 1 else (value + value.t()) / 2
    q = crf(unary, image).softmax(1)[0].detach().flatten(1)
    return q, torch.from_numpy(REFERENCE[f"{name}/q"]).flatten(1)


IMAGES = [name for name in META if f"{name}/image" in REFERENCE and name != "crfasrnn"]


@pytest.mark.parametrize("name", IMAGES)
def test_equals_the_cpp_dense_crf_with_its_own_spatial_lattice(name: str) -> None:
    ours, theirs = published(name, "lattice")
    # The same arithmetic in another order, amplified by up to 10 sharpening iterations.
    assert (ours - theirs).abs().max() < 1e-3
    assert (ours.argmax(0) == theirs.argmax(0)).all()


@pytest.mark.parametrize("name", [name for name in IMAGES if name != "norm_none"])
def test_agrees_with_the_cpp_dense_crf_by_default(name: str) -> None:
    ours, theirs = published(name, "separable")
    assert (ours.argmax(0) == theirs.argmax(0)).double().mean() >= 0.99
    assert (ours - theirs).abs().mean() < 0.01


def test_agrees_with_the_cpp_dense_crf_on_a_volume() -> None:
    """A grey 3-D volume with generic features: the loop and the lattice are not tied to images."""
    guide = torch.from_numpy(REFERENCE["volume/guide"]).flatten()
    unary = torch.from_numpy(REFERENCE["volume/unary_logits"])
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
    theirs = torch.from_numpy(REFERENCE["volume/q"]).flatten(1)
    ours = logits.softmax(-1)[0].t()
    assert (ours.argmax(0) == theirs.argmax(0)).double().mean() >= 0.995
    assert (ours - theirs).abs().mean() < 0.01


@pytest.mark.parametrize("spatial_filter", ["lattice", "separable"])
def test_agrees_with_a_crf_as_rnn_layer_and_its_gradients(spatial_filter: str) -> None:
    case = {k: torch.from_numpy(REFERENCE[f"crfasrnn/{k}"]) for k in
            ("image", "unary_logits", "out_logits", "grad_out", "grad_unary", "spatial_weights",
             "bilateral_weights", "compatibility", "grad_spatial_weights",
             "grad_bilateral_weights", "grad_compatibility")}  # fmt: skip
    crf = CrfRnn(
        5,
        theta_alpha=30,
        theta_beta=12,
        theta_gamma=3,
        kernel_weights="matrix",
        normalization="after",
        num_iterations=4,
        spatial_filter=spatial_filter,  # type: ignore[arg-type]
    )
    parts = crf.potentials
    parts.weight("spatial").data = case["spatial_weights"].clone()
    parts.weight("bilateral").data = case["bilateral_weights"].clone()
    parts.compatibility.matrix.data = -case["compatibility"]  # that layer ADDS its messages
    unary = case["unary_logits"][None].clone().requires_grad_()
    out = crf(unary, case["image"].permute(2, 0, 1)[None])
    out.backward(case["grad_out"][None])
    pairs = {
        "output": (out[0], case["out_logits"]),
        "unary": (unary.grad[0], case["grad_unary"]),  # type: ignore[index]
        "spatial": (parts.weight("spatial").grad, case["grad_spatial_weights"]),
        "bilateral": (
            parts.weight("bilateral").grad,
            case["grad_bilateral_weights"],
        ),
        "compatibility": (-parts.compatibility.matrix.grad, case["grad_compatibility"]),  # type: ignore[operator]
    }
    for name, (ours, theirs) in pairs.items():
        error = (ours - theirs).norm() / theirs.norm()
        assert error < 0.02, f"{name}: relative L2 {error:.4f}"
