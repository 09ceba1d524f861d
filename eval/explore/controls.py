"""The controls of the page: what each moves and how far, and the setting they make together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from crfrnn import PRESETS
from eval.setting_lines import preset_setting
from models import CrfConfig
from models.crf import CrfForm, unused_options

START = "as it began"
"""The menu's word for the setting that the page opened with."""


@dataclass(frozen=True)
class Range:
    """A slider.

    Attributes:
        name: of the field of `CrfConfig`.
        title: on the page.
        low, high, step: of its values; a start beyond `high` moves it out.
    """

    name: str
    title: str
    low: float
    high: float
    step: float


@dataclass(frozen=True)
class Menu:
    """A choice of a few.

    Attributes:
        name: of the field of `CrfConfig`.
        title: on the page.
        choices: what is shown, and the value.
    """

    name: str
    title: str
    choices: tuple[tuple[str, Any], ...]


RANGES = (
    Range("theta_alpha", "θα, position, pixels", 0, 200, 1),
    Range("theta_beta", "θβ, colour, grey levels", 0, 60, 0.5),
    Range("theta_gamma", "θγ, spatial, pixels", 0, 20, 0.25),
    Range("bilateral_weight", "bilateral weight", 0, 20, 0.25),
    Range("spatial_weight", "spatial weight", 0, 20, 0.25),
    Range("num_iterations_eval", "iterations", 0, 20, 1),
)
MENUS = (
    Menu("resolution", "resolution", (("full", 1), ("1/2", 2), ("1/4", 4), ("1/8", 8))),
    Menu(
        "normalization",
        "normalisation",
        tuple((name, name) for name in ("symmetric", "after", "before", "none")),
    ),
    Menu(
        "bilateral_filter",
        "bilateral filter",
        (("lattice", "lattice"), ("window 7 x 7", "window"), ("exact, small grids", "exact")),
    ),
    Menu("lattice_accuracy", "lattice", (("standard", "standard"), ("fine, slow", "fine"))),
    Menu("inference", "solver", (("mean field", "mean_field"), ("Frank-Wolfe", "frank_wolfe"))),
    Menu(
        "regularizer",
        "Frank-Wolfe: regulariser",
        (("entropy", "entropy"), ("l2", "l2")),
    ),
    Menu(
        "step",
        "Frank-Wolfe: step",
        (("1", 1.0), ("0.5", 0.5), ("decaying", "decaying"), ("line search", "line_search")),
    ),
)
CONTROLS: tuple[Range | Menu, ...] = (*RANGES, *MENUS)


def setting_from(start: CrfConfig, values: Sequence[Any]) -> CrfConfig:
    """The setting of the page.

    Args:
        start: what the page opened with; what no control moves stays as it is there.
        values: of `CONTROLS`, in their order. What belongs to the other solver is ignored.

    Raises:
        ValueError: a value out of its range.
    """
    moved = {control.name: value for control, value in zip(CONTROLS, values, strict=True)}
    for control in RANGES:
        whole = control.name == "num_iterations_eval"
        # Sliders give 0.30000000000000004.
        value = float(f"{float(moved[control.name]):.6g}")
        moved[control.name] = int(value) if whole else value
    moved |= {name: getattr(CrfForm, name) for name in unused_options(moved["inference"])}
    return replace(start, **moved)


def values_of(setting: CrfConfig) -> list[Any]:
    """The values of `CONTROLS` that show a setting."""
    return [getattr(setting, control.name) for control in CONTROLS]


def with_preset(start: CrfConfig, now: CrfConfig, name: str) -> CrfConfig:
    """Widths, weights, normalisation and iterations of a preset; the rest as it is now.

    Args:
        start: what `START` returns to, whole.
        now: the setting of the page.
        name: of a preset, or `START`.
    """
    if name == START:
        return start
    published = preset_setting(name)
    taken = (*(control.name for control in RANGES), "normalization")
    return replace(now, **{field: getattr(published, field) for field in taken})


def preset_names() -> list[str]:
    """The entries of the menu of presets."""
    return [START, *PRESETS]
