"""`python -m eval tune`: find a post-hoc CRF for a checkpoint's network, or for a folder of maps.

The folder that it writes:

    config.json                      what the settings' scores depend on
    logits.safetensors               the network's logits of every image, of a checkpoint
    settings.jsonl                   every setting that was scored, in order, from when it was
    best.json, settings.csv          written at the end
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from crfrnn.presets import preset
from data import Sample, SegmentationDataset, Split
from eval.grid import AXES, Direction, SearchConfig, Setting, coarse_to_fine, evenly_spaced
from eval.inference import coarse_unaries, evaluate, image_of
from eval.maps import FolderOfMaps, MapsOptions, refine_lines
from eval.metrics import Bootstrap, score_named
from eval.search import Measured, Objective, PreparedImage, Scores, by_widths, direction_of, total
from eval.setting_lines import code, predict_line, train_line
from eval.tables import ABSENT, duration
from models import CrfConfig, CrfForm, Segmenter
from models.crf import post_hoc_config
from runtime.checkpoint import load_segmenter, read_checkpoint, weights_file
from runtime.distributed import DeviceName, device_named
from runtime.progress import progress_bar
from runtime.provenance import differences, provenance
from runtime.run_folder import as_json, read_json, split_of, write_json

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
    """Choose a grid by name, and change it.

    Attributes:
        name: "default" is 60 settings; the other two have the ranges of the papers.
        theta_gamma, spatial_weight: of the spatial kernel, instead of the grid's.
        theta_alpha, theta_beta, bilateral_weight: of the bilateral kernel, likewise.
        rounds: of the fine stage, likewise.
        bias: strengths of one bias of the labels to try on the best setting of the grid, and to
            refine with it; see `eval.grid.SearchConfig`.
        bias_direction: "prior" takes each label's share of the training pixels, "background" is
            label 0 against the others.
    """

    name: GridName = "default"
    theta_gamma: tuple[float, ...] | None = None
    spatial_weight: tuple[float, ...] | None = None
    theta_alpha: tuple[float, ...] | None = None
    theta_beta: tuple[float, ...] | None = None
    bilateral_weight: tuple[float, ...] | None = None
    rounds: int | None = None
    bias: tuple[float, ...] = ()
    bias_direction: Direction = "prior"

    def config(self, published: CrfConfig | None) -> SearchConfig:
        """Return the grid; a published setting's spatial kernel takes the place of the grid's."""
        changes: dict[str, Any] = {}
        if published is not None:
            changes = {n: (getattr(published, n),) for n in ("theta_gamma", "spatial_weight")}
        changes |= {k: v for k, v in asdict(self).items() if k != "name" and v is not None}
        return replace(GRIDS[self.name], **changes)


@dataclass(frozen=True)
class TuneOptions:
    """Find the widths and weights of a post-hoc CRF behind a checkpoint's network or stored maps.

    Attributes:
        checkpoint: a file that `python -m train` wrote, whose own CRF, if any, is not used; or a
            folder of maps, with --maps.images and --maps.masks.
        split: that is searched on; the report split is for the end.
        data_root: where the data set lies now, if not where it was trained.
        objective: mean IoU, mean IoU within the trimap band, or the likelihood at its best
            temperature.
        trimap_width: of that band, pixels.
        num_images: of the split, evenly spaced; all of them if there are fewer.
        workers: processes that share the images, with one thread each.
        out: folder of the results.
        resume: go on with the tuning that the folder holds.
        preset: a name of `crfrnn.PRESETS`: its setting comes first.
        label_floor: labels whose probability is below it in all of an image are left out there; 0:
            none. The best setting is scored again with all.
        score_report: score the best setting, once, on the report split.
        device: "auto" is the GPU where there is one.
        crf: the form of the CRF.
        grid: that is searched, coarse to fine as in DeepLab.
        maps: the other folders, where the first argument is a folder of maps.
    """

    checkpoint: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="CHECKPOINT-OR-MAPS")]
    split: Split = "tune"
    data_root: Annotated[Path | None, tyro.conf.arg(name="data.root")] = None
    objective: Objective = "miou"
    trimap_width: int = 3
    num_images: int = 100
    workers: int = 2
    out: Path = Path("runs/tune")
    resume: bool = False
    preset: str | None = None
    label_floor: float = 0.03
    score_report: bool = False
    device: DeviceName = "auto"
    crf: CrfForm = field(
        default_factory=lambda: CrfForm(kernel_weights="scalar", compatibility="potts")
    )
    grid: GridOptions = GridOptions()
    maps: MapsOptions = field(default_factory=MapsOptions)

    def __post_init__(self) -> None:
        for name in ("trimap_width", "num_images", "workers"):
            if getattr(self, name) < 1:
                option = name.replace("_", "-")
                raise ValueError(f"--{option} must be at least 1, got {getattr(self, name)}.")
        if not 0 <= self.label_floor < 1:
            raise ValueError(
                f"--label-floor is a probability from 0 to below 1, got {self.label_floor}."
            )
        base = self.base()
        for name in ("kernel_weights", "compatibility", "untied", "theta_context"):
            if getattr(self.crf, name) != getattr(base, name):
                raise ValueError(
                    f"--crf.{name.replace('_', '-')} {getattr(self.crf, name)}: tune finds one "
                    "weight per kernel, with a Potts compatibility and no context kernel; leave it "
                    f"at {getattr(base, name)!r}, and train the CRF for more."
                )
        plain = self.crf.inference == "mean_field" and self.crf.damping == 0
        if self.label_floor > 0 and not plain:
            raise ValueError(
                f"--label-floor {self.label_floor} leaves labels out of undamped mean field alone: "
                "with another inference or damping give --label-floor 0."
            )

        if self.of_maps:
            self._check_maps()

    @property
    def of_maps(self) -> bool:
        """Whether there is a folder of maps in place of a checkpoint."""
        folder = self.checkpoint
        return folder.is_dir() and not weights_file(folder).exists()

    def _check_maps(self) -> None:
        free = ("normalization", "num_iterations_eval")
        plain = {n: getattr(self.crf, n) for n in free}
        if self.base() != replace(post_hoc_config(CrfForm()), **plain):
            raise ValueError(
                "a setting for a folder of maps is one that `crfrnn refine` takes: of --crf choose "
                "--crf.normalization and --crf.num-iterations-eval alone."
            )
        if self.score_report:
            raise ValueError("--score-report: a folder of maps has no report split.")

    def base(self) -> CrfConfig:
        """Return the form as it is searched, with default values."""
        return post_hoc_config(self.crf)

    def published(self) -> CrfConfig | None:
        """Return the preset's widths and weights in that form.

        Raises:
            ValueError: there is no preset of that name; suggests the nearest.
        """
        if self.preset is None:
            return None
        values = preset(self.preset)
        return replace(self.base(), **{name: getattr(values, name) for name in AXES})


# What measures an image: this process, or several that share the images.

IMAGES_IN_MEMORY = 128  # of each process: prepared, two megabytes each

Task = tuple[int, float, Sequence[Setting]]  # an image's position, a label floor, the settings
Evaluate = Callable[[Sequence[Task]], Iterator[list[Measured]]]


class Evaluator:
    """Measures images of a split under settings, on one thread.

    Args:
        options: of the tuning, whose folder holds the network's logits.
        direction: (L,) of the bias; none where there is no bias.
    """

    def __init__(self, options: TuneOptions, direction: tuple[float, ...] | None) -> None:
        self.options = options
        self.direction = None if direction is None else torch.tensor(direction)
        self.source = source_of(options)
        in_memory = IMAGES_IN_MEMORY // (1 if isinstance(self.source, Network) else 8)
        self.image = lru_cache(in_memory)(self._prepared)

    def __call__(self, task: Task) -> list[Measured]:
        """Measure one image under some settings, in their order."""
        index, floor, settings = task
        return self.image(index, floor).measure(settings)

    def _prepared(self, index: int, floor: float) -> PreparedImage:
        source = self.source
        sample = source.dataset[index]
        return PreparedImage(
            source.enlarger,
            sample,
            source.logits(sample),
            self.direction,
            trimap_width=self.options.trimap_width,
            band="void" if source.dataset.has_void else "edge",
            floor=floor,
        )


@contextmanager
def evaluators(options: TuneOptions, direction: tuple[float, ...] | None) -> Iterator[Evaluate]:
    """Give a function that does tasks in `options.workers` processes, in their order.

    Every image is measured alone, on one thread, so no result depends on how many there are.
    """
    if options.workers == 1:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            evaluator = Evaluator(options, direction)
            yield lambda tasks: map(evaluator, tasks)
        finally:
            torch.set_num_threads(threads)
        return
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(options.workers, spawn, _become_worker, (options, direction))
    try:
        yield lambda tasks: pool.map(_evaluate, tasks)
    except BrokenProcessPool as error:
        raise ChildProcessError(
            "a process that measured images died, perhaps for want of memory: --resume goes on "
            "with what is there, fewer --workers take less memory."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


_evaluator: Evaluator | None = None  # of a worker process


def _become_worker(options: TuneOptions, direction: tuple[float, ...] | None) -> None:
    """Make this process a worker: one thread, and an end when its parent ends."""
    global _evaluator
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to handle
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    _evaluator = Evaluator(options, direction)


def _end_with_parent() -> None:
    """End: a worker whose parent was killed would wait for tasks forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _evaluate(task: Task) -> list[Measured]:
    assert _evaluator is not None
    return _evaluator(task)


