"""The figures: complete, in the page's colours, honest about what is missing."""

from __future__ import annotations

import io
import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from eval.arms import ARMS
from eval.metrics import gains
from eval.report.comparison import Comparison, comparisons
from eval.report.figures import KINDS, Drawing, draw, write_files
from eval.report.figures.canvas import COLOURS, Undrawable, canvas, padded, spread_apart, style
from eval.report.figures.matrices import heat_map, learned_matrices
from eval.report.figures.strength import gain_against_strength
from eval.report.figures.vector import inline_svg, svg_file
from eval.report.learned import crf_table
from eval.report.reading import read_run
from tests.eval.conftest import FakeRun


def read(path: Path) -> Comparison:
    return comparisons([read_run(path)])[0]


@pytest.fixture(scope="module")
def comparison(fake_run: FakeRun) -> Comparison:
    return read(fake_run.run_dir)


@pytest.fixture(scope="module")
def drawings(comparison: Comparison) -> dict[str, Drawing]:
    return {name: draw(comparison, name, "c0") for name in KINDS}


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("text")]


@pytest.mark.parametrize("name", KINDS)
def test_every_figure_is_a_picture_that_names_itself(
    name: str, drawings: dict[str, Drawing]
) -> None:
    root = ElementTree.fromstring(drawings[name].inline)
    assert root.tag.endswith("svg")
    assert root.get("aria-label") == KINDS[name].label
    assert "viewBox" in root.attrib


@pytest.mark.parametrize("name", KINDS)
def test_the_page_decides_on_every_colour(name: str, drawings: dict[str, Drawing]) -> None:
    # matplotlib writes colours as #rrggbb: none but those of the roles may be there.
    inline = drawings[name].inline
    assert set(re.findall(r"#[0-9a-f]{6}\b", inline)) <= {"#000000", "#ffffff"}
    assert "var(--text)" in inline or "var(--soft)" in inline
    assert "DejaVu" not in inline


def test_ids_are_the_figures_own(drawings: dict[str, Drawing]) -> None:
    found = [i for d in drawings.values() for i in re.findall(r' id="([^"]+)"', d.inline)]
    assert len(found) == len(set(found))
    for name, drawing in drawings.items():
        used = re.findall(r'(?:url\(#|href="#)([^)"]+)', drawing.inline)
        assert set(used) <= set(re.findall(r' id="([^"]+)"', drawing.inline)), name


@pytest.mark.parametrize("name", ["ladder", "trimap"])
def test_every_arm_is_named(name: str, drawings: dict[str, Drawing]) -> None:
    assert set(ARMS) <= set(texts(drawings[name].inline))


def test_the_same_numbers_give_the_same_bytes(comparison: Comparison) -> None:
    assert draw(comparison, "ladder", "c0") == draw(comparison, "ladder", "c0")


def test_drawing_leaves_the_settings_of_matplotlib_alone(comparison: Comparison) -> None:
    before = dict(mpl.rcParams)
    draw(comparison, "ladder", "c0")
    assert dict(mpl.rcParams) == before


def test_files_are_in_the_light_theme(drawings: dict[str, Drawing], tmp_path: Path) -> None:
    written = write_files({**drawings, "none": Drawing("", "", b"", "a reason")}, tmp_path / "f")
    assert {path.name for path in written} == {
        f"{name}.{suffix}" for name in KINDS for suffix in ("svg", "png")
    }
    for path in written:
        if path.suffix == ".svg":
            text = path.read_text(encoding="utf-8")
            assert "var(--" not in text
            assert COLOURS["page"] in text
            assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
        else:
            with Image.open(path) as image:
                assert image.width > 900
                assert image.convert("RGB").getpixel((0, 0)) == (0xFB, 0xFA, 0xF8)


REASONS = {
    "ladder": "No arm has a score",
    "trimap": "No arm has trimap scores",
    "trimap-difference": "Neither post-hoc nor unary",
    "classes": "lacks class scores",
    "strength": "before and behind",
    "calibration": "before and behind",
    "iterations": "holds the iterations of a CRF",
    "learning": "holds the training of a CRF",
    "matrices-joint": "No CRF of joint",
    "matrices-crf-only": "No CRF of crf-only",
}


