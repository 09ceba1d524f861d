"""What a phase may be told: what is frozen, averages, early stops, precision, stages."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import data
from data import TrainStream, TransformConfig
from eval.checkpoint import load_segmenter, read_checkpoint
from models import DeepLabV2Config, Segmenter, SegmenterConfig, VggConfig
from models.deeplabv1 import DeepLabV1Config
from tests.train.world import changed, lines_of, weights
from train.compare import compare
from train.fit_config import FitConfig
from train.objective import LossConfig
from train.phase import check_learning
from train.protocol import Comparison
from train.recipe import FinishConfig


def test_the_moving_average_is_the_result(world, tiny) -> None:
    """ema <- d ema + (1 - d) w after every step; here d = 1/2."""
    model = world.segmenter()
    name = "network.classifier.weight"
    trace = [model.state_dict()[name].clone()]
    # A constant rate: the shorter runs are the beginnings of the longer ones.
    config = replace(tiny.fit, steps=3, power=1e-9)
    for steps in (1, 2, 3):
        last = world.segmenter()
        world.train(last, config=replace(config, steps=steps), folder=f"last-{steps}")
        trace.append(last.state_dict()[name].clone())
    world.train(model, config=replace(config, ema_decay=0.5), folder="ema")
    # The first update copies the weights, as PyTorch's AveragedModel does.
    expected = trace[1]
    for value in trace[2:]:
        expected = 0.5 * expected + 0.5 * value
    torch.testing.assert_close(model.state_dict()[name], expected, rtol=1e-4, atol=1e-6)
    kept = load_segmenter(read_checkpoint(world.folder / "ema" / "checkpoint.pt"))
    assert changed(kept, weights(model)) == []


def test_balance_trains_with_the_weights_of_the_training_split(tiny, tmp_path) -> None:
    recipe = replace(tiny, seeds=(0,))
    balance = LossConfig(balance=0.5)
    train = data.build(recipe.data, "train")
    drawn = torch.cat([train[index].mask.flatten() for index in range(len(train))])
    pixels = torch.bincount(drawn, minlength=len(train.classes))
    rarest = pixels[pixels > 0].min()
    counted = pixels.clamp(min=int(rarest)).double()
    given = LossConfig(class_weights=tuple(((counted.max() / counted) ** 0.5).tolist()))
    kept = []
    for name, loss in (("balance", balance), ("given", given), ("plain", LossConfig())):
        changed_recipe = replace(recipe, start=replace(recipe.fit, loss=loss))
        Comparison("collage", changed_recipe, tmp_path / name, resume=False).run("start", 0)
        path = tmp_path / name / "arms" / "start-seed0" / "checkpoint.pt"
        kept.append(load_segmenter(read_checkpoint(path)))
    assert changed(kept[0], weights(kept[1])) == []
    assert changed(kept[0], weights(kept[2])) != []


def test_the_moving_average_goes_on_where_it_was(world, tiny, monkeypatch) -> None:
    config = replace(tiny.fit, ema_decay=0.9)
    whole, resumed = world.segmenter(), world.segmenter()
    world.train(whole, config=config, folder="whole")
    steps = []
    original = torch.optim.AdamW.step

    def stopping(self, *arguments, **options):
        steps.append(1)
        if len(steps) == 3:
            raise KeyboardInterrupt
        return original(self, *arguments, **options)

    monkeypatch.setattr(torch.optim.AdamW, "step", stopping)
    with pytest.raises(KeyboardInterrupt):
        world.train(world.segmenter(), config=config, folder="parts", save_every=1)
    world.train(resumed, config=config, folder="parts", resume=True)
    assert changed(resumed, weights(whole)) == []


def test_a_finished_phase_is_resumed_with_its_average(world, tiny) -> None:
    """As after a kill between the training and its scores."""
    config = replace(tiny.fit, ema_decay=0.5)
    whole, resumed = world.segmenter(), world.segmenter()
    world.train(whole, config=config)
    world.train(resumed, config=config, resume=True)
    assert changed(resumed, weights(whole)) == []


def scripted(monkeypatch, world, scores: list[float]) -> list[dict[str, torch.Tensor]]:
    """Let evaluations on the tune split give these scores; the weights that they saw."""
    seen: list[dict[str, torch.Tensor]] = []

    def evaluate(segmenter, dataset, coarse):
        assert dataset.split == "tune"
        seen.append(weights(segmenter))
        return {"miou": scores[len(seen) - 1], "pixel_accuracy": 0.0, "trimap_miou": {}}

    monkeypatch.setattr("train.loop.evaluate", evaluate)
    monkeypatch.setattr("train.loop.scores", lambda found: found)  # scored already
    monkeypatch.setattr("train.tracking.RunTracker.log_evaluation", lambda *_, **__: None)
    return seen


def test_patience_keeps_the_best_weights_of_the_tune_split(
    world, tiny, monkeypatch, capsys
) -> None:
    seen = scripted(monkeypatch, world, [0.2, 0.5, 0.4, 0.5])
    model = world.segmenter()
    config = replace(tiny.fit, steps=20, eval_every=2, patience=2)
    run = world.train(model, config=config, tune=data.build(tiny.data, "tune"))
    assert len(seen) == 4  # an equal score is no gain
    assert "stopped early after step 8" in capsys.readouterr().out
    assert changed(model, seen[1]) == []
    checkpoint = read_checkpoint(run.checkpoint)
    assert checkpoint["step"] == 8
    assert checkpoint["training"]["finished"]
    # Resuming a finished phase takes no further step.
    again = world.segmenter()
    world.train(again, config=config, tune=data.build(tiny.data, "tune"), resume=True)
    assert len(seen) == 4
    assert changed(again, seen[1]) == []


def test_evaluations_without_patience_change_nothing(world, tiny, monkeypatch) -> None:
    plain, watched = world.segmenter(), world.segmenter()
    world.train(plain, folder="plain")
    seen = scripted(monkeypatch, world, [0.5, 0.4])
    config = replace(tiny.fit, eval_every=2)
    world.train(watched, config=config, folder="watched", tune=data.build(tiny.data, "tune"))
    assert len(seen) == 2
    assert changed(watched, weights(plain)) == []


def test_an_evaluation_leaves_no_trace_in_training(world, tiny) -> None:
    """For real: modes, BN statistics and random numbers are as they were."""
    plain, watched = world.segmenter(), world.segmenter()
    world.train(plain, folder="plain")
    tune = data.build(tiny.data, "tune")
    world.train(watched, config=replace(tiny.fit, eval_every=1), folder="watched", tune=tune)
    assert changed(watched, weights(plain)) == []


def test_patience_without_evaluations_is_refused() -> None:
    for eval_every in (0, 5):
        with pytest.raises(ValueError, match=r"set eval_every to 1\.\.4 steps"):
            FitConfig(steps=4, patience=3, eval_every=eval_every)


def test_a_frozen_part_keeps_weights_and_statistics(world, tiny) -> None:
    model = world.segmenter()
    before = weights(model)
    world.train(model, config=replace(tiny.fit, frozen=("backbone",)))
    assert changed(model, before, "network.backbone") == []
    assert changed(model, before, "network.classifier")
    # and learns again in the next phase
    world.train(model, folder="next")
    assert changed(model, before, "network.backbone")


def test_a_frozen_part_must_exist(world, tiny) -> None:
    with pytest.raises(ValueError, match=r"no part 'backbone\.conv9'. Its parts: .*classifier"):
        world.train(world.segmenter(), config=replace(tiny.fit, frozen=("backbone.conv9",)))


def test_bfloat16_is_for_the_network_alone(world, tiny, monkeypatch) -> None:
    model = world.segmenter()
    seen = []
    model.network.classifier.register_forward_hook(lambda *a: seen.append(a[2].dtype))
    model.crf.register_forward_pre_hook(lambda _, a: seen.append(a[0].dtype))
    world.train(model, config=replace(tiny.fit, steps=1, precision="bfloat16"))
    assert seen == [torch.bfloat16, torch.float32]
    assert {p.dtype for p in model.parameters()} == {torch.float32}


V2 = DeepLabV2Config(backbone=VggConfig(fc_channels=16), rates=(), scales=(0.5, 1.0))


@pytest.mark.parametrize("network", [None, V2])
def test_compile_is_on_request_and_used_in_every_step(world, tiny, monkeypatch, network) -> None:
    calls = []

    def compile_(function):
        def compiled(image):
            calls.append(image.shape)
            return function(image)

        return compiled

    monkeypatch.setattr(torch, "compile", compile_)
    if network is not None:
        model = replace(tiny.model, network=network)
        world.recipe = replace(tiny, model=model)
    world.train(world.segmenter(), folder="plain")
    assert calls == []
    world.train(world.segmenter(), folder="compiled", compile=True)
    assert len(calls) == tiny.fit.steps


def test_start_in_two_stages(tiny, tmp_path) -> None:
    """DeepLab v3: finer features and frozen BN in the second, from the first's weights."""
    finish = FinishConfig(replace(tiny.fit, steps=2), output_stride=8, freeze_batch_norm=True)
    recipe = replace(tiny, finish=finish)
    comparison = Comparison("collage", recipe, tmp_path / "run", resume=False)
    assert comparison.start()["network_steps"] == 6
    folder = tmp_path / "run" / "arms" / "start-seed0"
    first, last = (
        load_segmenter(read_checkpoint(path))
        for path in (folder / "first" / "checkpoint.pt", folder / "checkpoint.pt")
    )
    assert (first.network.output_stride, last.network.output_stride) == (16, 8)
    statistics = [name for name in first.state_dict() if "running_mean" in name]
    assert all(torch.equal(first.state_dict()[n], last.state_dict()[n]) for n in statistics)
    assert changed(last, weights(first), "network.classifier")
    steps = [line["step"] for line in lines_of(folder) if "step" in line]
    assert steps == [4, 6]
    # After a kill between training and scores nothing is taken or written again.
    before = (folder / "metrics.jsonl").read_text()
    (folder / "result.json").unlink()
    resumed = Comparison("collage", recipe, tmp_path / "run", resume=True).start()
    assert resumed["network_steps"] == 6
    assert (folder / "metrics.jsonl").read_text() == before
    # the arms go on with the finished network
    comparison.unary(0)
    unary = comparison.runner.load("unary", 0)
    assert unary.network.output_stride == 8
    assert unary.config.freeze_batch_norm


