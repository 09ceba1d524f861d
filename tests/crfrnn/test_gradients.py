"""The layer's gradients: every filter, normalisation and learnable quantity, by differences."""

from __future__ import annotations

from typing import Any

import pytest
import skimage.data
import torch
import torch.nn.functional as F
from torch import Tensor

from crfrnn import CrfRnn
from crfrnn.filters import NORMALIZATIONS
from crfrnn.frank_wolfe import FrankWolfe
from crfrnn.inference import MeanField
from crfrnn.kernels import KernelConfig
from tests.crfrnn.problems import assert_gradients, small_crf

FILTERS = [("exact", "exact"), ("separable", "lattice"), ("window", "window"), ("lattice",) * 2]
every_filter = pytest.mark.parametrize("filters", FILTERS, ids="-".join)


def learning(filters: tuple[str, str], **options: Any) -> CrfRnn:
    """A layer that learns all it can, with a kernel over a guide of its own."""
    spatial, bilateral = filters
    config = KernelConfig(theta_guide=0.7, filter=bilateral)  # type: ignore[arg-type]
    everything: dict[str, Any] = {
        "num_labels": 2, "theta_beta": 150.0, "kernel_weights": "matrix", "num_iterations": 2,
        "spatial_filter": spatial, "bilateral_filter": bilateral, "window_radius": 1,
        "features_gradient": "lattice", "further_kernels": {"embedding": config},
        "learn_theta": True, "learn_unary_scale": True, "learn_output_scale": True,
    }  # fmt: skip
    return small_crf(**everything | options)


def leaves(*shape: int, num_labels: int = 2) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """A unary, an image and a guide on the grid, all of which want a gradient."""
    generator = torch.Generator().manual_seed(0)

    def uniform(channels: int) -> Tensor:
        return torch.rand(1, channels, *shape, generator=generator, dtype=torch.float64)

    guides = {"embedding": uniform(2).requires_grad_()}
    unary, image = uniform(num_labels) * 2, uniform(3) * 255
    return unary.requires_grad_(), image.requires_grad_(), guides


@pytest.mark.parametrize(
    ("filters", "normalization", "shape"),
    [
        *[(filters, n, (3, 4)) for filters in FILTERS for n in NORMALIZATIONS],
        (FILTERS[0], "after", (2, 3, 2)),
        (FILTERS[1], "before", (2, 3, 2)),
        (FILTERS[1], "symmetric", (7,)),
    ],
)
def test_every_filter_and_normalisation(filters, normalization, shape) -> None:
    """Theta of each axis and channel; with padding, which every normalisation has to leave out."""
    mask = torch.ones(1, *shape, dtype=torch.bool)
    mask[:, -1], mask[..., -1] = False, False
    # Where a pixel is exactly on the face of a simplex, the set of vertices changes with theta,
    # and the lattice jumps: no width here puts one there.
    crf = learning(
        filters,
        normalization=normalization,
        theta_alpha=[3.1, 2.3, 2.7][: len(shape)],
        theta_beta=[150.0, 120.0, 100.0],
        theta_gamma=[1.3, 1.1, 1.7][: len(shape)],
    )
    assert_gradients(crf, *leaves(*shape), mask)


WITHOUT_SELF = {"self_term": False}
FORMS: list[tuple[tuple[str, str], dict[str, Any]]] = [
    *[(FILTERS[0], options) for options in (
        {"kernel_weights": "scalar", "untied": True},
        {"kernel_weights": "class", "nonnegative": True},
        {"compatibility": "potts"},
        {"compatibility": "diagonal"},
        {"compatibility": "symmetric", "untied": True},
        {"compatibility": "low_rank", "compatibility_rank": 2},
        {"inference": MeanField(damping=0.3, memory="recompute")},
        {"inference": FrankWolfe(step=0.5), "learn_step": True},
        {"unary_mixture": 0.3},
        WITHOUT_SELF,
    )],
    (("separable", "window"), WITHOUT_SELF | {"normalization": "after"}),
    (("separable", "exact"), WITHOUT_SELF | {"normalization": "before"}),
    (("exact", "window"), WITHOUT_SELF | {"normalization": "none"}),
]  # fmt: skip


@pytest.mark.parametrize(("filters", "options"), FORMS, ids=str)
def test_every_form_and_inference(filters: tuple[str, str], options: dict[str, Any]) -> None:
    crf = learning(filters, num_labels=3, **options)
    assert_gradients(crf, *leaves(2, 3, num_labels=3))


# the default on a lattice, which is no derivative of the lattice


def test_the_gaussian_derivative_is_nearer_to_that_of_the_exact_kernel() -> None:
    astronaut = skimage.data.astronaut()  # type: ignore[no-untyped-call]
    photo = torch.from_numpy(astronaut[20:212:8, 140:396:8].astype("float64"))
    image = photo.permute(2, 0, 1)[None].requires_grad_()
    noise = torch.Generator().manual_seed(0)
    unary = torch.randn(1, 3, 24, 32, generator=noise, dtype=torch.float64)
    target = torch.randint(0, 3, (1, 24, 32), generator=noise)

    widths: dict[str, Any] = {"theta_alpha": [12.0, 10.0], "theta_beta": [20.0, 25.0, 30.0]}

    def gradients(**options: Any) -> list[Tensor]:
        """To the image, and to the widths of the bilateral kernel."""
        crf = CrfRnn(
            3, num_iterations=2, bilateral_weight=3.0, spatial_weight=1.0, learn_theta=True,
            **widths, **options,
        ).double()  # fmt: skip
        bilateral = crf.potentials.kernel("bilateral")
        thetas = [bilateral.log_theta("position"), bilateral.log_theta("guide")]
        loss = F.cross_entropy(crf(unary, image), target)
        to_image, *to_theta = torch.autograd.grad(loss, [image, *thetas])
        return [to_image.flatten(), torch.cat(to_theta)]

    each = zip(
        gradients(bilateral_filter="exact"),
        gradients(),
        gradients(features_gradient="lattice"),
        strict=True,
    )
    for exact, gaussian, through_lattice in each:
        similarity = F.cosine_similarity(gaussian, exact, dim=0)
        assert similarity > 0.85  # 0.978 for the image, 0.999 for theta
        assert similarity > F.cosine_similarity(through_lattice, exact, dim=0)  # 0.826, 0.755


@pytest.mark.parametrize(
    ("filters", "name", "of"),
    [(("separable", "exact"), "spatial", "position"), (("exact", "lattice"), "bilateral", "guide")],
)
def test_a_second_derivative_that_is_not_defined_raises(filters, name, of) -> None:
    unary, image, guides = leaves(3, 4)
    crf = learning(filters)
    theta = crf.potentials.kernel(name).log_theta(of)
    (grad,) = torch.autograd.grad(
        crf(unary, image, guides).square().sum(), theta, create_graph=True
    )
    with pytest.raises(RuntimeError, match="no autograd formula was registered"):
        grad.sum().backward()  # type: ignore[no-untyped-call]


@every_filter
def test_a_second_derivative_in_the_unary_is_one(filters: tuple[str, str]) -> None:
    unary, image, guides = leaves(2, 3)
    crf = learning(filters).requires_grad_(requires_grad=False)

    def layer(unary: Tensor) -> Tensor:
        return crf(unary, image.detach(), guides)  # type: ignore[no-any-return]

    torch.autograd.gradgradcheck(layer, unary, fast_mode=True)
