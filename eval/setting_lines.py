"""A post-hoc CRF as what a person can paste: code, and command lines."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from crfrnn import PRESETS
from eval.grid import Direction
from eval.predict import POST_HOC
from models import CrfConfig, Segmenter
from models.crf import SEARCHED, SOLVERS, crf_options, options_taken_by, unused_options

ALWAYS = (*SEARCHED, "normalization", "num_iterations_eval")
"""Options that are written even at their defaults: what a reader wants to see."""

LINE_OPTIONS = (
    *ALWAYS,
    *(f.name for f in crf_options() if f.name not in ALWAYS and "post_hoc" not in f.metadata),
)
"""List what such a CRF depends on, in the order of the lines; the rest is for training."""


def preset_setting(name: str) -> CrfConfig:
    """A published setting, with scalar weights and Potts."""
    published = {k: v for k, v in vars(PRESETS[name]).items() if k != "source"}
    return CrfConfig(**published, kernel_weights="scalar", compatibility="potts")


def setting_of(segmenter: Segmenter) -> CrfConfig:
    """Choose where to begin: the CRF of a checkpoint, or DeepLab v2's without one.

    Of weights that are matrices it has the mean of the diagonal, in place of what the
    compatibility has learnt it has Potts.
    """
    config, found = segmenter.config.crf, segmenter.describe_crf()
    if config is None or found is None:
        return POST_HOC
    kept = {name: getattr(config, name) for name in LINE_OPTIONS}
    for name in ("theta_alpha", "theta_beta", "theta_gamma", "unary_scale"):
        kept[name] = float(f"{found[name]:.6g}")
    for name in ("bilateral", "spatial"):
        matrix = found["kernel_weights"][name]
        diagonal = [row[i] for i, row in enumerate(matrix)]
        kept[f"{name}_weight"] = float(f"{sum(diagonal) / len(diagonal):.6g}")
    return CrfConfig(**kept, kernel_weights="scalar", compatibility="potts")


def is_scalar(config: CrfConfig | None) -> bool:
    """Tell whether `setting_of` leaves nothing out."""
    return config is None or (config.kernel_weights, config.compatibility) == ("scalar", "potts")


def code(setting: CrfConfig, num_labels: int, label_bias: Sequence[float] = ()) -> str:
    """Write the layer, for the grid it runs on, and what it needs.

    Args:
        setting: the CRF.
        num_labels: L.
        label_bias: (L,) to be taken from the unary; () for none.
    """
    stride = setting.resolution
    imports, values = ["from crfrnn import CrfRnn"], {}
    said = _said(setting)
    for name in said:
        if name not in options_taken_by("layer"):
            continue
        value = getattr(setting, name)
        if name in ("theta_alpha", "theta_gamma"):
            value = value / stride
        values[name] = _short(value) if isinstance(value, float) else repr(value)
    values |= {"kernel_weights": "'scalar'", "compatibility": "'potts'"}
    options = [name for name in said if name in options_taken_by(setting.inference)]
    if options or "inference" in said:
        solver = SOLVERS[setting.inference]
        imports.append(f"from {solver.__module__} import {solver.__name__}")
        written = ", ".join(f"{name}={getattr(setting, name)!r}" for name in options)
        values["inference"] = f"{solver.__name__}({written})"
    arguments = ", ".join(f"{name}={value}" for name, value in values.items())
    note = "" if stride == 1 else f"  # for image and logits at 1/{stride} of their size"
    lines = [*imports, f"crf = CrfRnn({num_labels}, {arguments}).eval(){note}"]
    if label_bias:
        bias = ", ".join(f"{value:.6g}" for value in label_bias)
        lines.append(f"unary = unary - unary.new_tensor([{bias}])[:, None, None]")
    return "\n".join(lines)


def predict_line(
    setting: CrfConfig, checkpoint: str, image: str, label_bias: Sequence[float] = ()
) -> str:
    """Write the command that puts this CRF, and a bias, behind the network of a checkpoint."""
    words = ["python", "-m", "eval", "predict", checkpoint, image, "--out", "predictions"]
    for name in _said(setting):
        words += [f"--crf.{_option(name)}", _value(setting, name)]
    if label_bias:
        words += ["--label-bias", *(f"{value:.6g}" for value in label_bias)]
    return shlex.join(words)


def train_line(setting: CrfConfig, bias: float = 0.0, direction: Direction = "prior") -> str:
    """Write the command that makes this the post-hoc CRF of a run, where joint training starts.

    The factor on the output is left out: the run calibrates its own. A bias is tried beside 0.

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
    for name in LINE_OPTIONS:
        if name in (*unused_options(setting.inference), "unary_scale", "output_scale"):
            continue
        group = "search" if name in SEARCHED else "crf"
        words += [f"--{group}.{_option(name)}", _value(setting, name)]
    if bias:
        words += ["--search.bias", _short(bias), "--search.bias-direction", direction]
        words.append("--search-again")  # joint gets a bias of its own
    return shlex.join(words)


def _said(setting: CrfConfig) -> list[str]:
    """Return what a line has to say: the rest is the default of every line."""
    return [n for n in LINE_OPTIONS if n in ALWAYS or getattr(setting, n) != getattr(POST_HOC, n)]


def _option(name: str) -> str:
    return name.replace("_", "-")


def _value(setting: CrfConfig, name: str) -> str:
    value = getattr(setting, name)
    return _short(value) if isinstance(value, float) else str(value)


def _short(value: float) -> str:
    """Exactly the number, without the .0 of a whole one."""
    return repr(value).removesuffix(".0")
