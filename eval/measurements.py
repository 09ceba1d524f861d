"""The commands that measure, and write their numbers down as a results file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import tyro

from eval.benchmark import BenchmarkOptions, benchmark
from eval.benchmark.builders import BuildersOptions, benchmark_builders
from eval.benchmark.figures import write_figures
from eval.benchmark.gpu.clock import clock_of
from eval.benchmark.gpu.run import Plan, benchmark_gpu
from eval.filter_table import markdown_table
from eval.filters import FiltersOptions, measure
from eval.network_speed import NetworkSpeedOptions, network_speed, print_speed
from eval.networks import NetworksOptions, measure_networks
from eval.readme import block_of
from runtime.distributed import device_named


def filters_command(arguments: list[str]) -> None:
    """Measure error and cost of the filters."""
    options = tyro.cli(FiltersOptions, prog="python -m eval filters", args=arguments)
    results = measure(options)
    write_results(options.out, results)
    print(markdown_table(results))


def benchmark_crf_command(arguments: list[str]) -> None:
    """Time the CRF beside its peers, and plot the times; or on a GPU, beside its ceilings."""
    options = tyro.cli(BenchmarkOptions, prog="python -m eval benchmark crf", args=arguments)
    if options.device == "cuda":
        device = device_named("cuda")
        keep = partial(write_results, options.out)
        on_gpu = benchmark_gpu(options, device, clock_of(device), Plan(), keep=keep)
        write_results(options.out, on_gpu)
        print(block_of(on_gpu))
        return
    results = benchmark(options)
    write_results(options.out, results)
    write_figures(results, options.out.parent)
    print(block_of(results))


def benchmark_models_command(arguments: list[str]) -> None:
    """Time our DeepLabv3 beside torchvision's."""
    prog = "python -m eval benchmark models"
    options = tyro.cli(NetworkSpeedOptions, prog=prog, args=arguments)
    results = network_speed(options)
    if options.out is not None:
        write_results(options.out, results)
    print_speed(results)


def benchmark_builders_command(arguments: list[str]) -> None:
    """Time every network, with and without the CRF, and measure its memory."""
    prog = "python -m eval benchmark builders"
    options = tyro.cli(BuildersOptions, prog=prog, args=arguments)
    results = benchmark_builders(options)
    write_results(options.out, results)
    print(block_of(results))


def networks_command(arguments: list[str]) -> None:
    """Count and measure every network."""
    options = tyro.cli(NetworksOptions, prog="python -m eval networks", args=arguments)
    results = measure_networks(options)
    write_results(options.out, results)
    print(block_of(results))


def write_results(path: Path, results: Mapping[str, Any]) -> None:
    """Write a results file, and the folder it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results) + "\n", encoding="utf-8")
