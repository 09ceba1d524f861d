"""Run an ablation, `python -m train ablate NAME`: expand, check, run what is missing, tabulate."""

from __future__ import annotations

import json
import os
import re
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from data.dataset import choose
from eval import tables
from runtime.run_folder import ArmName, write_json
from train.ablate.ablation import ABLATIONS, Ablation, Changes
from train.ablate.table import absent, gather, markdown, terminal_table
from train.ablate.variants import Variant, expand, jobs_of, record_provenance, take_over
from train.arms import Comparison
from train.recipe import Recipe, network_inputs
from train.recipes import RECIPES
from train.state import Stopped
from train.tracking import PROJECT

ChooseNetwork = Callable[[Recipe, list[str]], "tuple[Recipe, list[str]]"]

CHOOSING = ("--only", "--shard", "--as-sweep")  # the options that an agent does not repeat
AGENT_VARIABLES = ("WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH", "WANDB_RUN_ID")


@dataclass(frozen=True)
class AblateOptions:
    """An ablation of a recipe.

    Attributes:
        settings: everything that the labels do not change.
        out: holds a run folder for each digest, and the tables; runs/ablate/RECIPE by default.
            Ablations of one folder share what they have in common.
        arms: of the ablation's, to run and show these alone; all if none is named.
        shard: i/n: run the i-th of n parts, from 1.
        only: run these digests alone.
        as_sweep: write a W&B sweep to this file and run nothing.
        list: show what would be run, and run nothing.
        table_only: write the table of what is finished, and run nothing.
    """

    settings: Annotated[Recipe, tyro.conf.arg(name="")]
    out: Path
    arms: tuple[ArmName, ...] = ()
    shard: str | None = None
    only: tuple[str, ...] = ()
    as_sweep: Path | None = None
    list: bool = False
    table_only: bool = False


@dataclass(frozen=True)
class RecipeName:
    """The recipe by name; its values are options.

    Attributes:
        recipe: one of `train.recipes`.
    """

    recipe: str = "collage"


def ablate_command(arguments: list[str], choose_network: ChooseNetwork) -> None:
    """Parse the arguments of `python -m train ablate` and run.

    Raises:
        SystemExit: with status 1 where a run failed.
        ValueError: the name, the recipe, a digest or a shard is not one.
    """
    if not arguments or arguments[0].startswith("-"):
        print(usage())
        return
    if torch.distributed.is_torchelastic_launched():
        raise ValueError("ablate runs in one process: start several with --shard I/N instead.")
    ablation = ABLATIONS[choose("ablation", arguments[0], list(ABLATIONS))]
    prog = f"python -m train ablate {ablation.name}"
    wanted = [a for a in arguments[1:] if a not in ("-h", "--help")]
    named, rest = tyro.cli(RecipeName, prog=prog, args=wanted, return_unknown_args=True)
    name = choose("recipe", named.recipe, list(RECIPES))
    if len(wanted) < len(arguments) - 1:
        rest.append("--help")
    recipe, rest = choose_network(RECIPES[name](), rest)
    options = tyro.cli(
        AblateOptions,
        prog=prog,
        default=AblateOptions(recipe, Path("runs", "ablate") / name),
        args=rest,
        config=(tyro.conf.AvoidSubcommands,),
    )
    ablate(ablation, name, options, arguments[1:])


