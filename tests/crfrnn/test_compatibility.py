"""The matrices on the label axis: where each form starts, and what it can become."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from crfrnn.filtering import ExactFilter
from crfrnn.inference import mean_field
from crfrnn.label_matrices import (
    LabelMatrix,
    build_compatibility,
    build_kernel_weight,
    lower_bound,
    potts,
)

COMPATIBILITY_OPTIONS: list[dict[str, Any]] = [
    {"form": "potts"},
    {"form": "diagonal"},
    {"form": "symmetric"},
    {"form": "full"},
    {"form": "low_rank", "rank": 2},
]
WEIGHTS = ["scalar", "class", "matrix"]
WEIGHT_OPTIONS: list[dict[str, Any]] = [
    {"form": form, "value": 2.5, "nonnegative": form == "class"} for form in WEIGHTS
]
MODULES: list[tuple[Callable[..., LabelMatrix], dict[str, Any]]] = [
    *((build_compatibility, options) for options in COMPATIBILITY_OPTIONS),
    *((build_kernel_weight, options) for options in WEIGHT_OPTIONS),
]
every_module = pytest.mark.parametrize(("build", "options"), MODULES)
every_learnt = pytest.mark.parametrize(("build", "options"), MODULES[1:])
every_weight = pytest.mark.parametrize("form", WEIGHTS)
tied_and_untied = pytest.mark.parametrize("num_sets", [None, 3])


def scrambled(module: LabelMatrix) -> LabelMatrix:
    """In float64, far from the start, and above any bound."""
    module = module.double()
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        noise = torch.rand(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data = 0.5 + noise
    return module


# shape


@every_module
@tied_and_untied
def test_shape(build: Any, options: dict[str, Any], num_sets: int | None) -> None:
    sets = () if num_sets is None else (num_sets,)
    for num_labels in (1, 3):
        if "rank" in options:
            options = options | {"rank": 1}
        module = build(num_labels=num_labels, num_sets=num_sets, **options)
        assert module().shape == (*sets, num_labels, num_labels)
        assert module().dtype == torch.float32
        assert module.double()().dtype == torch.float64


# oracle: the forms written out


@tied_and_untied
def test_forms_are_their_formulas(num_sets: int | None) -> None:
    def mu(form: Any, **options: Any) -> Any:
        return scrambled(build_compatibility(form, 4, num_sets=num_sets, **options))

    def w(form: Any) -> Any:
        return scrambled(build_kernel_weight(form, 4, value=1.0, num_sets=num_sets))

    full, symmetric, diagonal = mu("full"), mu("symmetric"), mu("diagonal")
    low_rank, scalar, per_class, matrix = mu("low_rank", rank=2), *map(w, WEIGHTS)
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


# invariants: the start


@pytest.mark.parametrize("options", COMPATIBILITY_OPTIONS)
def test_starts_at_potts(options: dict[str, Any]) -> None:
    mu = build_compatibility(num_labels=4, **options)()
    ones = torch.ones(4, 4) if options["form"] == "diagonal" else torch.zeros(4, 4)
    assert torch.equal(mu + ones, 1 - torch.eye(4))


def test_diagonal_start_is_potts_up_to_a_constant_over_labels() -> None:
    """For any weight matrix: the logits differ by a constant of each pixel, q does not."""
    generator = torch.Generator().manual_seed(0)
    unary = torch.randn(2, 7, 4, generator=generator, dtype=torch.float64)
    kernel = ExactFilter(torch.randn(2, 7, 2, generator=generator, dtype=torch.float64))
    weight = torch.randn(4, 4, generator=generator, dtype=torch.float64)

    def q(form: Any) -> Tensor:
        mu = build_compatibility(form, 4).double()()
        return mean_field(unary, [kernel], [[mu @ weight]], 3).softmax(-1)

    # Sums of a few dozen terms in float64: rounding only.
    torch.testing.assert_close(q("diagonal"), q("potts"), rtol=1e-10, atol=1e-10)


@every_weight
@pytest.mark.parametrize("value", [0.0, 2.5, 10])
@pytest.mark.parametrize("nonnegative", [False, True])
def test_starts_as_the_scalar(form: Any, value: float, nonnegative: bool) -> None:
    weight = build_kernel_weight(form, 4, value=value, nonnegative=nonnegative)
    assert torch.equal(weight(), value * torch.eye(4))


@every_learnt
def test_sets_start_equal_and_part(build: Any, options: dict[str, Any]) -> None:
    """A gradient that reaches one iteration's matrix moves that matrix alone."""
    module = build(num_labels=3, num_sets=2, **options)
    start = module().detach().clone()
    assert torch.equal(start[0], start[1])
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    module()[1].square().sum().backward()
    optimizer.step()
    assert torch.equal(module()[0], start[0])
    assert not torch.equal(module()[1], start[1])


