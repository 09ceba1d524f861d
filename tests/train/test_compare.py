"""The whole path on a tiny collage: five arms, two seeds, results, page and tables."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from urllib.error import URLError

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from data import CamVidConfig, config_to_dict
from eval.__main__ import main as eval_main
from eval.checkpoint import read_checkpoint, save_checkpoint
from eval.metrics import SplitCounts
from models import (
    CrfConfig,
    DeepLabV2Config,
    DeepLabV3PlusConfig,
    ResNetConfig,
    Segmenter,
    SegmenterConfig,
    TimmConfig,
    VggConfig,
    builder,
    load_weights,
)
from train.__main__ import choose_kinds
from train.__main__ import main as train_main
from train.compare import compare
from train.protocol import Comparison
from train.run_folder import as_whole

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

    # what changes no arm may change: one more seed is one more run of each arm
    more = compare("collage", replace(tiny, seeds=(0, 1, 2), workers=0), out, resume=True)
    assert len(more["runs"]) == 13
    assert [r for r in more["runs"] if r["seed"] < 2] == results["runs"]
    assert more["wall_seconds"] > results["wall_seconds"]

    # `eval run` scores a checkpoint with the same numbers
    scores = tmp_path / "scores.json"
    checkpoint = out / "arms" / "joint-seed0" / "checkpoint.pt"
    eval_main(["run", str(checkpoint), "--out", str(scores)])
    joint = next(run for run in results["runs"] if run["arm"] == "joint")
    found = json.loads(scores.read_text())
    assert found["crf"]["miou"] == pytest.approx(joint["metrics"]["report"]["miou"], abs=1e-12)
    assert found["unary"]["miou"] != found["crf"]["miou"]
    assert found["harm_rate"] == joint["harm_rate"]["report"]
    change = found["difference"]["miou"]
    assert change["value"] == pytest.approx(
        found["crf"]["miou"] - found["unary"]["miou"], abs=1e-12
    )
    assert change["low"] <= change["value"] <= change["high"]
    # and keeps what they come from, as the comparison did
    kept = SplitCounts.load(tmp_path / "scores-crf.npz")
    there = SplitCounts.load(checkpoint.with_name("counts-report.npz"))
    assert np.array_equal(kept.confusions, there.confusions)
    printed = capsys.readouterr().out
    assert "Boundary IoU" in printed
    assert "images with a lower mIoU" in printed


def test_run_of_one_arm_makes_what_it_builds_on(tiny, tmp_path) -> None:
    comparison = Comparison("collage", replace(tiny, seeds=(3,)), tmp_path, resume=False)
    comparison.run("joint", 3)
    assert {path.name for path in (tmp_path / "arms").iterdir()} == {"start-seed3", "joint-seed3"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "network",
    [
        DeepLabV2Config(backbone=VggConfig(fc_channels=16), rates=(), scales=(0.5, 0.75, 1.0)),
        DeepLabV3PlusConfig(backbone=TimmConfig("mobilenetv2_035"), batch_norm_momentum=0.1),
    ],
)
def test_networks_of_other_kinds_go_through_every_arm(tiny, tmp_path, network) -> None:
    recipe = replace(tiny, seeds=(0,), model=replace(tiny.model, network=network))
    results = compare("collage", recipe, tmp_path / "run", resume=False)
    assert [run["arm"] for run in results["runs"]] == ARMS
    config = read_checkpoint(tmp_path / "run" / "arms" / "joint-seed0" / "checkpoint.pt")
    assert SegmenterConfig.from_dict(config["segmenter"]).network == network


def test_a_network_is_chosen_by_name_and_its_numbers_by_option(tiny) -> None:
    words = ["--model.builder", "deeplab_v3plus_xception65", "--fit.steps", "3"]
    recipe, rest = choose_kinds(tiny, words)
    assert recipe.model.network == builder("deeplab_v3plus_xception65").config
    assert rest == ["--fit.steps", "3"]
    recipe, rest = choose_kinds(tiny, ["--model.backbone=resnet50", "--help"])
    assert recipe.model.network == replace(tiny.model.network, backbone=ResNetConfig(depth=50))
    assert rest == ["--help"]
    assert choose_kinds(tiny, [])[0] == tiny


def test_a_run_that_saved_nothing_claims_no_folder(tiny, tmp_path, monkeypatch) -> None:
    def failing(*arguments, **options):
        raise ValueError("no")

    with monkeypatch.context() as patched:
        patched.setattr("train.protocol.Segmenter", failing)
        with pytest.raises(ValueError, match="no"):
            Comparison("collage", tiny, tmp_path / "run", resume=False).start()
    other = replace(tiny, start=replace(tiny.start, lr=1e-4))
    Comparison("collage", other, tmp_path / "run", resume=False).start()
    with pytest.raises(FileExistsError, match="--resume"):
        Comparison("collage", other, tmp_path / "run", resume=False)


def test_a_data_set_is_chosen_by_kind(tiny) -> None:
    recipe, rest = choose_kinds(tiny, ["--data.kind", "camvid", "--data.root", "here"])
    assert recipe == replace(tiny, data=CamVidConfig())
    assert rest == ["--data.root", "here"]


def test_weights_that_cannot_be_fetched_name_the_ways_out(tiny, tmp_path, monkeypatch) -> None:
    def offline(*arguments, **options):
        raise URLError("no route")

    monkeypatch.setattr("train.protocol.Segmenter", offline)
    comparison = Comparison("collage", tiny, tmp_path / "run", resume=False)
    with pytest.raises(OSError, match=r"\(no route\).*backbone-weights.*backbone\.no-pretrained"):
        comparison.start()


def test_nothing_is_fetched_where_weights_are_given(tiny, tmp_path) -> None:
    network = replace(tiny.model.network, backbone=TimmConfig("mobilenetv2_035", pretrained=True))
    path = tmp_path / "weights.safetensors"
    save_file(timm.create_model("mobilenetv2_035").state_dict(), path)
    for given in ({"weights": path}, {"backbone_weights": path}):
        recipe = replace(tiny, model=replace(tiny.model, network=network, **given))
        runner = Comparison("collage", recipe, tmp_path / next(iter(given)), resume=False).runner
        assert not runner.network_config(frozen=False).network.backbone.pretrained


def test_the_start_may_take_a_backbone_from_a_file(tiny, tmp_path) -> None:
    peer = timm.create_model("mobilenetv2_035")
    path = tmp_path / "imagenet.safetensors"
    save_file(peer.state_dict(), path)
    frozen = replace(tiny.start, lr=1e-12, steps=1)  # so that what is loaded is what is kept
    recipe = replace(tiny, start=frozen, model=replace(tiny.model, backbone_weights=path))
    comparison = Comparison("collage", recipe, tmp_path / "run", resume=False)
    comparison.run("start", 0)
    found = comparison.runner.load("start", 0).network.backbone.state_dict()["conv_stem.weight"]
    torch.testing.assert_close(found, peer.state_dict()["conv_stem.weight"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "colage"], "unknown recipe 'colage'.*Did you mean 'collage'"),
        (["compar", "collage"], "unknown command 'compar'.*Did you mean 'compare'"),
        (["compare"], "no recipe given"),
        (["compare", "collage", "--seeds", "0", "0"], "seeds must be distinct"),
        (["compare", "collage", "--seeds"], "seeds must be distinct and at least one"),
        (["compare", "collage", "--fit.accumulate", "0"], "accumulate must be at least 1"),
        (
            ["compare", "collage", "--fit.loss.class-weights", "1", "2", "3"],
            r"class_weights must be one for each of 9 classes, got 3",
        ),
        (["compare", "collage", "--fit.frozen", "bakbone"], "no part 'bakbone'"),
        (["compare", "collage", "--data.kind", "ade"], "unknown data set 'ade': choose one of"),
        (["compare", "collage", "--fit.warmup", "-1"], "warmup must be at least 0"),
        (["compare", "collage", "--crf.resolution", "3"], r"crf\.resolution must be 1, 2, 4 or 8"),
        (["compare", "collage", "--search.theta-beta"], r"search\.theta_beta must hold values"),
        (["run", "collage", "--arm", "start", "--seed", "7"], "start is made once"),
        (["compare", "voc12-animals", "--data.root", "absent"], "data root absent does not exist"),
        (
            ["compare", "collage", "--model.weights", "absent.safetensors"],
            r"no weights at absent\.safetensors",
        ),
        (
            ["compare", "collage", "--model.backbone-weights", "absent.safetensors"],
            r"no weights at absent\.safetensors: .*--model\.backbone-weights FILE",
        ),
        (
            ["compare", "collage", "--model.backbone-weights", "a", "--model.weights", "b"],
            r"leave --model\.backbone-weights out",
        ),
        (
            ["compare", "collage", "--model.builder", "deeplab_v3_resnt50"],
            "unknown network 'deeplab_v3_resnt50'.*Nearest names: deeplab_v3_resnet50",
        ),
        (
            ["compare", "collage", "--model.backbone", "mobilenetv2_77"],
            "Similar names: .*mobilenetv2",
        ),
        (
            ["compare", "collage", "--model.builder=deeplab_v1_7x7", "--model.backbone=resnet50"],
            "goes with the heads of DeepLab v3",
        ),
        # Which numbers a network has depends on its kind.
        (
            [
                "compare",
                "collage",
                "--model.builder",
                "deeplab_v1_7x7",
                "--model.network.output-stride",
                "8",
            ],
            r"Unrecognized options: --model\.network\.output-stride",
        ),
    ],
)
def test_bad_command_lines(arguments, message, tmp_path, capsys) -> None:
    if len(arguments) > 1:
        arguments = [*arguments, "--out", str(tmp_path / "run"), "--wandb", "disabled"]
    with pytest.raises(SystemExit) as stopped:
        train_main(arguments)
    # What a config refuses, tyro prints in a box: without its frame and line breaks.
    printed = " ".join(re.sub(r"[^\x20-\x7e]", " ", capsys.readouterr().err).split())
    assert re.search(message, f"{stopped.value} {printed}")
    if "--seed" not in arguments:  # refused before anything was written
        assert not (tmp_path / "run").exists()


def test_weights_are_asked_for(voc_animals_root, tmp_path) -> None:
    arguments = ["compare", "voc12-animals", "--out", str(tmp_path / "run")]
    arguments += ["--data.root", str(voc_animals_root)]
    with pytest.raises(SystemExit, match=r"starts from trained weights: .*--model\.weights FILE"):
        train_main(arguments)


def test_a_folder_that_cannot_be_made(tmp_path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SystemExit, match="error: "):
        train_main(["compare", "collage", "--out", str(tmp_path / "file" / "run")])


def test_unknown_override_suggests_the_nearest(capsys) -> None:
    with pytest.raises(SystemExit):
        train_main(["compare", "collage", "--search.theta-alfa", "3"])
    assert "--search.theta-alpha" in capsys.readouterr().err


def test_an_exported_network_is_read_as_weights(tiny, tmp_path) -> None:
    segmenter = Segmenter(SegmenterConfig(9, tiny.model.network, CrfConfig()))
    path, out = tmp_path / "checkpoint.pt", tmp_path / "weights.safetensors"
    save_checkpoint(
        path, segmenter, data=config_to_dict(tiny.data), arm="joint", seed=0, step=0, training={}
    )
    eval_main(["export", str(path), "--out", str(out)])
    other = Segmenter(SegmenterConfig(9, tiny.model.network))
    load_weights(other.network, out)
    for name, value in segmenter.network.state_dict().items():
        assert torch.equal(value, other.network.state_dict()[name])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ran"], "unknown command 'ran'"),
        (["run", "absent.pt"], r"no checkpoint at absent\.pt"),
        (["run", "pyproject.toml"], "damaged or is no checkpoint"),
        (["readme", "pyproject.toml"], r"pyproject\.toml is not a results file"),
    ],
)
def test_bad_evaluations(arguments, message) -> None:
    with pytest.raises(SystemExit, match=message):
        eval_main(arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 0}, "a checkpoint of format 0, this version reads 2"),
        ({"arm": None}, "does not hold what a checkpoint does"),
        ({"segmenter": {"classes": 3}}, "config is of another version"),
        ({"data": {"kind": "ade"}}, "data kind must be one of collage, voc, .*; got 'ade'"),
        ({"data": {"kind": "collage", "colour": 1}}, "config of collage is of another version"),
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


def test_arms_made_one_by_one_are_told_as_the_comparison_they_make() -> None:
    run = "python -m train run collage --resume --seeds 1 2 --out 'my run'"
    arms = [f"{run} --arm start", f"{run} --arm joint --seed 2", f"{run} --arm joint --seed 1"]
    assert as_whole(arms) == ["python -m train compare collage --seeds 1 2 --out 'my run'"]
    other = f"{run} --arm joint --seed 1 --fit.lr 1"
    assert as_whole([*arms, other, other]) == [*arms, other]
    assert as_whole(["python -m train compare collage"]) == ["python -m train compare collage"]