def test_a_network_of_one_output_stride_has_no_other() -> None:
    network = DeepLabV1Config(backbone=VggConfig(fc_channels=8))
    with torch.device("meta"):
        segmenter = Segmenter(SegmenterConfig(3, network))
    with pytest.raises(ValueError, match="has one output stride, 8; leave it out"):
        segmenter.finished(16, freeze=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"finish": FinishConfig(FitConfig(steps=2), output_stride=8)}, "has one output stride, 8"),
        ({"crf_last": FitConfig(steps=2, frozen=("backbone.none",))}, "has no part"),
        ({"fit": FitConfig(steps=2, loss=LossConfig(class_weights=(1.0, 2.0)))}, "class_weights"),
    ],
)
def test_what_no_phase_can_do_is_refused_before_the_first(
    tiny, tmp_path, changes, message: str
) -> None:
    model = replace(tiny.model, network=DeepLabV1Config(backbone=VggConfig(fc_channels=8)))
    recipe = replace(tiny, model=model if "finish" in changes else tiny.model, **changes)
    with pytest.raises(ValueError, match=message):
        Comparison("collage", recipe, tmp_path / "run", resume=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("arm", "name"), [("crf-only", "crf_fit"), ("joint", "crf_last")])
def test_an_arm_with_nothing_to_learn_is_refused_and_the_others_are_not(
    tiny, tmp_path, arm, name: str
) -> None:
    held = FitConfig(steps=2, crf_lr=0.0, compatibility_lr=0.0)
    recipe = replace(tiny, **{name: held})
    comparison = Comparison("collage", recipe, tmp_path / "run", resume=False)
    with pytest.raises(ValueError, match=f"--{name.replace('_', '-')}: .* has nothing to learn"):
        comparison.run(arm, 0)
    assert not (tmp_path / "run" / "arms").exists()
    check_learning(recipe, "post-hoc", 9)
    with pytest.raises(ValueError, match="has nothing to learn"):
        compare("collage", recipe, tmp_path / "all", resume=False)
    assert not (tmp_path / "all" / "arms").exists()