@pytest.mark.parametrize("name", KINDS)
def test_a_figure_that_cannot_be_drawn_says_why(name: str, run_copy: Path) -> None:
    for path in run_copy.glob("arms/*/result.json"):
        path.unlink()
    drawing = draw(read(run_copy), name, "c0")
    assert REASONS[name] in drawing.reason
    assert (drawing.inline, drawing.svg, drawing.png) == ("", "", b"")


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("strength", "counts-report-before-crf.npz"),
        ("calibration", "counts-report.npz"),
        ("iterations", "metrics.jsonl"),
        ("learning", "metrics.jsonl"),
    ],
)
def test_a_figure_needs_its_file(name: str, file: str, run_copy: Path) -> None:
    for path in run_copy.glob(f"arms/*/{file}"):
        path.unlink()
    assert REASONS[name] in draw(read(run_copy), name, "c0").reason


@pytest.mark.parametrize("name", ["ladder", "trimap", "trimap-difference", "classes"])
@pytest.mark.parametrize("arm", ["start", "crf-only", "post-hoc"])
def test_a_missing_arm_is_left_out(name: str, arm: str, run_copy: Path) -> None:
    for path in run_copy.glob(f"arms/{arm}-seed*/result.json"):
        path.unlink()
    drawing = draw(read(run_copy), name, "c0")
    assert drawing.inline
    assert arm not in texts(drawing.inline)


def test_without_counts_curves_have_no_band(run_copy: Path) -> None:
    for path in run_copy.glob("arms/*/counts-report.npz"):
        path.unlink()
    with style():
        figure = KINDS["trimap"].draw(read(run_copy))
    assert len(figure.axes[0].collections) == 0
    assert len(figure.axes[0].lines) == len(ARMS)


def test_points_are_what_the_counts_say(comparison: Comparison) -> None:
    with style():
        figure = gain_against_strength(comparison)
    joint = figure.axes[-1]
    expected = np.concatenate(
        [
            100 * np.stack(gains(run.before, run.counts), axis=1)
            for run in comparison.of("joint")
            if run.before is not None and run.counts is not None
        ]
    )
    np.testing.assert_allclose(np.asarray(joint.collections[0].get_offsets()), expected)
    harm = comparison.harm("joint")
    assert harm is not None
    assert harm.value == pytest.approx((expected[:, 1] < 0).mean())  # as many images a seed
    assert harm.interval is not None
    assert harm.interval[0] <= harm.value <= harm.interval[1]
    assert f"worse on {100 * harm.value:.1f} %" in joint.get_title(loc="left")


def test_points_have_their_image_under_the_pointer(drawings: dict[str, Drawing]) -> None:
    titles = [
        element.text or "" for element in ElementTree.fromstring(drawings["strength"].inline).iter()
        if element.tag.endswith("title")
    ]  # fmt: skip
    assert sum(title.startswith("scene-003, seed 1: ") for title in titles) == 3


def test_any_text_is_drawn_as_it_is() -> None:
    with style():
        figure, axes = canvas(300, 200)
        axes.set_title("a < b & $c_1$ <script>")
        svg = svg_file(figure)
        inline = inline_svg(svg, "x", 'a "label" <b>')
    assert "<script>" not in inline
    assert "a < b & $c_1$ <script>" in texts(inline)
    assert ElementTree.fromstring(inline).get("aria-label") == 'a "label" <b>'


def drawn_map(matrix: Any, centre: Any, names: str) -> Any:
    with style():
        _, axes = canvas(300, 300)
        heat_map(axes, "weights", np.array(matrix), np.array(centre), names, "start")
    return axes


def test_heat_map_colours_the_change() -> None:
    axes = drawn_map([[4.0, 0.0], [0.0, 2.5]], [[3.0, 0.0], [0.0, 3.0]], "ab")
    cells = axes.collections[0].get_facecolor()
    assert cells[:, 3] == pytest.approx([0.75, 0, 0, 0.375])
    assert mpl.colors.to_hex(cells[0]) == COLOURS["rise"]
    assert mpl.colors.to_hex(cells[3]) == COLOURS["fall"]
    assert [text.get_text() for text in axes.texts] == ["+1.00", "−.50"]
    assert axes.get_xlabel() == "change from start, strongest 1"


