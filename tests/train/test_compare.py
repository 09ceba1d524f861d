"""The whole path on a tiny collage: five arms, two seeds, results, page and tables."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image

from eval.__main__ import main as eval_main
from eval.checkpoint import read_checkpoint
from train.__main__ import main as train_main
from train.compare import compare
from train.protocol import Comparison

ARMS = ["start", "unary", "post-hoc", "crf-only", "joint"]


@pytest.mark.slow
def test_compare_end_to_end(tiny, tmp_path, capsys) -> None:
    out = tmp_path / "run"
    results = compare("collage", tiny, out, resume=False)
    assert json.loads((out / "results.json").read_text()) == results
    ran = [(run["arm"], run["seed"]) for run in results["runs"]]
    assert ran == [("start", 0), *((arm, seed) for arm in ARMS[1:] for seed in (0, 1))]
    for run in results["runs"]:
        assert run["network_steps"] == 4
        assert 0 <= run["metrics"]["report"]["miou"] <= 1
        assert (run["crf"] is None) == (run["arm"] in ("start", "unary"))
    printed = capsys.readouterr().out
    assert all(arm in printed for arm in ARMS)

    page = (out / "report.html").read_text()
    assert all(arm in page for arm in ARMS)
    with Image.open(next((out / "predictions" / "joint-seed1").iterdir())) as prediction:
        assert (prediction.mode, prediction.size) == ("P", (33, 33))

    # post-hoc and crf-only stand behind the very network of unary
    networks = {
        arm: read_checkpoint(out / "arms" / f"{arm}-seed0" / "checkpoint.pt")["model"]
        for arm in ARMS
    }
    for name, value in networks["unary"].items():
        assert torch.equal(value, networks["post-hoc"][name])
        if "num_batches_tracked" not in name:
            assert torch.equal(value, networks["crf-only"][name])

    # a second call has nothing to do; another configuration is refused
    before = (out / "arms" / "joint-seed0" / "checkpoint.pt").stat().st_mtime_ns
    again = compare("collage", tiny, out, resume=True)
    assert again["runs"] == results["runs"]
    assert (out / "arms" / "joint-seed0" / "checkpoint.pt").stat().st_mtime_ns == before
    with pytest.raises(FileExistsError, match="--resume"):
        compare("collage", tiny, out, resume=False)
    with pytest.raises(ValueError, match=r"another configuration: fit\.steps was 4, now 5"):
        compare("collage", replace(tiny, fit=replace(tiny.fit, steps=5)), out, resume=True)

    # `eval run` scores a checkpoint with the same numbers
    scores = tmp_path / "scores.json"
    checkpoint = out / "arms" / "joint-seed0" / "checkpoint.pt"
    eval_main(["run", str(checkpoint), "--out", str(scores)])
    joint = next(run for run in results["runs"] if run["arm"] == "joint")
    found = json.loads(scores.read_text())
    assert found["crf"]["miou"] == pytest.approx(joint["metrics"]["report"]["miou"], abs=1e-12)
    assert found["unary"]["miou"] != found["crf"]["miou"]


def test_run_of_one_arm_makes_what_it_builds_on(tiny, tmp_path) -> None:
    comparison = Comparison("collage", replace(tiny, seeds=(3,)), tmp_path, resume=False)
    comparison.run("joint", 3)
    assert {path.name for path in (tmp_path / "arms").iterdir()} == {"start-seed3", "joint-seed3"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "colage"], "unknown recipe 'colage'.*Did you mean 'collage'"),
        (["compar", "collage"], "unknown command 'compar'.*Did you mean 'compare'"),
        (["compare"], "no recipe given"),
        (["compare", "voc12-animals", "--data.root", "absent"], "data root absent does not exist"),
        (
            ["compare", "collage", "--model.weights", "absent.safetensors"],
            r"no weights at absent\.safetensors",
        ),
    ],
)
def test_bad_command_lines(arguments, message, tmp_path) -> None:
    if len(arguments) > 1:
        arguments = [*arguments, "--out", str(tmp_path / "run"), "--wandb", "disabled"]
    with pytest.raises(SystemExit, match=message):
        train_main(arguments)


def test_unknown_override_suggests_the_nearest(capsys) -> None:
    with pytest.raises(SystemExit):
        train_main(["compare", "collage", "--crf.theta-alfa", "3"])
    assert "--crf.theta-alpha" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ran"], "unknown command 'ran'"),
        (["run", "absent.pt"], r"no checkpoint at absent\.pt"),
        (["run", "pyproject.toml"], "damaged or is no checkpoint"),
    ],
)
def test_bad_evaluations(arguments, message) -> None:
    with pytest.raises(SystemExit, match=message):
        eval_main(arguments)
