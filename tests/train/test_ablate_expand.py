"""Ablations before they run: changes and their types, digests, shards, sweeps, the command line."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from functools import reduce

import pytest
import torch
import yaml

from runtime.run_folder import GAINED, as_json, digest_of, what_matters
from train.__main__ import main
from train.ablate.ablation import ABLATIONS, SHIPPED, Ablation
from train.ablate.execute import AGENT_VARIABLES, Shard, leave_sweep
from train.ablate.variants import changed, common, expand
from train.recipe import Recipe
from train.recipes import RECIPES


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
    assert changed(tiny, "crf.step", 1).crf.step == 1.0
    assert changed(tiny, "finish", None) == tiny


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("crf.resolutoin", 4, r"there is no field 'crf\.resolutoin'\. Did you mean 'resolution'"),
        ("crf.resolution.x", 4, r"crf\.resolution is 1 here and has no field 'x'"),
        ("crf.num_iterations", True, r"must be int, got True \(bool\)"),
        ("crf.kernel_weights", "vector", r"must be Literal\['scalar', 'class', 'matrix'\]"),
        ("crf.step", "slow", r"crf\.step must be .*float.*Literal.*got 'slow'"),
        ("search.theta_alpha", [3.0, "4"], r"search\.theta_alpha must be tuple\[float, \.\.\.\]"),
        ("fit", {"steps": 3}, "fit must be FitConfig"),
        ("crf.resolution", 3, r"crf\.resolution must be 1, 2, 4 or 8, got 3"),
        ("seeds", (1, 2), "seeds belong to all labels"),
    ],
)
def test_what_a_recipe_cannot_take_is_refused_before_anything_runs(
    tiny, path, value, message
) -> None:
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
    assert len(digest(tiny)) == 12
    assert digest(tiny) == digest(replace(tiny, seeds=(0, 1, 2), workers=3, wandb="offline"))
    assert digest(tiny) != digest(replace(tiny, seeds=(1, 0)))  # start is made with another seed
    assert digest(tiny) != digest(replace(tiny, fit=replace(tiny.fit, lr=2.0)))


def test_digests_of_earlier_folders_stay(tiny) -> None:
    # Another writing of configs would leave every folder that there is without a name.
    assert digest_of({"a": 1}) == "015abd7f5cc5"
    config = as_json(asdict(tiny))
    for name in GAINED:
        earlier = as_json(asdict(tiny))
        *parts, last = name.split(".")
        holder = reduce(dict.__getitem__, parts, earlier)
        assert holder.pop(last) == GAINED[name]
        assert what_matters(earlier) == what_matters(config)
        holder[last] = "another"
        assert what_matters(earlier) != what_matters(config)


@pytest.mark.parametrize("shipped", SHIPPED, ids=lambda shipped: shipped.name)
def test_shipped_ablations_expand_to_distinct_runs(shipped) -> None:
    variants = expand(shipped, RECIPES["collage"]())
    assert len(variants) == len(shipped.variants)
    assert variants[0].labels == (shipped.base,)


def test_what_a_crf_learns_is_asked_where_it_learns() -> None:
    """Also where the recipe holds the CRF as the search has found it."""
    names = ("iterations", "kernel-weights", "compatibility", "learnable-theta")
    for name in (*names, "untied-iterations"):
        for variant in expand(ABLATIONS[name], RECIPES["voc12-animals-imagenet"]()):
            for phase in (variant.recipe.fit, variant.recipe.crf_fit):
                assert min(phase.crf_lr, phase.compatibility_lr) > 0


@pytest.mark.parametrize("count", [1, 3, 7, 20])
def test_shards_are_a_partition_and_keep_starts_together(tiny, count) -> None:
    labels = {
        f"{steps}_{resolution}": {"start.steps": steps, "crf.resolution": resolution}
        for resolution in (1, 2, 4, 8)
        for steps in (1, 2, 3)
    }
    variants = expand(ablation(**labels), tiny)
    assert len({digest_of(common(v.config, "start")) for v in variants}) == 3
    shards = [Shard(index + 1, count).of(variants) for index in range(count)]
    digests = [variant.digest for shard in shards for variant in shard]
    assert sorted(digests) == sorted(variant.digest for variant in variants)
    sizes = [len(shard) for shard in shards]
    assert max(sizes) - min(sizes) <= 1
    starts = [{v.changes["start.steps"] for v in shard} for shard in shards]
    assert sum(len(part) for part in starts) <= 3 + count - 1  # a cut parts one start at most
    if count == 3:
        assert starts == [{1}, {2}, {3}]
    for text in ("0/2", "3/2", "1", "a/b"):
        with pytest.raises(ValueError, match=r"--shard must be i/n with i in 1\.\.n"):
            Shard.parse(text)


def test_the_sweep_file_is_yaml_that_runs_every_digest(tmp_path, capsys) -> None:
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
    # what an agent calls: the same variants, and one of them
    main([*command[4:-1], f"--only={digests[1]}", "--list"])
    assert digests[1] in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_an_agents_run_id_is_not_taken_for_every_arm(monkeypatch) -> None:
    for name in AGENT_VARIABLES:
        monkeypatch.setenv(name, "from the agent")
    leave_sweep()
    assert not set(AGENT_VARIABLES) & set(os.environ)


def test_an_ablation_is_not_for_several_processes(monkeypatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_torchelastic_launched", lambda: True)
    with pytest.raises(SystemExit, match="one process: start several with --shard I/N"):
        main(["ablate", "solver"])


def test_the_list_names_every_ablation_and_every_change(capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    main(["ablate"])
    printed = capsys.readouterr().out
    assert all(f"\n{name}: {a.question}" in printed for name, a in ABLATIONS.items())
    out = tmp_path / "out"
    main(["ablate", "untied-iterations", "--arms", "joint", "--list", "--out", str(out)])
    lines = capsys.readouterr().out.splitlines()
    for variant in expand(ABLATIONS["untied-iterations"], RECIPES["collage"]()):
        row = f"crf.untied {variant.recipe.crf.untied}  "
        assert any(row in line and variant.digest in line for line in lines)
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["solvr"], "unknown ablation 'solvr': .*Did you mean 'solver'"),
        (["solver", "--recipe", "colage"], "unknown recipe 'colage': .*Did you mean 'collage'"),
        (["solver", "--arms", "unary"], "unknown arm of solver 'unary': choose one of post-hoc,"),
        (["frozen-network", "--arms", "joint"], ".*compares with an arm that it does not run"),
        (["solver", "--only", "0123"], "unknown digest '0123': choose one of "),
        (["solver", "--shard", "1/2", "--only", "0123"], ".*give one of them"),
    ],
)
def test_bad_command_lines(arguments, message, tmp_path) -> None:
    with pytest.raises(SystemExit, match=f"error: {message}"):
        main(["ablate", *arguments, "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
