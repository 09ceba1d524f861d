"""Command line: `python -m models list` and `python -m models describe NAME`."""

from __future__ import annotations

import sys

from rich.console import Console

from models.describe import description, list_table

USAGE = """usage: python -m models list             parameters and published recipe of all networks
       python -m models describe NAME    every number of a network, and its convolutions"""


def main(arguments: list[str]) -> None:
    """Print what is asked for.

    Raises:
        SystemExit: with a message, when a word or a name is not understood.
    """
    if not arguments or {"-h", "--help"} & set(arguments):
        print(USAGE)
        return
    # Into a file, lines may be as long as they are.
    console = Console() if sys.stdout.isatty() else Console(width=160)
    command, *names = arguments
    if command == "list" and not names:
        console.print(list_table())
    elif command == "describe" and len(names) == 1:
        try:
            tables = description(names[0])
        except ValueError as error:
            raise SystemExit(f"error: {error}") from error
        for table in tables:
            console.print(table)
    else:
        raise SystemExit(f"error: expected `list` or `describe NAME`, got {arguments}.\n{USAGE}")


if __name__ == "__main__":
    main(sys.argv[1:])
