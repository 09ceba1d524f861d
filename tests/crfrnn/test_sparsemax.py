"""Sparsemax: against the projection's definition."""

from __future__ import annotations

import pytest
import torch

from crfrnn.frank_wolfe import sparsemax

LOGITS = torch.randn(5, 4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(
    ("logits", "expected"),
    [
        ([0.0, 0.0], [0.5, 0.5]),
        ([0.3, 0.0], [0.65, 0.35]),
        ([5.0, 4.0, 0.0], [1.0, 0.0, 0.0]),  # a lead of 1 takes all
        ([1.0, 0.8, -0.5], [0.6, 0.4, 0.0]),
        ([2.0, 2.0, 2.0, 0.0], [1 / 3, 1 / 3, 1 / 3, 0.0]),
        ([7.0], [1.0]),
    ],
)
def test_by_hand(logits: list[float], expected: list[float]) -> None:
    torch.testing.assert_close(sparsemax(torch.tensor(logits)), torch.tensor(expected))


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_is_the_nearest_point_of_the_simplex(scale: float) -> None:
    """Optimality: no vertex lies in a direction of descent, <z - s, e_l - s> <= 0."""
    z = scale * LOGITS
    s = sparsemax(z)
    assert (s >= 0).all()
    torch.testing.assert_close(s.sum(-1), torch.ones(5, 4, dtype=torch.float64))
    to_vertices = (z - s) - ((z - s) * s).sum(-1, keepdim=True)
    assert to_vertices.max() < 1e-12  # rounding


def test_a_constant_over_labels_changes_nothing() -> None:
    # A float32 of 1e4 resolves 1e-3; so does the result, and no worse.
    z = LOGITS.float()
    torch.testing.assert_close(sparsemax(z + 1e4), sparsemax(z), rtol=0, atol=2e-3)
    assert (sparsemax(z + 1e4).sum(-1) - 1).abs().max() < 1e-6


def test_gradcheck() -> None:
    assert torch.autograd.gradcheck(sparsemax, LOGITS[:2].clone().requires_grad_())
