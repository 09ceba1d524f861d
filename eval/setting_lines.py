"""A post-hoc CRF as what a person can paste: code, and command lines."""

from __future__ import annotations

import shlex
from dataclasses import fields

from crfrnn import PRESETS
from eval.predict import POST_HOC
from models import CrfConfig, CrfForm, Segmenter
from models.crf import OF_FRANK_WOLFE, OF_MEAN_FIELD

SEARCHED = ("theta_alpha", "theta_beta", "theta_gamma", "bilateral_weight", "spatial_weight")
ALWAYS = (*SEARCHED, "normalization", "num_iterations_eval")
"""Said even where they are the default: they are what a reader wants to see."""


def preset_setting(name: str) -> CrfConfig:
    """A published setting, with scalar weights and Potts."""
    published = {k: v for k, v in vars(PRESETS[name]).items() if k != "source"}
    return CrfConfig(**published, kernel_weights="scalar", compatibility="potts")


def setting_of(segmenter: Segmenter) -> CrfConfig:
    """Where to begin: the CRF of a checkpoint, or DeepLab v2's without one.

    Of weights that are matrices it has the mean of the diagonal, in place of what the
    compatibility has learnt it has Potts.
    """
    config, found = segmenter.config.crf, segmenter.describe_crf()
    if config is None or found is None:
        return POST_HOC
    kept = {f.name: getattr(config, f.name) for f in fields(CrfForm) if f.name in OF_LINES}
    for name in ("theta_alpha", "theta_beta", "theta_gamma", "unary_scale"):
        kept[name] = float(f"{found[name]:.6g}")
    for name, matrix in found["kernel_weights"].items():
        diagonal = [row[i] for i, row in enumerate(matrix)]
        kept[f"{name}_weight"] = float(f"{sum(diagonal) / len(diagonal):.6g}")
    return CrfConfig(**kept, kernel_weights="scalar", compatibility="potts")


def is_scalar(config: CrfConfig | None) -> bool:
    """Whether `setting_of` leaves nothing out."""
    return config is None or (config.kernel_weights, config.compatibility) == ("scalar", "potts")


OF_LINES = (
    *ALWAYS,
    "spatial_filter",
    "bilateral_filter",
    "lattice_accuracy",
    "inference",
    *OF_MEAN_FIELD,
    *OF_FRANK_WOLFE,
    "resolution",
    "unary_scale",
    "output_scale",
)
"""What such a CRF depends on, in the order of the lines; the rest is for training."""


def code(setting: CrfConfig, num_labels: int) -> str:
    """The layer, for the grid it runs on, and what it needs."""
    stride = setting.resolution
    imports, values = ["from crfrnn import CrfRnn"], {}
    for name in _said(setting):
        if name in ("inference", "resolution", *OF_MEAN_FIELD, *OF_FRANK_WOLFE):
            continue
        value = getattr(setting, name)
        if name in ("theta_alpha", "theta_gamma"):
            value = value / stride
        values[name] = _short(value) if isinstance(value, float) else repr(value)
    values |= {"kernel_weights": "'scalar'", "compatibility": "'potts'"}
    if setting.inference == "frank_wolfe":
        imports.append("from crfrnn.frank_wolfe import FrankWolfe")
        options = ", ".join(f"{name}={getattr(setting, name)!r}" for name in OF_FRANK_WOLFE)
        values["inference"] = f"FrankWolfe({options})"
    elif said := [name for name in _said(setting) if name in OF_MEAN_FIELD]:
        imports.append("from crfrnn.inference import MeanField")
        options = ", ".join(f"{name}={getattr(setting, name)!r}" for name in said)
        values["inference"] = f"MeanField({options})"
    arguments = ", ".join(f"{name}={value}" for name, value in values.items())
    note = "" if stride == 1 else f"  # for image and logits at 1/{stride} of their size"
    return "\n".join([*imports, f"crf = CrfRnn({num_labels}, {arguments}).eval(){note}"])


def predict_line(setting: CrfConfig, checkpoint: str, image: str) -> str:
    """The command that puts this CRF behind the network of a checkpoint."""
    words = ["python", "-m", "eval", "predict", checkpoint, image, "--out", "predictions"]
    for name in _said(setting):
        words += [f"--crf.{_option(name)}", _value(setting, name)]
    return shlex.join(words)


def train_line(setting: CrfConfig) -> str:
    """The command that makes this the post-hoc CRF of a run, where joint training starts, too.

    The factor on the output is left out: the run calibrates its own.

    Raises:
        ValueError: a factor on the unary, which the post-hoc search leaves at 1.
    """
    if setting.unary_scale != 1:
        raise ValueError(
            f"the post-hoc CRF of a training leaves the unary as it is, and this one takes it "
            f"times {setting.unary_scale:g}."
        )
    words = ["python", "-m", "train", "run", "RECIPE", "--arm", "post-hoc"]
    # A recipe has defaults of its own, so all is said but what belongs to the other solver.
    others = OF_FRANK_WOLFE if setting.inference == "mean_field" else OF_MEAN_FIELD
    for name in OF_LINES:
        if name in (*others, "unary_scale", "output_scale"):
            continue
        group = "search" if name in SEARCHED else "crf"
        words += [f"--{group}.{_option(name)}", _value(setting, name)]
    return shlex.join(words)


def _said(setting: CrfConfig) -> list[str]:
    """What a line has to say: the rest is the default of every line."""
    return [n for n in OF_LINES if n in ALWAYS or getattr(setting, n) != getattr(POST_HOC, n)]


def _option(name: str) -> str:
    return name.replace("_", "-")


def _value(setting: CrfConfig, name: str) -> str:
    value = getattr(setting, name)
    return _short(value) if isinstance(value, float) else str(value)


def _short(value: float) -> str:
    """Exactly the number, without the .0 of a whole one."""
    return repr(value).removesuffix(".0")
