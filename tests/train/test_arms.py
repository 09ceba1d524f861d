"""The phases of an arm, in the order that a recipe asks for, and what is scored of it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import data
from data import TrainStream, TransformConfig
from eval.inference import coarse_unaries, evaluate
from eval.metrics import scores
from eval.search import search
from models import DeepLabV1Config, VggConfig
from runtime.checkpoint import load_segmenter, read_checkpoint
from tests.data.layouts import write_folder, write_mask
from tests.train.world import FragileCollage, changed, lines_of, weights
from train.arms import Comparison, check_learning, compare
from train.losses import LossConfig
from train.recipe import FinishConfig, FitConfig, ModelConfig


def test_start_in_two_stages(tiny, tmp_path) -> None:
    """DeepLab v3: finer features and frozen BN in the second, from the first's weights."""
    finish = FinishConfig(replace(tiny.fit, steps=2), output_stride=8, freeze_batch_norm=True)
    recipe = replace(tiny, finish=finish)
    comparison = Comparison("collage", recipe, tmp_path / "run", resume=False)
    assert comparison.start(0)["network_steps"] == 6
    folder = tmp_path / "run" / "arms" / "start-seed0"
    paths = (folder / "first" / "checkpoint.pt", folder / "checkpoint.pt")
    first, last = (load_segmenter(read_checkpoint(path)) for path in paths)
    assert (first.network.output_stride, last.network.output_stride) == (16, 8)
    statistics = [name for name in first.state_dict() if "running_mean" in name]
    assert all(torch.equal(first.state_dict()[n], last.state_dict()[n]) for n in statistics)
    assert changed(last, weights(first), "network.classifier")
    assert [line["step"] for line in lines_of(folder) if "step" in line] == [*range(1, 7)]
    # After a kill between training and scores nothing is taken or written again.
    before = (folder / "metrics.jsonl").read_text()
    (folder / "result.json").unlink()
    resumed = Comparison("collage", recipe, tmp_path / "run", resume=True)
    assert resumed.start(0)["network_steps"] == 6
    assert (folder / "metrics.jsonl").read_text() == before
    # the arms go on with the finished network
    resumed.unary(0)
    unary = resumed.runner.load("unary", 0)
    assert (unary.network.output_stride, unary.config.freeze_batch_norm) == (8, True)


def test_balance_trains_with_the_weights_of_the_training_split(tiny, tmp_path, trained_run) -> None:
    pixels = data.label_pixels(data.build(tiny.data, "train"))
    counted = pixels.clamp(min=int(pixels[pixels > 0].min())).double()
    given = LossConfig(class_weights=tuple(((counted.max() / counted) ** 0.5).tolist()))
    kept = []
    for name, loss in (("balance", LossConfig(balance=0.5)), ("given", given)):
        recipe = replace(tiny, score=("tune",), start=replace(tiny.fit, loss=loss))
        comparison = Comparison("collage", recipe, tmp_path / name, resume=False)
        comparison.run("start", 0)
        kept.append(comparison.runner.load("start", 0))
    assert changed(kept[0], weights(kept[1])) == []
    plain = read_checkpoint(trained_run / "arms" / "start-seed0" / "checkpoint.pt")
    assert changed(kept[0], plain["model"]) != []


def test_joint_may_train_its_crf_first_and_on_other_images(goes_on, tiny, monkeypatch) -> None:
    """PAC-CRF's two stages: in the first the network stays as start left it."""
    seen = []

    def remembered(dataset, augment, *rest, **named) -> TrainStream:
        seen.append(augment.config)
        return TrainStream(dataset, augment, *rest, **named)

    monkeypatch.setattr("train.arms.TrainStream", remembered)
    whole = TransformConfig()
    one = replace(tiny.fit, steps=3, batch_size=1)
    changes = {"score": ("tune",), "crf_first": one, "crf_fit": one, "crf_augment": whole}
    comparison = goes_on(arms=("unary-seed0", "post-hoc-seed0"), **changes)
    assert comparison.run("joint", 0)["network_steps"] == tiny.fit.steps
    assert seen == [whole, tiny.augment]  # CRF, both
    folder = comparison.runner.folder.arm("joint", 0)
    first = load_segmenter(read_checkpoint(folder / "first" / "checkpoint.pt"))
    start, joint = (comparison.runner.load(arm, 0) for arm in ("start", "joint"))
    assert changed(first, weights(start), "network.") == []
    assert changed(joint, weights(first), "network.")
    assert changed(joint, weights(first), "crf.")
    seen.clear()
    comparison.run("crf-only", 0)
    assert seen == [whole]