def test_heat_map_without_change_says_so() -> None:
    assert drawn_map([[1.0]], [[1.0]], "a").get_xlabel() == "same as start"


@pytest.mark.parametrize(
    ("matrix", "centre"), [([[1.0]], [[1.0, 0.0]] * 2), ([[1.0, 1]] * 2, [[1]])]
)
def test_heat_map_refuses_other_sizes(matrix: Any, centre: Any) -> None:
    with pytest.raises(ValueError, match=r"expected a 2 x 2 (matrix|centre) for 2 label names"):
        drawn_map(matrix, centre, "ab")


def test_start_of_the_weights_is_named(run_copy: Path) -> None:
    def drawn() -> str:
        return draw(read(run_copy), "matrices-joint", "c0").inline

    assert "change from post-hoc" in drawn()
    for path in run_copy.glob("arms/post-hoc-*/result.json"):
        path.unlink()
    assert "change from zero" in drawn()


def test_a_context_kernel_is_drawn_from_zero(run_copy: Path) -> None:
    for path in run_copy.glob("arms/joint-*/result.json"):
        result = json.loads(path.read_text())
        size = len(result["crf"]["compatibility"])
        result["crf"]["kernel_weights"]["context"] = [[0.25] * size] * size
        result["crf"]["theta_context"] = 150.0
        path.write_text(json.dumps(result))
    comparison = read(run_copy)
    assert len(learned_matrices(comparison, "joint").axes) == 4
    assert "context kernel weights" in draw(comparison, "matrices-joint", "c0").inline
    table = crf_table(comparison)
    assert table.count("<td>150</td>") == 2
    assert table.count("<tr") == 7  # the title, and three arms with a CRF of two seeds


def held(run_copy: Path, **learns: float) -> Drawing:
    """The learning figure, after trainings that moved nothing but `learns`, by so much a step."""
    for path in run_copy.glob("arms/*/metrics.jsonl"):
        theta = 30.0 if "crf-only" in path.parent.name else 60.0
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in lines:
            if "crf/theta_alpha" not in line:
                continue
            kept = {key: value for key, value in line.items() if not key.startswith("crf/")}
            moved = {f"crf/{key}": slope * line["step"] for key, slope in learns.items()}
            line.clear()
            line.update(kept | {"crf/theta_alpha": theta} | moved)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return draw(read(run_copy), "learning", "c0")


def test_the_learning_of_a_context_kernel_is_drawn_beside_what_was_held(run_copy: Path) -> None:
    inline = held(run_copy, context_weight_mean=0.1).inline
    assert "context weight for itself" in inline
    assert "not moved: θα 30 to 60 px" in inline


def test_a_training_that_moves_nothing_is_not_drawn(run_copy: Path) -> None:
    drawing = held(run_copy)
    assert drawing.reason == "No training has moved a parameter of its CRF."


def test_padding_never_gives_an_empty_range() -> None:
    assert padded([5.0, 5.0]) == (4.0, 6.0)
    assert padded([0.0, 100.0, float("nan")]) == (-6.0, 106.0)


def test_labels_are_spread_and_keep_their_order() -> None:
    positions = [50.0, 10.0, 52.0, 51.0]
    spread = spread_apart(positions, 15)
    in_order = [spread[i] for i in sorted(range(4), key=lambda i: positions[i])]
    # A hundred relaxation passes leave less than a hundredth of a unit.
    assert all(b - a >= 14.99 for a, b in pairwise(in_order))
    assert spread[1] == 10.0
    assert spread_apart([5.0, 5.0], 15) == [-2.5, 12.5]


def test_undrawable_is_a_reason_not_a_crash(comparison: Comparison) -> None:
    with pytest.raises(Undrawable, match="No CRF of unary"):
        learned_matrices(comparison, "unary")


def test_png_is_of_the_layout_of_the_svg(drawings: dict[str, Drawing]) -> None:
    drawing = drawings["ladder"]
    _, _, width, height = map(float, ElementTree.fromstring(drawing.svg).attrib["viewBox"].split())
    with Image.open(io.BytesIO(drawing.png)) as image:
        assert (image.width, image.height) == (2 * width, 2 * height)
