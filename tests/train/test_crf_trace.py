"""The CRF's numbers while it trains: parameters, gradients, iterations."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
import torch

import data
from crfrnn.diagnostics import free_energy, relaxed_energy
from models import CrfConfig, Segmenter, SegmenterConfig
from models.layers import shrink, shrink_image
from train.crf_trace import crf_gradient_norms, crf_scalars, iteration_trace


@pytest.fixture
def make(tiny):
    """A segmenter of nine classes with a CRF of these changes."""

    def segmenter(**changes) -> Segmenter:
        config = CrfConfig(**asdict(tiny.crf), theta_alpha=6.0, theta_gamma=2.0)
        torch.manual_seed(0)
        return Segmenter(SegmenterConfig(9, tiny.model.network, replace(config, **changes)))

    return segmenter


def test_scalars_are_the_parameters_in_pixels_of_the_image(make) -> None:
    segmenter = make(resolution=2, theta_beta=5.0, spatial_weight=2.0, output_scale=0.5)
    potentials = segmenter.crf.potentials
    with torch.no_grad():
        potentials.weight("spatial")[:3] = torch.tensor([-1.0, 2.0, 11.0])
        potentials.compatibility.matrix[0, 1] = 73.0  # 72 entries are off the diagonal
        potentials.compatibility.matrix[4, 4] = 100.0
    values = crf_scalars(segmenter)
    expected = {
        **{"theta_alpha": 6.0, "theta_beta": 5.0, "theta_gamma": 2.0, "output_scale": 0.5},
        **{"spatial_weight_mean": (-1 + 2 + 11 + 6 * 2) / 9, "spatial_weight_min": -1.0},
        **{"spatial_weight_max": 11.0, "compatibility_off_diagonal": 2.0},
    }
    # float32, and theta through its logarithm
    assert {key: values[f"crf/{key}"] for key in expected} == pytest.approx(expected, rel=1e-6)


def test_gradient_norms_are_those_of_each_part(make) -> None:
    segmenter = make()
    assert crf_gradient_norms(segmenter) == {}
    for parameter in segmenter.crf.parameters():
        parameter.grad = torch.full_like(parameter, 2.0)
    expected = {"kernel_weights": 2 * 18**0.5, "compatibility": 2 * 81**0.5, "scales": 2.0}
    named = {f"crf/gradient_norm/{part}": norm for part, norm in expected.items()}
    assert crf_gradient_norms(segmenter) == pytest.approx(named)


def test_the_trace_has_the_librarys_energies_per_pixel(make, tiny) -> None:
    segmenter = make(resolution=2, num_iterations_eval=3, output_scale=1.0)
    sample = data.build(tiny.data, "tune")[0]
    rows = iteration_trace(segmenter.train(), sample)
    assert [row["iteration"] for row in rows] == [0, 1, 2, 3]
    assert rows[0]["largest_change"] == 0
    assert all(row["largest_change"] > 0 for row in rows[1:])

    segmenter.eval()
    with torch.no_grad():
        image = sample.image[None].float()
        unary = shrink(segmenter.unary(image), 2)
        kernels = segmenter.crf.potentials.build_kernels(shrink_image(image, 2))
        q = segmenter.crf.infer(unary, kernels).softmax(1).flatten(2).mT
        (penalties,) = segmenter.crf.potentials.penalties(torch.float32)
        arguments = (q, unary.flatten(2).mT, kernels, penalties)
        pixels = unary[0, 0].numel()
        # the same sums of 9 * 289 float32 terms in another order
        assert rows[-1]["relaxed_energy"] == pytest.approx(
            relaxed_energy(*arguments).item() / pixels, rel=1e-4
        )
        assert rows[-1]["kl"] == pytest.approx(free_energy(*arguments).item() / pixels, rel=1e-4)
