"""The matrices on the label axis: where each form starts, and what it can become."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from crfrnn.label_matrices import (
    LabelMatrix,
    build_compatibility,
    build_kernel_weight,
    potts,
)

Build = Callable[..., LabelMatrix]

COMPATIBILITIES: dict[str, Build] = {
    "potts": partial(build_compatibility, "potts"),
    "diagonal": partial(build_compatibility, "diagonal"),
    "symmetric": partial(build_compatibility, "symmetric"),
    "full": partial(build_compatibility, "full"),
    "low_rank": partial(build_compatibility, "low_rank", rank=1),
}
WEIGHTS: dict[str, Build] = {
    "scalar": partial(build_kernel_weight, "scalar", value=2.5),
    "class": partial(build_kernel_weight, "class", value=2.5, nonnegative=True),
    "matrix": partial(build_kernel_weight, "matrix", value=2.5),
}
LEARNT = [*COMPATIBILITIES.values(), *WEIGHTS.values()][1:]
every_weight = pytest.mark.parametrize("form", WEIGHTS)


def scrambled(module: LabelMatrix) -> Any:
    """In float64, far from the start, and above any bound."""
    module = module.double()
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        noise = torch.rand(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data = 0.5 + noise
    return module


@pytest.mark.parametrize("num_sets", [None, 3])
def test_forms_are_their_formulas(num_sets: int | None) -> None:
    diagonal, symmetric, full, low_rank, scalar, per_class, matrix = (
        scrambled(build(num_labels=4, num_sets=num_sets)) for build in LEARNT
    )
    eye = torch.eye(4, dtype=torch.float64)
    assert torch.equal(full(), full.matrix)
    assert torch.equal(symmetric(), 0.5 * (symmetric.root + symmetric.root.transpose(-1, -2)))
    assert torch.equal(diagonal(), eye * diagonal.diagonal[..., None])
    factors = torch.einsum("...ir,...jr->...ij", low_rank.left, low_rank.right)
    # The same few products in another order: rounding only.
    torch.testing.assert_close(low_rank(), 1 - eye + factors, rtol=1e-14, atol=1e-14)
    assert torch.equal(scalar(), eye * scalar.scalar[..., None, None])
    assert torch.equal(per_class(), eye * per_class.diagonal[..., None])
    assert torch.equal(matrix(), matrix.matrix)


def test_starts_in_every_set() -> None:
    """The diagonal one is Potts but for a constant over labels, which no q sees."""
    for form, build in COMPATIBILITIES.items():
        mu = build(num_labels=4, num_sets=2)() + (1 if form == "diagonal" else 0)
        assert torch.equal(mu, potts(4).expand(2, 4, 4))
    for form in WEIGHTS:
        for value, nonnegative in ((0.0, True), (2.5, True), (-1.0, False)):
            weight: Any = build_kernel_weight(
                form,  # type: ignore[arg-type]
                4,
                value=value,
                nonnegative=nonnegative,
                num_sets=2,
            )
            assert torch.equal(weight(), (value * torch.eye(4)).expand(2, 4, 4))


def test_low_rank_leaves_its_start() -> None:
    """U random, V zero: the first step moves V, the second both. Two zeros would never move."""
    module: Any = build_compatibility("low_rank", 5, rank=2)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for step in range(2):
        optimizer.zero_grad()
        (module() - torch.randn(5, 5)).square().sum().backward()
        assert module.right.grad.abs().amin() > 0
        assert bool(module.left.grad.any()) == (step == 1)
        optimizer.step()


@every_weight
def test_descent_stops_at_zero_and_leaves_it_again(form: Any) -> None:
    """A start at zero is no trap, either."""
    weight = build_kernel_weight(form, 3, value=0.0, nonnegative=True)
    optimizer = torch.optim.SGD(weight.parameters(), lr=0.4)
    seen = []
    for gradient in (1, -2, 3, 1, -0.5, -2):  # w: 0, stays, 0.8, -0.4, stays, -0.2, 0.6
        optimizer.zero_grad()
        (gradient * weight().diagonal().mean() * (1 if form == "scalar" else 3)).backward()
        optimizer.step()
        seen.append(weight().diagonal().mean().item())
    assert seen == pytest.approx([0.0, 0.8, 0.0, 0.0, 0.0, 0.6])  # float32 sums


@pytest.mark.parametrize("builders", [COMPATIBILITIES, WEIGHTS], ids=["compatibility", "weight"])
def test_a_state_loads_into_its_own_form_alone(builders: dict[str, Build]) -> None:
    """Trap 14. With T = L = 1 no shape tells the forms apart: only the names do."""
    for form, build in builders.items():
        module = scrambled(build(num_labels=1, num_sets=1))
        for other_form, other_build in builders.items():
            other = other_build(num_labels=1, num_sets=1).double()
            if form == other_form:
                other.load_state_dict(module.state_dict())
                assert torch.equal(other(), module())
            else:
                with pytest.raises(RuntimeError, match=r"Missing key|Unexpected key"):
                    other.load_state_dict(module.state_dict())
