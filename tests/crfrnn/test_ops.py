"""The registered operators keep torch.library's contract, and compile and export whole."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint

from crfrnn import CrfRnn, ops
from crfrnn.filters import LatticeFilter, Normalized, SeparableFilter
from crfrnn.plain import CHUNK

SHAPE = [3, 4]
DOUBLE = torch.float64
ORDER_AND_EPSILON = (torch.arange(12).repeat(2, 1), 0.0, "automatic")


def rows(channels: int, *, learnt: bool = True) -> Tensor:
    generator = torch.Generator().manual_seed(channels)
    return torch.randn(2, 12, channels, generator=generator).requires_grad_(learnt)


def constants(*channels: int) -> list[Tensor]:
    return [rows(n, learnt=False) for n in channels]


def tables(accuracy: str) -> list[Tensor]:
    """A lattice's tensors, of which the weights take a gradient."""
    built: list[Tensor] = list(ops.build_lattice(rows(5, learnt=False), accuracy, "automatic")[:-1])
    built[1].requires_grad_()
    return built


def table(accuracy: str) -> list[Tensor]:
    return [t.detach() for t in tables(accuracy)]


def updates(*, learnt: bool = True) -> tuple[Any, ...]:
    """A separable and a lattice kernel, normalised on both sides, of `mean_field_updates`."""
    ones = torch.ones(2, 12, 1)
    kernels = [
        Normalized(SeparableFilter(torch.tensor([1.0, 2.0]), SHAPE), "symmetric", ones),
        Normalized(LatticeFilter(rows(5, learnt=False)), "symmetric", ones),
    ]
    packed = [k.packed() for k in kernels]
    penalties = [torch.rand(3, 3, requires_grad=learnt) for _ in kernels]
    start = rows(3, learnt=learnt)
    each = ops.flat([kernel for kernel in packed if kernel is not None])
    return start, start.detach() + 1, penalties, *each, "automatic"


def updates_grad(
    iterations: int, *, started: bool, to_penalties: bool, learn: list[bool]
) -> tuple[Any, ...]:
    grad, logits, penalties, *rest = updates(learnt=False)
    history = torch.stack([logits] * iterations).softmax(-1)
    return grad, history, penalties, *rest, started, to_penalties, learn


# fmt: off
OPERATORS: list[tuple[Any, Callable[[], tuple[Any, ...]]]] = [
    (ops.rows_product, lambda: (rows(5), torch.ones(5, 3, requires_grad=True), "automatic")),
    (ops.rows_inner, lambda: (rows(5), rows(3))),
    (ops.rows_softmax, lambda: (rows(5), "automatic")),
    (ops.exact_order, lambda: (rows(5, learnt=False), "automatic")),
    (ops.exact_filter, lambda: (rows(5), rows(3), *ORDER_AND_EPSILON)),
    (ops.exact_features_grad, lambda: (*constants(5, 3, 3), *ORDER_AND_EPSILON)),
    (ops.window_filter, lambda: (rows(5), rows(3), SHAPE, 1, 2)),
    (ops.separable_filter,
     lambda: (torch.tensor([1.0, 2.0]).requires_grad_(), rows(3), SHAPE, "automatic")),
    (ops.separable_theta_grad, lambda: (torch.ones(2), *constants(3, 3), SHAPE, "automatic")),
    (ops.lattice_filter,
     lambda: (rows(5), rows(3), tables("fine"), "fine", True, "automatic")),
    (ops.lattice_weights_grad,
     lambda: (*constants(3, 3), table("standard"), "standard", False, "automatic")),
    (ops.lattice_features_grad,
     lambda: (*constants(5, 3, 3), table("standard"), "standard", True, "automatic")),
    (ops.barycentric_features_grad,
     lambda: (ops.build_lattice(rows(5, learnt=False), "standard", "automatic")[-1],
              torch.randn(24, 6), "standard")),
    (ops.mean_field_updates, lambda: (*updates(), 2, True, "bfloat16")),
    (ops.mean_field_updates_grad,
     lambda: updates_grad(1, started=True, to_penalties=False, learn=[False, False])),
    (ops.mean_field_updates_grad,
     lambda: updates_grad(3, started=False, to_penalties=True, learn=[True, True])),
]
# fmt: on


@pytest.mark.parametrize(("operator", "arguments"), OPERATORS)
# opcheck reads .grad of tensors that it made itself; it hides the warning, but not an error.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_opcheck(operator: Any, arguments: Callable[[], tuple[Any, ...]]) -> None:
    """Schema, fake kernel, autograd registration, and tracing with dynamic shapes."""
    torch.library.opcheck(operator.overload, arguments())


def test_opcheck_of_the_build() -> None:
    # The fourth check sums the outputs into the first, which here is of integers; the layer
    # below compiles the build's backward instead.
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    arguments = (rows(5), "standard", "automatic")
    torch.library.opcheck(ops.build_lattice.overload, arguments, test_utils=checks)


FIRST_CALL = """
import sys, torch
from crfrnn import CrfRnn
unary = torch.randn(1, 3, 8, 8, requires_grad=True)
CrfRnn(3, learn_theta=True)(unary, torch.rand(1, 3, 8, 8) * 255).sum().backward()
assert "torch._dynamo" not in sys.modules
assert "triton" not in sys.modules
"""


def test_the_first_call_imports_neither_the_compiler_nor_triton() -> None:
    subprocess.run([sys.executable, "-c", FIRST_CALL], check=True)


