"""The union of network and CRF: two maps of logits from one forward pass, at any size."""

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
from crfrnn.kernels import rounded
from eval.grid import SearchConfig
from eval.inference import coarse_unaries
from eval.search import search
from models import CrfConfig, CrfForm, Segmenter, SegmenterConfig
from models.crf import build_crf, in_form, options_taken_by
from models.layers import batch_norms, pad_to_stride, shrink, stretch
from tests.models.small import SLIM, SMALL_CASCADE, SMALL_PLUS, SMALL_V1, SMALL_V2

NETWORK = SLIM["v3 mobilenet"]
CRF = CrfConfig(theta_alpha=8, theta_beta=10, num_iterations=2, num_iterations_eval=3)


def segmenter(**changes) -> Segmenter:
    torch.manual_seed(0)
    return Segmenter(replace(SegmenterConfig(3, NETWORK, CRF), **changes))


def test_shape_at_any_size_with_and_without_a_crf() -> None:
    model = segmenter().eval()
    for size in ((33, 33), (17, 90), (1, 1)):
        output = model(torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8))
        assert output.unary.shape == output.crf.shape == (2, 3, *size)
        assert output.logits is output.crf
    alone, image = model.with_crf(None), torch.rand(1, 3, 33, 33) * 255
    output = alone(image)
    assert output.crf is None
    assert output.logits is output.unary
    assert alone.describe_crf() is None
    with pytest.raises(ValueError, match="no CRF"):
        alone.refine(output.unary, image)


def test_a_dark_frame_of_a_file_is_no_error_and_a_normalised_image_is() -> None:
    model, dark = segmenter(), torch.zeros(1, 3, 33, 33)
    dark[..., 3, 4] = 1  # grey levels 0 and 1
    batch = model.train()(dark).crf  # one dark crop at batch 1
    assert batch is not None
    assert batch.isfinite().all()
    expected = model.eval()(dark.byte())
    with torch.no_grad():
        refined = model.refine(model.unary(dark), dark)  # as inference has it
    torch.testing.assert_close(refined, expected.crf)
    with pytest.raises(ValueError, match=r"image must be in 0\.\.255, got values in 0\.\.1"):
        model(dark)


def test_corners_coincide_and_the_crf_sees_the_image_as_it_is() -> None:
    """Mean-subtracted or wrapped images in the CRF are a bug of widely used repositories."""
    model = segmenter().eval()
    image = torch.randint(0, 256, (1, 3, 33, 49), dtype=torch.uint8)
    output, coarse = model(image), model.coarse_unary(image.float())
    torch.testing.assert_close(output.unary[..., ::16, ::16], coarse, rtol=1e-5, atol=1e-6)
    assert model.crf is not None
    torch.testing.assert_close(output.crf, model.crf(output.unary, image))


def test_lower_resolution_rescales_positions_once() -> None:
    crf = build_crf(replace(CRF, resolution=2), 3)
    assert isinstance(crf, CrfRnn)
    found = [getattr(crf.potentials, f"theta_{name}") for name in ("alpha", "gamma", "beta")]
    expected = [CRF.theta_alpha / 2, CRF.theta_gamma / 2, CRF.theta_beta]
    assert [rounded(theta) for theta in found] == expected


def test_the_network_may_see_a_smaller_image() -> None:
    model = segmenter(network_scale=2, crf=None, min_size=60).eval()
    image = torch.rand(1, 3, 33, 90) * 255
    assert model.padded_size((33, 90)) == (65, 97)  # 32 k + 1
    seen = model.network_input(image)
    assert seen.shape[2:] == (33, 49)
    corner = pad_to_stride(image, 32, 60)[..., :2, :2]
    expected = (9 * corner[..., 0, 0] + 3 * (corner[..., 0, 1] + corner[..., 1, 0])) / 16
    torch.testing.assert_close(seen[..., 0, 0], expected + corner[..., 1, 1] / 16)
    output = model(image).unary
    assert output.shape == (1, 3, 33, 90)
    torch.testing.assert_close(output[..., ::32, ::32], model.network(seen)[..., :2, :3])
    with pytest.raises(ValueError, match="must be 1, 2 or 4, got 3"):
        segmenter(network_scale=3)


@pytest.mark.parametrize("resolution", [2, 8])
def test_lower_resolution_stays_close(resolution: int) -> None:
    """A smooth scene loses little on a coarser grid: the two results agree on most pixels."""
    x = torch.linspace(0, 1, 65)
    image = torch.stack([x.expand(65, 65), x[:, None].expand(65, 65), x.expand(65, 65)])[None] * 255
    unary = torch.stack([x.expand(65, 65) - 0.5, 0.5 - x.expand(65, 65)])[None] * 6
    full = segmenter(num_classes=2).eval().refine(unary, image)
    coarse = segmenter(num_classes=2, crf=replace(CRF, resolution=resolution)).eval()
    agreement = (coarse.refine(unary, image).argmax(1) == full.argmax(1)).double().mean()
    assert agreement > 1 - resolution / 65  # at most one coarse column of the boundary differs


