"""The measurement of the filters as a table, for the README."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from eval import tables
from eval.filter_gradients import markdown_table as gradient_table
from eval.filters import BASELINE, EXACT

GRADIENT_LEGEND = (
    "What widths and guide receive through the lattice, beside the exact kernel's gradient, on a "
    "small image with theta_alpha shrunk in proportion: cosine of the image's gradient, relative "
    "error of that of (theta_alpha, theta_beta), means over photographs and inputs; gaussian: the "
    "Gaussian's own derivative, filtered by the lattice (the default); lattice: the derivative of "
    "the lattice itself."
)


def markdown_block(results: Mapping[str, Any]) -> str:
    """The table with what it takes to repeat it.

    Args:
        results: the content of a results file of the kind "filters".
    """
    config = results["config"]
    versions = results["versions"]
    return "\n".join(
        [
            "```",
            results["command"],
            "```",
            "",
            f"- photographs of scikit-image: {', '.join(config['photos'])}",
            f"- {config['repeats']} rounds over all filters; {config['labels']} labels; float32; "
            f"torch {versions['torch']}",
            f"- machine: {tables.machine_line(results)}; "
            f"wall time {tables.duration(results['wall_seconds'])}",
            f"- commit {tables.commit_line(results)}",
            "",
            markdown_table(results),
            "",
            legend(results),
            "",
            gradient_table(results["gradients"]),
            "",
            GRADIENT_LEGEND,
        ]
    )


def markdown_table(results: Mapping[str, Any]) -> str:
    """One row for each kernel and filter, without a trailing newline."""
    small, large = _sizes(results)
    titles = ["kernel", "filter", "error", "worst", "closer", "vertices"]
    titles += [f"build, {large}", f"apply, {large}", f"apply, {small}"]
    lines = [titles, ["---"] * 2 + ["---:"] * (len(titles) - 2), *_rows(results)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def legend(results: Mapping[str, Any]) -> str:
    """How to read the table."""
    small, _ = _sizes(results)
    return (
        "kernel: theta_alpha / theta_beta or theta_gamma, pixels and grey levels; error: relative "
        "L2 to the exact sum, beside its deviation from the mean, of the normalised output at "
        f"{small}, in per cent, geometric mean over photographs and inputs from white noise to "
        f"smooth; worst: its largest value; closer: error of the {BASELINE} over that of the "
        "filter; vertices: of the lattice, for each pixel; build, apply: time over that of the "
        f"{BASELINE}, median of the rounds, with the {BASELINE}'s own in brackets."
    )


def _rows(results: Mapping[str, Any]) -> Iterator[list[str]]:
    small, large = _sizes(results)
    for kernel in results["kernels"]:
        theta, colour = kernel["theta_position"], kernel["theta_colour"]
        title = f"spatial {theta:g}" if colour is None else f"bilateral {theta:g}/{colour:g}"
        baseline = statistics.geometric_mean(_errors(kernel, BASELINE))
        for name in kernel["seconds"][small]:
            vertices = kernel["vertices"].get(name)
            if name == EXACT:
                quality = ["0", "0", tables.ABSENT]
            else:
                found = _errors(kernel, name)
                mean = statistics.geometric_mean(found)
                closer = tables.ABSENT if name == BASELINE else tables.factor(baseline / mean)
                quality = [_percent(mean), _percent(max(found)), closer]
            yield [
                title,
                name,
                *quality,
                tables.ABSENT
                if vertices is None
                else tables.factor(statistics.fmean(vertices.values())),
                _cost(kernel["seconds"][large], name, "build"),
                _cost(kernel["seconds"][large], name, "apply"),
                _cost(kernel["seconds"][small], name, "apply"),
            ]


def _errors(kernel: Mapping[str, Any], name: str) -> list[float]:
    return [error for of_inputs in kernel["errors"][name].values() for error in of_inputs.values()]


def _mean(vertices: Mapping[str, float] | None) -> str:
    """Of all photographs; absent where the filter has no vertices."""
    return tables.ABSENT if not vertices else tables.factor(statistics.fmean(vertices.values()))


def _cost(seconds: Mapping[str, Any], name: str, stage: str) -> str:
    """A filter's time over the baseline's, the two of each round compared with each other."""
    if name not in seconds:
        return tables.ABSENT
    own, baseline = seconds[name][stage], seconds[BASELINE][stage]
    if name == BASELINE:
        return f"1 ({1e3 * statistics.median(own):.3g} ms)"
    return tables.factor(statistics.median(a / b for a, b in zip(own, baseline, strict=True)))


def _percent(error: float) -> str:
    """An error as "3.4"; one of rounding alone keeps its power of ten."""
    return f"{100 * error:.1f}" if error >= 5e-4 else f"{100 * error:.0e}"


def _sizes(results: Mapping[str, Any]) -> tuple[str, str]:
    """The small size, at which all filters are measured, and the large one."""
    (small, large) = (
        f"{width} x {height}"
        for height, width in (results["config"]["error_shape"], results["config"]["time_shape"])
    )
    return small, large