# The folder: what it holds already, and what is added.

LOGITS = "logits.safetensors"


class ScoreJournal:
    """Every setting that was scored: JSON lines that are on the disk when `add` returns.

    Args:
        folder: of the tuning.
        config: everything the scores depend on, as JSON values.
        resume: accept a folder that holds a tuning of the same configuration.

    Attributes:
        lines: what the file holds.
        scores: by setting and label floor.

    Raises:
        FileExistsError: the folder holds a tuning, and `resume` is off.
        ValueError: it holds one of another configuration, or a damaged journal.
    """

    def __init__(self, folder: Path, config: dict[str, Any], *, resume: bool) -> None:
        self.path = folder / "settings.jsonl"
        self.lines: list[dict[str, Any]] = []
        self.scores: dict[tuple[Setting, float], Scores] = {}
        text = self.path.read_bytes() if self.path.is_file() else b""
        stored = read_json(folder / "config.json") if text else None
        if stored is not None and not resume:
            raise FileExistsError(
                f"{folder} holds a tuning already: --resume goes on with it, another --out starts "
                "a new one."
            )
        differing = [] if stored is None else differences(stored, config)
        if differing:
            raise ValueError(
                f"{folder} holds a tuning of another configuration: {'; '.join(differing[:5])}. "
                "Give another --out, or delete the folder."
            )
        *whole, rest = text.split(b"\n")
        if rest:  # of a line that was cut off
            os.truncate(self.path, len(text) - len(rest))
        for number, line in enumerate(whole, 1):
            try:
                self._read(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{self.path}, line {number} is no score ({error}): delete the folder, or give "
                    "another --out."
                ) from error
        write_json(folder / "config.json", config)

    def _read(self, line: dict[str, Any]) -> None:
        self.lines.append(line)
        crf = line["setting"]
        setting = Setting(None if crf is None else CrfConfig(**crf), line["bias"])
        self.scores[setting, line["label_floor"]] = Scores(**line["scores"])

    def add(self, line: dict[str, Any]) -> None:
        """Write a line, and have the disk keep it."""
        self._read(line)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())


