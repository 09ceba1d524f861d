"""What holds for every grid, label count, feature dimension and normalisation (hypothesis)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from crfrnn import CrfRnn
from crfrnn.filters import NORMALIZATIONS, LatticeFilter, Normalization
from crfrnn.kernels import KernelConfig
from crfrnn.lattice import elevate, named
from tests.crfrnn.problems import written_layer

Inputs = tuple[Tensor, Tensor, dict[str, Tensor], Tensor]  # unary, image, guides, mask


@dataclass(frozen=True)
class Case:
    """A layer and its input, by the numbers that make them; channels are those of the guide."""

    shape: tuple[int, ...]
    batch: int = 2
    num_labels: int = 3
    channels: int = 2
    normalization: Normalization = "symmetric"
    anisotropic: bool = False
    seed: int = 0

    def layer(self, spatial: str, other: str, **options: Any) -> CrfRnn:
        """Three kernels, each with random matrices and, if anisotropic, widths for each axis."""
        generator = torch.Generator().manual_seed(self.seed)

        def widths(low: float, count: int) -> Any:
            drawn = (low * (1 + torch.rand(count, generator=generator))).tolist()
            return drawn if self.anisotropic else drawn[0]

        guided = KernelConfig(theta_guide=widths(0.7, self.channels), filter=other)  # type: ignore[arg-type]
        crf = CrfRnn(
            self.num_labels,
            theta_alpha=widths(2, len(self.shape)),
            theta_beta=widths(60, 3),
            theta_gamma=widths(1, len(self.shape)),
            spatial_filter=spatial,  # type: ignore[arg-type]
            bilateral_filter=other,  # type: ignore[arg-type]
            further_kernels={"guide": guided},
            kernel_weights="matrix",
            normalization=self.normalization,
            num_iterations=2,
            window_radius=2,
            **options,
        )
        for name, parameter in crf.potentials.named_parameters():
            if "log_theta" not in name:
                parameter.data = torch.rand(parameter.shape, generator=generator) / self.num_labels
        return crf.double()

    def inputs(self, dtype: torch.dtype = torch.float64) -> Inputs:
        """At least one pixel of every image is no padding."""
        generator = torch.Generator().manual_seed(self.seed + 1)

        def uniform(channels: int) -> Tensor:
            size = (self.batch, channels, *self.shape)
            return torch.rand(size, generator=generator, dtype=torch.float64).to(dtype)

        mask = uniform(1)[:, 0] > 0.3
        mask.view(self.batch, -1)[:, -1] = True
        # Not a multiple of anything: no pixel lies on the face of a simplex.
        image = 1 + 253 * uniform(3)
        return 4 * uniform(self.num_labels), image, {"guide": 3 * uniform(self.channels)}, mask


cases = st.builds(
    Case,
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple),
    batch=st.integers(1, 3),
    num_labels=st.sampled_from([1, 2, 3, 8, 21]),
    channels=st.integers(1, 8),
    normalization=st.sampled_from(NORMALIZATIONS),
    anisotropic=st.booleans(),
    seed=st.integers(0, 1000),
)
FILTERS = [("separable", "lattice"), ("lattice", "lattice"), ("exact", "exact"), ("window",) * 2]

EDGES = (
    Case(shape=(1, 1), batch=1),
    Case(shape=(3, 2), num_labels=1),
    Case(shape=(2, 2), num_labels=256, batch=1),
    Case(shape=(4, 3), channels=8),
    Case(shape=(2, 3, 2), anisotropic=True),
)


def property_of(*edges: Case) -> Callable[[Any], Any]:
    """A test of drawn cases, and of those that must not be left out."""

    def decorate(test: Any) -> Any:
        for edge in EDGES + edges:
            test = example(case=edge)(test)
        return given(case=cases)(test)

    return decorate


def close(actual: Tensor, expected: Tensor) -> None:
    """Equal up to the order of a few hundred float64 additions, through two iterations."""
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


@property_of()
def test_the_layer_is_the_sum_over_all_pairs(case: Case) -> None:
    """Kernels, normalisation, mask and update, written out in NumPy."""
    crf, inputs = case.layer("separable", "exact"), case.inputs()
    close(crf(*inputs), written_layer(crf, *inputs))


@pytest.mark.parametrize(("dim", "accuracy"), [*enumerate(["standard", "fine"] * 4, 1)])
def test_translation_by_a_lattice_vector_changes_nothing(accuracy: Any, dim: int) -> None:
    """Any other translation moves pixels inside their simplices, and so changes the error."""
    features = 3 * torch.rand(1, 40, dim, dtype=torch.float64)
    v = torch.rand(1, 40, 3, dtype=torch.float64)
    scale = named(accuracy).scale
    elevation = elevate(torch.eye(dim, dtype=torch.float64), scale)  # (d + 1, d)
    steps = (dim + 1) * torch.eye(dim + 1, dtype=torch.float64) - 1  # u_0, ..., u_d
    vector = 2 * steps[0] - 3 * steps[-1]
    shift = torch.linalg.lstsq(elevation, vector[:, None]).solution[:, 0]
    close(LatticeFilter(features + shift, accuracy)(v), LatticeFilter(features, accuracy)(v))


@pytest.mark.parametrize("filters", FILTERS, ids="-".join)
@property_of()
def test_padding_neither_sends_nor_receives(filters: tuple[str, str], case: Case) -> None:
    crf, (unary, image, guides, mask) = case.layer(*filters), case.inputs()
    expected = crf(unary, image, guides, mask)
    padding = ~mask[:, None]
    # What is in it does not show, in any bit, and it keeps its unary.
    others = [torch.where(padding, x.flip(0) / 2 + 9, x) for x in (unary, image, guides["guide"])]
    other = crf(others[0], others[1], {"guide": others[2]}, mask)
    assert torch.equal(other, torch.where(padding, others[0], expected))
    # More of it at the end changes nothing.
    pads = [0, 2] * len(case.shape)
    padded = [F.pad(x, pads) for x in (unary, image, guides["guide"], mask)]
    more = crf(padded[0], padded[1], {"guide": padded[2]}, padded[3])
    close(more[(..., *(slice(n) for n in case.shape))], expected)


# More pixels than one product of rows takes.
@pytest.mark.parametrize(
    ("filters", "dtype"), [*zip(FILTERS, [torch.float32, torch.float64] * 2, strict=True)]
)
@property_of(Case(shape=(23, 25)))
def test_a_batch_is_one_image_after_the_other(filters, dtype, case) -> None:
    """Logits, and the gradients of unary, image and guide, bit for bit."""
    crf, (unary, image, guides, mask) = case.layer(*filters, learn_theta=True), case.inputs(dtype)

    def results(images: slice) -> list[Tensor]:
        leaves = [x[images].clone().requires_grad_() for x in (unary, image, guides["guide"])]
        out = crf(leaves[0], leaves[1], {"guide": leaves[2]}, mask[images])
        return [out, *torch.autograd.grad(out.square().sum(), leaves)]

    alone = [results(slice(b, b + 1)) for b in range(case.batch)]
    for whole, parts in zip(results(slice(None)), zip(*alone, strict=True), strict=True):
        assert torch.equal(whole, torch.cat(parts))
        assert whole.isfinite().all()


@pytest.mark.parametrize(
    ("filters", "learn_theta", "case"),
    [
        (FILTERS[0], False, Case(shape=(61, 53), num_labels=21, batch=1, channels=3)),
        (FILTERS[0], True, Case(shape=(61, 53), num_labels=21, batch=1, channels=3)),
        (FILTERS[0], True, Case(shape=(700,), num_labels=2, channels=1, anisotropic=True)),
        (FILTERS[1], True, Case(shape=(9, 11, 12), num_labels=5, normalization="after")),
        (FILTERS[2], True, Case(shape=(24, 23), num_labels=5, batch=1, normalization="before")),
        (FILTERS[3], True, Case(shape=(209,), num_labels=5, normalization="none")),
    ],
)
def test_the_number_of_threads_does_not_show(filters, learn_theta, case, threads) -> None:
    """Logits and every gradient, bit for bit; 1 is tried twice: nor does repetition."""
    crf = case.layer(*filters, learn_theta=learn_theta, learn_unary_scale=True)
    unary, image, guides, mask = case.inputs(torch.float32)
    first: list[Tensor] = []
    for count in (1, 1, 2, 3):
        threads(count)
        leaves = [x.clone().requires_grad_() for x in (unary, image, guides["guide"])]
        inputs = leaves if learn_theta else leaves[:1]
        out = crf(leaves[0], leaves[1], {"guide": leaves[2]}, mask)
        wanted = [*inputs, *(p for p in crf.parameters() if p.requires_grad)]
        results = [out, *torch.autograd.grad(out.square().sum(), wanted)]
        first = first or results
        for result, expected in zip(results, first, strict=True):
            assert torch.equal(result, expected)
