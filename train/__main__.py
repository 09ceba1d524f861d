"""Command line: `python -m train run RECIPE` and `python -m train compare RECIPE`."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import tyro

from eval.arms import ArmName
from train.compare import compare
from train.protocol import Comparison
from train.recipes import RECIPES, Recipe

USAGE = f"""usage: python -m train compare RECIPE [--out DIR] [--resume] [--any.option VALUE]
       python -m train run RECIPE --arm ARM --seed N [--out DIR] [--resume] [--any.option VALUE]

recipes: {", ".join(RECIPES)}
`python -m train compare RECIPE --help` lists every option with its value."""


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
    command = chosen("command", arguments[0], ["compare", "run"])
    if len(arguments) < 2 or arguments[1].startswith("-"):
        raise SystemExit(f"no recipe given: choose one of {', '.join(RECIPES)}.\n{USAGE}")
    name = chosen("recipe", arguments[1], list(RECIPES))
    options: Any = CompareOptions if command == "compare" else RunOptions
    try:
        parsed = tyro.cli(
            options,
            prog=f"python -m train {command} {name}",
            default=options(RECIPES[name](), Path("runs") / name),
            args=arguments[2:],
            config=(tyro.conf.AvoidSubcommands,),
        )
        if command == "compare":
            compare(name, parsed.recipe, parsed.out, resume=parsed.resume)
        else:
            comparison = Comparison(name, parsed.recipe, parsed.out, resume=parsed.resume)
            comparison.run(parsed.arm, parsed.seed)
    except (OSError, ValueError, FloatingPointError) as error:
        raise SystemExit(f"error: {error}") from error


def chosen(kind: str, word: str, choices: list[str]) -> str:
    """The word if it is a choice; an exit that suggests the nearest if not."""
    if word in choices:
        return word
    near = get_close_matches(word, choices, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise SystemExit(f"unknown {kind} {word!r}: choose one of {', '.join(choices)}.{hint}")


if __name__ == "__main__":
    main(sys.argv[1:])