def test_joint_may_end_with_another_search_and_with_its_crf_alone(goes_on, tiny) -> None:
    crf_last = replace(tiny.fit, steps=2)
    comparison = goes_on(score=("tune",), search_again=True, crf_last=crf_last)
    result = comparison.run("joint", 0)
    assert result["network_steps"] == tiny.fit.steps
    arm = comparison.runner.folder.arm("joint", 0)
    trained, after = (
        load_segmenter(read_checkpoint(arm / stage / "checkpoint.pt"))
        for stage in ("trained", "last")
    )
    joint, found = comparison.runner.load("joint", 0), comparison.runner.search("joint", 0)
    assert changed(joint, weights(trained), "network.") == []
    assert changed(joint, weights(after)) == []
    assert result["search"] == json.loads((arm / "search.json").read_text())["rows"]
    assert joint.config.crf.theta_alpha == found.best.theta_alpha
    # interrupted before it was scored, it goes on to the same
    (arm / "result.json").unlink()
    resumed = Comparison("collage", comparison.recipe, arm.parents[1], resume=True).run("joint", 0)
    assert resumed["metrics"] == result["metrics"]


@pytest.mark.parametrize("learnt_is_better", [True, False])
def test_every_crf_gets_the_bias_that_is_best_for_it(goes_on, tiny, monkeypatch, learnt_is_better):
    def found(*arguments: Any, **progress: Any) -> tuple[Any, ...]:
        best, _, rows = search(*arguments, **progress)
        return best, 3.0, rows

    def scored(segmenter: Any, dataset: Any, positions: Any, biases: Any) -> list[float]:
        return [learnt_is_better - abs(float(bias[0]) - 1.0) for bias in biases]

    monkeypatch.setattr("train.arms.search", found)
    monkeypatch.setattr("train.arms.tried", scored)
    config = replace(tiny.search, bias=(2.0,), bias_direction="background", rounds=1)
    with pytest.raises(ValueError, match="with --search-again joint gets its own"):
        replace(tiny, search=config)
    comparison = goes_on(arms=("unary-seed0",), search=config, search_again=True, score=("tune",))
    runner = comparison.runner
    for arm in ("unary", "start"):  # of a search without a bias
        (runner.folder.arm(arm, 0) / "search.json").unlink()
    expected = {"post-hoc": 3.0, "crf-only": 1.0, "joint": 1.0 if learnt_is_better else 3.0}
    for arm, bias in expected.items():
        result = comparison.run(arm, 0)
        assert result["label_bias"] == {"bias": bias}
        segmenter = runner.load(arm, 0)
        assert segmenter.config.label_bias == pytest.approx((bias, *[0.0] * 8))
        # What stands before the CRF is the network as it was.
        segmenter.set_label_bias(())
        coarse = coarse_unaries(segmenter, runner.tune)
        before = evaluate(segmenter, runner.tune, coarse, use_crf=False)
        assert result["before_crf"]["tune"]["miou"] == scores(before)["miou"]
    assert segmenter.config.crf.kernel_weights == ("class" if learnt_is_better else "scalar")
    assert result["tune_miou"]["learnt"] == learnt_is_better


def test_every_seed_may_have_a_start_of_its_own(goes_on, tiny) -> None:
    comparison = goes_on(start_per_seed=True, score=("tune",), seeds=(0, 1))
    unary, runner = comparison.run("unary", 1), comparison.runner
    assert changed(runner.load("start", 1), weights(runner.load("start", 0)), "network.")
    assert unary["seed"] == read_checkpoint(runner.folder.checkpoint("start", 1))["seed"] == 1
    with pytest.raises(ValueError, match="start is made with --seed 0 or 1"):
        comparison.run("start", 2)


def test_a_search_never_reads_the_report_split(goes_on, tiny) -> None:
    runner = goes_on().runner
    (runner.folder.arm("start", 0) / "search.json").unlink()
    runner.report = FragileCollage(tiny.data, corrupt=tuple(range(8)))  # of which none is read
    assert runner.search("start", 0).rows


