"""What `python -m eval tune` is told."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from crfrnn.presets import preset
from data import Split
from eval.tuning.gradient import GradientConfig
from eval.tuning.grid import SearchConfig
from eval.tuning.method import SEARCHED
from eval.tuning.objective import Objective
from eval.tuning.sobol import SobolConfig
from models import CrfConfig, CrfForm
from runtime.distributed import DeviceName

MethodName = Literal["grid", "gradient", "sobol"]
GridName = Literal["default", "deeplab_v1", "deeplab_v2"]

GRIDS: dict[GridName, SearchConfig] = {
    # 48 settings on 12 pairs of widths, and 12 around the best.
    "default": SearchConfig(
        theta_gamma=(1.0,),
        theta_alpha=(30.0, 50.0, 70.0, 100.0),
        theta_beta=(3.0, 4.0, 6.0),
        bilateral_weight=(3.0, 4.0, 5.0, 6.0),
        rounds=2,
    ),
    # Chen et al., ICLR 2015, section 5.2: w1 in [5, 10], here by 1.
    "deeplab_v1": SearchConfig(
        theta_alpha=tuple(range(50, 101, 10)),
        theta_beta=tuple(range(3, 11)),
        bilateral_weight=tuple(range(5, 11)),
    ),
    # Chen et al., TPAMI 2018, section 4.3: w1 and sigma_beta in [3 : 6].
    "deeplab_v2": SearchConfig(
        theta_alpha=tuple(range(30, 101, 10)),
        theta_beta=tuple(range(3, 7)),
        bilateral_weight=tuple(range(3, 7)),
    ),
}


@dataclass(frozen=True)
class GridOptions:
    """A grid by name, and what is changed of it.

    Attributes:
        name: "default" is 60 settings; the other two have the ranges of the papers.
        theta_gamma, spatial_weight: of the spatial kernel, instead of the grid's.
        theta_alpha, theta_beta, bilateral_weight: of the bilateral kernel, likewise.
        rounds: of the fine stage, likewise.
    """

    name: GridName = "default"
    theta_gamma: tuple[float, ...] | None = None
    spatial_weight: tuple[float, ...] | None = None
    theta_alpha: tuple[float, ...] | None = None
    theta_beta: tuple[float, ...] | None = None
    bilateral_weight: tuple[float, ...] | None = None
    rounds: int | None = None

    def config(self, published: CrfConfig | None) -> SearchConfig:
        """The grid; the spatial kernel of a published setting takes the place of the grid's."""
        grid = GRIDS[self.name]
        if published is not None:
            grid = replace(
                grid,
                theta_gamma=(published.theta_gamma,),
                spatial_weight=(published.spatial_weight,),
            )
        given = {n: getattr(self, n) for n in (*SEARCHED, "rounds")}
        return replace(grid, **{n: v for n, v in given.items() if v is not None})


@dataclass(frozen=True)
class TuneOptions:
    """Find the widths and weights of a post-hoc CRF behind a checkpoint's network.

    Attributes:
        checkpoint: a file that `python -m train` wrote; its own CRF, if any, is not used.
        split: that is searched on; the report split is for the end.
        data_root: where the data set lies now, if not where it was trained.
        method: "grid", coarse to fine as in DeepLab; "sobol", points in ranges and a local search;
            "gradient", of the likelihood through the CRF.
        objective: mean IoU, mean IoU within the trimap band, or the likelihood at its best
            temperature.
        trimap_width: of that band, pixels.
        num_images: of the split, evenly spaced; all of them if there are fewer.
        workers: processes, each with a share of the images and one thread.
        out: folder of the results.
        resume: go on with the tuning that the folder holds.
        preset: a name of `crfrnn.PRESETS`: its setting comes first, and is where "gradient" starts.
        label_floor: labels whose probability is below it in all of an image are left out there; 0:
            none. The best setting is scored again with all.
        seed: of what is drawn.
        score_report: score the best setting, once, on the report split.
        device: "auto" is the GPU where there is one.
        crf: the form of the CRF.
        grid, sobol, descent: of the three methods.
    """

    checkpoint: tyro.conf.Positional[Path]
    split: Split = "tune"
    data_root: Annotated[Path | None, tyro.conf.arg(name="data.root")] = None
    method: MethodName = "grid"
    objective: Objective = "miou"
    trimap_width: int = 3
    num_images: int = 100
    workers: int = 2
    out: Path = Path("runs/tune")
    resume: bool = False
    preset: str | None = None
    label_floor: float = 0.03
    seed: int = 0
    score_report: bool = False
    device: DeviceName = "auto"
    crf: CrfForm = field(
        default_factory=lambda: CrfForm(
            kernel_weights="scalar",
            compatibility="potts",
            num_iterations=10,
            num_iterations_eval=10,
            normalization="after",
        )
    )
    grid: GridOptions = field(default_factory=GridOptions)
    sobol: SobolConfig = field(default_factory=SobolConfig)
    descent: GradientConfig = field(default_factory=GradientConfig)

    def __post_init__(self) -> None:
        for name in ("trimap_width", "num_images", "workers"):
            if getattr(self, name) < 1:
                option = name.replace("_", "-")
                raise ValueError(f"--{option} must be at least 1, got {getattr(self, name)}.")
        if not 0 <= self.label_floor < 1:
            raise ValueError(
                f"--label-floor is a probability from 0 to below 1, got {self.label_floor}."
            )
        for name, value in (("kernel_weights", "scalar"), ("compatibility", "potts")):
            if getattr(self.crf, name) != value:
                option = name.replace("_", "-")
                raise ValueError(
                    f"--crf.{option} {getattr(self.crf, name)}: tune finds one weight per kernel "
                    f"with a Potts compatibility; leave it at {value!r}, and train the CRF for "
                    "more."
                )
        if self.crf.untied:
            raise ValueError("--crf.untied: tune finds one set of weights for all iterations.")
        if self.crf.theta_context is not None:
            raise ValueError(
                "--crf.theta-context: the matrix of a context kernel is learnt, not searched: "
                "train it with `python -m train`, the arms crf-only or joint."
            )
        plain = self.crf.inference == "mean_field" and self.crf.damping == 0
        if self.label_floor > 0 and not plain:
            raise ValueError(
                f"--label-floor {self.label_floor} leaves labels out of undamped mean field alone: "
                "with another inference or damping give --label-floor 0."
            )

    def base(self) -> CrfConfig:
        """The form with default values."""
        return CrfConfig(**asdict(self.crf))

    def published(self) -> CrfConfig | None:
        """The preset's widths and weights in that form.

        Raises:
            ValueError: there is no preset of that name; suggests the nearest.
        """
        if self.preset is None:
            return None
        found = preset(self.preset)
        return replace(self.base(), **{name: getattr(found, name) for name in SEARCHED})
