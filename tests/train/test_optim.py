"""Parameter groups and schedules: which parameter learns how fast, and what decays."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from models import (
    CrfConfig,
    DeepLabV1Config,
    DeepLabV3PlusConfig,
    NetworkConfig,
    Segmenter,
    SegmenterConfig,
    TimmConfig,
    VggConfig,
)
from tests.train.world import LEARNS
from train.optim import build_optimizer, build_schedule
from train.recipe import FitConfig
from train.stage import BOTH, CRF, NETWORK

CRF_CONFIG = CrfConfig()
SEPARABLE = DeepLabV3PlusConfig(
    backbone=TimmConfig("mobilenetv2_035"), separable_aspp=True, separable_decoder=True
)


def shell(network: NetworkConfig, crf: CrfConfig | None = None) -> Segmenter:
    """A segmenter without memory: the groups ask for names and shapes alone."""
    with torch.device("meta"):
        return Segmenter(SegmenterConfig(3, network, crf))


def groups_of(segmenter: Segmenter, config: FitConfig, arm: str = "unary") -> dict[str, Any]:
    optimizer = build_optimizer(segmenter, LEARNS[arm], config)
    return {group["name"]: group for group in optimizer.param_groups}


def test_heads_and_biases_learn_as_fast_as_the_prototxt_says() -> None:
    """DeepLab v1 and v2: 10 times for the head's weights, 20 for its bias, 2 for all others."""
    segmenter = shell(DeepLabV1Config(backbone=VggConfig(fc_channels=16)), CRF_CONFIG)
    multipliers: dict[str, Any] = {"head_multiplier": 10, "bias_multiplier": 2}
    config = FitConfig(optimizer="sgd", momentum=0.99, lr=1.0, weight_decay=5e-4, **multipliers)
    groups = groups_of(segmenter, config, "joint")
    assert {group["momentum"] for group in groups.values()} == {0.99}
    found = {name: (group["lr"], group["weight_decay"]) for name, group in groups.items()}
    assert found == {
        "backbone_weights": (1.0, 5e-4),
        "backbone_biases": (2.0, 0.0),
        "head_weights": (10.0, 5e-4),
        "head_biases": (20.0, 0.0),
        "crf_kernel_weights": (config.crf_lr, 0.0),
        "crf_compatibility": (config.compatibility_lr, 0.0),
    }
    (bias,) = groups["head_biases"]["params"]
    assert bias is segmenter.network.get_submodule("fc8").bias


def ids_in(groups: dict[str, Any], *names: str) -> list[int]:
    """The parameters in these groups, or in all."""
    return [id(p) for name in names or groups for p in groups[name]["params"]]


def test_norms_do_not_decay_and_depthwise_weights_where_they_are_said_to() -> None:
    segmenter = shell(SEPARABLE)
    modules = list(segmenter.network.modules())
    norms = {id(p) for m in modules if isinstance(m, nn.BatchNorm2d) for p in m.parameters()}
    depthwise = {id(m.weight) for m in modules if isinstance(m, nn.Conv2d) and m.groups > 1}
    groups = groups_of(segmenter, FitConfig(lr=1.0, bias_multiplier=2, decay_depthwise=False))
    assert set(ids_in(groups, "backbone_norms", "head_norms")) == norms
    assert set(ids_in(groups, "backbone_depthwise", "head_depthwise")) == depthwise
    found = {name: (group["lr"], group["weight_decay"]) for name, group in groups.items()}
    assert found["backbone_norms"] == found["head_norms"] == found["head_depthwise"] == (1.0, 0.0)
    assert found["head_biases"] == (2.0, 0.0)
    assert found["backbone_weights"] == (1.0, 1e-4)
    decaying = groups_of(segmenter, FitConfig(decay_depthwise=True))
    assert depthwise < set(ids_in(decaying, "backbone_weights", "head_weights"))


def test_every_parameter_that_learns_is_in_one_group() -> None:
    segmenter = shell(SEPARABLE, CRF_CONFIG)
    for part in (segmenter.network.get_submodule("aspp0"), segmenter.network.backbone):
        next(part.parameters()).requires_grad_(False)
    groups = groups_of(segmenter, FitConfig(decay_depthwise=False), "joint")
    learning = [id(p) for p in segmenter.parameters() if p.requires_grad]
    assert sorted(ids_in(groups)) == sorted(learning)
    for name in groups:  # in the order of the network: so checkpoints hold Adam's moments
        mine = ids_in(groups, name)
        assert mine == [p for p in learning if p in mine]


def test_a_crf_that_is_held_stays_as_it_is_while_the_network_learns() -> None:
    crf = CrfConfig(learn_output_scale=True, learn_theta=True)
    segmenter = Segmenter(SegmenterConfig(3, SEPARABLE, crf))
    held = FitConfig(lr=1e-2, crf_lr=0.0, compatibility_lr=0.0)
    optimizer = build_optimizer(segmenter, BOTH, held)
    before = {name: p.detach().clone() for name, p in segmenter.named_parameters()}
    for p in segmenter.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    same = {name for name, p in segmenter.named_parameters() if torch.equal(p, before[name])}
    assert same == {name for name in before if name.startswith("crf.")} != set()
    with pytest.raises(ValueError, match="crf_lr=0, compatibility_lr=0"):
        build_optimizer(segmenter, CRF, held)
    segmenter.requires_grad_(False)
    with pytest.raises(ValueError, match=r"has nothing to learn: .*frozen=\('',\)"):
        build_optimizer(segmenter, NETWORK, FitConfig(frozen=("",)))


def rates(config: FitConfig, steps: int) -> dict[str, list[float]]:
    """The learning rate of a group of the network and of one of the CRF in every step."""
    names = ("head_weights", "crf_kernel_weights")
    groups = [
        {"name": name, "params": [nn.Parameter(torch.zeros(1))], "lr": lr}
        for name, lr in zip(names, (1.0, 10.0), strict=True)
    ]
    optimizer = torch.optim.SGD(groups)
    schedule = build_schedule(optimizer, config)
    found: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(steps):
        for group in optimizer.param_groups:
            found[group["name"]].append(group["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_poly_ends_near_zero_and_step_divides_by_ten() -> None:
    poly = rates(FitConfig(steps=4, power=0.9), 4)
    assert poly["head_weights"] == pytest.approx([1, 0.75**0.9, 0.5**0.9, 0.25**0.9])
    assert poly["crf_kernel_weights"] == pytest.approx([10 * lr for lr in poly["head_weights"]])
    step = rates(FitConfig(steps=6, schedule="step", step_size=2), 6)
    assert step["head_weights"] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


@pytest.mark.parametrize(("longer", "crf"), [(3, [2.5, 5, 7.5, 10, 10]), (0, [5, 10, 10, 10, 10])])
def test_the_crf_rises_longer_than_the_network(longer: int, crf: list[float]) -> None:
    config = FitConfig(steps=10, schedule="step", step_size=10, warmup=1, crf_warmup=longer)
    found = rates(config, 5)
    assert found["head_weights"] == pytest.approx([0.5, 1, 1, 1, 1])
    assert found["crf_kernel_weights"] == pytest.approx(crf)