def test_unreadable_images_of_all_processes_together_are_read(world, tiny) -> None:
    """As checkpoints held them at first."""
    world.train(world.segmenter(), folder="old", save_every=1)
    path = world.folder / "old" / "checkpoint.pt"
    checkpoint = torch.load(path, weights_only=False)
    checkpoint["training"]["corrupt"] = {"a": "cut off"}
    torch.save(checkpoint, path)
    world.train(world.segmenter(), folder="old", resume=True)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seeds_that_no_generator_takes(tiny, seed: int) -> None:
    with pytest.raises(ValueError, match=r"seeds must lie in 0 to 2\^32 - 1"):
        replace(tiny, seeds=(0, seed))


def test_joint_may_train_its_crf_first(tiny, tmp_path) -> None:
    """PAC-CRF's two stages: in the first the network stays as start left it."""
    recipe = replace(tiny, crf_first=replace(tiny.fit, steps=3))
    comparison = Comparison("collage", recipe, tmp_path / "run", resume=False)
    result = comparison.run("joint", 0)
    assert result["network_steps"] == tiny.fit.steps
    folder = tmp_path / "run" / "arms" / "joint-seed0"
    first = load_segmenter(read_checkpoint(folder / "first" / "checkpoint.pt"))
    start, joint = (comparison.runner.load(arm, 0) for arm in ("start", "joint"))
    assert changed(first, weights(start), "network.") == []
    assert changed(joint, weights(first), "network.")
    assert changed(joint, weights(first), "crf.")


