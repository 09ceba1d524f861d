"""Layers of every kind compile and export whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from crfrnn import CrfRnn
from crfrnn.frank_wolfe import FrankWolfe
from crfrnn.inference import MeanField
from crfrnn.kernels import KernelConfig
from tests.crfrnn.test_ops import IMAGE, UNARY, assert_compiles_whole

LAYERS: list[dict[str, Any]] = [
    {},
    {"learn_theta": True, "features_gradient": "lattice"},
    {"spatial_filter": "exact", "bilateral_filter": "window", "inference": FrankWolfe(step=0.5),
     "learn_step": True},
    {"inference": MeanField(damping=0.1, memory="recompute"), "kernel_weights": "matrix",
     "nonnegative": True, "compatibility": "low_rank", "compatibility_rank": 2, "untied": True,
     "learn_theta": True, "unary_mixture": 0.5, "learn_unary_scale": True,
     "learn_output_scale": True},
]  # fmt: skip


@pytest.mark.parametrize("options", LAYERS)
def test_compiles_forward_and_backward_without_a_graph_break(options: dict[str, Any]) -> None:
    assert_compiles_whole(CrfRnn(3, **options))


def test_guides_and_mask_export() -> None:
    further = {"depth": KernelConfig(theta_position=2.0, theta_guide=(1.0, 3.0))}
    crf = CrfRnn(3, further_kernels=further).eval()
    mask = torch.ones(2, 6, 5, dtype=torch.bool)
    mask[0, 4:] = False
    rest = {"depth": IMAGE[:, :2] / 10}, mask
    with torch.no_grad():
        exported = torch.export.export(crf, (UNARY, IMAGE, *rest)).module()
        # The number of vertices is the data's, not the example's.
        for inputs in ((UNARY, IMAGE, *rest), (UNARY.flip(0), IMAGE.flip(3), *rest)):
            torch.testing.assert_close(exported(*inputs), crf(*inputs))