def test_low_rank_leaves_its_start() -> None:
    """U random, V zero: the first step moves V, the second both. Two zeros would never move."""
    module: Any = build_compatibility("low_rank", 5, rank=2).double()
    target = torch.randn(5, 5, dtype=torch.float64)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for step in range(2):
        optimizer.zero_grad()
        (module() - target).square().sum().backward()
        assert module.right.grad.abs().amin() > 0
        assert bool(module.left.grad.any()) == (step == 1)
        optimizer.step()
    learnt = module().detach() - potts(5)
    # mu is of order 1, so what is not of rank 2 is float64 rounding, about 1e-16.
    assert torch.linalg.matrix_rank(learnt, atol=1e-12, rtol=0) == 2


def test_potts_never_learns() -> None:
    module = build_compatibility("potts", 3).requires_grad_(requires_grad=True)
    assert not list(module.parameters())
    assert not module().requires_grad


# the lower bound


@pytest.mark.parametrize(
    ("x", "grad", "expected"),
    [
        (2.0, 3.0, 3.0),  # above the bound the operator is the identity, whichever way
        (2.0, -3.0, -3.0),
        (-2.0, -3.0, -3.0),  # below, a step that raises x passes
        (-2.0, 3.0, 0.0),  # one that lowers it further does not
        (0.0, -3.0, -3.0),  # at the bound likewise: the identity start is not a trap
        (0.0, 3.0, 0.0),
    ],
)
def test_lower_bound_lets_a_step_back_through(x: float, grad: float, expected: float) -> None:
    tensor = torch.tensor([x], requires_grad=True)
    for bound, received in ((0.0, expected), (-torch.inf, grad)):
        out = lower_bound(tensor, bound)
        assert out.item() == max(x, bound)
        (ours,) = torch.autograd.grad(out, tensor, torch.tensor([grad]))
        assert ours.item() == received


@every_weight
def test_descent_stops_at_zero_and_leaves_it_again(form: Any) -> None:
    weight = build_kernel_weight(form, 3, value=1.0, nonnegative=True)
    optimizer = torch.optim.SGD(weight.parameters(), lr=0.4)
    seen = []
    for direction in (1, 1, 1, 1, -1, -1, -1):  # w: 1, 0.6, 0.2, -0.2, stays; then back
        optimizer.zero_grad()
        (direction * weight().diagonal().mean() * (1 if form == "scalar" else 3)).backward()
        optimizer.step()
        seen.append(weight().diagonal().mean().item())
    assert seen == pytest.approx([0.6, 0.2, 0.0, 0.0, 0.2, 0.6, 1.0])  # float32 sums
    assert torch.equal(build_kernel_weight(form, 3, value=-1.0)(), -torch.eye(3))  # without it


# gradient


@every_learnt
def test_gradient(build: Any, options: dict[str, Any]) -> None:
    module = scrambled(build(num_labels=3, num_sets=2, **options))
    parameters = tuple(module.parameters())
    assert torch.autograd.gradcheck(lambda *_: module(), parameters)
    assert torch.autograd.gradgradcheck(lambda *_: module(), parameters)


# compile, state


def test_compiles_whole() -> None:
    """The form with most in it: a bound that one entry is below, and sets."""
    torch.compiler.reset()
    module = build_kernel_weight("matrix", 3, value=2.5, nonnegative=True, num_sets=2)
    (parameter,) = module.parameters()
    parameter.data.view(-1)[0] = -0.5
    x = torch.randn(3, 3)
    results = []
    for call in (torch.compile(module, fullgraph=True, backend="aot_eager"), module):
        out = call()
        results.append((out.detach(), torch.autograd.grad((out * x).sum(), parameter)[0]))
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-6)  # float32, perhaps reordered


@every_module
def test_the_state_brings_the_matrix(build: Any, options: dict[str, Any]) -> None:
    module = scrambled(build(num_labels=3, num_sets=2, **options))
    other: nn.Module = build(num_labels=3, num_sets=2, **options).double()
    other.load_state_dict(module.state_dict())
    assert torch.equal(other(), module())


@pytest.mark.parametrize("build", [build_compatibility, build_kernel_weight])
def test_no_form_loads_the_state_of_another(build: Any) -> None:
    """Trap 14. With T = L = 1 no shape tells them apart: only the names do."""
    ones = {"num_labels": 1, "num_sets": 1}
    modules = [
        b(**o, **ones) if "rank" not in o else b(o["form"], rank=1, **ones)
        for b, o in MODULES
        if b is build
    ]
    for module in modules:
        for other in modules:
            if module is not other:
                with pytest.raises(RuntimeError, match=r"Missing key|Unexpected key"):
                    module.load_state_dict(other.state_dict())


# repr


def test_repr() -> None:
    low_rank = build_compatibility("low_rank", 3, rank=2)
    assert repr(low_rank) == "LowRank(3, rank=2, num_sets=None)"
    weight = build_kernel_weight("class", 3, value=0.5, nonnegative=True, num_sets=5)
    assert repr(weight) == "ClassWeight(3, value=0.5, nonnegative=True, num_sets=5)"
