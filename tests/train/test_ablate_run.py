"""Ablations run: what is skipped, shared, recorded and compared."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from runtime.run_folder import read_json, write_json
from train.__main__ import main
from train.ablate.ablation import ABLATIONS, Ablation
from train.ablate.execute import RunArm, execute, jobs_of
from train.ablate.table import difference, gather, interval, markdown, rows
from train.ablate.variants import Variant, expand
from train.recipes import RECIPES

MINE = Ablation(
    "mine",
    "What if?",
    {"base": {}, "coarse": {"crf.resolution": 2}, "strong": {"start.steps": 9}},
    arms=("unary", "joint"),
)


def scores(report: float, tune: float = 0.5) -> dict[str, object]:
    trimap = {"1": report / 2, "3": report / 4}
    return {
        "report": {"miou": report, "trimap_miou": trimap},
        "tune": {"miou": tune, "trimap_miou": {}},
    }


class Runner:
    """Writes the results of a table instead of training."""

    def __init__(self, out: Path, values: dict[tuple[int, int, str, int], float | BaseException]):
        self.out = out
        self.values = values
        self.ran: list[tuple[str, str, int]] = []

    def __call__(self, variant: Variant) -> RunArm:
        def run(arm: str, seed: int) -> None:
            self.ran.append((variant.labels[0], arm, seed))
            start = variant.recipe.start
            assert start is not None
            value = self.values[variant.recipe.crf.resolution, start.steps, arm, seed]
            if isinstance(value, BaseException):
                raise value
            folder = self.out / variant.digest / "arms" / f"{arm}-seed{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "checkpoint.pt").touch()
            write_json(folder / "result.json", {"arm": arm, "seed": seed, "metrics": scores(value)})

        return run


@pytest.fixture
def world(tiny, tmp_path):
    """(variants, runner, run them): three seeds; unary does not see the resolution."""
    recipe = replace(tiny, seeds=(0, 1, 2))
    variants = expand(MINE, recipe)
    values: dict[tuple[int, int, str, int], float | BaseException] = {}
    for seed in (0, 1, 2):
        values[1, 4, "unary", seed] = values[2, 4, "unary", seed] = 0.50 + 0.01 * seed
        values[1, 9, "unary", seed] = 0.60 + 0.01 * seed
        values[1, 4, "joint", seed] = 0.60 + 0.02 * seed
        values[2, 4, "joint", seed] = (0.63, 0.61, 0.69)[seed]
        values[1, 9, "joint", seed] = 0.70
    runner = Runner(tmp_path, values)

    def run(chosen=variants) -> list[str]:
        said: list[str] = []
        execute(MINE, chosen, variants, tmp_path, runner, said.append)
        return said

    return variants, runner, run


def test_what_is_finished_is_skipped(world) -> None:
    variants, runner, run = world
    run(variants[:1])
    assert runner.ran == [("base", arm, seed) for arm in MINE.arms for seed in (0, 1, 2)]
    run()
    assert len(runner.ran) == len(set(runner.ran)) == 18 - 3  # unary of "coarse" is taken over
    ran = len(runner.ran)
    assert run() == []
    assert len(runner.ran) == ran


def test_one_that_fails_stops_no_other_and_is_tried_again(world, tmp_path) -> None:
    variants, runner, run = world
    good = runner.values[1, 4, "joint", 1]
    runner.values[1, 4, "joint", 1] = FloatingPointError("step 3: the loss is nan\nsecond line")
    said = run()
    line = "FloatingPointError: step 3: the loss is nan second line"
    assert f"  joint-seed1 failed: {line}" in said
    results = gather(MINE, "tiny", variants, tmp_path)
    (failed,) = results["failed"]
    assert (failed["label"], failed["arm"], failed["seed"]) == ("base", "joint", 1)
    assert failed["error"] == line
    assert "test_ablate_run.py" in failed["at"]
    assert results["missing"] == []
    assert len(results["runs"]) == 17
    assert f"- failed: base, joint-seed1 ({variants[0].digest}): Floating" in markdown(results)

    runner.values[1, 4, "joint", 1] = good
    before = len(runner.ran)
    run()
    assert runner.ran[before:] == [("base", "joint", 1)]
    results = gather(MINE, "tiny", variants, tmp_path)
    assert results["failed"] == results["missing"] == []
    assert not list(tmp_path.rglob("failed.json"))


def test_an_interrupt_ends_all(world, tmp_path) -> None:
    variants, runner, run = world
    runner.values[1, 4, "unary", 1] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run()
    assert len(runner.ran) == 2
    assert len(gather(MINE, "tiny", variants, tmp_path)["missing"]) == 17


def table_of(results) -> dict[tuple[str, str], list[str]]:
    return {(row[0], row[1]): row[2:] for row in rows(results)}


def test_the_table_has_the_numbers_of_the_results(world, tmp_path) -> None:
    variants, _, run = world
    run()
    results = gather(MINE, "tiny", variants, tmp_path)
    base, coarse = np.array([0.60, 0.62, 0.64]), np.array([0.63, 0.61, 0.69])
    differences = difference(results, "coarse", "joint", "report")
    assert differences is not None
    assert differences.values == pytest.approx(coarse - base)
    # the interval of scipy's own paired t-test
    expected = stats.ttest_rel(coarse, base).confidence_interval(0.95)
    assert interval(differences) == pytest.approx((expected.low, expected.high))

    table = table_of(results)
    assert list(table) == [(label, arm) for label in MINE.variants for arm in MINE.arms]
    low, high = 100 * expected.low, 100 * expected.high
    assert table["coarse", "joint"] == [
        *("3", "64.33 ± 4.16", "50.00 ± 0.00", "32.17 ± 2.08", "16.08 ± 1.04"),
        *("+2.33 ± 3.06", f"{low:+.2f} to {high:+.2f}"),
    ]
    assert table["base", "joint"][-2:] == ["base", "–"]
    assert table["coarse", "unary"][-2:] == ["+0.00 ± 0.00", "+0.00 to +0.00"]

    # Arms may be compared within a label.
    results = gather(replace(MINE, against="unary"), "tiny", variants, tmp_path)
    found = difference(results, "strong", "joint", "report")
    assert found is not None
    assert found.values == pytest.approx([0.10, 0.09, 0.08])
    table = table_of(results)
    assert table["strong", "unary"][-2] == table["base", "unary"][-2] == "base"


def test_one_seed_has_neither_deviation_nor_interval(world, tmp_path) -> None:
    variants, _, run = world
    one = [replace(v, recipe=replace(v.recipe, seeds=(0,))) for v in variants]
    run(one)
    row = table_of(gather(MINE, "tiny", one, tmp_path))["coarse", "joint"]
    assert (row[:2], row[-2:]) == (["1", "63.00"], ["+3.00", "–"])


def test_runs_of_the_tune_split_alone_are_compared_there(world, tmp_path) -> None:
    variants, _, run = world
    run()
    for path in tmp_path.glob("*/arms/*/result.json"):
        result = read_json(path)
        result["metrics"]["tune"]["miou"] = result["metrics"].pop("report")["miou"]
        write_json(path, result)
    results = gather(MINE, "tiny", variants, tmp_path)
    row = table_of(results)["coarse", "joint"]
    assert row[:2] == ["3", "–"]
    assert row[-2].startswith("+2.33 ± ")
    assert "difference of tune mIoU" in markdown(results)


def test_missing_runs_are_named_and_shown_as_dashes(world, tmp_path) -> None:
    variants, _, run = world
    run(variants[:1])
    results = gather(MINE, "tiny", variants, tmp_path)
    assert len(results["missing"]) == 12
    text = markdown(results)
    assert f"- missing: coarse, joint-seed2 ({variants[1].digest})" in text
    assert "| coarse | joint | 0 | – | – | – | – | – | – |" in text
    assert [job.name for job in jobs_of(MINE, variants[1:2], tmp_path)][-1] == (
        f"{variants[1].digest} (coarse) joint-seed2"
    )


def test_an_ablation_end_to_end(tiny, tmp_path, trained_run, monkeypatch, capsys) -> None:
    pair = {label: MINE.variants[label] for label in ("base", "coarse")}
    mine = Ablation("mine", "What if?", pair, ("post-hoc", "joint"))
    monkeypatch.setitem(ABLATIONS, "mine", mine)
    monkeypatch.setitem(RECIPES, "collage", lambda: tiny)
    base, coarse = expand(mine, replace(tiny, seeds=(0,)))
    out = tmp_path / "out"
    for arm in ("start", "unary", "post-hoc", "joint"):  # the base is the recipe: it is finished
        name = f"{arm}-seed0"
        shutil.copytree(trained_run / "arms" / name, out / base.digest / "arms" / name)
    arguments = ["ablate", "mine", "--out", str(out), "--seeds", "0"]
    main([*arguments, "--shard", "1/2"])
    assert f"missing: coarse, joint-seed0 ({coarse.digest})" in capsys.readouterr().out

    main([*arguments, "--only", coarse.digest])
    printed = capsys.readouterr().out
    assert f"start-seed0 of {base.digest} taken over" in printed
    assert f"unary-seed0 of {base.digest} taken over" in printed
    results = json.loads((out / "mine" / "results.json").read_text())
    assert results["missing"] == results["failed"] == []
    assert len(results["runs"]) == 4
    for run in results["runs"]:
        folder = out / run["digest"] / "arms" / f"{run['arm']}-seed{run['seed']}"
        kept = read_json(folder / "result.json")
        assert run["report"] == kept["metrics"]["report"]["miou"]
        assert kept["crf"]["resolution"] == (1 if run["label"] == "base" else 2)
    starts = [out / v.digest / "arms" / "start-seed0" / "checkpoint.pt" for v in (base, coarse)]
    assert starts[0].read_bytes() == starts[1].read_bytes()

    # A run that cannot succeed ends with status 1, the table all the same.
    joint = out / coarse.digest / "arms" / "joint-seed0"
    (joint / "result.json").unlink()
    (joint / "checkpoint.pt").write_bytes(b"damaged")
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 1
    text = (out / "mine" / "results.md").read_text()
    assert f"- failed: coarse, joint-seed0 ({coarse.digest}): ValueError" in text
    main([*arguments, "--table-only"])
