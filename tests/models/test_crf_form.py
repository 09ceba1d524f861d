"""What a person chooses of a CRF: the layer, the search and the description all take it."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from inspect import signature
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import torch

import data
from crfrnn import CrfRnn
from crfrnn.frank_wolfe import FrankWolfe
from crfrnn.inference import MeanField
from eval.grid import SearchConfig
from eval.inference import coarse_unaries, evaluate
from eval.metrics import scores
from eval.search import search
from models import CrfConfig, CrfForm, Segmenter, SegmenterConfig
from models.crf import build_crf, in_form, options_taken_by
from tests.models.small import SLIM

NETWORK = SLIM["v3 mobilenet"]


def test_every_choice_of_a_form_builds_a_crf() -> None:
    """What may be chosen on a command line can be built: no choice can only raise."""
    for name, hint in get_type_hints(CrfForm).items():
        others: dict[str, Any] = (
            {"inference": "frank_wolfe"} if name in options_taken_by("frank_wolfe") else {}
        )
        for choice in get_args(hint) if get_origin(hint) is Literal else ():
            build_crf(CrfConfig(**{**others, name: choice}), 3)


def test_defaults_are_those_of_the_library() -> None:
    parameters = signature(CrfRnn).parameters
    library = {**MeanField().__dict__, **FrankWolfe().__dict__}
    library |= {name: p.default for name, p in parameters.items() if name != "inference"}
    # These the recipes choose for themselves.
    own = {"resolution", "inference", "normalization", "theta_context"}
    found = {f.name: f.default for f in fields(CrfForm) if f.name not in own}
    assert found == {name: library[name] for name in found}


def test_every_option_reaches_the_layer() -> None:
    learnable = CrfConfig(learn_theta=True, untied=True, nonnegative=True, num_iterations=3)
    form = replace(learnable, unary_mixture=0.25, lattice_accuracy="fine", damping=0.5)
    crf = build_crf(form, 4)
    learnt = {name for name, p in crf.named_parameters() if p.requires_grad}
    assert sum("theta" in name for name in learnt) == 3
    assert crf.potentials.weight("spatial").shape == (3, 4)
    assert crf.potentials.kernel_weights["spatial"].low == 0
    assert crf.unary_mixture == 0.25
    assert crf.potentials.kernel("bilateral").lattice_accuracy == "fine"
    assert crf.inference == MeanField(damping=0.5)
    options: dict[str, Any] = {"regularizer": "l2", "temperature": 0.5, "step": "line_search"}
    other = build_crf(CrfConfig(inference="frank_wolfe", **options), 4)
    assert other.inference == FrankWolfe(**options)


@pytest.mark.parametrize(
    "change",
    [
        {"learn_theta": True, "untied": True, "nonnegative": True},
        {"unary_mixture": 0.5, "damping": 0.5, "storage": "bfloat16"},
        {"inference": "frank_wolfe", "regularizer": "l2", "step": "decaying", "unary_mixture": 0.5},
    ],
    ids=lambda change: "-".join(change),
)
def test_search_evaluation_and_description_take_it(change) -> None:
    form = replace(CrfForm(num_iterations=2, num_iterations_eval=3), **change)
    dataset = data.build(data.CollageConfig(size=33, num_tune=2), "tune")
    segmenter = Segmenter(SegmenterConfig(len(dataset.classes), NETWORK)).eval()
    coarse = coarse_unaries(segmenter, dataset)
    grid = SearchConfig(num_images=1, theta_alpha=(6.0,), theta_beta=(9.0,), rounds=0)
    best, _, rows = search(segmenter, form, dataset, coarse, grid)
    assert len(rows) == 2
    refined = segmenter.with_crf(in_form(best, form))
    assert refined.config.crf is not None
    assert all(getattr(refined.config.crf, name) == value for name, value in change.items())
    assert 0 <= scores(evaluate(refined, dataset, coarse))["miou"] <= 1
    assert SegmenterConfig.from_dict(asdict(refined.config)) == refined.config

    output = refined.train()(torch.rand(1, 3, 33, 33) * 255).crf
    assert output is not None
    output.square().mean().backward()
    assert refined.crf is not None
    gradient = refined.crf.potentials.weight("bilateral").grad
    assert gradient is not None
    assert gradient.isfinite().all()
    assert gradient.any()


def test_description_is_by_iteration_and_in_pixels_of_the_full_resolution() -> None:
    form = CrfConfig(
        untied=True, num_iterations=2, spatial_weight=3.0, resolution=4, theta_alpha=8,
        theta_context=60.0, output_scale=0.5,
    )  # fmt: skip
    with torch.device("meta"):
        segmenter = Segmenter(SegmenterConfig(3, NETWORK, crf=form))
    segmenter.crf = build_crf(form, 3)
    segmenter.crf.potentials.weight("spatial").data.add_(torch.tensor([[0.0], [2.0]]))
    found: Any = segmenter.describe_crf()
    assert found["kernel_weights"]["spatial"] == (4 * torch.eye(3)).tolist()
    assert found["kernel_weights"]["context"] == [[0.0] * 3] * 3
    expected = [(3 * torch.eye(3)).tolist(), (5 * torch.eye(3)).tolist()]
    assert found["by_iteration"]["spatial"] == expected
    widths = [found[f"theta_{name}"] for name in ("alpha", "beta", "gamma", "context")]
    assert widths == pytest.approx([8, 3, 1, 60])
    assert found["output_scale"] == pytest.approx(0.5)
    context = segmenter.crf.potentials.kernel("context")
    assert context.log_theta("position").exp().item() == pytest.approx(60 / 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 3}, "resolution must be 1, 2, 4 or 8, got 3"),
        ({"theta_context": 0.0}, "theta_context must be above 0"),
        ({"step": 0.5}, "step does nothing with .*'mean_field'"),
        ({"inference": "frank_wolfe", "storage": "bfloat16"}, "storage does nothing with"),
        ({"damping": 1.5}, "damping must be"),
    ],
)
def test_options_that_do_nothing_or_are_out_of_their_range_are_refused(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        CrfForm(**options)