def ablate(ablation: Ablation, name: str, options: AblateOptions, arguments: list[str]) -> None:
    """Do what the options say; `arguments` are those that a sweep's agents repeat."""
    console = Console()
    ablation = with_arms(ablation, options.arms)
    variants = expand(ablation, options.settings)
    selected = select(variants, options)
    console.print(plan(ablation, variants, options.out))
    if options.list:
        return
    if options.as_sweep is not None:
        write_sweep(options.as_sweep, ablation.name, selected, arguments)
        print(f"wandb sweep {options.as_sweep}    # prints the `wandb agent` command")
        return
    if not options.table_only:
        leave_sweep()
        run_arm = comparison_of(name, ablation, options.out)
        execute(ablation, selected, variants, options.out, run_arm, console.print)
    results = gather(ablation, name, variants, options.out)
    folder = options.out / ablation.name
    write_json(folder / "results.json", results)
    (folder / "results.md").write_text(markdown(results), encoding="utf-8")
    console.print(terminal_table(results))
    for line in absent(results):
        console.print(Text(line))
    print(f"results: {folder / 'results.json'}\ntable:   {folder / 'results.md'}")
    digests = {variant.digest for variant in selected}
    failed = any(run["digest"] in digests for run in results["failed"])
    if failed and not options.table_only:
        raise SystemExit(1)


def with_arms(ablation: Ablation, arms: Sequence[ArmName]) -> Ablation:
    """Leave these of the arms of an ablation, in its own order; all where none is named.

    Raises:
        ValueError: it does not have one of them, or compares with one that is not among them.
    """
    for arm in arms:
        choose(f"arm of {ablation.name}", arm, ablation.arms)
    return replace(ablation, arms=tuple(a for a in ablation.arms if a in arms) or ablation.arms)


def select(variants: Sequence[Variant], options: AblateOptions) -> list[Variant]:
    """Choose the variants of the shard, or those that are named; all without either.

    Raises:
        ValueError: both are given, or a digest is of no variant.
    """
    if options.shard is not None and options.only:
        raise ValueError("--shard and --only both choose the runs: give one of them.")
    if options.shard is not None:
        return shard_of(variants, options.shard)
    known = {variant.digest: variant for variant in variants}
    named = [known[choose("digest", digest, list(known))] for digest in options.only]
    return named or list(variants)


