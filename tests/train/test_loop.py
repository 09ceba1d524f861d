"""The loop: what learns and what does not, what a phase may be told, and resuming."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import data
from runtime import distributed
from runtime.checkpoint import load_segmenter, read_checkpoint
from tests.train.world import changed, lines_of, weights
from train.loop import prepare_batch_norm


@pytest.mark.parametrize(
    ("arm", "network", "crf"),
    [("unary", True, False), ("crf-only", False, True), ("joint", True, True)],
)
def test_each_arm_changes_what_it_learns_and_nothing_else(world, arm, network, crf) -> None:
    model = world.segmenter()
    before = weights(model)
    world.train(model, arm)
    assert bool(changed(model, before, "network.")) == network
    learnt = [
        "crf.log_output_scale",
        "crf.potentials.kernel_weights.spatial.diagonal",
        "crf.potentials.kernel_weights.bilateral.diagonal",
        "crf.potentials.compatibility.matrix",
    ]
    assert changed(model, before, "crf.") == (learnt if crf else [])


def test_the_networks_gradient_is_cut_to_length(world, tiny) -> None:
    """With SGD and no decay, one step moves the network by lr times the gradient."""
    sgd = {"optimizer": "sgd", "lr": 1.0, "weight_decay": 0.0, "steps": 1, "warmup": 0}
    moved = {}
    for clip_norm in (0.0, 1e-3):
        model = world.segmenter()
        before = torch.cat([p.detach().flatten() for p in model.network.parameters()])
        config = replace(tiny.fit, **sgd, head_multiplier=1.0, clip_norm=clip_norm)
        world.train(model, config=config, folder=f"clip-{clip_norm}")
        after = torch.cat([p.detach().flatten() for p in model.network.parameters()])
        moved[clip_norm] = (after - before).norm().item()
    assert moved[0.0] > 0.01
    # Rounding: a step of 1e-3 on weights of order one, in float32.
    assert moved[1e-3] == pytest.approx(1e-3, rel=1e-2)


def test_a_step_adds_the_gradients_of_its_batches_up(world, tiny) -> None:
    """Without BN, dropout and a CRF: two batches of one are one of two, up to rounding."""
    network = replace(tiny.model.network, dropout=0.0, freeze_batch_norm=True)
    world.recipe = replace(tiny, model=replace(tiny.model, network=network))
    sgd = replace(tiny.fit, optimizer="sgd", lr=1e-2, steps=2)
    whole, parts = world.segmenter(crf=False), world.segmenter(crf=False)
    start = weights(whole)
    world.train(whole, "unary", config=sgd, folder="whole")
    world.train(parts, "unary", config=replace(sgd, batch_size=1, accumulate=2), folder="parts")
    moved = {n: w - start[n] for n, w in whole.network.named_parameters(prefix="network")}
    for name, weight in parts.network.named_parameters(prefix="network"):
        # Sums in another order, and differences of weights of order one in float32.
        torch.testing.assert_close(weight - start[name], moved[name], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_resuming_gives_the_weights_of_an_uninterrupted_run(world, tiny, monkeypatch, ema_decay):
    config = replace(tiny.fit, ema_decay=ema_decay)
    whole = world.segmenter()
    world.train(whole, config=config, folder="whole", log_every=1)

    steps: list[int] = []
    original = torch.optim.AdamW.step

    def stopping(self, *arguments, **options):
        steps.append(1)
        if len(steps) == 4:
            raise KeyboardInterrupt
        return original(self, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(torch.optim.AdamW, "step", stopping)
        with pytest.raises(KeyboardInterrupt):  # a step after the last that was saved
            world.train(world.segmenter(), config=config, folder="parts", log_every=1, save_every=2)
    assert read_checkpoint(world.folder / "parts" / "checkpoint.pt")["step"] == 2
    resumed = world.segmenter()
    world.train(resumed, config=config, folder="parts", resume=True, log_every=1)
    assert changed(resumed, weights(whole)) == []
    checkpoint = read_checkpoint(world.folder / "parts" / "checkpoint.pt")
    assert changed(load_segmenter(checkpoint), weights(whole)) == []
    lines = lines_of(world.folder / "parts")
    assert lines == lines_of(world.folder / "whole")
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert {"loss", "loss_crf", "loss_unary", "lr/crf_kernel_weights"} < lines[0].keys()

    # as after a kill between the training and its scores
    again = world.segmenter()
    world.train(again, config=config, folder="parts", resume=True, log_every=1)
    assert changed(again, weights(whole)) == []


def test_resuming_with_another_configuration_is_refused(world, tiny) -> None:
    config = replace(tiny.fit, steps=1)
    faster = replace(config, lr=0.5)
    world.train(world.segmenter(), config=config)
    with pytest.raises(ValueError, match=r"another configuration: fit\.lr was 0\.03, now 0\.5"):
        world.train(world.segmenter(), config=faster, resume=True)
    with pytest.raises(ValueError, match=r"segmenter\.crf\.theta_alpha was"):
        world.train(world.segmenter(theta_alpha=3.0), config=config, resume=True)


def test_the_moving_average_is_the_result(world, tiny) -> None:
    """ema <- d ema + (1 - d) w after every step; here d = 1/2."""
    name = "network.classifier.weight"
    # A constant rate: the shorter runs are the beginnings of the longer ones.
    config = replace(tiny.fit, steps=3, power=1e-9)
    trace = []
    for steps in (1, 2, 3):
        last = world.segmenter()
        world.train(last, config=replace(config, steps=steps), folder=f"last-{steps}")
        trace.append(last.state_dict()[name].clone())
    model = world.segmenter()
    world.train(model, config=replace(config, ema_decay=0.5), folder="ema")
    # The first update copies the weights, as PyTorch's AveragedModel does.
    expected = 0.25 * trace[0] + 0.25 * trace[1] + 0.5 * trace[2]
    torch.testing.assert_close(model.state_dict()[name], expected, rtol=1e-4, atol=1e-6)


def test_patience_keeps_the_best_weights_of_the_tune_split(world, tiny, monkeypatch, capsys):
    seen: list[dict[str, torch.Tensor]] = []

    def evaluate(segmenter, dataset, coarse):
        assert dataset.split == "tune"
        seen.append(weights(segmenter))
        return {"miou": [0.2, 0.5, 0.4, 0.5][len(seen) - 1]}

    monkeypatch.setattr("train.loop.evaluate", evaluate)
    monkeypatch.setattr("train.loop.scores", lambda found: found)  # scored already
    monkeypatch.setattr("train.tracking.RunTracker.log_evaluation", lambda *_, **__: None)
    model, tune = world.segmenter(crf=False), data.build(tiny.data, "tune")
    config = replace(tiny.fit, steps=20, eval_every=2, patience=2)
    run = world.train(model, "unary", config, tune=tune)
    assert len(seen) == 4  # an equal score is no gain
    assert "stopped early after step 8" in capsys.readouterr().out
    assert changed(model, seen[1]) == []
    assert read_checkpoint(run.checkpoint)["step"] == 8
    # Resuming a finished phase takes no further step.
    again = world.segmenter(crf=False)
    world.train(again, "unary", config, tune=tune, resume=True)
    assert len(seen) == 4
    assert changed(again, seen[1]) == []


def test_an_evaluation_leaves_no_trace_in_training(world, tiny) -> None:
    """Modes, BN statistics and random numbers are as they were."""
    plain, watched = world.segmenter(), world.segmenter()
    world.train(plain, folder="plain")
    tune = data.build(tiny.data, "tune")
    world.train(watched, config=replace(tiny.fit, eval_every=1), folder="watched", tune=tune)
    assert changed(watched, weights(plain)) == []


def test_a_frozen_part_keeps_weights_and_statistics(world, tiny) -> None:
    model = world.segmenter()
    before = weights(model)
    world.train(model, config=replace(tiny.fit, frozen=("backbone",)))
    assert changed(model, before, "network.backbone") == []
    assert changed(model, before, "network.classifier")
    # and learns again in the next phase
    world.train(model, folder="next")
    assert changed(model, before, "network.backbone")
    with pytest.raises(ValueError, match=r"no part 'backbone\.conv9'. Its parts: .*classifier"):
        world.train(model, config=replace(tiny.fit, frozen=("backbone.conv9",)))


def test_bfloat16_is_for_the_network_alone(world, tiny) -> None:
    model = world.segmenter()
    seen = []
    model.network.classifier.register_forward_hook(lambda *a: seen.append(a[2].dtype))
    model.crf.register_forward_pre_hook(lambda _, a: seen.append(a[0].dtype))
    world.train(model, config=replace(tiny.fit, steps=1, precision="bfloat16"))
    assert seen == [torch.bfloat16, torch.float32]
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_compile_is_on_request_and_in_every_step(world, tiny, monkeypatch) -> None:
    calls: list[int] = []

    def compiled(function):
        return lambda image: calls.append(1) or function(image)  # type: ignore[func-returns-value]

    monkeypatch.setattr(torch, "compile", compiled)
    config = replace(tiny.fit, steps=2)
    for wanted in (False, True):
        world.train(world.segmenter(crf=False), "unary", config, f"{wanted}", compile=wanted)
        assert len(calls) == (2 if wanted else 0)


def test_two_processes_do_not_resume_the_training_of_one(world, monkeypatch) -> None:
    world.train(world.segmenter())
    monkeypatch.setattr(distributed, "num_processes", lambda: 2)
    with pytest.raises(ValueError, match="processes was 1, now 2"):
        world.train(world.segmenter(), resume=True)


def test_trained_batch_norm_in_several_cpu_processes_is_refused(world, tiny, monkeypatch) -> None:
    monkeypatch.setattr(distributed, "num_processes", lambda: 2)
    with pytest.raises(ValueError, match=r"--start\.no-sync-batch-norm.*--model\.freeze"):
        prepare_batch_norm(world.segmenter(), world.stage("unary"))
    apart = world.stage("unary", replace(tiny.fit, sync_batch_norm=False))
    prepare_batch_norm(world.segmenter(), apart)
