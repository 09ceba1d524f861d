"""The published network on VOC's animals, with a post-hoc CRF."""

from __future__ import annotations

from pathlib import Path

from models import CrfConfig, Segmenter, SegmenterConfig, load_weights

POST_HOC = CrfConfig(
    kernel_weights="scalar",
    compatibility="potts",
    normalization="symmetric",
    num_iterations_eval=10,
    theta_gamma=1.0,
    spatial_weight=3.0,
    theta_alpha=67.0,
    theta_beta=3.0,
    bilateral_weight=4.0,
)
# Another build of network and lattice: a pixel here and there differs.
TOLERANCE = {"unary": 0.003, "crf": 0.005}


def published_segmenter(shared_root: Path, crf: CrfConfig | None) -> Segmenter:
    """DeepLabv3 on MobileNetV2; images are padded with grey to the 513 pixels of its training."""
    segmenter = Segmenter(SegmenterConfig(crf=crf, min_size=513)).eval()
    weights = shared_root / "weights" / "deeplabv3_mobilenetv2_voc.safetensors"
    load_weights(segmenter.network, weights)
    return segmenter
