"""What the CRF of each arm became: theta and weights as a table, learned matrices as heat maps."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

from eval import wording
from eval.arms import ARMS
from eval.heatmap import Matrix, heat_map
from eval.summary import find_run, runs_of

Results = Mapping[str, Any]

KERNELS = ("bilateral", "spatial")

TITLES = (
    "arm",
    "seed",
    "θα, px",
    "θβ, grey",
    "θγ, px",
    *KERNELS,
    "normalization",
    "iterations",
    "searched",
)


def crf_table(results: Results) -> str:
    """Theta, mean kernel weights and the search of every run that has a CRF."""
    body = ""
    for arm in ARMS:
        for run in runs_of(results, arm):
            crf = run["crf"]
            if crf is not None:
                thetas = [crf["theta_alpha"], crf["theta_beta"], crf["theta_gamma"]]
                weights = [_mean_diagonal(crf["kernel_weights"][k]) for k in KERNELS]
                cells = [run["seed"], *(f"{value:.4g}" for value in [*thetas, *weights])]
                cells += [crf["normalization"], crf["num_iterations"]]
                cells += [f"{len(run['search'])} settings" if run["search"] else wording.ABSENT]
                written = "".join(f"<td>{html.escape(str(cell))}</td>" for cell in cells)
                body += f'<tr class="arm-{arm}"><th>{html.escape(arm)}</th>{written}</tr>'
    if not body:
        return '<p class="absent">No run has a CRF.</p>'
    head = "".join(f"<th>{html.escape(title)}</th>" for title in TITLES)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _mean_diagonal(matrix: Matrix) -> float:
    return sum(row[index] for index, row in enumerate(matrix)) / len(matrix)


def heat_maps(results: Results) -> str:
    """What training changed in the first seed: joint open, crf-only folded."""
    sections = ""
    for arm in ("joint", "crf-only"):
        run = next((run for run in runs_of(results, arm) if run["crf"] is not None), None)
        if run is None:
            sections += f'<p class="absent">No CRF of {arm}.</p>'
            continue
        opened = " open" if arm == "joint" else ""
        sections += (
            f'<details class="arm-{arm}"{opened}><summary><b>{arm}</b>, seed {run["seed"]}'
            f'</summary><div class="maps">{_maps_of(results, run)}</div></details>'
        )
    return sections


def _maps_of(results: Results, run: Mapping[str, Any]) -> str:
    names = results["data"]["classes"]
    size = len(names)
    potts = [[float(row != column) for column in range(size)] for row in range(size)]
    start_name, start = _start_of(results, run)
    maps = ""
    for kernel in KERNELS:
        centre = start["kernel_weights"][kernel] if start else [[0.0] * size] * size
        weights = run["crf"]["kernel_weights"][kernel]
        maps += heat_map(f"{kernel} kernel weights", weights, centre, names, start_name)
    compatibility = run["crf"]["compatibility"]
    return maps + heat_map("compatibility (penalty)", compatibility, potts, names, "Potts")


def _start_of(results: Results, run: Mapping[str, Any]) -> tuple[str, Mapping[str, Any] | None]:
    """What the kernel weights of a run are compared with, by name.

    The CRF that the run started from when it says so (`crf_start`), otherwise the post-hoc CRF of
    the same seed, otherwise nothing: zero.
    """
    if run.get("crf_start"):
        return "its start", run["crf_start"]
    post_hoc = find_run(results, "post-hoc", run["seed"])
    if post_hoc is not None and post_hoc["crf"]:
        return "post-hoc", post_hoc["crf"]
    return "zero", None
