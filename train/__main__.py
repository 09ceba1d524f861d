"""Command line: `python -m train compare`, `run`, `ablate`, `bias` and `swap`."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass, replace
from inspect import getdoc
from pathlib import Path
from textwrap import fill
from typing import Annotated, Any

import tyro

from data.dataset import choose
from data.kinds import KINDS
from models import backbone_named, builder, with_backbone
from runtime import distributed
from runtime.distributed import device_named
from runtime.run_folder import ArmName
from train.ablate.command import ablate_command
from train.arms import Comparison, compare
from train.bias import bias_command
from train.loop import WorkerDied
from train.recipe import Recipe
from train.recipes import RECIPES
from train.state import Stopped, terminable
from train.swap import swap_command

OTHERS: dict[str, Callable[[list[str]], None]] = {
    "ablate": lambda arguments: ablate_command(arguments, choose_kinds),
    "bias": bias_command,
    "swap": swap_command,
}
"""The commands that do not begin with a recipe."""

USAGE = f"""usage: python -m train compare RECIPE [--out DIR] [--resume] [--any.option VALUE]
       python -m train run RECIPE --arm ARM --seed N [--out DIR] [--resume] [--any.option VALUE]
       python -m train ablate NAME [--recipe RECIPE] [--any.option VALUE]
       python -m train bias RUN --out DIR [--direction background|prior]
       python -m train swap RUN [--split tune|report]

the data set, before any other option of it:
  --data.kind NAME        {", ".join(KINDS)}

the network, likewise:
  --model.builder NAME    one of `python -m models list`
  --model.backbone NAME   resnet50, resnet101, xception41, xception65, xception71, or any of timm's
                          that can be dilated, with the head of v3 or v3+

recipes: {fill(", ".join(RECIPES), 88, subsequent_indent=" " * 9, break_on_hyphens=False)}
`python -m train compare RECIPE --help` describes the recipe, `--help-all` every option."""


@dataclass(frozen=True)
class CompareOptions:
    """All arms, all seeds.

    Attributes:
        recipe: everything the arms depend on.
        out: the run folder; runs/RECIPE by default.
        resume: keep what is finished in the folder and go on.
    """

    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    out: Path
    resume: bool = False


@dataclass(frozen=True)
class RunOptions:
    """One arm, and those that it builds on.

    Attributes:
        recipe: everything the arm depends on.
        out: the run folder; runs/RECIPE by default.
        resume: keep what is finished in the folder and go on.
        arm: which one.
        seed: of its batches.
    """

    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    out: Path
    resume: bool = False
    arm: ArmName = field(default="joint")
    seed: int = 0


def main(arguments: list[str]) -> None:
    """Parse the command line and run.

    Raises:
        SystemExit: with a message, when a word or a value is not understood, a file is
            missing, or the configuration does not fit.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return
    with errors_as_messages(), terminable(), warnings.catch_warnings():
        # Of a network of your own, which tyro does not know and reads all the same.
        warnings.filterwarnings("ignore", ".*does not match any type in Union", UserWarning)
        dispatch(arguments)


def dispatch(arguments: list[str]) -> None:
    """Run the command that the first word names.

    Raises:
        ValueError: it names none, or the second word no recipe.
    """
    command = choose("command", arguments[0], ["compare", "run", *OTHERS])
    if command in OTHERS:
        OTHERS[command](arguments[1:])
        return
    if arguments[1:2] in (["-h"], ["--help"]):
        print(USAGE)
        return
    if len(arguments) < 2 or arguments[1].startswith("-"):
        raise ValueError(f"no recipe given: choose one of {', '.join(RECIPES)}.\n{USAGE}")
    name = choose("recipe", arguments[1], RECIPES)
    if {"-h", "--help"} & set(arguments):
        print(recipe_help(name))
        return
    arguments = ["--help" if word == "--help-all" else word for word in arguments]
    options: Any = CompareOptions if command == "compare" else RunOptions
    recipe, rest = choose_kinds(RECIPES[name](), arguments[2:])
    parsed = tyro.cli(
        options,
        prog=f"python -m train {command} {name}",
        default=options(recipe, Path("runs") / name),
        args=rest,
        config=(tyro.conf.AvoidSubcommands,),
    )
    with distributed.joined(device_named(parsed.recipe.device)):
        if command == "compare":
            compare(name, parsed.recipe, parsed.out, resume=parsed.resume)
        else:
            comparison = Comparison(name, parsed.recipe, parsed.out, resume=parsed.resume)
            comparison.run(parsed.arm, parsed.seed)


