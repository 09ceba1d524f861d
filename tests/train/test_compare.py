"""The whole path on a tiny collage: five arms, two seeds, results, page and command lines."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock
from urllib.error import URLError

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from data import CamVidConfig, config_to_dict
from eval.__main__ import main as eval_main
from eval.metrics import SplitCounts
from models import ResNetConfig, Segmenter, SegmenterConfig, TimmConfig, builder
from runtime.checkpoint import read_checkpoint, save_checkpoint
from tests.train.world import changed
from train.__main__ import choose_kinds
from train.__main__ import main as train_main
from train.arms import Comparison
from train.recipes import RECIPES

ARMS = ["start", "unary", "post-hoc", "crf-only", "joint"]
COUNTS = "counts-report.npz"


def test_a_comparison_keeps_every_arm_with_scores_and_predictions(trained_run) -> None:
    results = json.loads((trained_run / "results.json").read_text())
    ran = [(run["arm"], run["seed"]) for run in results["runs"]]
    assert ran == [("start", 0), *((arm, seed) for arm in ARMS[1:] for seed in (0, 1))]
    for run in results["runs"]:
        assert run["network_steps"] == 4
        assert (run["crf"] is None) == (run["arm"] in ("start", "unary"))
        kept = trained_run / "arms" / f"{run['arm']}-seed{run['seed']}" / "result.json"
        assert json.loads(kept.read_text()) == run
    runs = {(run["arm"], run["seed"]): run for run in results["runs"]}
    for arm in ("post-hoc", "crf-only"):  # what stands before their CRF is unary
        assert runs[arm, 1]["before_crf"] == runs["unary", 1]["metrics"]
    with Image.open(next((trained_run / "predictions" / "joint-seed1").iterdir())) as prediction:
        assert (prediction.mode, prediction.size) == ("P", (33, 33))


def test_post_hoc_and_crf_only_stand_behind_the_very_network_of_unary(trained_run) -> None:
    unary, post_hoc, crf_only, joint = (
        read_checkpoint(trained_run / "arms" / f"{arm}-seed1" / "checkpoint.pt")["model"]
        for arm in ARMS[1:]
    )
    assert all(torch.equal(value, post_hoc[name]) for name, value in unary.items())
    assert all(torch.equal(value, crf_only[name]) for name, value in unary.items())
    assert not all(torch.equal(value, joint[name]) for name, value in unary.items())


def test_a_finished_comparison_is_kept_and_gets_its_page(
    trained_run, tmp_path, tiny, monkeypatch, capsys
) -> None:
    copied = Path(shutil.copytree(trained_run, tmp_path / "run"))
    monkeypatch.setitem(RECIPES, "collage", lambda: tiny)
    before = json.loads((copied / "results.json").read_text())
    stamps = {path: path.stat().st_mtime_ns for path in copied.rglob("*.pt")}
    command = ["compare", "collage", "--out", str(copied)]
    train_main([*command, "--resume"])
    assert json.loads((copied / "results.json").read_text())["runs"] == before["runs"]
    assert {path: path.stat().st_mtime_ns for path in copied.rglob("*.pt")} == stamps
    printed, page = capsys.readouterr().out, (copied / "report.html").read_text()
    assert all(arm in printed and arm in page for arm in ARMS)
    with pytest.raises(SystemExit, match=r"error: .*--resume goes on with it"):
        train_main(command)
    with pytest.raises(SystemExit, match=r"another configuration: fit\.steps was 4, now 5"):
        train_main([*command, "--resume", "--fit.steps", "5"])


def test_eval_run_scores_a_checkpoint_with_the_same_numbers(trained_run, tmp_path, capsys) -> None:
    out = tmp_path / "scores.json"
    arm = trained_run / "arms" / "joint-seed1"
    eval_main(["run", str(arm / "checkpoint.pt"), "--out", str(out)])
    joint, found = (json.loads(path.read_text()) for path in (arm / "result.json", out))
    for name, kept in (("crf", joint["metrics"]), ("unary", joint["before_crf"])):
        assert found[name]["miou"] == pytest.approx(kept["report"]["miou"], abs=1e-12)
    assert found["harm_rate"] == joint["harm_rate"]["report"]
    change, difference = found["difference"]["miou"], found["crf"]["miou"] - found["unary"]["miou"]
    assert change["value"] == pytest.approx(difference, abs=1e-12)
    assert change["low"] <= change["value"] <= change["high"]
    # and keeps what they come from, as the comparison did
    kept, there = (SplitCounts.load(p) for p in (tmp_path / "scores-crf.npz", arm / COUNTS))
    assert np.array_equal(kept.confusions, there.confusions)
    assert "images with a lower mIoU" in capsys.readouterr().out
    eval_main(["run", str(arm / "checkpoint.pt"), "--out", str(out), "--scales", "0.5", "--flip"])
    assert json.loads(out.read_text())["crf"]["miou"] != found["crf"]["miou"]
    with pytest.raises(SystemExit, match="error: scales must be one or more numbers above 0"):
        eval_main(["run", str(arm / "checkpoint.pt"), "--scales", "0"])


def test_network_and_data_set_are_chosen_by_name_and_their_numbers_by_option(tiny) -> None:
    words = ["--model.builder", "deeplab_v3plus_xception65", "--fit.steps", "3"]
    recipe, rest = choose_kinds(tiny, words)
    assert recipe.model.network == builder("deeplab_v3plus_xception65").config
    assert rest == ["--fit.steps", "3"]
    recipe, _ = choose_kinds(tiny, ["--model.backbone=resnet50", "--help"])
    assert recipe.model.network == replace(tiny.model.network, backbone=ResNetConfig(depth=50))
    recipe, rest = choose_kinds(tiny, ["--data.kind", "camvid", "--data.root", "here"])
    assert (recipe, rest) == (replace(tiny, data=CamVidConfig()), ["--data.root", "here"])


def test_weights_that_cannot_be_fetched_name_the_ways_out(tiny, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("train.arms.Segmenter", Mock(side_effect=URLError("no route")))
    comparison = Comparison("collage", tiny, tmp_path / "run", resume=False)
    with pytest.raises(OSError, match=r"\(no route\).*backbone-weights.*backbone\.no-pretrained"):
        comparison.start(0)


def test_the_start_may_take_a_backbone_from_a_file(tiny, tmp_path) -> None:
    peer = timm.create_model("test_efficientnet")
    path = tmp_path / "imagenet.safetensors"
    save_file(peer.state_dict(), path)
    backbone = TimmConfig("test_efficientnet", pretrained=True)
    network = replace(tiny.model.network, backbone=backbone)
    model = replace(tiny.model, network=network, backbone_weights=path)
    # so small a step that what is loaded is what is kept
    recipe = replace(tiny, start=replace(tiny.start, lr=1e-12, steps=1), model=model)
    comparison = Comparison("collage", recipe, tmp_path / "run", resume=False)
    # Nothing is fetched where weights are given.
    assert not comparison.runner.untrained_segmenter().config.network.backbone.pretrained
    comparison.run("start", 0)
    found = comparison.runner.load("start", 0).network.backbone.state_dict()["conv_stem.weight"]
    torch.testing.assert_close(found, peer.state_dict()["conv_stem.weight"])


def test_an_exported_network_is_a_start(trained_run, tiny, tmp_path) -> None:
    checkpoint = trained_run / "arms" / "joint-seed0" / "checkpoint.pt"
    path = tmp_path / "weights.safetensors"
    eval_main(["export", str(checkpoint), "--out", str(path)])
    recipe = replace(tiny, start=None, score=("tune",), model=replace(tiny.model, weights=path))
    comparison = Comparison("collage", recipe, tmp_path / "run", resume=False)
    assert comparison.run("start", 0)["network_steps"] == 0
    assert changed(comparison.runner.load("start", 0), read_checkpoint(checkpoint)["model"]) == []
    with pytest.raises(ValueError, match=r"starts from trained weights: .*--model\.weights FILE"):
        replace(recipe, model=tiny.model).check_start()


NO_STRIDE = "compare collage --model.builder deeplab_v1_7x7 --model.network.output-stride 8"
BAD = {
    "compare colage": "unknown recipe 'colage'.*Did you mean 'collage'",
    "compar collage": "unknown command 'compar'.*Did you mean 'compare'",
    "compare collage --fit.lr 0": "lr must be above 0",
    "compare collage --fit.frozen bakbone": "no part 'bakbone'",
    "compare collage --search.theta-beta": r"search\.theta_beta must hold values",
    "compare collage --data.kind ade": "unknown data set 'ade': choose one of",
    "compare voc12-animals --data.root absent": "data root absent does not exist",
    "compare collage --model.weights a": r"no weights at a: .*--model\.weights",
    "compare collage --model.backbone-weights a --model.weights b": "leave .*backbone-weights out",
    "compare collage --model.builder deeplab_v3_resnt50": "Nearest names: deeplab_v3_resnet",
    "compare collage --model.builder=deeplab_v1_7x7 --model.backbone=resnet50": "goes with the hea",
    # Which numbers a network has depends on its kind.
    NO_STRIDE: r"Unrecognized options: --model\.network\.output-stride",
}


@pytest.mark.parametrize(("arguments", "message"), BAD.items())
def test_bad_command_lines(arguments: str, message: str, tmp_path: Path, capsys) -> None:
    words = arguments.split()
    words += ["--out", str(tmp_path / "run"), "--wandb", "disabled"]
    with pytest.raises(SystemExit) as stopped:
        train_main(words)
    # What a config refuses, tyro prints in a box: without its frame and line breaks.
    printed = " ".join(re.sub(r"[^\x20-\x7e]", " ", capsys.readouterr().err).split())
    assert re.search(message, f"{stopped.value} {printed}")
    assert not (tmp_path / "run").exists()  # refused before anything was written


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 0}, "a checkpoint of format 0, this version reads 2"),
        ({"arm": None}, "does not hold what a checkpoint does"),
        ({"segmenter": {"classes": 3}}, "config is of another version"),
        ({"data": {"kind": "ade"}}, "data kind must be one of collage, voc, .*; got 'ade'"),
        ({"model": {}}, "weights do not fit the model"),
    ],
)
def test_checkpoints_of_other_versions(tiny, tmp_path, change, message) -> None:
    segmenter = Segmenter(SegmenterConfig(9, tiny.model.network))
    path = tmp_path / "checkpoint.pt"
    data = config_to_dict(tiny.data)
    save_checkpoint(path, segmenter, data=data, arm="unary", seed=0, step=0, training={})
    checkpoint = {**read_checkpoint(path), **change}
    torch.save({k: v for k, v in checkpoint.items() if v is not None}, path)
    with pytest.raises(SystemExit, match=message):
        eval_main(["run", str(path)])
