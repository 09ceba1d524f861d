"""What the CRF of each arm became, as a table of theta and weights."""

from __future__ import annotations

import html
from collections.abc import Sequence

from eval import wording
from eval.report.comparison import Comparison
from runtime.run_folder import ARMS

KERNELS = ("bilateral", "spatial")

TITLES = (
    "arm",
    "seed",
    "θα, px",
    "θβ, grey",
    "θγ, px",
    "θ context, px",
    *KERNELS,
    "normalization",
    "iterations",
    "searched",
)


def crf_table(comparison: Comparison) -> str:
    """Theta, mean kernel weights and the search of every run that has a CRF."""
    body = ""
    for arm in ARMS:
        for run in comparison.of(arm):
            crf = run.result["crf"]
            if crf is not None:
                thetas = [crf["theta_alpha"], crf["theta_beta"], crf["theta_gamma"]]
                context = crf.get("theta_context")
                weights = [_mean_diagonal(crf["kernel_weights"][k]) for k in KERNELS]
                cells = [run.seed, *(f"{value:.4g}" for value in thetas)]
                cells += [wording.ABSENT if context is None else f"{context:.4g}"]
                cells += [f"{value:.4g}" for value in weights]
                cells += [crf["normalization"], crf["num_iterations"]]
                searched = run.result["search"]
                cells += [f"{len(searched)} settings" if searched else wording.ABSENT]
                written = "".join(f"<td>{html.escape(str(cell))}</td>" for cell in cells)
                body += f'<tr class="arm-{arm}"><th scope="row">{arm}</th>{written}</tr>'
    if not body:
        return '<p class="absent">No run has a CRF.</p>'
    head = "".join(f'<th scope="col">{html.escape(title)}</th>' for title in TITLES)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _mean_diagonal(matrix: Sequence[Sequence[float]]) -> float:
    return sum(row[index] for index, row in enumerate(matrix)) / len(matrix)
