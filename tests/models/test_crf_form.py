"""What a person chooses of a CRF: the layer, the search and the description all take it."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from inspect import signature

import pytest
import torch

import data
from crfrnn import CrfRnn
from crfrnn.frank_wolfe import FrankWolfe
from crfrnn.inference import MeanField
from data import CollageConfig
from eval.inference import coarse_unaries, evaluate
from eval.metrics import scores
from eval.tuning.grid import SearchConfig
from eval.tuning.search import search
from models import CrfConfig, CrfForm, DeepLabV3Config, Segmenter, SegmenterConfig, TimmConfig
from models.crf import OF_FRANK_WOLFE, OF_MEAN_FIELD, build_crf

CHANGES = [
    {"learn_theta": True, "untied": True, "nonnegative": True},
    {"unary_mixture": 0.5, "damping": 0.5},
    {"storage": "bfloat16"},
    {"inference": "frank_wolfe", "step": 0.5},
    {"inference": "frank_wolfe", "regularizer": "l2", "step": "decaying", "unary_mixture": 0.5},
]


@pytest.fixture(scope="module")
def network() -> DeepLabV3Config:
    backbone = TimmConfig("mobilenetv2_035", normalization="half")
    return DeepLabV3Config(backbone=backbone, atrous_rates=(), head_channels=8)


def test_defaults_are_those_of_the_library() -> None:
    parameters = signature(CrfRnn).parameters
    library = {**MeanField().__dict__, **FrankWolfe().__dict__}
    library |= {name: p.default for name, p in parameters.items() if name not in ("inference",)}
    # These the recipes choose for themselves.
    own = {"resolution", "inference", "normalization", "theta_context"}
    for field in fields(CrfForm):
        if field.name not in own:
            assert field.default == library[field.name], field.name


def test_every_option_reaches_the_layer() -> None:
    form = CrfConfig(
        learn_theta=True,
        untied=True,
        nonnegative=True,
        unary_mixture=0.25,
        lattice_accuracy="fine",
    )
    crf = build_crf(replace(form, num_iterations=3, damping=0.5), 4)
    learnt = {name for name, p in crf.named_parameters() if p.requires_grad}
    assert sum("theta" in name for name in learnt) == 3
    assert crf.potentials.weight("spatial").shape == (3, 4)
    assert crf.potentials.kernel_weights["spatial"].low == 0
    assert crf.unary_mixture == 0.25
    assert crf.potentials.kernel("bilateral").lattice_accuracy == "fine"
    assert crf.inference == MeanField(damping=0.5)
    changed = CrfConfig(
        inference="frank_wolfe", regularizer="l2", temperature=0.5, step="line_search"
    )
    assert build_crf(changed, 4).inference == FrankWolfe("l2", 0.5, "line_search")


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: "-".join(change))
def test_search_evaluation_and_description_take_it(change, network) -> None:
    form = replace(CrfForm(num_iterations=2, num_iterations_eval=3), **change)
    dataset = data.build(CollageConfig(size=33, num_train=2, num_tune=2, num_report=2), "tune")
    torch.manual_seed(0)
    segmenter = Segmenter(SegmenterConfig(len(dataset.classes), network)).eval()
    coarse = coarse_unaries(segmenter, dataset)
    grid = SearchConfig(num_images=1, theta_alpha=(6.0,), theta_beta=(9.0,), rounds=0)
    best, rows = search(segmenter, form, dataset, coarse, grid)
    assert len(rows) == 2
    assert all(getattr(best, name) == value for name, value in change.items())
    learnable = replace(best, kernel_weights="class", compatibility="full")
    refined = segmenter.with_crf(learnable)
    assert 0 <= scores(evaluate(refined, dataset, coarse))["miou"] <= 1
    described = refined.describe_crf()
    assert described is not None
    assert (described["by_iteration"] is not None) == form.untied
    assert SegmenterConfig.from_dict(asdict(refined.config)) == refined.config

    refined.train()
    image = torch.rand(1, 3, 33, 33) * 255
    output = refined(image).crf
    assert output is not None
    output.square().mean().backward()
    assert refined.crf is not None
    weight = refined.crf.potentials.weight("bilateral").grad
    assert weight is not None
    assert weight.isfinite().all()
    assert weight.any()


def test_untied_sets_are_described_by_their_means(network) -> None:
    form = CrfConfig(untied=True, num_iterations=2, spatial_weight=3.0)
    segmenter = Segmenter(SegmenterConfig(3, network, form))
    assert segmenter.crf is not None
    with torch.no_grad():
        segmenter.crf.potentials.weight("spatial")[1] += 2
    described = segmenter.describe_crf()
    assert described is not None
    assert described["kernel_weights"]["spatial"] == (4 * torch.eye(3)).tolist()
    assert described["by_iteration"]["spatial"] == [
        (3 * torch.eye(3)).tolist(),
        (5 * torch.eye(3)).tolist(),
    ]
    assert torch.tensor(described["by_iteration"]["compatibility"]).shape == (2, 3, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 3}, r"crf\.resolution must be 1, 2, 4 or 8, got 3"),
        ({"theta_context": 0.0}, "theta_context must be above 0 pixels"),
        *(
            ({name: value}, rf"crf\.{name} does nothing with .*'mean_field'")
            for name, value in zip(OF_FRANK_WOLFE, ("l2", 0.5, 0.5), strict=True)
        ),
        *(
            (
                {"inference": "frank_wolfe", name: value},
                rf"crf\.{name} does nothing with .*'frank_wo",
            )
            for name, value in zip(OF_MEAN_FIELD, (0.5, "bfloat16"), strict=True)
        ),
        ({"storage": "half"}, "storage must be one of"),
        ({"damping": 1.5}, "damping must be a number in"),
        ({"inference": "frank_wolfe", "temperature": -1.0}, "temperature must be"),
    ],
)
def test_options_that_do_nothing_or_are_out_of_their_range_are_refused(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        CrfForm(**options)


def test_a_context_kernel_is_silent_until_its_matrix_has_learnt() -> None:
    plain, wide = (CrfConfig(resolution=2, theta_context=theta) for theta in (None, 60.0))
    unary, image = torch.randn(1, 4, 12, 10), torch.rand(1, 3, 12, 10) * 255
    crf = build_crf(wide, 4)
    assert crf.potentials.kernel("context").log_theta("position").exp().item() == pytest.approx(30)
    assert torch.equal(crf(unary, image), build_crf(plain, 4)(unary, image))
    with torch.no_grad():
        crf.potentials.weight("context").copy_(torch.eye(4))
    assert not torch.equal(crf(unary, image), build_crf(plain, 4)(unary, image))


def test_describe_crf_tells_the_width_of_the_context_in_the_images_pixels() -> None:
    crf = CrfConfig(resolution=2, theta_context=60.0)
    with torch.device("meta"):
        shell = Segmenter(SegmenterConfig(3, crf=crf))
    shell.crf = build_crf(crf, 3)
    described = shell.describe_crf()
    assert described is not None
    assert described["theta_context"] == pytest.approx(60)
    assert described["kernel_weights"]["context"] == [[0.0] * 3] * 3