def recipe_help(name: str) -> str:
    """Describe a recipe on one screen: what it is for, and its options by group."""
    recipe = RECIPES[name]()
    lines = [f"{name}: {getdoc(RECIPES[name])}", "", "options, as the recipe has them:"]
    shown: dict[type, str] = {}
    for option in fields(recipe):
        value, word = getattr(recipe, option.name), f"--{option.name.replace('_', '-')}"
        if not is_dataclass(value):
            lines.append(f"  {word} {value}")
            continue
        names = ", ".join(f.name.replace("_", "-") for f in fields(value) if f.init)
        names = f"as of {shown[type(value)]}" if type(value) in shown else names
        shown.setdefault(type(value), word)
        text = f"{word}.OPTION VALUE: {names}"
        lines.append(
            fill(text, 96, initial_indent="  ", subsequent_indent=" " * 6, break_on_hyphens=False)
        )
    return "\n".join([*lines, "", "--help-all describes every one of them."])


@contextmanager
def errors_as_messages() -> Iterator[None]:
    """End the program with a line instead of a trace where the user can do something about it."""
    try:
        yield
    except (OSError, ValueError, FloatingPointError, WorkerDied) as error:
        raise SystemExit(f"error: {error}") from error
    except KeyboardInterrupt as error:
        print("interrupted: the same command with --resume goes on.", file=sys.stderr)
        raise SystemExit(130) from error
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        raise SystemExit(128 + stopped.signal_number) from stopped


@dataclass(frozen=True)
class Names:
    """Data set and network by name; their numbers are options of `--data`, `--model.network`.

    Attributes:
        kind: one of `data.kinds.KINDS`; the recipe's own if not given.
        builder: one of `python -m models list`.
        backbone: of the networks of v3 and v3+.
    """

    kind: Annotated[str | None, tyro.conf.arg(name="data.kind")] = None
    builder: Annotated[str | None, tyro.conf.arg(name="model.builder")] = None
    backbone: Annotated[str | None, tyro.conf.arg(name="model.backbone")] = None


def choose_kinds(recipe: Recipe, arguments: list[str]) -> tuple[Recipe, list[str]]:
    """Put the data set and network that are named into a recipe; return the other arguments.

    Which options there are depends on the kinds of both, so this comes first.

    Raises:
        ValueError: there is no data set, network or backbone of that name, or they do not go
            together.
    """
    wanted = [a for a in arguments if a not in ("-h", "--help")]  # help is for all options
    prog = "python -m train"
    names, _ = tyro.cli(Names, prog=prog, args=wanted, return_unknown_args=True)
    network = recipe.model.network
    if names.builder is not None:
        network = builder(names.builder).config
    if names.backbone is not None:
        network = with_backbone(network, backbone_named(names.backbone))
    rest = without_options(arguments, ("--data.kind", "--model.builder", "--model.backbone"))
    recipe = replace(recipe, model=replace(recipe.model, network=network))
    if names.kind is not None:
        recipe = replace(recipe, data=KINDS[choose("data set", names.kind, KINDS)]())
    return recipe, rest


def without_options(arguments: list[str], names: tuple[str, ...]) -> list[str]:
    """Leave these options and their values out of the arguments."""
    kept: list[str] = []
    words = iter(arguments)
    for word in words:
        if word in names:
            next(words, None)
        elif not word.startswith(tuple(f"{name}=" for name in names)):
            kept.append(word)
    return kept


if __name__ == "__main__":
    main(sys.argv[1:])
