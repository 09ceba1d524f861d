"""The runs of an ablation, one after the other; one that fails stops no other."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.arms import ArmName
from train.ablate.ablation import Ablation
from train.ablate.expand import Variant
from train.ablate.sharing import sign_for_taken, take_over
from train.protocol import Comparison
from train.run_folder import write_json

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
