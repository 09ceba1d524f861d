"""The loop: what learns and what does not, resuming, and errors."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

import data
from data import Augment, TrainStream
from eval.checkpoint import load_segmenter, read_checkpoint
from models import CrfConfig, Segmenter, SegmenterConfig, SegmenterOutput
from train.arms import TRAINED
from train.differences import differences
from train.loop import fit
from train.objective import LossConfig, cross_entropy, loss_terms
from train.optim import build_optimizer, poly_schedule
from train.run import Run
from train.tracking import Tracker


@pytest.fixture
def world(tiny, tmp_path):
    """(make a segmenter, make a run, train it)."""
    dataset = data.build(tiny.data, "train")
    default = CrfConfig(**asdict(tiny.crf))

    def segmenter(crf: CrfConfig | None = default) -> Segmenter:
        torch.manual_seed(0)
        return Segmenter(SegmenterConfig(len(dataset.classes), tiny.model.network, crf))

    def train(
        model,
        arm="joint",
        config=tiny.fit,
        folder="run",
        resume=False,
        seed=0,
        evaluate=None,
        **how,
    ):
        run = Run(TRAINED[arm], seed, tmp_path / folder, data.config_to_dict(tiny.data), **how)
        stream = TrainStream(dataset, Augment(tiny.augment), config.batch_size, seed)
        with Tracker(run.directory, "disabled", "test", arm, {}) as tracker:
            fit(model, stream, config, run, tracker, resume=resume, evaluate=evaluate)
        return run

    return segmenter, train


def lines_of(folder: Path) -> list[dict[str, float]]:
    """What a run wrote, but for what depends on the clock."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith("speed/")} for line in lines]


def changed(model: Segmenter, before: dict[str, torch.Tensor], prefix: str) -> list[str]:
    return [
        name
        for name, value in model.state_dict().items()
        if name.startswith(prefix) and not torch.equal(value, before[name])
    ]


@pytest.mark.parametrize(
    ("arm", "network", "crf"),
    [("unary", True, False), ("crf-only", False, True), ("joint", True, True)],
)
def test_each_arm_changes_what_it_learns_and_nothing_else(world, arm, network, crf) -> None:
    segmenter, train = world
    model = segmenter()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    train(model, arm)
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
    segmenter, train = world
    sgd = {"optimizer": "sgd", "lr": 1.0, "weight_decay": 0.0, "steps": 1, "warmup": 0}
    moved = {}
    for clip_norm in (0.0, 1e-3):
        model = segmenter()
        before = [p.detach().clone() for p in model.network.parameters()]
        config = replace(tiny.fit, **sgd, head_multiplier=1.0, clip_norm=clip_norm)
        train(model, config=config, folder=f"clip-{clip_norm}")
        steps = [
            (p.detach() - b).norm() for p, b in zip(model.network.parameters(), before, strict=True)
        ]
        moved[clip_norm] = torch.stack(steps).norm().item()
    assert moved[0.0] > 0.01
    # Rounding: a step of 1e-3 on weights of order one, in float32.
    assert moved[1e-3] == pytest.approx(1e-3, rel=1e-2)


def test_checkpoint_rebuilds_the_model(world) -> None:
    segmenter, train = world
    model = segmenter()
    run = train(model)
    checkpoint = read_checkpoint(run.checkpoint)
    assert (checkpoint["arm"], checkpoint["seed"], checkpoint["step"]) == ("joint", 0, 4)
    image = torch.rand(1, 3, 33, 33) * 255
    with torch.no_grad():
        assert torch.equal(load_segmenter(checkpoint)(image).crf, model.eval()(image).crf)


def test_resuming_gives_the_weights_of_an_uninterrupted_run(world, tmp_path, monkeypatch) -> None:
    segmenter, train = world
    whole = segmenter()
    train(whole, folder="whole", log_every=1)

    interrupted = segmenter()
    original = torch.optim.AdamW.step
    steps: list[int] = []

    def stopping(self, *arguments, **options):
        if len(steps) == 2:
            raise KeyboardInterrupt
        steps.append(1)
        return original(self, *arguments, **options)

    monkeypatch.setattr(torch.optim.AdamW, "step", stopping)
    with pytest.raises(KeyboardInterrupt):
        train(interrupted, folder="parts", log_every=1, save_every=2)
    monkeypatch.setattr(torch.optim.AdamW, "step", original)

    resumed = segmenter()
    train(resumed, folder="parts", resume=True, log_every=1)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert lines_of(tmp_path / "parts") == lines_of(tmp_path / "whole")


