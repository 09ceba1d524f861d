"""Command line: `python -m eval run CHECKPOINT`, and others in the place of `run`: see USAGE."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table
from safetensors.torch import save_file

import data
from data import CollageConfig, SegmentationDataset, Split
from eval import processes
from eval.benchmark import BenchmarkOptions, benchmark
from eval.benchmark.figures import write_figures
from eval.checkpoint import load_segmenter, read_checkpoint
from eval.device import DeviceName, device_named
from eval.filter_table import markdown_table
from eval.filters import FiltersOptions, measure
from eval.inference import coarse_unaries, evaluate
from eval.network_speed import NetworkSpeedOptions, network_speed, print_speed
from eval.networks import NetworksOptions, measure_networks
from eval.readme import block_of, replace_block
from models import Segmenter


@dataclass(frozen=True)
class RunOptions:
    """Score a checkpoint on whole images at their native size.

    Attributes:
        checkpoint: a file that `python -m train` wrote.
        split: train, tune or report.
        data_root: where the data set lies now, if not where it was trained.
        out: write the scores to this JSON file too.
        device: "auto" is the GPU where there is one.
    """

    checkpoint: tyro.conf.Positional[Path]
    split: Split = "report"
    data_root: Annotated[Path | None, tyro.conf.arg(name="data.root")] = None
    out: Path | None = None
    device: DeviceName = "auto"


def run(options: RunOptions) -> dict[str, Any]:
    """Score the network alone and, where there is one, with its CRF.

    Under `torchrun` every process scores its share of the images and the first one reports.

    Returns:
        {"unary": metrics, "crf": metrics}, the second only with a CRF.
    """
    checkpoint = read_checkpoint(options.checkpoint)
    config = data.config_from_dict(checkpoint["data"])
    if options.data_root is not None:
        if isinstance(config, CollageConfig):
            raise ValueError("--data.root: this checkpoint's data set is made, not read from disk.")
        config = replace(config, root=options.data_root)
    dataset = data.build(config, options.split)
    segmenter = load_segmenter(checkpoint).to(device_named(options.device))
    scores = score(segmenter, dataset)
    if not processes.is_first():
        return scores
    title = f"{checkpoint['arm']}-seed{checkpoint['seed']}: {options.split}, {len(dataset)} images"
    Console().print(score_table(title, scores))
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(scores))
    return scores


def score(segmenter: Segmenter, dataset: SegmentationDataset) -> dict[str, Any]:
    """Metrics before and after the CRF, from one pass of the network."""
    coarse = coarse_unaries(segmenter, dataset)
    scores = {"unary": evaluate(segmenter, dataset, coarse, use_crf=False)}
    if segmenter.crf is not None:
        scores["crf"] = evaluate(segmenter, dataset, coarse)
    return scores


def score_table(title: str, scores: dict[str, Any]) -> Table:
    """One column for each kind of logits, per cent."""
    table = Table(title=title)
    table.add_column("")
    for kind in scores:
        table.add_column(kind, justify="right")

    def row(name: str, values: list[float | None]) -> None:
        table.add_row(name, *("–" if v is None else f"{100 * v:.2f}" for v in values))

    columns = list(scores.values())
    row("mIoU", [m["miou"] for m in columns])
    row("pixel accuracy", [m["pixel_accuracy"] for m in columns])
    table.add_section()
    for name in columns[0]["iou_per_class"]:
        row(f"IoU {name}", [m["iou_per_class"][name] for m in columns])
    table.add_section()
    for width in columns[0]["trimap_miou"]:
        row(f"trimap mIoU {width} px", [m["trimap_miou"][width] for m in columns])
    return table


def filters(options: FiltersOptions) -> None:
    """Measure error and cost of the filters, and write them down."""
    results = measure(options)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results) + "\n", encoding="utf-8")
    print(markdown_table(results))


def benchmark_crf(options: BenchmarkOptions) -> None:
    """Time the CRF beside its peers, write the results down and plot them."""
    results = benchmark(options)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results) + "\n", encoding="utf-8")
    write_figures(results, options.out.parent)
    print(block_of(results))


def benchmark_models(options: NetworkSpeedOptions) -> None:
    """Time our DeepLabv3 beside torchvision's."""
    results = network_speed(options)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(results) + "\n", encoding="utf-8")
    print_speed(results)


