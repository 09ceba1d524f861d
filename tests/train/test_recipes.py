"""Recipes: the numbers of the papers, one step of each, and what their docstrings must say."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
import tyro

import data
from data import Augment, TrainStream, TransformConfig, VocConfig
from data.transforms import DEEPLAB_V2_SCALES as V2
from data.transforms import DEEPLAB_V3PLUS_SCALES as V3PLUS
from models import (
    CrfConfig,
    DeepLabV1Config,
    DeepLabV2Config,
    NetworkConfig,
    Segmenter,
    SegmenterConfig,
    TimmConfig,
    VggConfig,
    builder,
    pretrained_config,
    with_backbone,
    without_pretrained,
)
from train.arms import TRAINED
from train.fit_config import FitConfig
from train.loop import fit
from train.objective import LossConfig
from train.optim import build_optimizer
from train.recipe import Recipe
from train.recipes import RECIPES
from train.run import Run
from train.tracker import NoTracker

ANIMALS = ("voc12-animals", "voc12-animals-imagenet", "voc12-animals-balanced")
OURS = ("collage", *ANIMALS, "camvid")
PAPERS = [name for name in RECIPES if name not in OURS]
DEEPLABS = [name for name in PAPERS if name.startswith("deeplab")]

# name: (crop, batch, steps, lr, schedule, head, biases, decay, label stride, scale)
TABLE: dict[str, tuple[Any, ...]] = {
    "deeplab-v1-largefov": (321, 20, 6_000, 1e-3, "step", 10, 2, 5e-4, 8, None),
    "deeplab-v1-msc": (321, 20, 6_000, 1e-3, "step", 10, 2, 5e-4, 8, None),
    "deeplab-v2-vgg16": (321, 10, 20_000, 1e-3, "poly", 10, 2, 5e-4, 8, None),
    "deeplab-v2-resnet101": (321, 10, 20_000, 2.5e-4, "poly", 10, 2, 5e-4, 8, V2),
    "deeplab-v3-resnet101": (513, 16, 30_000, 7e-3, "poly", 1, 1, 1e-4, 1, (0.5, 2.0)),
    "deeplab-v3plus-resnet101": (
        513,
        16,
        30_000,
        7e-3,
        "poly",
        1,
        1,
        1e-4,
        1,
        V3PLUS,
    ),
    "deeplab-v3plus-xception65": (
        513,
        16,
        30_000,
        7e-3,
        "poly",
        1,
        1,
        4e-5,
        1,
        V3PLUS,
    ),
}
NETWORKS = {
    "deeplab-v1-largefov": "deeplab_v1_largefov",
    "deeplab-v1-msc": "deeplab_v1_largefov_msc",
    "deeplab-v2-vgg16": "deeplab_v2_vgg16_aspp_l",
    "deeplab-v2-resnet101": "deeplab_v2_resnet101_aspp_l_msc",
    "deeplab-v3-resnet101": "deeplab_v3_resnet101",
    "deeplab-v3plus-resnet101": "deeplab_v3plus_resnet101",
    "deeplab-v3plus-xception65": "deeplab_v3plus_xception65",
}
# theta_gamma, spatial weight, theta_alpha, theta_beta, bilateral weight of the published CRF
CRFS = {
    "deeplab-v1-largefov": (3, 3, 121, 5, 4),
    "deeplab-v1-msc": (3, 3, 83, 5, 4),
    "deeplab-v2-vgg16": (2, 2, 65, 3, 4),
    "deeplab-v2-resnet101": (1, 3, 67, 3, 4),
    "crf-as-rnn": (3, 3, 160, 3, 5),
    "pac-crf": (3, 3, 160, 3, 5),
}


def started(recipe: Recipe) -> FitConfig:
    assert recipe.start is not None
    return recipe.start


@pytest.mark.parametrize("name", DEEPLABS)
def test_the_start_is_the_training_of_the_paper(name: str) -> None:
    recipe = RECIPES[name]()
    start, augment = started(recipe), recipe.augment
    found = (
        augment.crop_size,
        start.batch_size * start.accumulate,
        start.steps,
        start.lr,
        start.schedule,
        start.head_multiplier,
        start.bias_multiplier,
        start.weight_decay,
        start.loss.label_stride,
        augment.scale or augment.scale_steps or None,
    )
    assert found == TABLE[name]
    assert (start.optimizer, start.momentum, start.warmup) == ("sgd", 0.9, 0)
    assert (start.power, start.step_size) == (0.9, 2000)
    assert start.decay_depthwise == ("xception" not in name)
    assert augment.flip
    assert recipe.data == VocConfig(
        train_list="train_aug",
        tune_list="val",
        report_list="val",
        extra_masks="SegmentationClassAug",
    )
    # The window that image pooling sees is that of the crop.
    assert recipe.model.min_size == (513 if "-v3" in name else 0)


@pytest.mark.parametrize("name", DEEPLABS)
def test_the_network_is_the_papers_from_imagenet(name: str) -> None:
    network = RECIPES[name]().model.network
    assert network == pretrained_config(builder(NETWORKS[name]).config)
    assert network.backbone.pretrained


def test_deeplab_v2_has_four_losses_and_frozen_norms() -> None:
    network = RECIPES["deeplab-v2-resnet101"]().model.network
    assert isinstance(network, DeepLabV2Config)
    assert network.scales == (0.5, 0.75, 1.0)
    assert network.rates == (6, 12, 18, 24)
    assert network.freeze_batch_norm


def test_msc_trains_the_network_first_and_then_the_branches_alone() -> None:
    recipe = RECIPES["deeplab-v1-msc"]()
    assert recipe.finish is not None
    stages = (started(recipe).frozen, recipe.finish.fit.frozen)
    assert stages == (("branches",), ("backbone", "fc8"))
    assert replace(recipe.finish.fit, frozen=()) == replace(started(recipe), frozen=())
    with torch.device("meta"):
        network = Segmenter(SegmenterConfig(21, without_pretrained(recipe.model.network))).network
    names = [name for name, _ in network.named_parameters()]
    for name in names:  # each learns in one stage and not in the other
        assert [name.startswith(stage) for stage in stages].count(True) == 1, name


def test_deeplab_v3_goes_on_at_stride_8_with_frozen_norms() -> None:
    recipe = RECIPES["deeplab-v3-resnet101"]()
    assert recipe.finish is not None
    assert (recipe.finish.output_stride, recipe.finish.freeze_batch_norm) == (8, True)
    second = replace(recipe.finish.fit, lr=started(recipe).lr)
    assert second == started(recipe)
    assert recipe.finish.fit.lr == 1e-3


@pytest.mark.parametrize("name", CRFS)
def test_the_published_crf_is_on_the_grid(name: str) -> None:
    recipe = RECIPES[name]()
    search = recipe.search
    values = (
        search.theta_gamma,
        search.spatial_weight,
        search.theta_alpha,
        search.theta_beta,
        search.bilateral_weight,
    )
    for value, grid in zip(CRFS[name], values, strict=True):
        assert value in grid
    assert recipe.crf.normalization == "after"
    assert recipe.crf.num_iterations_eval == 10


def test_crf_as_rnn_in_units_of_a_mean_loss() -> None:
    recipe = RECIPES["crf-as-rnn"]()
    joint = recipe.fit
    rates = (joint.lr, joint.crf_lr, joint.compatibility_lr)
    assert rates == pytest.approx((2.5e-8, 2.5e-4, 2.5e-5))
    assert (joint.optimizer, joint.momentum) == ("sgd", 0.99)
    assert (joint.batch_size, joint.accumulate, joint.loss.unary) == (1, 1, 0.0)
    assert recipe.augment == TransformConfig(scale=None, crop_size=None, flip=True)
    assert joint.step_size >= joint.steps  # a constant rate
    assert recipe.start is None  # from a trained network
    crf = recipe.crf
    assert (crf.kernel_weights, crf.compatibility) == ("matrix", "full")
    assert (crf.num_iterations, crf.num_iterations_eval) == (5, 10)
    search = recipe.search
    assert len(search.theta_alpha) * len(search.theta_beta) * len(search.bilateral_weight) == 1
    assert search.rounds == 0


def test_pac_crf_trains_the_crf_first() -> None:
    recipe = RECIPES["pac-crf"]()
    first, together = recipe.crf_first, recipe.fit
    assert first is not None
    for phase, epochs, lr in ((first, 40, 1e-3), (together, 30, 1e-7)):
        seen = phase.steps * phase.batch_size * phase.accumulate
        assert seen / 10_582 == pytest.approx(epochs, rel=1e-3)  # whole steps an epoch
        assert (phase.crf_lr, phase.compatibility_lr) == (lr, lr)
        assert (phase.optimizer, phase.weight_decay) == ("adamw", 0.0)  # Adam
        assert phase.step_size >= phase.steps
    assert together.lr == 1e-7
    assert recipe.crf_fit == first


@pytest.mark.parametrize("name", PAPERS)
def test_the_docstring_opens_with_what_a_reader_needs(name: str) -> None:
    doc = RECIPES[name].__doc__ or ""
    places = [doc.find(f"\n    {word}: ") for word in ("Command", "Cost", "Expect", "Source")]
    assert -1 not in places
    assert places == sorted(places)
    assert f"python -m train compare {name} " in doc
    assert "estimate" in doc


def test_balanced_is_another_loss_alone() -> None:
    recipe = RECIPES["voc12-animals-balanced"]()
    phases = (recipe.start, recipe.fit, recipe.crf_fit, recipe.crf_last)
    assert {phase.loss for phase in phases if phase is not None} == {
        LossConfig(class_weights=(0.25, *[1.0] * 20))
    }
    plain = {
        name: replace(getattr(recipe, name), loss=LossConfig())
        for name in ("start", "fit", "crf_fit", "crf_last")
    }
    assert replace(recipe, **plain) == RECIPES["voc12-animals-imagenet"]()


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_can_be_written_and_parsed(name: str) -> None:
    recipe = RECIPES[name]()
    json.dumps(asdict(recipe), default=str)
    arguments = ["--fit.steps", "3", "--fit.loss.lovasz", "0.5"]
    config = (tyro.conf.AvoidSubcommands,)
    changed = tyro.cli(Recipe, default=recipe, args=arguments, config=config)
    loss = replace(recipe.fit.loss, lovasz=0.5)
    assert changed == replace(recipe, fit=replace(recipe.fit, steps=3, loss=loss))


def without_weights(name: str) -> NetworkConfig:
    return without_pretrained(RECIPES[name]().model.network)


@pytest.mark.parametrize("name", PAPERS)
def test_groups_of_the_whole_network(name: str) -> None:
    """On the meta device: names and rates of what would be learnt."""
    recipe = RECIPES[name]()
    with torch.device("meta"):
        segmenter = Segmenter(SegmenterConfig(21, without_weights(name), CrfConfig()))
    config = recipe.start or recipe.fit
    optimizer = build_optimizer(segmenter, TRAINED["joint"], config)
    rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
    assert rates["backbone_weights"] == config.lr
    assert rates["head_weights"] == config.lr * config.head_multiplier
    assert rates["head_biases"] == rates["head_weights"] * config.bias_multiplier
    assert ("head_depthwise" in rates) == (not config.decay_depthwise)
    assert ("backbone_norms" in rates) == ("-v1" not in name and "-v2" not in name)
    listed = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(listed) == sum(p.requires_grad for p in segmenter.parameters())


def small(network: NetworkConfig) -> NetworkConfig:
    """The same kind of network, small enough for a step on a CPU."""
    if isinstance(network, DeepLabV1Config):
        vgg = replace(network.backbone, pretrained=False, fc_channels=16)
        return replace(network, backbone=vgg)
    if isinstance(network, DeepLabV2Config):
        vgg = VggConfig(fc_channels=16, rates=(2, 4))
        return replace(network, backbone=vgg, rates=())
    normalization = network.backbone.normalization
    return with_backbone(network, TimmConfig("mobilenetv2_035", normalization=normalization))


@pytest.mark.parametrize(
    ("name", "phase"),
    [
        *((name, phase) for name in DEEPLABS for phase in ("start", "fit")),
        *((name, phase) for name in ("crf-as-rnn", "pac-crf") for phase in ("fit", "crf_fit")),
    ],
)
def test_one_step_of_every_phase(tiny: Recipe, tmp_path, name: str, phase: str) -> None:
    recipe = RECIPES[name]()
    dataset = data.build(tiny.data, "train")
    arm = {"start": "start", "fit": "joint", "crf_fit": "crf-only"}[phase]
    crf = CrfConfig(**asdict(recipe.crf)) if phase != "start" else None
    network = SegmenterConfig(
        len(dataset.classes),
        small(recipe.model.network),
        crf,
        freeze_batch_norm=recipe.model.freeze_batch_norm and phase != "start",
    )
    segmenter = Segmenter(network)
    before = {key: value.clone() for key, value in segmenter.state_dict().items()}
    config = replace(getattr(recipe, phase), steps=1, batch_size=2, accumulate=1)
    run = Run(TRAINED[arm], 0, tmp_path, data.config_to_dict(tiny.data))  # type: ignore[index]
    augment = replace(recipe.augment, crop_size=33)
    stream = TrainStream(dataset, Augment(augment), config.batch_size, 0)
    fit(segmenter, stream, config, run, NoTracker(), resume=False)
    changed = {
        key.split(".")[0]
        for key, value in segmenter.state_dict().items()
        if not torch.equal(value, before[key])
    }
    assert changed == {"start": {"network"}, "fit": {"network", "crf"}, "crf_fit": {"crf"}}[phase]
