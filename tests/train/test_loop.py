"""The loop: what learns and what does not, resuming, and errors."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from eval.checkpoint import load_segmenter, read_checkpoint
from eval.differences import differences
from models import SegmenterOutput
from tests.train.world import changed, lines_of, weights
from train.arms import TRAINED
from train.objective import LossConfig, loss_terms
from train.optim import build_optimizer, build_schedule


@pytest.mark.parametrize(
    ("arm", "network", "crf"),
    [("unary", True, False), ("crf-only", False, True), ("joint", True, True)],
)
def test_each_arm_changes_what_it_learns_and_nothing_else(world, arm, network, crf) -> None:
    model = world.segmenter()
    before = weights(model)
    world.train(model, arm)
    assert bool(changed(model, before, "network.")) == network
    assert bool(changed(model, before, "crf.")) == crf
    if crf:
        learnt = changed(model, before, "crf.")
        assert learnt == [
            "crf.log_output_scale",
            "crf.potentials.kernel_weights.spatial.diagonal",
            "crf.potentials.kernel_weights.bilateral.diagonal",
            "crf.potentials.compatibility.matrix",
        ]


def test_the_networks_gradient_is_cut_to_length(world, tiny) -> None:
    """With SGD and no decay, one step moves the network by lr times the gradient."""
    sgd = {"optimizer": "sgd", "lr": 1.0, "weight_decay": 0.0, "steps": 1, "warmup": 0}
    moved = {}
    for clip_norm in (0.0, 1e-3):
        model = world.segmenter()
        before = [p.detach().clone() for p in model.network.parameters()]
        config = replace(tiny.fit, **sgd, head_multiplier=1.0, clip_norm=clip_norm)
        world.train(model, config=config, folder=f"clip-{clip_norm}")
        steps = [
            (p.detach() - b).norm() for p, b in zip(model.network.parameters(), before, strict=True)
        ]
        moved[clip_norm] = torch.stack(steps).norm().item()
    assert moved[0.0] > 0.01
    # Rounding: a step of 1e-3 on weights of order one, in float32.
    assert moved[1e-3] == pytest.approx(1e-3, rel=1e-2)


def test_checkpoint_rebuilds_the_model(world) -> None:
    model = world.segmenter()
    run = world.train(model)
    checkpoint = read_checkpoint(run.checkpoint)
    assert (checkpoint["arm"], checkpoint["seed"], checkpoint["step"]) == ("joint", 0, 4)
    image = torch.rand(1, 3, 33, 33) * 255
    with torch.no_grad():
        assert torch.equal(load_segmenter(checkpoint)(image).crf, model.eval()(image).crf)


def test_resuming_gives_the_weights_of_an_uninterrupted_run(world, tmp_path, monkeypatch) -> None:
    whole = world.segmenter()
    world.train(whole, folder="whole", log_every=1)

    interrupted = world.segmenter()
    original = torch.optim.AdamW.step
    steps: list[int] = []

    def stopping(self, *arguments, **options):
        if len(steps) == 2:
            raise KeyboardInterrupt
        steps.append(1)
        return original(self, *arguments, **options)

    monkeypatch.setattr(torch.optim.AdamW, "step", stopping)
    with pytest.raises(KeyboardInterrupt):
        world.train(interrupted, folder="parts", log_every=1, save_every=2)
    monkeypatch.setattr(torch.optim.AdamW, "step", original)

    resumed = world.segmenter()
    world.train(resumed, folder="parts", resume=True, log_every=1)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert lines_of(tmp_path / "parts") == lines_of(tmp_path / "whole")


def test_resuming_with_another_configuration_is_refused(world, tiny) -> None:
    world.train(world.segmenter())
    with pytest.raises(ValueError, match=r"another configuration: fit\.lr was 0\.001, now 0\.5"):
        world.train(world.segmenter(), config=replace(tiny.fit, lr=0.5), resume=True)
    with pytest.raises(ValueError, match=r"segmenter\.crf\.theta_alpha was"):
        world.train(world.segmenter(theta_alpha=3.0), resume=True)


def test_a_loss_that_is_not_finite_names_the_images(world, tiny) -> None:
    model = world.segmenter(crf=False)
    torch.nn.init.constant_(model.network.classifier.bias, torch.nan)
    with pytest.raises(FloatingPointError, match=r"the loss is nan on the images train-"):
        world.train(model, "unary")


def test_json_lines_hold_loss_and_learning_rates(world) -> None:
    run = world.train(world.segmenter())
    (line,) = (run.directory / "metrics.jsonl").read_text().splitlines()
    values = json.loads(line)
    assert values["step"] == 4
    expected = {"loss", "loss_crf", "loss_unary", "lr/backbone_weights", "lr/crf_kernel_weights"}
    assert expected < values.keys()
    assert 0 <= values["speed/waiting_share"] < 1
    assert values["speed/images_per_second"] > 0
    assert values["speed/peak_memory_mb"] > 1


def test_loss_is_the_sum_of_its_terms_and_ignores_void() -> None:
    logits = torch.randn(1, 3, 2, 2)
    masks = torch.tensor([[[0, 255], [2, 1]]])
    terms = loss_terms(SegmenterOutput(logits, 2 * logits), masks, LossConfig(unary=0.5))
    rows = logits.flatten(2)[0].t()[[0, 2, 3]]
    expected = torch.nn.functional.cross_entropy(rows, torch.tensor([0, 2, 1]))
    torch.testing.assert_close(terms["loss_unary"], expected)
    weighted = (terms["loss_crf"] + 0.5 * terms["loss_unary"]) / 1.5
    torch.testing.assert_close(terms["loss"], weighted)


def test_groups_and_schedule(world, tiny) -> None:
    config = replace(tiny.fit, steps=10, lr=1.0, head_multiplier=10, crf_lr=5.0)
    optimizer = build_optimizer(world.segmenter(), TRAINED["joint"], config)
    schedule = build_schedule(optimizer, config)
    rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
    assert rates["head_weights"] == 10 * rates["backbone_weights"]
    assert rates["crf_kernel_weights"] == 5.0
    decays = {group["name"]: group["weight_decay"] for group in optimizer.param_groups}
    assert decays["backbone_norms"] == decays["crf_kernel_weights"] == 0
    assert decays["backbone_weights"] == config.weight_decay
    optimizer.step()
    for _ in range(5):
        schedule.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5**0.9)
    listed = [p for group in optimizer.param_groups for p in group["params"]]
    learnt = [p for p in world.segmenter().parameters() if p.requires_grad]
    assert len(listed) == len({id(p) for p in listed}) == len(learnt)


def test_an_arm_with_nothing_to_learn(world, tiny) -> None:
    with pytest.raises(ValueError, match="nothing to learn"):
        build_optimizer(world.segmenter(crf=False), TRAINED["crf-only"], tiny.fit)


def test_differences_name_the_field() -> None:
    assert differences({"a": {"b": 1}, "c": [1, 2]}, {"a": {"b": 2}, "c": (1, 2)}) == [
        "a.b was 1, now 2"
    ]


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_on_a_gpu(world, tiny, precision) -> None:
    device = torch.device("cuda")
    model = world.segmenter()
    config = replace(tiny.fit, precision=precision, ema_decay=0.9)
    world.train(model, config=config, device=device, log_every=1)
    assert {p.device.type for p in model.parameters()} == {"cuda"}
    assert all(value.isfinite().all() for value in model.state_dict().values())
    (*_, last) = lines_of(world.folder / "run")
    assert last["loss"] < 10
    # the checkpoint is for any device
    resumed = world.segmenter()
    world.train(resumed, config=config, resume=True)
    assert {p.device.type for p in resumed.parameters()} == {"cpu"}
