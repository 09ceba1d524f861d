"""`python -m eval tune`: a post-hoc CRF for a checkpoint's network."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import tyro
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from crfrnn.presets import preset
from eval.setting_lines import code, predict_line, train_line
from eval.tables import duration
from eval.tuning.bench import Bench, Problem
from eval.tuning.crew import Crew
from eval.tuning.folder import TuneFolder, write_json
from eval.tuning.gradient import Gradient
from eval.tuning.grid import Grid, evenly_spaced
from eval.tuning.held_out import score_held_out
from eval.tuning.logits import digest
from eval.tuning.method import Method
from eval.tuning.objective import Scores
from eval.tuning.options import TuneOptions
from eval.tuning.outcome import top_table, write_table
from eval.tuning.scoring import Scoring
from eval.tuning.sobol import Sobol
from eval.tuning.surface import write_surface
from models import CrfConfig
from runtime.checkpoint import read_checkpoint
from runtime.provenance import provenance
from runtime.run_folder import split_of


def tune(options: TuneOptions, console: Console | None = None) -> dict[str, Any]:
    """Search, and write everything that was found below `options.out`.

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
    checkpoint = read_checkpoint(options.checkpoint)
    dataset = split_of(checkpoint["data"], options.split, options.data_root)
    indices = evenly_spaced(options.num_images, len(dataset))
    names = [dataset.names[index] for index in indices]
    network = digest(options.checkpoint.read_bytes())
    folder = TuneFolder(options.out, _config(options, network, names), resume=options.resume)
    _remarks(options, folder, console)
    problem = Problem(
        checkpoint=options.checkpoint,
        network=network,
        split=options.split,
        data_root=options.data_root,
        logits=folder.logits,
        trimap_width=options.trimap_width,
        resolution=options.crf.resolution,
        device=options.device,
    )
    with Crew(problem, indices, options.workers) as crew, _progress(console) as progress:
        scoring = Scoring(
            crew, folder, dataset.scored, options.objective, options.label_floor, progress
        )
        before = scoring.network_alone()
        _check_objective(options, before)
        _method(options, scoring).run(scoring)
        best = scoring.best()
        after = scoring.with_all_labels(best)
    best = replace(best, output_scale=float(f"{after.output_scale:.4g}"))
    console.print(top_table(scoring.found, before, options.objective, options.trimap_width))
    result: dict[str, Any] = {
        "kind": "tune",
        **origin,
        "setting": asdict(best),
        "code": code(best, len(dataset.classes)),
        "predict": predict_line(best, str(options.checkpoint), "IMAGE"),
        "train": train_line(best),
        "objective": options.objective,
        "trimap_width": options.trimap_width,
        "network": asdict(before),
        "best": asdict(after),
        "label_floor": options.label_floor,
        "best_with_label_floor": asdict(scoring.found[replace(best, output_scale=1.0)]),
        "checkpoint": {"digest": network, **{k: checkpoint[k] for k in ("arm", "seed", "step")}},
        "split": options.split,
        "images": names,
        "settings": len(scoring.found),
        "cpu_seconds": sum(line["cpu_seconds"] for line in folder.settings.lines),
        "wall_seconds": time.perf_counter() - began,
        "measuring_seconds": sum(line["seconds"] for line in folder.settings.lines),
        "report": folder.report_of(best),
    }
    if options.score_report and result["report"] is None:
        result["report"] = score_held_out(checkpoint, options, best)
    write_json(folder.path / "best.json", result)
    write_table(folder.path / "settings.csv", folder.settings.lines)
    percent = 1.0 if options.objective == "nll" else 100.0
    values = {s: percent * f.value(options.objective) for s, f in scoring.found.items()}
    write_surface(values, _title(options), folder.path / "surface")
    _print_best(result, console)
    return result


