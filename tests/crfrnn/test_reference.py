"""The layer against a published implementation: the images of crf_reference.npz.

The CRF-as-RNN layer is in test_importers.py.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from crfrnn import CrfRnn
from crfrnn.filters import LatticeFilter, Normalized
from crfrnn.inference import mean_field
from tests.crfrnn.problems import IMAGES, REFERENCE, settings


def published(name: str, spatial_filter: Any) -> tuple[Tensor, Tensor]:
    """(ours, theirs): the marginals of one case of the reference file, (L, N)."""
    given = settings(name)
    unary = torch.from_numpy(REFERENCE[f"{name}/unary_logits"])[None]
    image = torch.from_numpy(REFERENCE[f"{name}/image"]).permute(2, 0, 1)[None]
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
    return q, torch.from_numpy(REFERENCE[f"{name}/q"]).flatten(1)


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
