"""Every arm for every seed, and what is written about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eval import processes
from eval.arms import ARMS
from eval.report import write_report
from eval.report.command import say
from eval.table import comparison_table
from train.arm_runner import ArmRunner, Result
from train.phase import check_learning
from train.protocol import Comparison
from train.recipe import Recipe
from train.run_folder import write_json


def compare(name: str, recipe: Recipe, out: Path, *, resume: bool) -> dict[str, Any]:
    """Run the comparison; write results.json and report.html; print the table.

    Args:
        name: of the recipe.
        recipe: everything the arms depend on.
        out: the run folder.
        resume: go on with what the folder holds.

    Returns:
        The contents of results.json.

    Raises:
        ValueError: the report split, which table and page show, is not to be scored.
    """
    if "report" not in recipe.score:
        raise ValueError(
            "compare shows the report split, and --score leaves it out: give --score tune report, "
            "or make single arms with `python -m train run`."
        )
    comparison = Comparison(name, recipe, out, resume=resume)
    for arm_name in ARMS:
        check_learning(recipe, arm_name, len(comparison.runner.train.classes))
    runs = [comparison.start()]
    for arm in (comparison.unary, comparison.post_hoc, comparison.crf_only, comparison.joint):
        runs += [arm(seed) for seed in recipe.seeds]
    results = gather(comparison.runner, runs)
    if not processes.is_first():
        return results
    write_json(out / "results.json", results)
    comparison.runner.console.print(comparison_table(results))
    comparison.runner.console.print(f"results: {out / 'results.json'}")
    say(
        write_report([out], out / "report.html", split=comparison.runner.report),
        comparison.runner.console,
    )
    return results


def gather(runner: ArmRunner, runs: list[Result]) -> dict[str, Any]:
    """The contents of results.json."""
    splits = {
        "train": runner.train,
        "tune": runner.tune,
        "report": runner.report,
    }
    return {
        "name": runner.folder.name,
        "recipe": runner.name,
        **runner.folder.origin(),
        "config": runner.config,
        "data": {
            "classes": list(runner.train.classes),
            "scored": list(runner.train.scored),
            "splits": {name: len(split) for name, split in splits.items()},
        },
        "seeds": list(runner.recipe.seeds),
        "network_steps": runner.recipe.fit.steps,
        "runs": runs,
    }
