"""Ablations: changes and digests, what labels share, shards, sweeps, runs and their table."""

from __future__ import annotations

import json
import os
import shutil
import signal
from copy import deepcopy
from dataclasses import asdict, replace
from functools import reduce
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from scipy import stats

from eval.runs import Spread
from runtime.run_folder import GAINED, as_json, digest_of, read_json, what_matters, write_json
from train.__main__ import main
from train.ablate.ablation import ABLATIONS, SHIPPED, Ablation
from train.ablate.command import AGENT_VARIABLES, RunArm, execute, leave_sweep, shard_of
from train.ablate.table import gather, interval, markdown, rows
from train.ablate.variants import Variant, changed, expand, record_provenance, take_over
from train.recipe import FinishConfig, Recipe
from train.recipes import RECIPES
from train.state import Stopped


def ablation(**variants) -> Ablation:
    named = {label.replace("_", " "): changes for label, changes in variants.items()}
    return Ablation("mine", "What if?", named, arms=("unary", "joint"))


def test_changes_reach_any_depth_and_leave_the_recipe_alone(tiny) -> None:
    varied = changed(tiny, "fit.loss.unary", 2)
    assert varied.fit.loss.unary == 2
    assert type(varied.fit.loss.unary) is float  # 2 and 2.0 are one digest
    assert replace(varied, fit=tiny.fit) == tiny
    assert changed(tiny, "search.theta_alpha", [3, 4.0]).search.theta_alpha == (3.0, 4.0)
    assert changed(tiny, "augment.crop_size", None).augment.crop_size is None


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("crf.resolutoin", 4, r"unknown field 'crf\.resolutoin'.*Did you mean 'crf\.resolution'"),
        ("crf.resolution.x", 4, r"crf\.resolution is 1 and has no field 'x'"),
        ("crf.num_iterations", True, r"must be int, got True"),
        ("crf.kernel_weights", "vector", r"must be Literal\['scalar', 'class', 'matrix'\]"),
        ("search.theta_alpha", [3.0, "x"], r"search\.theta_alpha must be tuple\[float, "),
        ("fit", {"steps": 3}, "fit must be FitConfig"),
        ("crf.resolution", 3, r"crf\.resolution must be 1, 2, 4 or 8, got 3"),
        ("seeds", (1, 2), "seeds belong to all labels"),
    ],
)
def test_what_a_recipe_cannot_take_is_refused_before_anything_runs(tiny, path, value, message):
    with pytest.raises(ValueError, match=f"ablation 'mine', label 'other': .*{message}"):
        expand(ablation(base={}, other={path: value}), tiny)


def test_labels_of_one_config_are_one_variant(tiny) -> None:
    mine = ablation(base={}, same={"crf.resolution": 1}, other={"crf.resolution": 2})
    base, other = expand(mine, tiny)
    assert (base.labels, base.recipe, other.labels) == (("base", "same"), tiny, ("other",))
    assert base.jobs(("start", "joint")) == [("start", 0), ("joint", 0), ("joint", 1)]


def test_digests_are_of_what_matters(tiny) -> None:
    def digest(recipe: Recipe) -> str:
        (variant,) = expand(ablation(base={}), recipe)
        return variant.digest

    assert digest_of({"a": 1, "b": [2.0, None]}) == digest_of({"b": [2.0, None], "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": 1.0})
    assert digest(tiny) == digest(replace(tiny, seeds=(0, 1, 2), workers=3, wandb="offline"))
    assert digest(tiny) != digest(replace(tiny, seeds=(1, 0)))  # start is made with another seed
    assert digest(tiny) != digest(replace(tiny, fit=replace(tiny.fit, lr=2.0)))


def test_digests_of_earlier_folders_stay(tiny) -> None:
    # Another writing of configs would leave every folder that there is without a name.
    assert digest_of({"a": 1}) == "015abd7f5cc5"
    stages = {"finish": FinishConfig(tiny.fit), "crf_first": tiny.fit, "crf_last": tiny.fit}
    config = as_json(asdict(replace(tiny, **stages)))
    for name in GAINED:
        earlier = deepcopy(config)
        *parts, last = name.split(".")
        holder = reduce(dict.__getitem__, parts, earlier)
        assert holder.pop(last) == GAINED[name]
        assert what_matters(earlier) == what_matters(config)
        holder[last] = "another"
        assert what_matters(earlier) != what_matters(config)