def test_shrinking_stretching_and_padding_in_both_modes() -> None:
    constant = torch.full((1, 2, 7, 9), 5.0)  # at an odd size
    small = shrink(constant, 2)
    assert small.shape == (1, 2, 4, 5)
    torch.testing.assert_close(stretch(small, constant.shape[2:]), constant)
    padded = pad_to_stride(torch.zeros(1, 3, 30, 50), 16, minimum=0)
    assert padded.shape == (1, 3, 33, 65)
    assert (padded[..., 30:, :] == 128).all()
    assert pad_to_stride(padded, 16, minimum=513).shape == (1, 3, 513, 513)
    model = segmenter(min_size=97, crf=None)
    for mode in (True, False):
        assert model.train(mode).coarse_unary(torch.zeros(2, 3, 33, 33)).shape[2:] == (7, 7)


# Landmine 6: a BN that is frozen in name only.
@pytest.mark.parametrize("network", [NETWORK, SMALL_V2, SMALL_PLUS, SMALL_CASCADE])
def test_frozen_batch_norm_stays_in_eval_mode(network) -> None:
    """V2's own, as published, without being asked."""
    unasked = replace(network, freeze_batch_norm=False)
    asked = network if network is SMALL_V2 else replace(network, freeze_batch_norm=True)
    with torch.device("meta"):
        free = Segmenter(SegmenterConfig(3, unasked))
        by_network, by_segmenter = (
            Segmenter(SegmenterConfig(3, config, freeze_batch_norm=config is unasked))
            for config in (asked, unasked)
        )
    assert all(norm.training and norm.weight.requires_grad for norm in batch_norms(free.train()))
    for frozen in (by_network, by_segmenter):
        for norm in batch_norms(frozen.eval().train()):
            assert not norm.training
            assert not any(p.requires_grad for p in norm.parameters())


def test_the_label_bias_is_taken_from_the_unary_logits() -> None:
    model = segmenter(crf=None).eval()
    image = torch.rand(1, 3, 33, 33) * 255
    before = model(image).unary
    model.set_label_bias((0.0, 1.0, -2.0))
    taken = torch.tensor([0.0, 1.0, -2.0])[:, None, None]
    torch.testing.assert_close(model(image).unary, before - taken)
    with pytest.raises(ValueError, match="one number for each of the 3 labels"):
        model.set_label_bias((1.0,))


def test_the_last_stage_has_finer_features_and_the_same_weights() -> None:
    model = segmenter().train()
    finer = model.finished(8, freeze=True)
    assert (finer.network.output_stride, finer.config.crf) == (8, None)
    assert (finer.config.freeze_batch_norm, finer.training) == (True, True)
    state = model.network.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in finer.network.state_dict().items())
    with torch.device("meta"):
        v1 = Segmenter(SegmenterConfig(3, SMALL_V1))
    with pytest.raises(ValueError, match="v1 has only one output stride"):
        v1.finished(16, freeze=False)


def test_a_copy_with_another_crf_has_the_same_network() -> None:
    model = segmenter(crf=None).eval()
    other = model.with_crf(CRF, freeze_batch_norm=True)
    image = torch.rand(1, 3, 40, 51) * 255
    assert torch.equal(other(image).unary, model(image).unary)
    assert other.config.crf == CRF
    assert other.config.freeze_batch_norm
    assert other.with_crf(None).config.freeze_batch_norm


@pytest.mark.parametrize("crf", [CRF, None])
def test_what_is_saved_for_others_computes_the_same_bits(crf, tmp_path) -> None:
    model = segmenter(crf=crf, label_bias=(0.5, 0.0, -0.5), min_size=40).eval()
    for parameter in model.parameters():
        parameter.data *= 1.1
    model.about = {"labels": {"names": ["a", "b", "c"]}}
    model.save_pretrained(tmp_path / "model")
    loaded = Segmenter.from_pretrained(str(tmp_path / "model"))
    assert (loaded.config, loaded.about, loaded.training) == (model.config, model.about, False)
    image = torch.randint(0, 256, (2, 3, 33, 50), dtype=torch.uint8)
    assert torch.equal(loaded(image).logits, model(image).logits)


def test_a_folder_of_something_else_is_refused(tmp_path) -> None:
    segmenter(crf=None).save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    text = config.read_text()
    for content, message in (
        ('{"model_type": "bert"}', 'describes no Segmenter: expected the entry "segmenter"'),
        (text.replace('"num_classes": 3', '"num_classes": 4'), r"is \(3,\), expected \(4,\)"),
        (text.replace('"v3"', '"v9"'), "config is of another version"),
    ):
        config.write_text(content)
        with pytest.raises(ValueError, match=message):
            Segmenter.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"no model\.safetensors in"):
        Segmenter.from_pretrained(tmp_path)


# what a person chooses of a CRF


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
)
def test_a_search_and_the_training_take_it(change: dict[str, Any]) -> None:
    form = replace(CrfForm(num_iterations=2, num_iterations_eval=3), **change)
    dataset = data.build(data.CollageConfig(size=33, num_tune=2), "tune")
    model = Segmenter(SegmenterConfig(len(dataset.classes), NETWORK)).eval()
    grid = SearchConfig(num_images=1, theta_alpha=(6.0,), theta_beta=(9.0,), rounds=0)
    best, _, rows = search(model, form, dataset, coarse_unaries(model, dataset), grid)
    assert len(rows) == 2
    refined: Any = model.with_crf(in_form(best, form))
    assert asdict(refined.config.crf) == asdict(refined.config.crf) | change
    assert SegmenterConfig.from_dict(asdict(refined.config)) == refined.config
    refined.train()(torch.rand(1, 3, 33, 33) * 255).crf.square().mean().backward()
    gradient = refined.crf.potentials.weight("bilateral").grad
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
