"""The layer against a published implementation: the images of crf_reference.npz.

The volume is in test_densecrf.py, the CRF-as-RNN layer in test_importers.py.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from crfrnn import CrfRnn
from tests.crfrnn.published import IMAGES, REFERENCE, settings


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
