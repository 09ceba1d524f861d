"""`python -m eval tune` on tiny scenes: the same whatever the processes and interruptions."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

import data
from eval.__main__ import main
from eval.setting_lines import code, predict_line, train_line
from eval.tuning.crew import Crew
from eval.tuning.gradient import GradientConfig
from eval.tuning.options import TuneOptions
from eval.tuning.sobol import SobolConfig
from eval.tuning.tune import tune
from models import CrfConfig, CrfForm
from tests.eval.tuning_case import FORM, SCENES, checkpoint, lines_of, options

TIMES = ("seconds", "cpu_seconds")


def quiet() -> Console:
    return Console(quiet=True)


def journal(folder: Path) -> list[dict[str, object]]:
    """Every line without what it took."""
    rows = [json.loads(line) for line in lines_of(folder / "settings.jsonl")]
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[TuneOptions, dict[str, object]]:
    """A tuning by one process."""
    given = options(tmp_path_factory.mktemp("tune"))
    return given, tune(given, quiet())


def test_the_best_setting_is_better_than_the_network_and_all_is_written(finished) -> None:
    given, result = finished
    assert result["best"]["miou"] > result["network"]["miou"]
    rows = journal(given.out)
    searched = [r for r in rows if r["stage"] not in ("network", "all labels")]
    assert result["settings"] == len(searched) == 4 + 4  # the grid, and the neighbours of its best
    top = max(searched, key=lambda r: r["scores"]["miou"])  # type: ignore[index]
    assert replace(CrfConfig(**result["setting"]), output_scale=1.0) == CrfConfig(**top["setting"])  # type: ignore[arg-type]
    assert json.loads((given.out / "best.json").read_text())["setting"] == result["setting"]
    with (given.out / "settings.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [float(r["miou"]) for r in table] == [r["scores"]["miou"] for r in rows]  # type: ignore[index]
    for name in ("surface.png", "surface.svg"):
        assert (given.out / name).stat().st_size > 1000


def test_the_lines_to_copy_are_of_the_setting(finished) -> None:
    given, result = finished
    setting = CrfConfig(**result["setting"])
    assert setting.output_scale != 1.0
    num_classes = len(data.build(SCENES, "tune").classes)
    assert result["code"] == code(setting, num_classes)
    assert result["predict"] == predict_line(setting, str(given.checkpoint), "IMAGE")
    assert result["train"] == train_line(setting)


@pytest.mark.slow  # each process imports PyTorch
def test_two_processes_find_what_one_does(finished, tmp_path) -> None:
    given, _ = finished
    two = options(tmp_path, workers=2)
    tune(two, quiet())
    assert journal(two.out) == journal(given.out)


def test_a_run_that_was_killed_goes_on_to_the_same_end(finished, tmp_path) -> None:
    given, result = finished
    part = options(tmp_path, resume=True)
    tune(part, quiet())
    path = part.out / "settings.jsonl"
    text = path.read_text()
    path.write_text("\n".join(text.splitlines()[:4]) + '\n{"stage": "coa')
    again = tune(part, quiet())
    assert journal(part.out) == journal(given.out)
    assert again["setting"] == result["setting"]


def test_a_finished_tuning_measures_nothing_again(finished, monkeypatch) -> None:
    given, result = finished
    monkeypatch.setattr(Crew, "rounds", lambda *a, **k: pytest.fail("measured again"))
    assert tune(replace(given, resume=True), quiet())["setting"] == result["setting"]


def test_the_gradient_improves_the_likelihood(tmp_path) -> None:
    given = options(
        tmp_path,
        method="gradient",
        objective="nll",
        descent=GradientConfig(steps=6, batch_size=5, lr=0.2, points=3),
    )
    result = tune(given, quiet())
    rows = journal(given.out)
    (start,) = (r for r in rows if r["stage"] == "start")
    assert result["best"]["nll"] < start["scores"]["nll"] - 0.01  # type: ignore[index]
    steps = [json.loads(line) for line in lines_of(given.out / "gradient.jsonl")]
    assert len(steps) == 6
    assert steps[-1]["nll"] < steps[0]["nll"]  # the same five images in every step


def test_the_gradient_is_that_of_the_likelihood(tmp_path) -> None:
    """Central differences of the summed NLL in every logarithm, in float32."""
    from eval.tuning.bench import LEARNT, Bench, Problem

    given = options(tmp_path)
    problem = Problem(given.checkpoint, "", "tune", None, tmp_path / "l", 3, 1, "cpu")
    bench = Bench(problem)
    setting = replace(given.base(), theta_alpha=10.0, theta_beta=20.0, output_scale=0.5)
    # The separable kernel alone: the lattice's derivative is the Gaussian's, not its own.
    setting = replace(setting, bilateral_weight=1e-4)
    _, grads, pixels = bench.slope(0, 0.0, setting).value
    assert pixels > 0
    for name, step in (("theta_gamma", 0.02), ("spatial_weight", 0.02), ("output_scale", 0.02)):
        value = getattr(setting, name)
        low, high = (
            bench.slope(0, 0.0, replace(setting, **{name: value * math.exp(s)})).value[0]
            for s in (-step, step)
        )
        expected = (high - low) / (2 * step)
        assert grads[LEARNT.index(name)] == pytest.approx(expected, rel=0.02, abs=0.02), name


def test_sobol_goes_on_from_a_preset(tmp_path) -> None:
    given = options(
        tmp_path,
        method="sobol",
        preset="deeplab_v2_resnet101",
        sobol=SobolConfig(points=2, local=2, theta_alpha=(4.0, 20.0)),
        objective="trimap",
    )
    said = StringIO()
    console = Console(width=200, file=said)
    result = tune(given, console)
    assert [r["stage"] for r in journal(given.out)][:2] == ["network", "start"]
    assert result["settings"] <= 1 + 2 + 2
    assert (
        "deeplab_v2_resnet101 was published with --crf.normalization after "
        "--crf.num-iterations-eval 10; here it starts with after and 3" in said.getvalue()
    )


def test_the_report_split_is_scored_once_with_intervals(tmp_path, monkeypatch) -> None:
    given = options(tmp_path, score_report=True, num_images=2)
    said = StringIO()
    report = tune(given, Console(width=200, file=said))["report"]
    assert report["images"] == SCENES.num_report
    for name in ("miou", "nll", "trimap_miou"):
        score = report[name]
        difference = score["difference"]
        assert difference["value"] == pytest.approx(score["crf"] - score["network"], abs=1e-12)
        assert difference["low"] <= difference["value"] <= difference["high"]
        assert f"report split, {name}: {score['network']:.4f} without" in said.getvalue()
    monkeypatch.setattr("eval.tuning.tune.score_held_out", lambda *a: pytest.fail("scored again"))
    assert tune(replace(given, resume=True), quiet())["report"] == report


def test_a_folder_of_another_tuning_is_refused(finished) -> None:
    given, _ = finished
    with pytest.raises(ValueError, match=r"another configuration: objective was 'miou', now 'nll'"):
        tune(replace(given, objective="nll", resume=True), quiet())


def test_an_objective_that_counts_nothing_is_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("eval.tuning.picture.VOID", -1)  # as if no pixel were labelled
    monkeypatch.setattr(
        "eval.tuning.picture.band_distance", lambda mask, band: 0 * mask.astype("int32") + 99
    )
    with pytest.raises(ValueError, match="--objective trimap: these 5 images have no pixel"):
        tune(options(tmp_path, objective="trimap", num_images=5), quiet())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"workers": 0}, "--workers must be at least 1, got 0"),
        ({"num_images": 0}, "--num-images must be at least 1"),
        ({"trimap_width": 0}, "--trimap-width must be at least 1"),
        ({"label_floor": 1.0}, "--label-floor is a probability .*got 1.0"),
        ({"crf": CrfForm()}, "--crf.kernel-weights class: tune finds one weight per kernel"),
        ({"crf": replace(FORM, untied=True)}, "--crf.untied"),
        ({"crf": replace(FORM, damping=0.5)}, "leaves labels out of undamped mean field alone"),
    ],
)
def test_options_that_do_not_fit_are_refused(changes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TuneOptions(Path("checkpoint.pt"), **changes)


def test_an_unknown_preset_is_refused_with_the_nearest(tmp_path) -> None:
    with pytest.raises(ValueError, match="deeplab_v1"):
        tune(options(tmp_path, preset="deeplabv1"), quiet())


def test_the_command_finds_a_setting(tmp_path, capsys) -> None:
    given = options(tmp_path)
    words = f"tune {checkpoint(tmp_path)} --out {given.out} --workers 1 --num-images 2"
    grid = "--grid.theta-alpha 8 --grid.theta-beta 10 --grid.bilateral-weight 2 --grid.rounds 0"
    main([*words.split(), *grid.split(), "--crf.num-iterations-eval", "2"])
    assert "1 settings x 2 images in " in capsys.readouterr().out


def test_a_checkpoint_that_is_none_ends_with_one_line(tmp_path) -> None:
    with pytest.raises(SystemExit, match="no checkpoint at nowhere"):
        main(["tune", "nowhere.pt"])