def _config(options: TuneOptions, network: str, names: Sequence[str]) -> dict[str, Any]:
    """What the scores depend on, as JSON holds it."""
    names_of = {"grid": "grid", "sobol": "sobol", "gradient": "descent"}
    numbers = asdict(getattr(options, names_of[options.method]))
    config = {
        "checkpoint": network,
        "split": options.split,
        "images": names,
        "crf": asdict(options.crf),
        "preset": options.preset,
        "method": options.method,
        names_of[options.method]: numbers,
        "objective": options.objective,
        "trimap_width": options.trimap_width,
        "label_floor": options.label_floor,
        "seed": options.seed,
    }
    as_json: dict[str, Any] = json.loads(json.dumps(config))
    return as_json


def _remarks(options: TuneOptions, folder: TuneFolder, console: Console) -> None:
    """Lines for the person, before anything is computed."""
    for remark in folder.remarks:
        console.print(remark)
    if options.preset is None:
        return
    found = preset(options.preset)
    asked = options.crf.normalization, options.crf.num_iterations_eval
    if (found.normalization, found.num_iterations_eval) != asked:
        console.print(
            f"{options.preset} was published with --crf.normalization {found.normalization} "
            f"--crf.num-iterations-eval {found.num_iterations_eval}; here it starts with "
            f"{asked[0]} and {asked[1]}"
        )


def _check_objective(options: TuneOptions, before: Scores) -> None:
    """Raise where there is nothing to maximise."""
    if before.value(options.objective) == float("-inf"):
        raise ValueError(
            f"--objective {options.objective}: these {options.num_images} images have no pixel "
            "that it counts; take more images, a wider --trimap-width, or another objective."
        )


def _method(options: TuneOptions, scoring: Scoring) -> Method:
    """The method of the options, with what it needs."""
    published = options.published()
    base = options.base()
    first = () if published is None else (published,)
    if options.method == "grid":
        return Grid(options.grid.config(published), base, first)
    if options.method == "sobol":
        return Sobol(options.sobol, base, options.seed, first)
    start = published or base
    scoring("start", [start])
    scale = scoring.found[start].output_scale
    task = scoring.progress.add_task("descent", total=options.descent.steps)

    def slope(batch: Sequence[int], setting: CrfConfig) -> tuple[float, list[float]]:
        (answers,) = scoring.crew.rounds(Bench.slope, [(options.label_floor, setting)], batch)
        sums, grads, pixels = zip(*(answer.value for answer in answers), strict=True)
        count = max(1, sum(pixels))
        return sum(sums) / count, [sum(column) / count for column in zip(*grads, strict=True)]

    return Gradient(
        options.descent,
        replace(start, output_scale=scale),
        scoring.crew.indices,
        slope,
        scoring.folder.steps,
        options.seed,
        tick=lambda step: scoring.progress.update(task, completed=step),
    )


def _progress(console: Console) -> Progress:
    """Images done of a stage, with the time that is left."""
    return Progress(
        TextColumn("{task.description:<12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )


def _title(options: TuneOptions) -> str:
    """What the surface shows."""
    return {
        "miou": "mIoU, per cent",
        "trimap": f"mIoU within {options.trimap_width} px, per cent",
        "nll": "minus NLL, nats per pixel",
    }[options.objective]


def _print_best(result: dict[str, Any], console: Console) -> None:
    """The best setting in words, and what it has taken."""
    number, images = result["settings"], len(result["images"])
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
    for name in ("code", "predict", "train"):
        console.print(f"\n{result[name]}", soft_wrap=True, highlight=False)  # to be copied
    console.print(
        f"\n{number} settings x {images} images in {duration(result['wall_seconds'])} "
        f"({duration(result['measuring_seconds'])} of measuring, earlier runs included); "
        f"{result['cpu_seconds'] / max(1, number * images):.3f} CPU seconds for each"
    )


def tune_command(arguments: list[str]) -> None:
    """Parse and search."""
    tune(tyro.cli(TuneOptions, prog="python -m eval tune", args=arguments))
