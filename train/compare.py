"""Every arm for every seed, and what is written about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eval.report import write_report
from eval.table import comparison_table
from train.protocol import Comparison, Result
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
    """
    comparison = Comparison(name, recipe, out, resume=resume)
    runs = [comparison.start()]
    for arm in (comparison.unary, comparison.post_hoc, comparison.crf_only, comparison.joint):
        runs += [arm(seed) for seed in recipe.seeds]
    results = gather(comparison, runs)
    write_json(out / "results.json", results)
    comparison.console.print(comparison_table(results))
    page = write_report(out, results, comparison.report)
    comparison.console.print(f"results: {out / 'results.json'}\nreport:  {page}")
    return results


def gather(comparison: Comparison, runs: list[Result]) -> dict[str, Any]:
    """The contents of results.json."""
    splits = {
        "train": comparison.train,
        "tune": comparison.tune,
        "report": comparison.report,
    }
    return {
        "name": comparison.folder.name,
        "recipe": comparison.name,
        **comparison.folder.origin(),
        "config": comparison.config,
        "data": {
            "classes": list(comparison.train.classes),
            "scored": list(comparison.train.scored),
            "splits": {name: len(split) for name, split in splits.items()},
        },
        "seeds": list(comparison.recipe.seeds),
        "network_steps": comparison.recipe.fit.steps,
        "runs": runs,
    }