# What a setting stands behind: the network of a checkpoint, or maps that are there.


class Network:
    """The network of a checkpoint, and its logits, which the folder of the tuning keeps."""

    def __init__(self, options: TuneOptions) -> None:
        self.options = options
        self.checkpoint = read_checkpoint(options.checkpoint)
        self.dataset = self.split(options.split)
        self.digest = hashlib.sha256(weights_file(options.checkpoint).read_bytes()).hexdigest()[:32]
        self._path = options.out / LOGITS

    def split(self, split: Split) -> SegmentationDataset:
        """Return a split of the checkpoint's data."""
        return split_of(self.checkpoint["data"], split, self.options.data_root)

    @cached_property
    def enlarger(self) -> Segmenter:
        """The network, on its device."""
        return load_segmenter(self.checkpoint).to(device_named(self.options.device))

    def prepare(self, samples: Iterable[Sample]) -> None:
        """Run the network on every image, where the folder does not hold its logits yet."""
        if self._path.is_file():
            with safe_open(self._path, framework="pt") as file:
                if (file.metadata() or {}).get("checkpoint") == self.digest:
                    return
        network = self.enlarger
        with torch.no_grad():
            logits = {
                s.name: network.coarse_unary(image_of(s, network.device)).cpu().contiguous()
                for s in samples
            }
        temporary = self._path.with_name(self._path.name + ".part")
        save_file(logits, temporary, metadata={"checkpoint": self.digest})
        temporary.replace(self._path)

    def logits(self, sample: Sample) -> Tensor:
        """Read the network's logits of an image, (1, L, h, w)."""
        with safe_open(self._path, framework="pt") as file:
            return file.get_tensor(sample.name)  # type: ignore[no-any-return]

    def train_split(self) -> SegmentationDataset:
        """Return the data whose classes are counted for a bias."""
        return self.split("train")

    def about(self) -> dict[str, Any]:
        """Return what best.json says of it."""
        known = {k: self.checkpoint[k] for k in ("arm", "seed", "step")}
        return {"checkpoint": {"digest": self.digest, **known}, "split": self.options.split}

    def lines(self, crf: CrfConfig, bias: float, taken: Sequence[float]) -> dict[str, str]:
        """Write what to paste."""
        options = self.options
        return {
            "code": code(crf, len(self.dataset.classes), taken),
            "predict": predict_line(crf, str(options.checkpoint), "IMAGE", taken),
            "train": train_line(crf, bias, options.grid.bias_direction),
        }


