"""`python -m train ablate NAME`: expand, check, run what is not there, write the table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from runtime.provenance import chosen
from runtime.run_folder import ArmName, write_json
from train.ablate.ablation import ABLATIONS, Ablation, Changes
from train.ablate.execute import Shard, comparison_of, execute, jobs_of, leave_sweep, write_sweep
from train.ablate.table import absent, gather, markdown, terminal_table
from train.ablate.variants import Variant, expand
from train.recipe import Recipe
from train.recipes import RECIPES

ChooseNetwork = Callable[[Recipe, list[str]], "tuple[Recipe, list[str]]"]

CHOOSING = ("--only", "--shard", "--as-sweep")  # the options that an agent does not repeat


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
        table_only: write the table of what is there, and run nothing.
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
    """`python -m train ablate` with these arguments.

    Raises:
        SystemExit: with status 1 where a run failed.
        ValueError: the name, the recipe, a digest or a shard is not one.
    """
    if not arguments or arguments[0].startswith("-"):
        print(shipped())
        return
    if torch.distributed.is_torchelastic_launched():
        raise ValueError("ablate runs in one process: start several with --shard I/N instead.")
    ablation = ABLATIONS[chosen("ablation", arguments[0], list(ABLATIONS))]
    prog = f"python -m train ablate {ablation.name}"
    wanted = [a for a in arguments[1:] if a not in ("-h", "--help")]
    named, rest = tyro.cli(RecipeName, prog=prog, args=wanted, return_unknown_args=True)
    name = chosen("recipe", named.recipe, list(RECIPES))
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
        write_sweep(options.as_sweep, ablation.name, selected, repeated(arguments))
        print(f"wandb sweep {options.as_sweep}    # prints the `wandb agent` command")
        return
    if not options.table_only:
        leave_sweep()
        prepare = comparison_of(name, ablation, options.out)
        execute(ablation, selected, variants, options.out, prepare, console.print)
    results = gather(ablation, name, variants, options.out)
    folder = options.out / ablation.name
    write_json(folder / "results.json", results)
    (folder / "results.md").write_text(markdown(results), encoding="utf-8")
    console.print(terminal_table(results))
    for line in absent(results):
        console.print(Text(line))
    print(f"results: {folder / 'results.json'}\ntable:   {folder / 'results.md'}")
    digests = {variant.digest for variant in selected}
    failed = [run for run in results["failed"] if run["digest"] in digests]
    if failed and not options.table_only:
        raise SystemExit(1)


def with_arms(ablation: Ablation, arms: Sequence[ArmName]) -> Ablation:
    """The ablation with these of its arms, in its own order; with all where none is named.

    Raises:
        ValueError: it does not have one of them, or compares with one that is not among them.
    """
    for arm in arms:
        chosen(f"arm of {ablation.name}", arm, ablation.arms)
    kept = tuple(arm for arm in ablation.arms if arm in arms)
    return replace(ablation, arms=kept or ablation.arms)


def select(variants: Sequence[Variant], options: AblateOptions) -> list[Variant]:
    """Those of the shard, or those that are named; all without either.

    Raises:
        ValueError: both are given, or a digest is of no variant.
    """
    if options.shard is not None and options.only:
        raise ValueError("--shard and --only both choose the runs: give one of them.")
    if options.shard is not None:
        return Shard.parse(options.shard).of(variants)
    known = {variant.digest: variant for variant in variants}
    return [known[chosen("digest", digest, list(known))] for digest in options.only] or list(
        variants
    )


def plan(ablation: Ablation, variants: Sequence[Variant], out: Path) -> Table:
    """What will be run: a row for each label, with how many runs are finished and failed."""
    seeds = ", ".join(map(str, variants[0].recipe.seeds))
    caption = [f"arms {', '.join(ablation.arms)}; seeds {seeds}"]
    common = ablation.common if len(ablation.variants) > 1 else {}
    if common:
        caption.append(f"in every label: {written(common)}")
    table = Table(
        title=Text(f"{ablation.name}: {ablation.question}"),
        caption=Text("\n".join(caption)),
        box=SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        collapse_padding=True,
    )
    for title in ("label", "changes", "digest", "runs", "finished", "failed"):
        words = title in ("label", "changes")
        table.add_column(title, justify="left" if words else "right", no_wrap=not words)
    for variant in variants:
        jobs = jobs_of(ablation, [variant], out)
        finished = sum(job.result.is_file() for job in jobs)
        failed = sum(job.failure.is_file() and not job.result.is_file() for job in jobs)
        for label in variant.labels:
            of_label = ablation.variants[label].items()
            changes = written({k: v for k, v in of_label if k not in common})
            counts = [str(n) for n in (len(jobs), finished, failed)]
            if label != variant.labels[0]:
                counts = [f"as {variant.labels[0]}", "", ""]
            cells = [label, changes or "none", variant.digest, *counts]
            table.add_row(*(Text(cell) for cell in cells))
    return table


def written(changes: Changes) -> str:
    """Changes on one line."""
    return ", ".join(f"{path} {value}" for path, value in changes.items())


def repeated(arguments: list[str]) -> list[str]:
    """The arguments without those that choose runs, and their values."""
    kept: list[str] = []
    skipping = False
    for word in arguments:
        if word.startswith("--"):
            skipping = word.split("=")[0].replace("_", "-") in CHOOSING
        if not skipping:
            kept.append(word)
    return kept


def shipped() -> str:
    """What there is, and how it is called."""
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
