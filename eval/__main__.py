"""Command line: `python -m eval run CHECKPOINT`, and others in the place of `run`: see USAGE."""

from __future__ import annotations

import sys
from collections.abc import Callable

USAGE = """usage: python -m eval run CHECKPOINT [--split SPLIT] [--data.root DIR] [--out FILE]
                          [--scales S ...] [--flip] [--fusion RULE] [--window SIDE]
       python -m eval predict CHECKPOINT IMAGES... --out DIR [--scales S ...] [--flip] [--no-crf]
       python -m eval explore CHECKPOINT-OR-PROBABILITIES IMAGES... [--split SPLIT] [--port N]
       python -m eval export RUN --out DIR [--arms ARM ...] [--seed N]
       python -m eval export CHECKPOINT --out FILE.safetensors
       python -m eval tune CHECKPOINT [--objective OBJECTIVE] [--out DIR]
       python -m eval tune MAPS --maps.images DIR --maps.masks DIR [--out DIR]
       python -m eval report RUNS [--out page.html] [--data.root DIR] [--gallery N]
       python -m eval results add RUNS... --study NAME [--label WORDS] [--arms ARM ...]
       python -m eval results gallery RUN --study NAME [--count N]
       python -m eval results write [--document FILE]
       python -m eval results check [--document FILE]"""

# Imported when called: one command must not wait for what another needs.


def run(arguments: list[str]) -> None:
    """Score a checkpoint."""
    from eval.score import run_command

    run_command(arguments)


def predict(arguments: list[str]) -> None:
    """Write masks of anyone's images."""
    from eval.predict import predict_command

    predict_command(arguments)


def explore(arguments: list[str]) -> None:
    """Move the numbers of a CRF on a page."""
    from eval.explore.page import explore_command

    explore_command(arguments)


def export(arguments: list[str]) -> None:
    """Write finished models, or a network's weights, for others."""
    from eval.export import export_command

    export_command(arguments)


def tune(arguments: list[str]) -> None:
    """Find the settings of a post-hoc CRF."""
    from eval.tune import tune_command

    tune_command(arguments)


def report(arguments: list[str]) -> None:
    """Write a page about runs."""
    from eval.report.page import report_command

    report_command(arguments)


def results_add(arguments: list[str]) -> None:
    """Store runs as experiments of the repository."""
    from eval.results.command import add_command

    add_command(arguments)


def results_gallery(arguments: list[str]) -> None:
    """Draw what arms of a stored study predict."""
    from eval.results.command import gallery_command

    gallery_command(arguments)


def results_write(arguments: list[str]) -> None:
    """Write RESULTS.md."""
    from eval.results.command import write_command

    write_command(arguments)


def results_check(arguments: list[str]) -> None:
    """Recompute every published number."""
    from eval.results.command import check_command

    check_command(arguments)


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "run": run,
    "predict": predict,
    "explore": explore,
    "export": export,
    "tune": tune,
    "report": report,
    "results add": results_add,
    "results gallery": results_gallery,
    "results write": results_write,
    "results check": results_check,
}
"""The words of a command, and what takes the arguments behind them."""


def main(arguments: list[str]) -> None:
    """Parse the command line and run.

    Raises:
        SystemExit: with a message, when a word or a file is not understood.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, "", *(f"{n:<17} {c.__doc__}" for n, c in COMMANDS.items()), sep="\n")
        return
    try:
        from data.dataset import choose

        words = 2 if arguments[0] == "results" else 1
        name = choose("command", " ".join(arguments[:words]), COMMANDS)
        COMMANDS[name](arguments[words:])
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main(sys.argv[1:])
