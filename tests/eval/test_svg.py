"""The drawing helpers: escaping, round ticks, labels that do not overlap."""

from __future__ import annotations

from itertools import pairwise

import pytest

from eval import svg


def test_content_and_attributes_are_escaped() -> None:
    assert "<b>" not in svg.text(0, 0, "<b>", 'x" onload="y')
    assert 'class="x&quot; onload=&quot;y"' in svg.text(0, 0, "<b>", 'x" onload="y')
    assert "<title>a &amp; b</title>" in svg.dot(0, 0, 1, "ink", "a & b")


def test_numbers_are_short() -> None:
    assert svg.line(0, 1.5, 1 / 3, -0.25, "grid") == (
        '<line x1="0" y1="1.5" x2="0.33" y2="-0.25" class="grid"></line>'
    )
    assert svg.number(-0.0) == "0"
    assert svg.number(-2.5) == "−2.5"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 100, [0, 20, 40, 60, 80, 100]),
        (71.3, 73.1, [71.5, 72.0, 72.5, 73.0]),
        (-0.11, 0.09, [-0.1, -0.05, 0.0, 0.05]),
    ],
)
def test_ticks_are_round_and_inside(low: float, high: float, expected: list[float]) -> None:
    assert svg.ticks(low, high) == pytest.approx(expected)


def test_padding_never_gives_an_empty_range() -> None:
    assert svg.padded([5.0, 5.0]) == (4.0, 6.0)
    assert svg.padded([0.0, 100.0]) == (-6.0, 106.0)


def test_labels_are_spread_and_keep_their_order() -> None:
    positions = [50.0, 10.0, 52.0, 51.0]
    spread = svg.spread_apart(positions, 15)
    in_order = [spread[i] for i in sorted(range(4), key=lambda i: positions[i])]
    # A hundred relaxation passes leave less than a hundredth of a unit.
    assert all(b - a >= 14.99 for a, b in pairwise(in_order))
    assert spread[1] == 10.0
    assert svg.spread_apart([5.0, 5.0], 15) == [-2.5, 12.5]