def shard_of(variants: Sequence[Variant], text: str) -> list[Variant]:
    """Return the variants of shard "i/n": each is in one shard, sizes differ by at most one.

    Variants that share a start lie side by side before the cuts, so only those that a cut falls
    between train the same start on two machines.

    Raises:
        ValueError: not of that form, or i is not in 1..n.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise ValueError(f"--shard must be i/n with i in 1..n, such as 2/4, got {text!r}.")
    index, count = int(match[1]), int(match[2])
    starts = [network_inputs(variant.recipe, "start") for variant in variants]
    order = sorted(range(len(variants)), key=lambda k: (starts.index(starts[k]), k))
    cuts = [part * len(order) // count for part in (index - 1, index)]
    return [variants[k] for k in order[slice(*cuts)]]


def plan(ablation: Ablation, variants: Sequence[Variant], out: Path) -> Table:
    """Tabulate what will be run: for each label its changes and its runs, finished and failed."""
    seeds = ", ".join(map(str, variants[0].recipe.seeds))
    caption = [f"arms {', '.join(ablation.arms)}; seeds {seeds}"]
    common = ablation.common if len(ablation.variants) > 1 else {}
    if common:
        caption.append(f"in every label: {written(common)}")
    rows = []
    for variant in variants:
        jobs = jobs_of(ablation, [variant], out)
        finished = sum(job.result.is_file() for job in jobs)
        failed = sum(job.failure.is_file() and not job.result.is_file() for job in jobs)
        for label in variant.labels:
            own = {k: v for k, v in ablation.variants[label].items() if k not in common}
            counts = [str(n) for n in (len(jobs), finished, failed)]
            if label != variant.labels[0]:
                counts = [f"as {variant.labels[0]}", "", ""]
            rows.append([label, written(own) or "none", variant.digest, *counts])
    return tables.terminal(
        f"{ablation.name}: {ablation.question}",
        ("label", "changes", "digest", "runs", "finished", "failed"),
        rows,
        caption="\n".join(caption),
        left=2,
    )


def written(changes: Changes) -> str:
    """Write changes on one line."""
    return ", ".join(f"{path} {value}" for path, value in changes.items())


def usage() -> str:
    """Describe the command and the ablations that are shipped."""
    lines = [
        "usage: python -m train ablate NAME [--recipe RECIPE] [--out DIR] [--seeds N ...]",
        "           [--list | --table-only | --as-sweep FILE] [--shard I/N | --only DIGEST ...]",
        "           [--any.recipe.option VALUE]",
        "",
    ]
    for ablation in ABLATIONS.values():
        lines += [f"{ablation.name}: {ablation.question}"]
        lines += [f"    {', '.join(ablation.variants)}; arms: {', '.join(ablation.arms)}"]
    return "\n".join(lines)


# A sweep of W&B, that `wandb agent` works through on many machines.


def write_sweep(path: Path, name: str, variants: Sequence[Variant], arguments: list[str]) -> None:
    """Write a W&B sweep, one run of an agent for each variant, as JSON, which is YAML too.

    Args:
        path: of the file for `wandb sweep`.
        name: of the ablation.
        variants: to be run.
        arguments: of this command line, after the name. Every agent repeats those that do not
            choose runs.
    """
    repeated: list[str] = []
    skipping = False
    for word in arguments:
        if word.startswith("--"):
            skipping = word.split("=")[0].replace("_", "-") in CHOOSING
        if not skipping:
            repeated.append(word)
    sweep: dict[str, Any] = {
        "project": PROJECT,
        "name": name,
        "description": "python -m train ablate, a digest for each run",
        "program": "train/__main__.py",
        "method": "grid",
        "parameters": {"only": {"values": [variant.digest for variant in variants]}},
        "command": [
            *("${env}", "${interpreter}", "-m", "train", "ablate", name),
            *repeated,
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


# The runs, one after the other; one that fails stops no other.

RunArm = Callable[[ArmName, int], object]
Prepare = Callable[[Variant], RunArm]


def comparison_of(recipe_name: str, ablation: Ablation, out: Path) -> Prepare:
    """Make a function that resumes the comparison of a variant in its own folder."""

    def prepare(variant: Variant) -> RunArm:
        comparison = Comparison(recipe_name, variant.recipe, out / variant.digest, resume=True)
        comparison.runner.group = ablation.name
        return comparison.run

    return prepare


def execute(
    ablation: Ablation,
    selected: Sequence[Variant],
    variants: Sequence[Variant],
    out: Path,
    prepare: Prepare,
    announce: Callable[[str], None],
) -> None:
    """Run what has no result yet.

    Args:
        ablation: names the arms.
        selected: the variants to run.
        variants: all of them: what one has trained, the others may take over.
        out: holds a run folder for each, by digest.
        prepare: returns what runs an arm and seed of a variant.
        announce: prints a line of text.
    """
    for variant in selected:
        jobs = [job for job in jobs_of(ablation, [variant], out) if not job.result.is_file()]
        if jobs:
            announce(f"{variant.digest}: {', '.join(variant.labels)}")
        run: RunArm | None = None
        for job in jobs:
            try:
                if run is None:
                    for taken in take_over(variant, ablation.arms, variants, out):
                        announce(f"  {taken} taken over")
                    run = prepare(variant)
                    record_provenance(variant, out)
                if not job.result.is_file():  # not taken over
                    run(job.arm, job.seed)
            except Stopped:  # ends them all, as an interrupt does
                raise
            # Whatever one run dies of, the others go on; it is recorded, and the status is 1.
            except Exception as error:  # noqa: BLE001
                last = " ".join(traceback.format_exception_only(error)[-1].split())
                where = traceback.extract_tb(error.__traceback__)[-1]
                place = f"{Path(where.filename).name}:{where.lineno} in {where.name}"
                write_json(job.failure, {"error": last, "at": place})
                announce(f"  {job.arm}-seed{job.seed} failed: {last}")
            else:
                job.failure.unlink(missing_ok=True)
