"""Run the variants of an ablation: here, in shards, or as a sweep of W&B."""

from __future__ import annotations

import json
import os
import re
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.run_folder import ArmName, write_json
from train.ablate.ablation import Ablation
from train.ablate.variants import Variant, sign_for_taken, take_over
from train.arms import Comparison
from train.recipe import network_inputs
from train.tracking import PROJECT

# An ablation over many machines: shards, or a sweep that `wandb agent` works through.

AGENT_VARIABLES = ("WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH", "WANDB_RUN_ID")


@dataclass(frozen=True)
class Shard:
    """Part `index` of `count`, from 1."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """The shard written "i/n".

        Raises:
            ValueError: not of that form, or i is not in 1..n.
        """
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise ValueError(f"--shard must be i/n with i in 1..n, such as 2/4, got {text!r}.")
        return cls(int(match[1]), int(match[2]))

    def of(self, variants: Sequence[Variant]) -> list[Variant]:
        """Its variants: every variant is in exactly one shard, sizes differ by at most one.

        Variants that share a start lie side by side before the cuts, so only those that a cut
        falls between train the same start on two machines.
        """
        starts = [network_inputs(variant.recipe, "start") for variant in variants]
        order = sorted(range(len(variants)), key=lambda k: (starts.index(starts[k]), k))
        cuts = [part * len(order) // self.count for part in (self.index - 1, self.index)]
        return [variants[k] for k in order[slice(*cuts)]]


def write_sweep(path: Path, name: str, variants: Sequence[Variant], arguments: list[str]) -> None:
    """A W&B sweep, one run of an agent for each variant, as JSON, which is YAML too.

    Args:
        path: of the file for `wandb sweep`.
        name: of the ablation.
        variants: to be run.
        arguments: of this command line, after the name, that every agent repeats.
    """
    sweep: dict[str, Any] = {
        "project": PROJECT,
        "name": name,
        "description": "python -m train ablate, a digest for each run",
        "program": "train/__main__.py",
        "method": "grid",
        "parameters": {"only": {"values": [variant.digest for variant in variants]}},
        "command": [
            *("${env}", "${interpreter}", "-m", "train", "ablate", name),
            *arguments,
            "${args}",
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(sweep, indent=2) + "\n", encoding="utf-8")


def leave_sweep() -> None:
    """Let the arms be runs of their own where `wandb agent` started this process.

    The agent hands one run id to the process, and W&B would log all arms and seeds into that one
    run. The sweep only deals out the work; the runs are in the group of the ablation.
    """
    for name in AGENT_VARIABLES:
        os.environ.pop(name, None)


# The runs of an ablation, one after the other; one that fails stops no other.

FAILURES = (
    ArithmeticError,
    AssertionError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What a run may die of without the others. Not an interrupt: that ends them all."""

RunArm = Callable[[ArmName, int], object]
Prepare = Callable[[Variant], RunArm]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """One arm and seed of a variant, in its folder."""

    variant: Variant
    arm: ArmName
    seed: int
    out: Path

    @property
    def folder(self) -> Path:
        """What the run leaves is here."""
        return self.out / self.variant.digest / "arms" / f"{self.arm}-seed{self.seed}"

    @property
    def result(self) -> Path:
        """There when it is finished."""
        return self.folder / "result.json"

    @property
    def failure(self) -> Path:
        """There when the last attempt failed."""
        return self.folder / "failed.json"

    @property
    def name(self) -> str:
        """For a line of text."""
        return f"{self.variant.digest} ({self.variant.labels[0]}) {self.arm}-seed{self.seed}"


def jobs_of(ablation: Ablation, variants: Sequence[Variant], out: Path) -> list[Job]:
    """Every run, variant by variant."""
    return [
        Job(variant, arm, seed, out)
        for variant in variants
        for arm, seed in variant.jobs(ablation.arms)
    ]


def comparison_of(recipe_name: str, ablation: Ablation, out: Path) -> Prepare:
    """Makes the comparison of a variant, in its own folder, that goes on with what is there."""

    def prepare(variant: Variant) -> RunArm:
        comparison = Comparison(recipe_name, variant.recipe, out / variant.digest, resume=True)
        comparison.runner.group = ablation.name
        return comparison.run

    return prepare


def execute(
    ablation: Ablation,
    chosen: Sequence[Variant],
    variants: Sequence[Variant],
    out: Path,
    prepare: Prepare,
    say: Say,
) -> None:
    """Run what has no result yet.

    Args:
        ablation: names the arms.
        chosen: the variants to run.
        variants: all of them: what one has trained, the others may take over.
        out: holds a run folder for each, by digest.
        prepare: gives what runs an arm and seed of a variant.
        say: takes a line of text.
    """
    for variant in chosen:
        jobs = [job for job in jobs_of(ablation, [variant], out) if not job.result.is_file()]
        if jobs:
            say(f"{variant.digest}: {', '.join(variant.labels)}")
        run: RunArm | None = None
        for job in jobs:
            try:
                if run is None:
                    for taken in take_over(variant, ablation.arms, variants, out):
                        say(f"  {taken} taken over")
                    run = prepare(variant)
                    sign_for_taken(variant, out)
                if not job.result.is_file():  # not taken over
                    run(job.arm, job.seed)
            except FAILURES as error:
                last = " ".join(traceback.format_exception_only(error)[-1].split())
                where = traceback.extract_tb(error.__traceback__)[-1]
                place = f"{Path(where.filename).name}:{where.lineno} in {where.name}"
                write_json(job.failure, {"error": last, "at": place})
                say(f"  {job.arm}-seed{job.seed} failed: {last}")
            else:
                job.failure.unlink(missing_ok=True)