def test_shipped_ablations_expand_to_distinct_runs() -> None:
    for shipped in SHIPPED:
        variants = expand(shipped, RECIPES["collage"]())
        assert len(variants) == len(shipped.variants)
        assert variants[0].labels == (shipped.base,)


def test_shards_are_a_partition_and_keep_starts_together(tiny) -> None:
    labels = {
        f"{s}_{r}": {"start.steps": s, "crf.resolution": r} for r in (1, 2, 4) for s in (1, 2, 3)
    }
    variants = expand(ablation(**labels), tiny)
    for count in (3, 4):
        shards = [shard_of(variants, f"{index + 1}/{count}") for index in range(count)]
        digests = [variant.digest for shard in shards for variant in shard]
        assert sorted(digests) == sorted(variant.digest for variant in variants)
        assert {len(shard) for shard in shards} <= {9 // count, 9 // count + 1}
        starts = [{v.changes["start.steps"] for v in shard} for shard in shards]
        assert sum(len(part) for part in starts) <= 3 + count - 1  # a cut parts one start at most


def test_the_sweep_file_is_yaml_that_runs_every_digest(tmp_path, capsys, monkeypatch) -> None:
    path = tmp_path / "sweep.yaml"
    arguments = ["ablate", "learnable-theta", "--as-sweep", str(path), "--fit.steps", "3"]
    main([*arguments, "--seeds", "4", "5", "--out", str(tmp_path / "out")])
    sweep = yaml.safe_load(path.read_text())
    collage = RECIPES["collage"]()
    recipe = replace(collage, fit=replace(collage.fit, steps=3), seeds=(4, 5))
    digests = [variant.digest for variant in expand(ABLATIONS["learnable-theta"], recipe)]
    assert (sweep["method"], sweep["parameters"]) == ("grid", {"only": {"values": digests}})
    command = sweep["command"]
    repeated = ["--fit.steps", "3", "--seeds", "4", "5", "--out", str(tmp_path / "out")]
    train = ["${env}", "${interpreter}", "-m", "train", "ablate", "learnable-theta"]
    assert command == [*train, *repeated, "${args}"]
    # what an agent calls: the same variants, and one of them; its run is not every arm's
    for name in AGENT_VARIABLES:
        monkeypatch.setenv(name, "from the agent")
    main([*command[4:-1], f"--only={digests[1]}", "--list"])
    leave_sweep()
    assert not set(AGENT_VARIABLES) & set(os.environ)
    assert digests[1] in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["solvr"], "unknown ablation 'solvr': .*Did you mean 'solver'"),
        (["solver", "--arms", "unary"], "unknown arm of solver 'unary': choose one of post-hoc,"),
        (["frozen-network", "--arms", "joint"], ".*compares with an arm that it does not run"),
        (["solver", "--shard", "1/2", "--only", "0123"], ".*give one of them"),
        (["solver", "--shard", "3/2"], r"--shard must be i/n with i in 1\.\.n"),
        (["solver", "in several processes"], ".*one process: start several with --shard I/N"),
    ],
)
def test_bad_command_lines(arguments, message, tmp_path, monkeypatch) -> None:
    several = arguments[-1] == "in several processes"
    monkeypatch.setattr(torch.distributed, "is_torchelastic_launched", lambda: several)
    with pytest.raises(SystemExit, match=f"error: {message}"):
        main(["ablate", *arguments[: -1 if several else None], "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


UNTIED = {"crf.untied": True}


def pair(tiny, changes, *arms: str) -> tuple[Ablation, Variant, Variant]:
    """An ablation, its base and the variant with these changes."""
    mine = Ablation("mine", "", {"base": {}, "other": changes}, arms=arms)  # type: ignore[arg-type]
    base, other = expand(mine, tiny)
    return mine, base, other


def fill(out: Path, variant: Variant, *names: str, search: bool = False) -> Path:
    """Finish these arms of a variant; the folder of the last."""
    for name in names:
        folder = out / variant.digest / "arms" / name
        write_json(folder / "result.json", {"from": variant.digest})
        (folder / "checkpoint.pt").write_bytes(variant.digest.encode())
        for file in ("metrics.jsonl", "counts-tune.npz"):
            (folder / file).touch()
        if search:
            write_json(folder / "search.json", {"from": variant.digest})
    return folder


NETWORKS = ("start-seed0", "unary-seed0")


@pytest.mark.parametrize(
    ("changes", "start", "unary", "search"),
    [
        ({"crf_fit.steps": 7}, True, True, True),
        ({"crf.resolution": 2}, True, True, False),
        ({"crf.normalization": "none"}, True, True, False),
        ({"crf.kernel_weights": "matrix", "crf.untied": True}, True, True, True),
        ({"search.num_images": 1}, True, True, False),
        ({"fit.steps": 7}, True, False, True),
        ({"start.steps": 7}, False, False, None),
        ({"augment.flip": False}, False, False, None),
        ({"model.min_size": 65}, False, False, None),
    ],
)
def test_what_a_change_leaves_alone_is_taken_over(tiny, tmp_path, changes, start, unary, search):
    mine, base, other = pair(tiny, changes, "post-hoc", "joint")
    fill(tmp_path, base, *NETWORKS, search=True)
    take_over(other, mine.arms, [base, other], tmp_path)
    arms = tmp_path / other.digest / "arms"
    expected = {"checkpoint.pt", "result.json", "counts-tune.npz", "taken_over.json"}
    for name, taken in zip(NETWORKS, (start, unary), strict=True):
        assert (arms / name / "result.json").is_file() == taken
        if taken:
            assert (arms / name / "checkpoint.pt").read_bytes() == base.digest.encode()
            assert read_json(arms / name / "taken_over.json") == {"from": base.digest}
            found = {path.name for path in (arms / name).iterdir()}
            assert found == (expected | {"search.json"} if search else expected)
    assert not (arms / "unary-seed1").exists()  # the base has not finished it


def test_only_what_is_finished_and_behind_the_same_network_is_taken_over(tiny, tmp_path) -> None:
    mine, base, other = pair(tiny, {"crf.resolution": 2}, "joint")
    start = fill(tmp_path, base, "unary-seed0").with_name("start-seed0")
    start.mkdir()
    (start / "checkpoint.pt").touch()  # in training
    assert take_over(other, mine.arms, [base, other], tmp_path) == []
    assert not (tmp_path / other.digest).exists()
    # A search is not put behind another network.
    mine, base, other = pair(tiny, UNTIED, "post-hoc")
    fill(tmp_path, base, *NETWORKS, "post-hoc-seed0", search=True)
    own = fill(tmp_path, other, "unary-seed0")
    take_over(other, mine.arms, [base, other], tmp_path)
    assert (own / "checkpoint.pt").read_bytes() == other.digest.encode()
    assert not (own / "search.json").exists()
    assert not (own.parent / "post-hoc-seed0").exists()
    assert (own.parent / "start-seed0" / "search.json").is_file()


@pytest.mark.parametrize(
    ("changes", "arms", "taken"),
    [
        ({"crf.kernel_weights": "matrix"}, ("crf-only",), True),
        ({"crf.kernel_weights": "matrix"}, ("unary", "joint"), False),
        ({"crf.resolution": 2}, ("crf-only",), False),
    ],
)
def test_post_hoc_is_taken_over_with_its_search(tiny, tmp_path, changes, arms, taken) -> None:
    mine, base, other = pair(tiny, changes, *arms)
    fill(tmp_path, base, *NETWORKS, search=True)
    fill(tmp_path, base, "post-hoc-seed0")
    take_over(other, mine.arms, [base, other], tmp_path)
    target = tmp_path / other.digest / "arms" / "post-hoc-seed0"
    assert target.is_dir() == taken
    if taken:
        assert read_json(target / "taken_over.json") == {"from": base.digest}


def test_what_is_taken_over_keeps_who_made_it(tiny, tmp_path) -> None:
    mine, base, other = pair(tiny, UNTIED, "joint")
    fill(tmp_path, base, "start-seed0")
    made = {"id": "one", "command": "python -m train ablate mine", "seconds": 5.0}
    write_json(tmp_path / base.digest / "origin.json", [made])
    take_over(other, mine.arms, [base, other], tmp_path)
    for _ in range(2):  # once is enough
        record_provenance(other, tmp_path)
        signed = read_json(tmp_path / other.digest / "origin.json")
        # The time is the other folder's.
        assert signed == [{**made, "seconds": 0.0, "taken_over": True}]


VARIED = {"base": {}, "coarse": {"crf.resolution": 2}, "strong": {"start.steps": 9}}
MINE = Ablation("mine", "What if?", VARIED, arms=("unary", "joint"))


@pytest.fixture
def world(tiny, tmp_path):
    """(variants, what is scored and has run, run them): results of a table instead of training."""
    variants = expand(MINE, replace(tiny, seeds=(0, 1, 2)))
    values: dict[tuple[str, str], list[Any]] = {  # unary does not see the resolution
        **{("base", "unary"): [0.50, 0.51, 0.52], ("base", "joint"): [0.60, 0.62, 0.64]},
        **{("coarse", "unary"): [0.50, 0.51, 0.52], ("coarse", "joint"): [0.63, 0.61, 0.69]},
        **{("strong", "unary"): [0.60, 0.61, 0.62], ("strong", "joint"): [0.70, 0.70, 0.70]},
    }
    ran: list[tuple[str, str, int]] = []

    def runner(variant: Variant) -> RunArm:
        def run(arm: str, seed: int) -> None:
            ran.append((variant.labels[0], arm, seed))
            value = values[variant.labels[0], arm][seed]
            if isinstance(value, BaseException):
                raise value
            report = {"miou": value, "trimap_miou": {"1": value / 2, "3": value / 4}}
            metrics = {"report": report, "tune": {"miou": 0.5, "trimap_miou": {}}}
            folder = tmp_path / variant.digest / "arms" / f"{arm}-seed{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "checkpoint.pt").touch()
            write_json(folder / "result.json", {"arm": arm, "seed": seed, "metrics": metrics})

        return run

    def run(chosen=variants) -> list[str]:
        said: list[str] = []
        execute(MINE, chosen, variants, tmp_path, runner, said.append)
        return said

    return variants, SimpleNamespace(values=values, ran=ran), run


def test_one_that_fails_stops_no_other_and_alone_is_tried_again(world, tmp_path) -> None:
    variants, runner, run = world
    run(variants[2:])
    assert runner.ran == [("strong", arm, seed) for arm in MINE.arms for seed in (0, 1, 2)]
    good = runner.values["base", "joint"][1]
    runner.values["base", "joint"][1] = FloatingPointError("step 3: the loss is nan\nsecond line")
    said = run()
    line = "FloatingPointError: step 3: the loss is nan second line"
    assert f"  joint-seed1 failed: {line}" in said
    results = gather(MINE, "tiny", variants, tmp_path)
    (failed,) = results["failed"]
    assert (failed["label"], failed["arm"], failed["seed"]) == ("base", "joint", 1)
    assert failed["error"] == line
    assert "test_ablate.py" in failed["at"]
    assert results["missing"] == []
    assert len(results["runs"]) == 17
    assert len(runner.ran) == len(set(runner.ran)) == 18 - 3  # unary of "coarse" is taken over
    assert f"- failed: base, joint-seed1 ({variants[0].digest}): Floating" in markdown(results)

    runner.values["base", "joint"][1] = good
    before = len(runner.ran)
    run()
    assert run() == []
    assert runner.ran[before:] == [("base", "joint", 1)]
    results = gather(MINE, "tiny", variants, tmp_path)
    assert results["failed"] == results["missing"] == []
    assert not list(tmp_path.rglob("failed.json"))


def test_an_interrupt_ends_all(world, tmp_path) -> None:
    variants, runner, run = world
    runner.values["base", "unary"][1] = Stopped(3, signal.SIGTERM)
    with pytest.raises(Stopped):
        run()
    assert len(runner.ran) == 2
    results = gather(MINE, "tiny", variants, tmp_path)
    assert len(results["missing"]) == 17
    assert f"- missing: coarse, joint-seed2 ({variants[1].digest})" in markdown(results)


def table_of(results) -> dict[tuple[str, str], list[str]]:
    return {(row[0], row[1]): row[2:] for row in rows(results)}


def test_the_table_has_the_numbers_of_the_results(world, tmp_path) -> None:
    variants, _, run = world
    run()
    results = gather(MINE, "tiny", variants, tmp_path)
    base, coarse = np.array([0.60, 0.62, 0.64]), np.array([0.63, 0.61, 0.69])
    # the interval of scipy's own paired t-test
    expected = stats.ttest_rel(coarse, base).confidence_interval(0.95)
    assert interval(Spread(tuple(coarse - base))) == pytest.approx((expected.low, expected.high))

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
    table = table_of(results)
    assert table["strong", "joint"][-2] == "+9.00 ± 1.00"
    assert table["strong", "unary"][-2] == table["base", "unary"][-2] == "base"


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
        assert run["metrics"]["report"]["miou"] == kept["metrics"]["report"]["miou"]
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