def test_resuming_with_another_configuration_is_refused(world, tiny) -> None:
    segmenter, train = world
    train(segmenter())
    with pytest.raises(ValueError, match=r"another configuration: fit\.lr was 0\.001, now 0\.5"):
        train(segmenter(), config=replace(tiny.fit, lr=0.5), resume=True)
    other = CrfConfig(**asdict(tiny.crf), theta_alpha=3.0)
    with pytest.raises(ValueError, match=r"segmenter\.crf\.theta_alpha was"):
        train(segmenter(other), resume=True)


def test_a_loss_that_is_not_finite_names_the_images(world, tiny) -> None:
    segmenter, train = world
    model = segmenter(None)
    torch.nn.init.constant_(model.network.classifier.bias, torch.nan)
    with pytest.raises(FloatingPointError, match=r"the loss is nan on the images train-"):
        train(model, "unary")


def test_json_lines_hold_loss_and_learning_rates(world) -> None:
    segmenter, train = world
    run = train(segmenter())
    (line,) = (run.directory / "metrics.jsonl").read_text().splitlines()
    values = json.loads(line)
    assert values["step"] == 4
    expected = {"loss", "loss_crf", "loss_unary", "lr/backbone_weights", "lr/crf_kernel_weights"}
    assert expected < values.keys()


def test_loss_is_the_sum_of_its_terms_and_ignores_void() -> None:
    logits = torch.randn(1, 3, 2, 2)
    masks = torch.tensor([[[0, 255], [2, 1]]])
    terms = loss_terms(SegmenterOutput(logits, 2 * logits), masks, LossConfig(unary=0.5))
    rows = logits.flatten(2)[0].t()[[0, 2, 3]]
    expected = torch.nn.functional.cross_entropy(rows, torch.tensor([0, 2, 1]))
    torch.testing.assert_close(terms["loss_unary"], expected)
    weighted = (terms["loss_crf"] + 0.5 * terms["loss_unary"]) / 1.5
    torch.testing.assert_close(terms["loss"], weighted)


def test_a_batch_of_void_costs_nothing() -> None:
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    loss = cross_entropy(logits, torch.full((1, 2, 2), 255))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss == 0
    assert gradient.count_nonzero() == 0


def test_groups_and_schedule(world, tiny) -> None:
    segmenter, _ = world
    config = replace(tiny.fit, steps=10, lr=1.0, head_multiplier=10, crf_lr=5.0)
    optimizer = build_optimizer(segmenter(), TRAINED["joint"], config)
    schedule = poly_schedule(optimizer, config)
    rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
    assert rates["head_weights"] == 10 * rates["backbone_weights"]
    assert rates["crf_kernel_weights"] == 5.0
    decays = {group["name"]: group["weight_decay"] for group in optimizer.param_groups}
    assert decays["backbone_biases"] == decays["crf_kernel_weights"] == 0
    assert decays["backbone_weights"] == config.weight_decay
    optimizer.step()
    for _ in range(5):
        schedule.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5**0.9)
    listed = [p for group in optimizer.param_groups for p in group["params"]]
    learnt = [p for p in segmenter().parameters() if p.requires_grad]
    assert len(listed) == len({id(p) for p in listed}) == len(learnt)


def test_an_arm_with_nothing_to_learn(world, tiny) -> None:
    segmenter, _ = world
    with pytest.raises(ValueError, match="nothing to learn"):
        build_optimizer(segmenter(None), TRAINED["crf-only"], tiny.fit)


def test_differences_name_the_field() -> None:
    assert differences({"a": {"b": 1}, "c": [1, 2]}, {"a": {"b": 2}, "c": (1, 2)}) == [
        "a.b was 1, now 2"
    ]
