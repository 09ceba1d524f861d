"""The matrices on the label axis: where each form starts, what it can become, what it refuses."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from crfrnn.compatibility import LabelMatrix, build_compatibility, potts
from crfrnn.filtering import ExactFilter
from crfrnn.inference import mean_field
from crfrnn.kernel_weights import KernelWeight, build_kernel_weight
from crfrnn.lower_bound import lower_bound

COMPATIBILITY_OPTIONS: list[dict[str, Any]] = [
    {"form": "potts"},
    {"form": "diagonal"},
    {"form": "symmetric"},
    {"form": "full"},
    {"form": "low_rank", "rank": 2},
]
WEIGHT_OPTIONS: list[dict[str, Any]] = [
    {"form": form, "value": 2.5, "nonnegative": nonnegative}
    for form in ("scalar", "class", "matrix")
    for nonnegative in (False, True)
]
MODULES: list[tuple[Callable[..., LabelMatrix], dict[str, Any]]] = [
    *((build_compatibility, options) for options in COMPATIBILITY_OPTIONS),
    *((build_kernel_weight, options) for options in WEIGHT_OPTIONS),
]
every_module = pytest.mark.parametrize(("build", "options"), MODULES)
every_learnt = pytest.mark.parametrize(
    ("build", "options"), [m for m in MODULES if m[1]["form"] != "potts"]
)
every_compatibility = pytest.mark.parametrize("options", COMPATIBILITY_OPTIONS)
every_weight = pytest.mark.parametrize("form", ["scalar", "class", "matrix"])


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
@pytest.mark.parametrize("num_sets", [None, 1, 4])
def test_shape(build: Any, options: dict[str, Any], num_sets: int | None) -> None:
    sets = () if num_sets is None else (num_sets,)
    module = build(num_labels=3, num_sets=num_sets, **options)
    assert module().shape == (*sets, 3, 3)
    assert module().dtype == torch.float32
    assert module.double()().dtype == torch.float64


# errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "pots"}, "compatibility must be one of .*Did you mean 'potts'"),
        ({"form": "lowrank", "rank": 2}, "Did you mean 'low_rank'"),
        ({"form": None}, "compatibility must be one of"),
        ({"form": "low_rank"}, "rank goes with .*rank=None"),
        ({"form": "full", "rank": 2}, "rank goes with .*'full' and rank=2"),
        ({"form": "low_rank", "rank": 0}, "rank must be an integer of at least 1, got 0"),
        ({"form": "low_rank", "rank": 4}, "rank must be at most the number of labels, 3, got 4"),
        ({"form": "low_rank", "rank": 1.0}, "rank must be an integer .*got 1.0"),
        ({"form": "low_rank", "rank": True}, "rank must be an integer .*got True"),
        ({"form": "full", "num_labels": 0}, "num_labels must be an integer of at least 1"),
        ({"form": "full", "num_labels": "3"}, "num_labels must be an integer .*got '3'"),
        ({"form": "full", "num_sets": 0}, "num_sets must be an integer of at least 1"),
        ({"form": "potts", "num_sets": 2.0}, "num_sets must be an integer .*got 2.0"),
    ],
)
def test_bad_compatibility(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_compatibility(**({"num_labels": 3} | options))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"form": "clas"}, ValueError, "kernel_weights must be one of .*Did you mean 'class'"),
        ({"value": float("nan")}, ValueError, "value must be a finite number, got nan"),
        ({"value": "3"}, ValueError, "value must be a finite number, got '3'"),
        ({"value": torch.ones(3)}, ValueError, "value must be a finite number, got tensor"),
        ({"value": -1, "nonnegative": True}, ValueError, "at least 0 .*got -1.*nonnegative=False"),
        ({"nonnegative": 1}, TypeError, "nonnegative must be True or False, got 1"),
        ({"num_labels": -2}, ValueError, "num_labels must be an integer of at least 1"),
        ({"num_sets": 0}, ValueError, "num_sets must be an integer of at least 1"),
    ],
)
def test_bad_weight(options: dict[str, Any], error: type[Exception], message: str) -> None:
    good: dict[str, Any] = {"form": "class", "num_labels": 3, "value": 1.0}
    with pytest.raises(error, match=message):
        build_kernel_weight(**(good | options))


@pytest.mark.parametrize("build", [build_compatibility, build_kernel_weight])
def test_no_form_loads_the_state_of_another(build: Any) -> None:
    """Trap 14. With T = L = 1 no shape tells them apart: only the names do."""
    modules = [b(num_labels=1, num_sets=1, **{**o, **({"rank": 1} if "rank" in o else {})})
               for b, o in MODULES if b is build and not o.get("nonnegative")]  # fmt: skip
    for i, module in enumerate(modules):
        for j, other in enumerate(modules):
            if i != j:
                with pytest.raises(RuntimeError, match=r"Missing key|Unexpected key"):
                    module.load_state_dict(other.state_dict())


# oracle: the forms written out


@pytest.mark.parametrize("num_sets", [None, 3])
def test_forms_are_their_formulas(num_sets: int | None) -> None:
    def build(form: str, **options: Any) -> Any:
        return scrambled(build_compatibility(form, 4, num_sets=num_sets, **options))  # type: ignore[arg-type]

    full, symmetric = build("full"), build("symmetric")
    diagonal, low_rank = build("diagonal"), build("low_rank", rank=2)
    eye = torch.eye(4, dtype=torch.float64)
    factors = torch.einsum("...ir,...jr->...ij", low_rank.left, low_rank.right)
    assert torch.equal(full(), full.matrix)
    assert torch.equal(symmetric(), 0.5 * (symmetric.root + symmetric.root.transpose(-1, -2)))
    assert torch.equal(symmetric(), symmetric().mT)
    assert torch.equal(diagonal(), eye * diagonal.diagonal[..., None])
    # The same few products in another order: rounding only.
    torch.testing.assert_close(low_rank(), 1 - eye + factors, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("num_sets", [None, 3])
def test_weights_are_their_formulas(num_sets: int | None) -> None:
    def build(form: str) -> Any:
        return scrambled(build_kernel_weight(form, 4, value=1.0, num_sets=num_sets))  # type: ignore[arg-type]

    scalar, per_class, matrix = build("scalar"), build("class"), build("matrix")
    eye = torch.eye(4, dtype=torch.float64)
    assert torch.equal(scalar(), eye * scalar.scalar[..., None, None])
    assert torch.equal(per_class(), eye * per_class.diagonal[..., None])
    assert torch.equal(matrix(), matrix.matrix)


# invariants: the start


@every_compatibility
def test_starts_at_potts(options: dict[str, Any]) -> None:
    mu = build_compatibility(num_labels=4, **options)()
    ones = torch.ones(4, 4) if options["form"] == "diagonal" else torch.zeros(4, 4)
    assert torch.equal(mu + ones, potts(4))


def test_diagonal_start_is_potts_up_to_a_constant_over_labels() -> None:
    """For any weight matrix: the logits differ by a constant of each pixel, q does not."""
    generator = torch.Generator().manual_seed(0)
    unary = torch.randn(2, 7, 4, generator=generator, dtype=torch.float64)
    kernel = ExactFilter(torch.randn(2, 7, 2, generator=generator, dtype=torch.float64))
    weight = torch.randn(4, 4, generator=generator, dtype=torch.float64)

    def run(form: Any) -> Tensor:
        mu = build_compatibility(form, 4).double()()
        return mean_field(unary, [kernel], [[mu @ weight]], 3)

    difference = run("diagonal") - run("potts")
    assert difference.abs().amin() > 0.1
    # Sums of a few dozen terms in float64: rounding only.
    constant = difference.mean(-1, keepdim=True).expand_as(difference)
    torch.testing.assert_close(difference, constant, rtol=1e-10, atol=1e-10)
    q = run("potts").softmax(-1)
    torch.testing.assert_close(run("diagonal").softmax(-1), q, rtol=1e-10, atol=1e-10)


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
    with torch.random.fork_rng():
        torch.manual_seed(0)
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


@every_weight
def test_entries_below_the_bound_act_as_zero(form: Any) -> None:
    weight = build_kernel_weight(form, 3, value=1.0, nonnegative=True)
    for parameter in weight.parameters():
        parameter.data.fill_(-0.5)
    assert torch.equal(weight(), torch.zeros(3, 3))
    free = build_kernel_weight(form, 3, value=-1.0)
    assert torch.equal(free(), -torch.eye(3))


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
    out = lower_bound(tensor, 0.0)
    (received,) = torch.autograd.grad(out, tensor, torch.tensor([grad]))
    assert out.item() == max(x, 0.0)
    assert received.item() == expected


def test_lower_bound_of_minus_infinity_is_the_identity() -> None:
    tensor = torch.tensor([-1e30, 0.0, 5.0], requires_grad=True)
    out = lower_bound(tensor, -torch.inf)
    assert torch.equal(out, tensor)
    sent = torch.tensor([1.0, -1.0, 2.0])
    assert torch.equal(torch.autograd.grad(out, tensor, sent)[0], sent)


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


# gradient


@every_learnt
@pytest.mark.parametrize("num_sets", [None, 2])
def test_gradient(build: Any, options: dict[str, Any], num_sets: int | None) -> None:
    module = scrambled(build(num_labels=3, num_sets=num_sets, **options))
    parameters = tuple(module.parameters())
    assert torch.autograd.gradcheck(lambda *_: module(), parameters)
    assert torch.autograd.gradgradcheck(lambda *_: module(), parameters)


def test_lower_bound_gradient_away_from_the_bound() -> None:
    """Above it, the true gradient, for any sign of the incoming one."""
    x = torch.tensor([0.3, 1.0, 7.0], dtype=torch.float64, requires_grad=True)
    sign = torch.tensor([1.0, -1.0, 2.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: lower_bound(x, 0.1) * sign, (x,))


# compile, state


@every_module
@pytest.mark.parametrize("num_sets", [None, 2])
def test_compiles_whole(build: Any, options: dict[str, Any], num_sets: int | None) -> None:
    torch.compiler.reset()
    module = build(num_labels=3, num_sets=num_sets, **options)
    if isinstance(module, KernelWeight):
        for parameter in module.parameters():
            parameter.data.view(-1)[0] = -0.5  # the bound's own branch is compiled too
    x = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))

    def grads(call: Callable[[], Tensor]) -> list[Tensor]:
        out = call()
        parameters = list(module.parameters())
        gradients = torch.autograd.grad((out * x).sum(), parameters) if parameters else ()
        return [out.detach(), *gradients]

    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for a, b in zip(grads(compiled), grads(module), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)  # float32, perhaps reordered


@every_module
@pytest.mark.parametrize("how", ["state_dict", "deepcopy", "pickle"])
def test_round_trip(build: Any, options: dict[str, Any], how: str) -> None:
    module = scrambled(build(num_labels=3, num_sets=2, **options))

    def loaded() -> nn.Module:
        other: nn.Module = build(num_labels=3, num_sets=2, **options).double()
        other.load_state_dict(module.state_dict())
        return other

    def pickled() -> Any:
        buffer = io.BytesIO()
        torch.save(module, buffer)
        buffer.seek(0)
        return torch.load(buffer, weights_only=False)

    roads: dict[str, Callable[[], Any]] = {
        "deepcopy": lambda: copy.deepcopy(module),
        "state_dict": loaded,
        "pickle": pickled,
    }
    assert torch.equal(roads[how]()(), module())


# edges, repr


@every_module
def test_one_label(build: Any, options: dict[str, Any]) -> None:
    if "rank" in options:
        options = options | {"rank": 1}
    assert build(num_labels=1, **options)().shape == (1, 1)


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (build_compatibility("potts", 3), "Potts(3, num_sets=None)"),
        (build_compatibility("diagonal", 3, num_sets=5), "Diagonal(3, num_sets=5)"),
        (build_compatibility("symmetric", 3), "Symmetric(3, num_sets=None)"),
        (build_compatibility("full", 3), "Full(3, num_sets=None)"),
        (build_compatibility("low_rank", 3, rank=2), "LowRank(3, rank=2, num_sets=None)"),
        (
            build_kernel_weight("scalar", 3, value=1),
            "ScalarWeight(3, value=1.0, nonnegative=False, num_sets=None)",
        ),
        (
            build_kernel_weight("class", 3, value=0.5, nonnegative=True),
            "ClassWeight(3, value=0.5, nonnegative=True, num_sets=None)",
        ),
        (
            build_kernel_weight("matrix", 3, value=2, num_sets=5),
            "MatrixWeight(3, value=2.0, nonnegative=False, num_sets=5)",
        ),
    ],
)
def test_repr(module: nn.Module, expected: str) -> None:
    assert repr(module) == expected