def test_the_wandb_run_goes_on_where_only_the_checkpoint_was_kept(tiny, tmp_path) -> None:
    arm = tmp_path / "run" / "arms" / "start-seed0"
    Comparison("collage", tiny, tmp_path / "run", resume=False).start()
    run_id = (arm / "wandb_id.txt").read_text()
    for name in ("wandb_id.txt", "result.json"):
        (arm / name).unlink()
    Comparison("collage", tiny, tmp_path / "run", resume=True).start()
    assert (arm / "wandb_id.txt").read_text() == run_id


def test_a_crf_behind_a_frozen_network_may_see_other_images(tiny, tmp_path, monkeypatch) -> None:
    seen = []

    def remembered(dataset, augment, *rest, **named) -> TrainStream:
        seen.append(augment.config)
        return TrainStream(dataset, augment, *rest, **named)

    monkeypatch.setattr("train.arm_runner.TrainStream", remembered)
    whole = TransformConfig()
    one_by_one = replace(tiny.fit, steps=2, batch_size=1)
    recipe = replace(
        tiny, score=("tune",), crf_first=one_by_one, crf_fit=one_by_one, crf_augment=whole
    )
    comparison = Comparison("collage", recipe, tmp_path, resume=False)
    comparison.run("joint", 0)
    assert seen == [tiny.augment, whole, tiny.augment]  # start, CRF, both
    seen.clear()
    comparison.run("crf-only", 0)
    assert seen == [tiny.augment, whole]  # unary, CRF


def test_the_crf_of_joint_may_learn_last(tiny, tmp_path) -> None:
    last = replace(tiny.fit, steps=2)
    for again in (False, True):
        recipe = replace(tiny, score=("tune",), crf_last=last, search_again=again)
        folder = tmp_path / str(again)
        comparison = Comparison("collage", recipe, folder, resume=False)
        result = comparison.run("joint", 0)
        assert result["network_steps"] == tiny.fit.steps
        arm = folder / "arms" / "joint-seed0"
        trained, after = (
            load_segmenter(read_checkpoint(arm / name / "checkpoint.pt"))
            for name in ("trained", "last")
        )
        joint = comparison.runner.load("joint", 0)
        assert changed(after, weights(trained), "network.") == []
        assert changed(after, weights(trained), "crf.")
        assert changed(joint, weights(after)) == []
        # interrupted before it was scored, it goes on to the same
        (arm / "result.json").unlink()
        resumed = Comparison("collage", recipe, folder, resume=True).run("joint", 0)
        assert resumed["metrics"] == result["metrics"]