def networks(options: NetworksOptions) -> None:
    """Count and measure every network, and write the numbers down."""
    results = measure_networks(options)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results) + "\n", encoding="utf-8")
    print(block_of(results))


@dataclass(frozen=True)
class ReadmeOptions:
    """Write the tables of a README anew from stored results.

    Attributes:
        results: files of results; each fills the block of its own name, without .json.
        readme: the Markdown file.
    """

    results: tyro.conf.Positional[tuple[Path, ...]]
    readme: Path = Path("README.md")


def readme(options: ReadmeOptions) -> None:
    """Fill the block of every results file."""
    text = options.readme.read_text(encoding="utf-8")
    for path in options.results:
        try:
            block = block_of(json.loads(path.read_text(encoding="utf-8")))
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(
                f"{path} is not a results file that `train compare`, `eval filters`, `eval "
                "benchmark` or `eval networks` wrote."
            ) from error
        text = replace_block(text, path.stem, block)
    options.readme.write_text(text, encoding="utf-8")


@dataclass(frozen=True)
class ExportOptions:
    """Write the network of a checkpoint as `--model.weights` reads it, without its CRF.

    Attributes:
        checkpoint: a file that `python -m train` wrote.
        out: the .safetensors file.
    """

    checkpoint: tyro.conf.Positional[Path]
    out: Path


def export(options: ExportOptions) -> None:
    """Write the network's weights, and say which network they are of."""
    checkpoint = read_checkpoint(options.checkpoint)
    segmenter = load_segmenter(checkpoint)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    state = {name: value.contiguous() for name, value in segmenter.network.state_dict().items()}
    save_file(state, options.out)
    print(f"wrote {options.out}, weights of {segmenter.config.network}")


USAGE = """usage: python -m eval run CHECKPOINT [--split SPLIT] [--data.root DIR] [--out FILE]
       python -m eval export CHECKPOINT --out FILE.safetensors
       python -m eval filters --out FILE [--repeats N]
       python -m eval benchmark crf --out FILE [--repeats N] [--no-memory]
       python -m eval benchmark models [--out FILE] [--repeats N]
       python -m eval networks --out FILE [--names NAME ...]
       python -m eval readme RESULTS.json [RESULTS.json ...] [--readme FILE]"""


def main(arguments: list[str]) -> None:
    """Parse the command line and run.

    Raises:
        SystemExit: with a message, when a word or a file is not understood.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return
    command, rest = arguments[0], arguments[1:]
    try:
        if command == "run":
            options = tyro.cli(RunOptions, prog="python -m eval run", args=rest)
            with processes.joined(device_named(options.device)):
                run(options)
        elif command == "export":
            export(tyro.cli(ExportOptions, prog="python -m eval export", args=rest))
        elif command == "filters":
            filters(tyro.cli(FiltersOptions, prog="python -m eval filters", args=rest))
        elif command == "benchmark" and rest[:1] == ["crf"]:
            prog = "python -m eval benchmark crf"
            benchmark_crf(tyro.cli(BenchmarkOptions, prog=prog, args=rest[1:]))
        elif command == "benchmark" and rest[:1] == ["models"]:
            prog = "python -m eval benchmark models"
            benchmark_models(tyro.cli(NetworkSpeedOptions, prog=prog, args=rest[1:]))
        elif command == "networks":
            networks(tyro.cli(NetworksOptions, prog="python -m eval networks", args=rest))
        elif command == "readme":
            readme(tyro.cli(ReadmeOptions, prog="python -m eval readme", args=rest))
        else:
            raise ValueError(
                f"unknown command {command!r}: choose run, export, filters, benchmark crf, "
                "benchmark models, networks or readme.\n" + USAGE
            )
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main(sys.argv[1:])
