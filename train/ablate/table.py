"""The table of an ablation, read from its finished runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text
from scipy import stats

from eval import wording
from eval.summary import Score, Split, Spread, over_seeds, paired_difference, score
from runtime.provenance import merged
from runtime.run_folder import as_json, read_json
from train.ablate.ablation import Ablation
from train.ablate.execute import jobs_of
from train.ablate.variants import Variant

# The numbers of an ablation, from the result files alone.

WIDTHS = ("1", "3")  # of the trimap, pixels

SCORES: dict[str, Score] = {
    "report": score("miou"),
    "tune": score("miou", split="tune"),
    **{f"trimap_{width}": score("trimap_miou", within=width) for width in WIDTHS},
}


def gather(
    ablation: Ablation, recipe_name: str, variants: Sequence[Variant], out: Path
) -> dict[str, Any]:
    """Everything that the table shows, as JSON values.

    `runs` has one entry for each label, arm and seed, with its scores; `missing` and `failed` name
    those without a result.
    """
    rows, missing, failed = [], [], []
    for variant in variants:
        for job in jobs_of(ablation, [variant], out):
            result = read_json(job.result)
            run = {"digest": variant.digest, "arm": job.arm, "seed": job.seed}
            if result is None:
                failure = read_json(job.failure)
                label = {**run, "label": variant.labels[0]}
                if failure is None:
                    missing.append(label)
                else:
                    failed.append({**label, **failure})
                continue
            scores = {name: pick(result) for name, pick in SCORES.items()}
            rows += [{**run, "label": label, **scores} for label in variant.labels]
    invocations = [
        entry
        for variant in variants
        for entry in read_json(out / variant.digest / "origin.json") or []
    ]
    return {
        "ablation": ablation.name,
        "question": ablation.question,
        "recipe": recipe_name,
        **merged(invocations),
        "seeds": list(variants[0].recipe.seeds),
        "arms": list(ablation.arms),
        "against": ablation.against,
        "labels": {
            label: {"digest": variant.digest, "changes": as_json(dict(ablation.variants[label]))}
            for label in ablation.variants
            for variant in variants
            if label in variant.labels
        },
        "runs": rows,
        "missing": missing,
        "failed": failed,
    }


def spread(results: dict[str, Any], label: str, arm: str, name: str) -> Spread | None:
    """A score over the seeds, None without a run."""
    return over_seeds(as_arms(results, name), key(label, arm), _picked)


def difference(results: dict[str, Any], label: str, arm: str, name: str) -> Spread | None:
    """A score minus that of the base, paired by seed; None for the base itself.

    The base is the same arm under the first label, or another arm under the same label where the
    ablation compares arms.
    """
    if results["against"] is None:
        base = key(next(iter(results["labels"])), arm)
    else:
        base = key(label, results["against"])
    return paired_difference(as_arms(results, name), key(label, arm), base, _picked)


def interval(differences: Spread) -> tuple[float, float] | None:
    """The 95 % confidence interval of the mean of paired differences, None for a single seed.

    Student's t: mean +- t_{0.975, n - 1} s / sqrt(n), with s the sample standard deviation. It
    takes the differences as normal and independent; with two or three seeds it is wide, and
    rightly so.
    """
    if differences.deviation is None:
        return None
    n = len(differences.values)
    half = float(stats.t.ppf(0.975, n - 1)) * differences.deviation / math.sqrt(n)
    return differences.mean - half, differences.mean + half


def key(label: str, arm: str) -> str:
    """A label's arm, as the summary of a comparison knows an arm."""
    return f"{label}\n{arm}"


def as_arms(results: dict[str, Any], name: str) -> dict[str, Any]:
    """One score of the runs in the form of a comparison's results: `eval.summary` reads it."""
    return {
        "seeds": results["seeds"],
        "runs": [
            {"arm": key(run["label"], run["arm"]), "seed": run["seed"], "value": run[name]}
            for run in results["runs"]
        ],
    }


