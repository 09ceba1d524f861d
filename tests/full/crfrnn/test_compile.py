"""Layers of every kind compile and export whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed
from torch.distributed.fsdp import fully_shard

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


def test_one_compiled_layer_sees_images_of_many_sizes() -> None:
    """More sizes than the compiler would keep a program for."""
    torch._dynamo.reset()
    crf = CrfRnn(3, num_iterations_eval=2).eval()
    compiled = torch.compile(crf, fullgraph=True, backend="aot_eager")
    with torch.no_grad(), torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        for k in range(12):
            size = (8 + k, 24 - k)
            unary, image = torch.randn(1, 3, *size), torch.rand(1, 3, *size) * 255
            torch.testing.assert_close(compiled(unary, image), crf(unary, image))


class NetworkAndCrf(torch.nn.Module):
    """The smallest model that ends in a CRF."""

    def __init__(self) -> None:
        super().__init__()
        self.network, self.crf = torch.nn.Conv2d(3, 3, 3, padding=1), CrfRnn(3, learn_theta=True)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.crf(self.network(image / 127.5 - 1), image).clone()  # type: ignore[no-any-return]


def test_fully_sharded_networks_leave_the_crf_out(tmp_path: Path) -> None:
    """Its few numbers have no dimension to shard."""
    store = f"file://{tmp_path / 'store'}"
    distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    try:
        model = NetworkAndCrf()
        fully_shard(model, ignored_params=set(model.crf.parameters()))
        model(IMAGE).square().mean().backward()
        assert all(p.grad is not None for p in model.parameters())
    finally:
        distributed.destroy_process_group()