@pytest.mark.parametrize("num_pixels", [1, CHUNK, 5 * CHUNK + 7])
def test_products_of_rows_in_chunks(num_pixels: int) -> None:
    v, w = (torch.randn(3, num_pixels, n, dtype=DOUBLE) for n in (5, 4))
    matrix = torch.randn(5, 4, dtype=DOUBLE)
    product = ops.rows_product(v, matrix, "automatic")
    torch.testing.assert_close(product, v @ matrix, rtol=1e-12, atol=1e-12)
    # Sums of up to 7700 terms of order one in another order.
    inner = torch.einsum("bnl,bnk->lk", v, w)
    torch.testing.assert_close(ops.rows_inner(v, w), inner, rtol=1e-10, atol=1e-10)


def test_gradient_of_a_gradient_of_rows() -> None:
    v, matrix = (torch.randn(2, 3, 3, dtype=DOUBLE, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradgradcheck(
        lambda v, m: ops.rows_product(v, m, "automatic"), (v, matrix[0])
    )
    assert torch.autograd.gradcheck(ops.rows_inner, (v, matrix))


@pytest.mark.parametrize("labels", [1, 3, 8, 21, 40])
def test_softmax_of_rows_is_that_of_torch(labels: int) -> None:
    logits = torch.randn(2, 50, labels) * 20
    for x in (logits, logits.transpose(0, 1)):
        # Within rounding of an exponential and a sum of up to 40 terms.
        softmax = ops.rows_softmax(x, "automatic")
        torch.testing.assert_close(softmax, x.softmax(-1), rtol=1e-6, atol=1e-7)


UNARY = torch.randn(2, 3, 6, 5, generator=torch.Generator().manual_seed(0))
IMAGE = torch.rand(2, 3, 6, 5, generator=torch.Generator().manual_seed(1)) * 255


def outputs_and_gradients(
    run: Callable[[Tensor, Tensor], Tensor], crf: CrfRnn
) -> tuple[Tensor, ...]:
    leaves = [UNARY.clone().requires_grad_(), *crf.parameters()]
    out = run(leaves[0], IMAGE)
    return out, *torch.autograd.grad(out.square().sum(), leaves)


def assert_compiles_whole(crf: CrfRnn) -> None:
    """Forward and backward without a graph break, as without a compiler."""
    torch._dynamo.reset()
    # Tracing and partitioning are what can break; code generation would need a compiler.
    compiled = torch.compile(crf, fullgraph=True, backend="aot_eager")
    # PyTorch 2.6 does not do so by itself, later releases do.
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        ours = outputs_and_gradients(compiled, crf)
    expected = outputs_and_gradients(crf, crf)
    # The same operators in the same order.
    torch.testing.assert_close(ours[0], expected[0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours[1:], expected[1:], rtol=1e-5, atol=1e-5)


def test_the_layer_compiles_forward_and_backward_without_a_graph_break() -> None:
    assert_compiles_whole(CrfRnn(3, num_iterations=2, learn_theta=True))


def test_the_layer_exports_with_any_size_of_image() -> None:
    """One export serves every batch, height and width."""
    batch, height, width = (torch.export.Dim(name, min=2, max=64) for name in "bhw")
    sizes = {0: batch, 2: height, 3: width}
    crf = CrfRnn(3, num_iterations_eval=2).eval()
    with torch.no_grad():
        exported = torch.export.export(crf, (UNARY, IMAGE), dynamic_shapes=(sizes, sizes)).module()
        for shape in ((3, 7, 9), (2, 20, 4)):
            unary = torch.randn(shape[0], 3, *shape[1:])
            image = torch.rand(shape[0], 3, *shape[1:]) * 255
            torch.testing.assert_close(exported(unary, image), crf(unary, image))


def test_functional_call_has_gradients_and_transforms_say_that_they_do_not_work() -> None:
    crf = CrfRnn(3, num_iterations=2)
    given = {name: p.detach().clone().requires_grad_() for name, p in crf.named_parameters()}

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        out: Tensor = torch.func.functional_call(crf, parameters, (UNARY, IMAGE))
        return out.square().sum()

    functional = torch.autograd.grad(loss(given), list(given.values()))
    expected = torch.autograd.grad(crf(UNARY, IMAGE).square().sum(), list(crf.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(functional, expected, strict=True))
    with pytest.raises(RuntimeError, match=r"does not take part in torch\.func\.grad"):
        torch.func.grad(loss)(given)
    with pytest.raises(RuntimeError, match="needs no vmap"):
        torch.func.vmap(lambda u, i: crf(u[None], i[None]))(UNARY, IMAGE)


def test_checkpointing_anomaly_mode_and_an_averaged_copy_change_nothing() -> None:
    crf = CrfRnn(3, num_iterations=2, learn_theta=True)
    expected = outputs_and_gradients(crf, crf)

    def checkpointed(unary: Tensor, image: Tensor) -> Tensor:
        return checkpoint(crf, unary, image, use_reentrant=False)  # type: ignore[no-any-return]

    with torch.inference_mode():
        crf(UNARY, IMAGE)
    for a, b in zip(outputs_and_gradients(checkpointed, crf), expected, strict=True):
        assert torch.equal(a, b)
    with torch.autograd.set_detect_anomaly(True), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it is slow
        for a, b in zip(outputs_and_gradients(crf, crf), expected, strict=True):
            assert torch.equal(a, b)
    average = AveragedModel(crf)
    average.update_parameters(crf)
    assert torch.equal(average(UNARY, IMAGE), expected[0])