class StoredMaps:
    """A folder of maps in place of a network; the same questions."""

    def __init__(self, options: TuneOptions) -> None:
        self.options = options
        self.dataset = self.enlarger = FolderOfMaps(
            options.checkpoint, options.maps, device_named(options.device)
        )
        self.digest = self.dataset.digest
        self.logits = self.dataset.logits

    def prepare(self, samples: Iterable[Sample]) -> None:
        """Read every sample once, so that a bad file ends the tuning before it begins."""
        for sample in samples:
            self.logits(sample)

    def train_split(self) -> SegmentationDataset:
        """Return the data whose classes are counted for a bias."""
        return self.dataset

    def about(self) -> dict[str, Any]:
        """Return what best.json says of it."""
        return {"maps": {"digest": self.digest}, "split": "maps"}

    def lines(self, crf: CrfConfig, bias: float, taken: Sequence[float]) -> dict[str, str]:
        """Write what to paste."""
        return refine_lines(self.dataset, self.options.checkpoint, crf, taken)


def source_of(options: TuneOptions) -> Network | StoredMaps:
    """Return what the first argument names."""
    return StoredMaps(options) if options.of_maps else Network(options)


# The tuning.


@dataclass(frozen=True)
class Scoring:
    """Scores settings on all images; what the journal holds is not scored again."""

    journal: ScoreJournal
    indices: Sequence[int]
    scored: Sequence[int]
    evaluate: Evaluate
    progress: Progress

    def __call__(self, stage: str, settings: Sequence[Setting], floor: float) -> list[Scores]:
        """Score some settings with a label floor, in their order."""
        groups = by_widths([s for s in settings if (s, floor) not in self.journal.scores])
        tasks: list[Task] = [(i, floor, group) for group in groups for i in self.indices]
        bar = self.progress.add_task(stage, total=len(tasks), visible=bool(tasks))
        measured = self.evaluate(tasks)
        for group in groups:
            began = time.perf_counter()
            of_images = []
            for _ in self.indices:
                of_images.append(next(measured))
                self.progress.advance(bar)
            seconds = (time.perf_counter() - began) / len(group)
            for setting, *of_setting in zip(group, *of_images, strict=True):
                self.journal.add(
                    {
                        "stage": stage,
                        "setting": None if setting.crf is None else asdict(setting.crf),
                        "bias": setting.bias,
                        "label_floor": floor,
                        "scores": asdict(total(of_setting, self.scored)),
                        "seconds": round(seconds, 3),
                    }
                )
        return [self.journal.scores[setting, floor] for setting in settings]