def test_a_search_taken_over_starts_a_crf_of_the_recipes_own_form(goes_on, tiny) -> None:
    crf = replace(tiny.crf, num_iterations=3, untied=True, kernel_weights="matrix")
    comparison = goes_on(crf=crf)
    searched = comparison.runner.search("start", 0).best
    comparison.run("joint", 0)
    kept = comparison.runner.load("joint", 0).config.crf
    assert (kept.num_iterations, kept.untied, kept.kernel_weights) == (3, True, "matrix")
    assert kept.theta_alpha == searched.theta_alpha


def test_an_arm_is_scored_on_the_chosen_split_alone(goes_on, tmp_path) -> None:
    """While a method is looked for, the report split stays unseen."""
    result = goes_on(score=("tune",)).run("joint", 0)
    assert all(list(result[key]) == ["tune"] for key in ("metrics", "before_crf", "harm_rate"))
    counts = [path.name for path in (tmp_path / "run" / "arms" / "joint-seed0").glob("counts-*")]
    assert sorted(counts) == ["counts-tune-before-crf.npz", "counts-tune.npz"]
    assert not (tmp_path / "run" / "predictions").exists()


def test_the_wandb_run_goes_on_where_only_the_checkpoint_was_kept(goes_on, trained_run) -> None:
    comparison = goes_on()
    arm = comparison.runner.folder.arm("start", 0)
    for name in ("wandb_id.txt", "result.json"):
        (arm / name).unlink()
    comparison.start(0)
    kept = trained_run / "arms" / "start-seed0" / "wandb_id.txt"
    assert (arm / "wandb_id.txt").read_text() == kept.read_text()


FINER = FinishConfig(FitConfig(steps=2), output_stride=8)
ONE_STRIDE = ModelConfig(network=DeepLabV1Config(backbone=VggConfig(fc_channels=8)))
FROZEN = FitConfig(steps=2, frozen=("backbone.none",))
WEIGHTED = FitConfig(steps=2, loss=LossConfig(class_weights=(1.0, 2.0)))
HELD = FitConfig(steps=2, crf_lr=0.0, compatibility_lr=0.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"finish": FINER, "model": ONE_STRIDE}, "only one output stride"),
        ({"crf_last": FROZEN}, "has no part"),
        ({"fit": WEIGHTED}, "class_weights"),
        ({"crf_fit": HELD}, "--crf-fit: .* has nothing to learn"),
        ({"score": ("tune",)}, "--score tune report"),
        ({"seeds": (0, 0)}, "seeds must be distinct and at least one"),
        ({"workers": -1}, "workers must be at least 0"),
    ],
)
def test_what_no_comparison_can_do_is_refused_before_it_begins(tiny, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        compare("collage", replace(tiny, **changes), tmp_path / "run", resume=False)
    assert not (tmp_path / "run" / "arms").exists()


def test_an_arm_with_nothing_to_learn_does_not_keep_others_from_training(tiny, tmp_path):
    recipe = replace(tiny, crf_fit=HELD)
    with pytest.raises(ValueError, match=r"--crf-fit: .* has nothing to learn"):
        Comparison("collage", recipe, tmp_path / "run", resume=False).run("crf-only", 0)
    check_learning(recipe, "post-hoc", 9)


def test_masks_of_0_and_255_are_named_before_the_first_step(tiny, tmp_path, capsys):
    root = tmp_path / "my-data"
    write_folder(root)
    for k, path in enumerate(sorted((root / "masks").iterdir())):
        ids = np.zeros((3, 4))
        ids[k % 3, 1:3] = 255
        write_mask(path, ids)
    recipe = replace(tiny, data=data.FolderConfig(root))
    Comparison("collage", recipe, tmp_path / "run", resume=False)
    said = " ".join(capsys.readouterr().out.split())
    assert "data: no mask holds the class tree, and 16.7 % of the pixels are void (255)" in said
    assert not list((tmp_path / "run").glob("arms/*"))
    (root / "classes.json").write_text('{"names": ["ground", "tree"], "ids": [0, 255]}')
    Comparison("collage", recipe, tmp_path / "run2", resume=False)
    assert "data:" not in capsys.readouterr().out
