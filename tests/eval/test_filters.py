"""The measurement of the filters: small photographs, one round, and the table made of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from eval.__main__ import main
from eval.filter_gradients import markdown_table as gradient_table
from eval.filter_table import markdown_block, markdown_table
from eval.filters import FiltersOptions, Kernel, inputs, measure, photograph, relative_error
from eval.readme import block_of
from eval.wording import factor

OPTIONS = FiltersOptions(
    out=Path("results/filters.json"),
    photos=("coffee.png", "chelsea.png"),
    gradient_shape=(12, 16),
    error_shape=(24, 32),
    time_shape=(30, 40),
    labels=3,
    repeats=2,
)


WINDOW = "window 7 x 7"


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    return measure(OPTIONS, (Kernel(12, 13), Kernel(3)))


def test_every_filter_is_measured_on_every_photo_and_input(results: dict[str, Any]) -> None:
    bilateral, spatial = results["kernels"]
    assert set(bilateral["errors"]) == {"lattice", "lattice, fine", WINDOW}
    assert set(spatial["errors"]) == {
        "lattice",
        "lattice, fine",
        WINDOW,
        "separable",
    }
    for photos in bilateral["errors"].values():
        assert set(photos) == set(OPTIONS.photos)
        assert all(set(found) == set(inputs((24, 32))) for found in photos.values())
    # The spatial kernel does not look at the photograph.
    assert all(len(photos) == 1 for photos in spatial["errors"].values())


def test_every_filter_is_timed_in_every_round(results: dict[str, Any]) -> None:
    bilateral, spatial = results["kernels"]
    assert set(bilateral["seconds"]) == {"32 x 24", "40 x 30"}
    assert set(bilateral["seconds"]["32 x 24"]) == {
        "lattice",
        "lattice, fine",
        WINDOW,
        "exact",
    }
    # The exact sum would take minutes at the larger size.
    assert set(spatial["seconds"]["40 x 30"]) == {
        "lattice",
        "lattice, fine",
        WINDOW,
        "separable",
    }
    for size in bilateral["seconds"].values():
        for taken in size.values():
            assert all(len(taken[stage]) == OPTIONS.repeats for stage in ("build", "apply"))


def test_measured_numbers_are_in_their_order(results: dict[str, Any]) -> None:
    bilateral, spatial = results["kernels"]
    worst = {
        name: max(e for found in photos.values() for e in found.values())
        for name, photos in spatial["errors"].items()
    }
    # The separable filter is exact up to float32: 1e-4 leaves room for smooth inputs, whose
    # deviation from the mean is small beside their values.
    assert worst["separable"] < 1e-4 < worst["lattice, fine"] < worst["lattice"]
    for photo in OPTIONS.photos:
        vertices = bilateral["vertices"]
        assert 0 < vertices["lattice"][photo] < vertices["lattice, fine"][photo]


def test_gradients_are_compared_in_both_forms(results: dict[str, Any]) -> None:
    (row,) = results["gradients"]  # the spatial kernel has no guide
    assert (row["theta_position"], row["theta_colour"]) == (12, 13)
    for form in ("gaussian", "lattice"):
        assert 0 < row[form]["cosine"] <= 1
        assert row[form]["theta"] > 0
    assert gradient_table([row]).splitlines()[2].startswith("| bilateral 12/13 | 0.")


def test_results_say_where_they_come_from(results: dict[str, Any]) -> None:
    for key in ("command", "commit", "dirty", "versions", "machine", "started", "wall_seconds"):
        assert key in results
    assert json.loads(json.dumps(results))["config"]["repeats"] == OPTIONS.repeats


def test_relative_error_by_hand() -> None:
    exact = torch.tensor([[[1.0], [3.0]]])  # deviates by 1 from its mean, twice
    assert relative_error(exact + torch.tensor([[[0.5], [0.0]]]), exact) == pytest.approx(
        0.5 / 2**0.5
    )


def test_inputs_have_unit_variance() -> None:
    for v in inputs((24, 32)).values():
        assert v.shape[:2] == (1, 24 * 32)
        assert v.std().item() == pytest.approx(1, abs=1e-3)  # of n, not n - 1


def test_photograph_is_0_to_255() -> None:
    image = photograph("coffee.png", (24, 32))
    assert image.shape == (24, 32, 3)
    assert 0 <= image.min() < 50 < 200 < image.max() <= 255


def test_table_has_one_row_for_each_kernel_and_filter(results: dict[str, Any]) -> None:
    rows = [line.strip("| ").split(" | ") for line in markdown_table(results).splitlines()[2:]]
    assert [row[:2] for row in rows] == [
        ["bilateral 12/13", "lattice"],
        ["bilateral 12/13", "lattice, fine"],
        ["bilateral 12/13", WINDOW],
        ["bilateral 12/13", "exact"],
        ["spatial 3", "lattice"],
        ["spatial 3", "lattice, fine"],
        ["spatial 3", WINDOW],
        ["spatial 3", "separable"],
        ["spatial 3", "exact"],
    ]
    assert all(len(row) == 9 for row in rows)
    assert rows[0][4] == "–"  # the baseline is not compared with itself
    assert rows[0][6].startswith("1 (")
    assert rows[3][2:8] == ["0", "0", "–", "–", "–", "–"]


def test_times_are_compared_round_by_round(results: dict[str, Any]) -> None:
    changed = json.loads(json.dumps(results))
    times = changed["kernels"][0]["seconds"]["40 x 30"]
    # The machine was slower in the second round; the ratio of the medians would be 2.4.
    times["lattice"]["apply"], times["lattice, fine"]["apply"] = [1.0, 3.0], [2.0, 7.5]
    row = markdown_table(changed).splitlines()[3].strip("| ").split(" | ")
    assert row[7] == "2.2"  # the median of 2 and 2.5, 2.25


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.01234, "0.012"), (0.99, "0.99"), (1.0, "1"), (3.41, "3.4"), (24.6, "25"), (1234, "1,200")],
)
def test_factor_has_two_digits(value: float, text: str) -> None:
    assert factor(value) == text


def test_block_is_that_of_the_filters(results: dict[str, Any]) -> None:
    block = block_of(results)
    assert block == markdown_block(results)
    assert markdown_table(results) in block
    assert results["commit"] in block


def test_readme_takes_the_file(results: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "filters.json").write_text(json.dumps(results), encoding="utf-8")
    readme = tmp_path / "README.md"
    readme.write_text("<!-- results:filters -->\n<!-- /results:filters -->\n", encoding="utf-8")
    main(["readme", str(tmp_path / "filters.json"), "--readme", str(readme)])
    assert markdown_table(results) in readme.read_text(encoding="utf-8")


def test_repeats_must_be_positive() -> None:
    with pytest.raises(ValueError, match="repeats is at least 1, got 0"):
        measure(FiltersOptions(out=Path("x.json"), repeats=0))