def tune(options: TuneOptions, console: Console | None = None) -> dict[str, Any]:
    """Search, and write what came of it below `options.out`.

    Returns:
        The content of best.json.

    Raises:
        ValueError: options that do not fit, or a folder that holds another tuning.
        FileExistsError: the folder holds a tuning, and `options.resume` is off.
        FileNotFoundError: there is no checkpoint, or no data.
    """
    began = time.perf_counter()
    origin = provenance()  # asked now: by the end, an edit may have changed what git says
    console = console or Console()
    source = source_of(options)
    dataset = source.dataset
    indices = evenly_spaced(options.num_images, len(dataset))
    names = [dataset.names[index] for index in indices]
    published = options.published()
    grid = options.grid.config(published)
    direction: tuple[float, ...] | None = None
    if grid.bias:
        direction = tuple(direction_of(grid.bias_direction, source.train_split()).tolist())
    kept = ("split", "crf", "preset", "grid", "objective", "trimap_width", "label_floor")
    values_of = {name: value for name, value in asdict(options).items() if name in kept}
    config = as_json({"checkpoint": source.digest, "images": names, **values_of})
    journal = ScoreJournal(options.out, config, resume=options.resume)
    _say_what_differs(options, console)
    with progress_bar(console) as progress, evaluators(options, direction) as evaluate_tasks:
        bar = progress.track(indices, description="network")
        source.prepare(dataset[index] for index in bar)
        scores = Scoring(journal, indices, dataset.scored, evaluate_tasks, progress)

        def values(stage: str, settings: Sequence[Setting]) -> list[float]:
            found = scores(stage, settings, options.label_floor)
            return [s.value(options.objective) for s in found]

        alone = [Setting(None, bias) for bias in dict.fromkeys((0.0, *grid.bias))]
        before = scores("network", alone, 0.0)
        if before[0].value(options.objective) == -math.inf:
            raise ValueError(
                f"--objective {options.objective}: these {len(names)} images have no pixel that it "
                "counts; take more images, a wider --trimap-width, or another objective."
            )
        first = () if published is None else (Setting(published),)
        best = coarse_to_fine(grid, options.base(), values, first)
        (after,) = scores("all labels", [best], 0.0)
    network_alone = max(before, key=lambda s: s.value(options.objective))
    of_floor = journal.scores[best, options.label_floor]
    assert best.crf is not None
    crf = replace(best.crf, output_scale=float(f"{after.output_scale:.4g}"))
    taken = [best.bias * d for d in direction or ()] if best.bias else []
    settings = [line for line in journal.lines if line["setting"] and line["stage"] != "all labels"]
    result: dict[str, Any] = {
        "kind": "tune",
        **origin,
        "setting": asdict(crf),
        "bias": best.bias,
        "label_bias": taken,
        **source.lines(crf, best.bias, taken),
        "objective": options.objective,
        "trimap_width": options.trimap_width,
        "network": asdict(before[0]),
        "network_with_bias": asdict(network_alone),
        "best": asdict(after),
        "crf_helps": after.value(options.objective) > network_alone.value(options.objective),
        "label_floor": options.label_floor,
        "best_with_label_floor": asdict(of_floor),
        **source.about(),
        "images": names,
        "settings": len(settings),
        "wall_seconds": time.perf_counter() - began,
        "measuring_seconds": sum(line["seconds"] for line in journal.lines),
        "report": None,
    }
    stored = read_json(options.out / "best.json")
    if stored and stored["setting"] == result["setting"] and stored["label_bias"] == taken:
        result["report"] = stored["report"]  # scored once
    if options.score_report and result["report"] is None:
        assert isinstance(source, Network)
        result["report"] = score_held_out(source, crf, taken)
    write_json(options.out / "best.json", result)
    rows = rows_of(journal.lines)
    write_table(options.out / "settings.csv", rows)
    console.print(top_table(rows, options))
    _print_best(result, console)
    return result


def _say_what_differs(options: TuneOptions, console: Console) -> None:
    """Tell where a preset was published in another form."""
    if options.preset is None:
        return
    published = preset(options.preset)
    asked = options.crf.normalization, options.crf.num_iterations_eval
    if (published.normalization, published.num_iterations_eval) != asked:
        console.print(
            f"{options.preset} was published with --crf.normalization {published.normalization} "
            f"--crf.num-iterations-eval {published.num_iterations_eval}; here it starts with "
            f"{asked[0]} and {asked[1]}"
        )


