"""The registered operators keep torch.library's contract, and compile and export whole."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from crfrnn import CrfRnn, rows_ops
from crfrnn.filtering import lattice_ops, ops
from crfrnn.frank_wolfe import FrankWolfe
from crfrnn.inference import MeanField
from crfrnn.kernels import KernelConfig

SHAPE = [3, 4]
ORDER_AND_EPSILON = (torch.arange(12).repeat(2, 1), 0.0)


def rows(channels: int, *, learnt: bool = True) -> Tensor:
    generator = torch.Generator().manual_seed(channels)
    return torch.randn(2, 12, channels, generator=generator).requires_grad_(learnt)


def tables(accuracy: str) -> list[Tensor]:
    """A lattice's tensors, of which the weights take a gradient."""
    built: list[Tensor] = list(lattice_ops.build_lattice(rows(5, learnt=False), accuracy)[:-1])
    built[1].requires_grad_()
    return built


# operators


@pytest.mark.parametrize(
    ("operator", "arguments"),
    [
        (rows_ops.rows_product, lambda: (rows(5), torch.ones(5, 3, requires_grad=True))),
        (rows_ops.rows_inner, lambda: (rows(5), rows(3))),
        (rows_ops.rows_softmax, lambda: (rows(5),)),
        (ops.exact_order, lambda: (rows(5, learnt=False),)),
        (ops.exact_filter, lambda: (rows(5), rows(3), *ORDER_AND_EPSILON)),
        (
            ops.exact_features_grad,
            lambda: (*(rows(n, learnt=False) for n in (5, 3, 3)), *ORDER_AND_EPSILON),
        ),
        (ops.window_filter, lambda: (rows(5), rows(3), SHAPE, 1, 2)),
        (
            ops.separable_filter,
            lambda: (torch.tensor([1.0, 2.0], requires_grad=True), rows(3), SHAPE),
        ),
        (
            ops.separable_theta_grad,
            lambda: (torch.ones(2), rows(3, learnt=False), rows(3, learnt=False), SHAPE),
        ),
        (
            lattice_ops.lattice_filter,
            lambda: (rows(5), rows(3), *tables("standard"), "standard", False),
        ),
        (
            lattice_ops.lattice_filter,
            lambda: (rows(5), rows(3), *tables("fine"), "fine", True),
        ),
        (
            lattice_ops.lattice_weights_grad,
            lambda: (
                rows(3, learnt=False),
                rows(3, learnt=False),
                *[t.detach() for t in tables("standard")],
                "standard",
                False,
            ),
        ),
        (
            lattice_ops.lattice_features_grad,
            lambda: (
                *(rows(channels, learnt=False) for channels in (5, 3, 3)),
                *[t.detach() for t in tables("standard")],
                "standard",
                True,
            ),
        ),
        (
            lattice_ops.barycentric_features_grad,
            lambda: (
                lattice_ops.build_lattice(rows(5, learnt=False), "standard")[-1],
                torch.randn(24, 6),
                "standard",
            ),
        ),
    ],
)
# opcheck reads .grad of tensors that it made itself; it hides the warning, but not an error.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_opcheck(operator: Any, arguments: Callable[[], tuple[Any, ...]]) -> None:
    """Schema, fake kernel, autograd registration, and tracing with dynamic shapes."""
    torch.library.opcheck(operator.overload, arguments())


@pytest.mark.parametrize("accuracy", ["standard", "fine"])
def test_opcheck_of_the_build(accuracy: str) -> None:
    # The fourth check sums the outputs into the first, which here is of integers; the layers
    # below compile the build's backward instead.
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(
        lattice_ops.build_lattice.overload, (rows(5), accuracy), test_utils=checks
    )


FIRST_CALL = """
import sys, torch
from crfrnn import CrfRnn
unary = torch.randn(1, 3, 8, 8, requires_grad=True)
CrfRnn(3, learn_theta=True)(unary, torch.rand(1, 3, 8, 8) * 255).sum().backward()
assert "torch._dynamo" not in sys.modules
"""


def test_the_first_call_does_not_import_the_compiler() -> None:
    subprocess.run([sys.executable, "-c", FIRST_CALL], check=True)


# compile and export

UNARY = torch.randn(2, 3, 6, 5, generator=torch.Generator().manual_seed(0))
IMAGE = torch.rand(2, 3, 6, 5, generator=torch.Generator().manual_seed(1)) * 255

LAYERS: dict[str, Callable[[], CrfRnn]] = {
    "default": lambda: CrfRnn(3),
    "everything learnt": lambda: CrfRnn(
        3,
        inference=MeanField(damping=0.1, memory="recompute"),
        kernel_weights="matrix",
        nonnegative=True,
        compatibility="low_rank",
        compatibility_rank=2,
        untied=True,
        learn_theta=True,
        unary_mixture=0.5,
        learn_unary_scale=True,
        learn_output_scale=True,
    ),
    "through the lattice": lambda: CrfRnn(3, learn_theta=True, features_gradient="lattice"),
    "other filters": lambda: CrfRnn(
        3,
        spatial_filter="exact",
        bilateral_filter="window",
        inference=FrankWolfe(step=0.5),
        learn_step=True,
    ),
}


def outputs_and_gradients(
    run: Callable[[Tensor, Tensor], Tensor], crf: CrfRnn
) -> tuple[Tensor, Tensor, list[Tensor | None]]:
    unary = UNARY.clone().requires_grad_()
    crf.zero_grad()
    out = run(unary, IMAGE)
    out.square().sum().backward()  # type: ignore[no-untyped-call]
    assert unary.grad is not None
    return out.detach(), unary.grad, [p.grad for p in crf.parameters()]


@pytest.mark.parametrize("name", LAYERS)
def test_compiles_forward_and_backward_without_a_graph_break(name: str) -> None:
    crf = LAYERS[name]()
    torch._dynamo.reset()
    # Tracing and partitioning are what can break; code generation would need a compiler.
    compiled = torch.compile(crf, fullgraph=True, backend="aot_eager")
    ours, grad, learnt = outputs_and_gradients(compiled, crf)
    expected, expected_grad, expected_learnt = outputs_and_gradients(crf, crf)
    # The same operators in the same order.
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(grad, expected_grad, rtol=1e-5, atol=1e-6)
    for a, b in zip(learnt, expected_learnt, strict=True):
        assert a is not None
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", ["plain", "guides and mask"])
def test_exports_in_eval_mode(mode: str) -> None:
    further = {"depth": KernelConfig(theta_position=2.0, theta_guide=(1.0, 3.0))}
    crf = CrfRnn(3, further_kernels=None if mode == "plain" else further).eval()
    arguments: tuple[Any, ...] = (UNARY, IMAGE)
    if mode != "plain":
        mask = torch.ones(2, 6, 5, dtype=torch.bool)
        mask[0, 4:] = False
        arguments = (UNARY, IMAGE, {"depth": IMAGE[:, :2] / 10}, mask)
    with torch.no_grad():
        exported = torch.export.export(crf, arguments)
        torch.testing.assert_close(exported.module()(*arguments), crf(*arguments))
        # The number of vertices is the data's, not the example's.
        other = (arguments[0].flip(0), arguments[1].flip(3), *arguments[2:])
        torch.testing.assert_close(exported.module()(*other), crf(*other))
