"""Published hyper-parameters as data, each with its source.

Positions in pixels of the full-resolution image, colours in grey levels of 0..255.
The authors of DeepLab normalise per pixel ("after"); the usual Python wrapper of the
same C++ code defaults to "symmetric", so a setting does not transfer exactly between
the two.
"""

from __future__ import annotations

from dataclasses import dataclass

from crfrnn.checks import check_choice
from crfrnn.filters import Normalization


@dataclass(frozen=True)
class Preset:
    """Hold kernel widths and weights, normalisation and iterations of one publication."""

    theta_gamma: float
    spatial_weight: float
    theta_alpha: float
    theta_beta: float
    bilateral_weight: float
    normalization: Normalization
    num_iterations: int
    num_iterations_eval: int
    source: str


PRESETS: dict[str, Preset] = {
    "krahenbuhl": Preset(
        3, 3, 80, 13, 10, "symmetric", 5, 5, "README of the pydensecrf wrapper of the C++ code"
    ),
    "deeplab_v1": Preset(
        3, 3, 50, 10, 5, "after", 10, 10, "DeepLab v1 (4x4), authors' boundary evaluation script"
    ),
    "deeplab_v1_largefov": Preset(
        3, 3, 121, 5, 4, "after", 10, 10, "DeepLab v1 LargeFOV, public reproductions"
    ),
    "deeplab_v1_msc_largefov": Preset(
        3, 3, 83, 5, 4, "after", 10, 10, "DeepLab v1 MSc-LargeFOV, one reproduction"
    ),
    "deeplab_v2_vgg16": Preset(
        2, 2, 65, 3, 4, "after", 10, 10, "DeepLab v2 VGG-16 ASPP, one reproduction"
    ),
    "deeplab_v2_resnet101": Preset(
        1, 3, 67, 3, 4, "after", 10, 10, "DeepLab v2 ResNet-101, two reproductions"
    ),
    "crf_rnn": Preset(
        3, 3, 160, 3, 5, "after", 5, 10, "CRF-as-RNN (Zheng et al., ICCV 2015), released layers"
    ),
    "psa": Preset(
        3, 3, 80, 13, 10, "symmetric", 5, 10, "PSA and SEAM (weakly supervised), as krahenbuhl"
    ),
    "irn": Preset(3, 3, 50, 5, 10, "symmetric", 5, 10, "IRN (weakly supervised), pseudo-labels"),
    "stego": Preset(
        1, 3, 67, 3, 4, "symmetric", 5, 10, "STEGO, PriMaPs, CUPS, CLIP-ES, ToCo: all share it"
    ),
    "maskcut": Preset(3, 7, 50, 5, 10, "symmetric", 5, 10, "MaskCut of CutLER (object discovery)"),
    "insid3": Preset(
        8,
        3,
        24,
        7.65,
        20,
        "symmetric",
        5,
        10,
        "INSID3 at 1,024 pixels; theirs is solved by Frank-Wolfe, here by mean field",
    ),
}


def preset(name: str) -> Preset:
    """Return the preset of that name; an unknown name raises and suggests the nearest."""
    check_choice("preset", name, PRESETS)
    return PRESETS[name]