def _picked(run: Any) -> float | None:
    value: float | None = run["value"]
    return value


# The table of an ablation: for the terminal, and as Markdown.

LEGEND = (
    "mIoU in per cent, mean ± sample standard deviation over n seeds; px: within that trimap band "
    "on the report split; difference of {split} mIoU in points, paired by seed, with its 95 % "
    "interval (Student t); with one seed neither deviation nor interval exists."
)

TITLES = (
    "label",
    "arm",
    "n",
    "report",
    "tune",
    *(f"{width} px" for width in WIDTHS),
    "difference",
    "95 %",
)


def rows(results: dict[str, Any]) -> list[list[str]]:
    """The cells of every label and arm, in order; dashes where there is no run."""
    return [cells(results, label, arm) for label in results["labels"] for arm in results["arms"]]


def cells(results: dict[str, Any], label: str, arm: str) -> list[str]:
    """One row."""
    names = ("report", "tune", *(f"trimap_{width}" for width in WIDTHS))
    scores = [wording.percent(spread(results, label, arm, name)) for name in names]
    split = compared_on(results)
    compared = spread(results, label, arm, split)
    to_base = difference(results, label, arm, split)
    shown = "base" if is_base(results, label, arm) else wording.percent(to_base, signed=True)
    limits = None if to_base is None else interval(to_base)
    within = (
        wording.ABSENT if limits is None else " to ".join(f"{100 * v + 0.0:+.2f}" for v in limits)
    )
    count = "0" if compared is None else str(len(compared.values))
    return [label, arm, count, *scores, shown, within]


def compared_on(results: dict[str, Any]) -> Split:
    """The split of the differences: report, or tune where that alone was scored."""
    only_tune = any(run["tune"] is not None for run in results["runs"]) and not any(
        run["report"] is not None for run in results["runs"]
    )
    return "tune" if only_tune else "report"


def is_base(results: dict[str, Any], label: str, arm: str) -> bool:
    """Whether the others are compared with this row."""
    if results["against"] is None:
        return bool(label == next(iter(results["labels"])))
    return bool(arm == results["against"])


def absent(results: dict[str, Any]) -> list[str]:
    """A line for every run without a result."""
    return [
        f"failed: {run['label']}, {run['arm']}-seed{run['seed']} ({run['digest']}): {run['error']}"
        for run in results["failed"]
    ] + [
        f"missing: {run['label']}, {run['arm']}-seed{run['seed']} ({run['digest']})"
        for run in results["missing"]
    ]


def terminal_table(results: dict[str, Any]) -> Table:
    """The table for the terminal."""
    table = Table(
        title=Text(f"{results['ablation']} on {results['recipe']}"),
        caption=Text(LEGEND.format(split=compared_on(results))),
        box=SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        collapse_padding=True,
    )
    for index, title in enumerate(TITLES):
        table.add_column(title, justify="left" if index < 2 else "right", no_wrap=index > 0)
    for label, *row in rows(results):
        # Over two lines, a number stays whole on a terminal of 80 columns.
        stacked = (cell.replace(" ± ", "\n±").replace(" to ", "\nto ") for cell in row)
        table.add_row(Text(label), *map(Text, stacked))
    return table


def markdown(results: dict[str, Any]) -> str:
    """The table with what it takes to repeat it."""
    lines = [list(TITLES), ["---", "---", *["---:"] * (len(TITLES) - 2)], *rows(results)]
    return "\n".join(
        [
            f"# {results['ablation']} on {results['recipe']}",
            "",
            results["question"],
            "",
            "```",
            results["command"],
            "```",
            "",
            f"- seeds {wording.seeds_line(results)}; machine: {wording.machine_line(results)}; "
            f"wall time {wording.duration(results['wall_seconds'])}",
            f"- commit {wording.commit_line(results)}",
            *(f"- {line}" for line in absent(results)),
            "",
            *(f"| {' | '.join(line)} |" for line in lines),
            "",
            LEGEND.format(split=compared_on(results)),
            "",
        ]
    )