def score_held_out(source: Network, crf: CrfConfig, label_bias: Sequence[float]) -> dict[str, Any]:
    """Score the best setting on the report split beside the network alone.

    Returns:
        By score, "network" and "crf" as numbers and "difference" as value, low and high of the
        95 % interval, see `eval.metrics.Bootstrap`; and "images", how many.
    """
    options, dataset = source.options, source.split("report")
    device = device_named(options.device)
    segmenter = load_segmenter(source.checkpoint).with_crf(crf).to(device)
    coarse = coarse_unaries(segmenter, dataset)
    network = evaluate(segmenter, dataset, coarse, use_crf=False)
    segmenter.add_label_bias(label_bias)
    refined = evaluate(segmenter, dataset, coarse)
    named = {"miou": score_named("miou"), "nll": score_named("nll")}
    if options.trimap_width in refined.widths:
        named["trimap_miou"] = score_named("trimap_miou", str(options.trimap_width))
    bootstrap = Bootstrap(len(dataset))
    report: dict[str, Any] = {"images": len(dataset)}
    for name, score in named.items():
        difference = bootstrap.difference([refined], [network], score)
        report[name] = {"difference": None if difference is None else difference._asdict()}
        for kind, counts in (("network", network), ("crf", refined)):
            interval = bootstrap.interval([counts], score)
            report[name][kind] = None if interval is None else interval.value
    return report


# What a person sees.


def rows_of(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Flatten lines of settings.jsonl; the network alone has no values."""
    return [
        {
            "stage": line["stage"],
            **{name: (line["setting"] or {}).get(name) for name in AXES},
            "bias": line["bias"],
            **line["scores"],
            "label_floor": line["label_floor"],
            "seconds": line["seconds"],
        }
        for line in lines
    ]


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write settings.csv."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def top_table(rows: Sequence[Mapping[str, Any]], options: TuneOptions, count: int = 10) -> Table:
    """Return the network alone, and below it the best settings."""
    network = [row for row in rows if row["stage"] == "network"]
    settings = [row for row in rows if row["stage"] not in ("network", "all labels")]
    name = {"trimap": "trimap_miou"}.get(options.objective, options.objective)
    ranked = sorted(settings, key=lambda row: row[name], reverse=name != "nll")[:count]
    table = Table(title=f"best {len(ranked)} of {len(settings)} settings by {options.objective}")
    titles = {axis: axis.replace("_", " ") for axis in (*AXES, "bias")}
    titles |= {"miou": "mIoU", "trimap_miou": f"trimap {options.trimap_width} px", "nll": "NLL"}
    for title in ("", *titles.values()):
        table.add_column(title, justify="right")
    for row in (*network, *ranked):
        cells = (ABSENT if row[title] is None else f"{row[title]:.4g}" for title in titles)
        table.add_row(row["stage"], *cells)
    return table


def _print_best(result: dict[str, Any], console: Console) -> None:
    """Say how good the best setting is, what to paste, and what it has taken."""
    before, after = result["network"], result["best"]
    for name in ("miou", "trimap_miou", "nll"):
        if before[name] is not None and after[name] is not None:
            console.print(
                f"{name}: {before[name]:.4f} without, {after[name]:.4f} with the CRF, "
                f"{after[name] - before[name]:+.4f}"
            )
    for name, score in (result["report"] or {}).items():
        if name != "images" and score["difference"] is not None:
            console.print(
                f"report split, {name}: {score['network']:.4f} without, {score['crf']:.4f} with "
                "the CRF, {value:+.4f}, 95 % interval {low:+.4f} to {high:+.4f}".format(
                    **score["difference"]
                )
            )
    if not result["crf_helps"]:
        console.print(
            f"no setting has a better {result['objective']} than the network alone: leave the CRF "
            "out"
        )
    for name in ("code", "refine", "predict", "train"):
        if name not in result:
            continue
        console.print(f"\n{result[name]}", soft_wrap=True, highlight=False)  # to be copied
    console.print(
        f"\n{result['settings']} settings x {len(result['images'])} images in "
        f"{duration(result['wall_seconds'])} ({duration(result['measuring_seconds'])} of "
        "measuring, earlier runs included)"
    )


def tune_command(arguments: list[str]) -> None:
    """Parse and search."""
    tune(tyro.cli(TuneOptions, prog="python -m eval tune", args=arguments))
