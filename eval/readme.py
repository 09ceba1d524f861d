"""Generated blocks in a Markdown text: results are put there by a command, never typed.

A block lies between two comments on lines of their own:

    <!-- results:demo -->
    ...
    <!-- /results:demo -->

Where there are no results yet, the same with `awaits` instead of `results` keeps the place, with
whatever is to be said until then.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from eval import filter_table, network_table
from eval.benchmark import builders_table
from eval.benchmark import table as benchmark_table
from eval.benchmark.gpu import table as gpu_table
from eval.runs import Comparison, of_results
from eval.tables import markdown_block
from eval.tuning import markdown as tuning_table


def block_of(results: Mapping[str, Any]) -> str:
    """The block that a results file fills: of a measurement, or of a comparison of arms.

    Args:
        results: the content of the file; "kind" tells which, and is absent in a comparison.

    Raises:
        KeyError: something is missing: this is not a results file.
    """
    writers = {
        "filters": filter_table.markdown_block,
        "benchmark": benchmark_table.markdown_block,
        "benchmark-gpu": gpu_table.markdown_block,
        "networks": network_table.markdown_block,
        "builders": builders_table.markdown_block,
        "tune": tuning_table.markdown_block,
    }
    if "kind" not in results:
        return markdown_block(Comparison([of_results(results)]))
    return writers[results["kind"]](results)


def open_block(text: str, name: str) -> str:
    """The text with an empty block instead of what stands where its results are awaited.

    Args:
        text: the whole Markdown text; unchanged if it awaits nothing of that name.
        name: the block's name, as in `<!-- awaits:NAME -->`.
    """
    opening, closing = (re.escape(marker) for marker in _markers(name, "awaits"))
    block = "\n".join(_markers(name))
    return re.sub(f"{opening}.*?{closing}", lambda _: block, text, count=1, flags=re.DOTALL)


def replace_block(text: str, name: str, block: str) -> str:
    """The text with another content between the markers of a block.

    Args:
        text: the whole Markdown text.
        name: the block's name, as in `<!-- results:NAME -->`.
        block: the new content, without markers; blank lines at its ends do not matter.

    Returns:
        The text; unchanged outside the markers.

    Raises:
        ValueError: a marker is missing, appears twice, or the two are in the wrong order; or the
            block contains a marker itself.
    """
    opening, closing = _markers(name)
    if opening in block or closing in block:
        raise ValueError(f"the new content of block {name!r} contains one of its own markers")
    start, stop = _bounds(text, name)
    return f"{text[:start]}\n{block.strip()}\n{text[stop:]}"


def read_block(text: str, name: str) -> str:
    """The content between the markers of a block, without blank lines at its ends.

    Raises:
        ValueError: as `replace_block` for the markers.
    """
    start, stop = _bounds(text, name)
    return text[start:stop].strip()


def check_block(text: str, name: str, block: str) -> None:
    """Demand that a block holds what would be generated now.

    Raises:
        ValueError: it does not; the message shows the difference. Or as `replace_block` for the
            markers.
    """
    found, expected = read_block(text, name), block.strip()
    if found != expected:
        raise ValueError(
            f"the block {name!r} is not what its results give; generate it again:\n"
            + differing_lines(found, expected)
        )


def differing_lines(found: str, expected: str) -> str:
    """What two texts differ in, line by line."""
    return "\n".join(
        difflib.unified_diff(
            found.splitlines(), expected.splitlines(), "found", "expected", lineterm="", n=0
        )
    )


def _markers(name: str, what: str = "results") -> tuple[str, str]:
    return f"<!-- {what}:{name} -->", f"<!-- /{what}:{name} -->"


def _bounds(text: str, name: str) -> tuple[int, int]:
    """Where the content starts (after the first marker) and stops (before the second)."""
    for marker in _markers(name):
        if (count := text.count(marker)) != 1:
            raise ValueError(f"expected the marker {marker} exactly once, found it {count} times")
    opening, closing = _markers(name)
    start, stop = text.index(opening) + len(opening), text.index(closing)
    if stop < start:
        raise ValueError(f"expected {opening} before {closing}, found them the other way round")
    return start, stop


@dataclass(frozen=True)
class ReadmeOptions:
    """Write the tables of a README anew from stored results.

    Attributes:
        results: files of results; each fills the block of its own name, without .json.
        readme: the Markdown file.
    """

    results: tyro.conf.Positional[tuple[Path, ...]]
    readme: Path = Path("README.md")


def readme(options: ReadmeOptions) -> None:
    """Fill the block of every results file."""
    text = options.readme.read_text(encoding="utf-8")
    for path in options.results:
        try:
            block = block_of(json.loads(path.read_text(encoding="utf-8")))
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(
                f"{path} is not a results file that `train compare`, `eval filters`, `eval "
                "benchmark` or `eval networks` wrote."
            ) from error
        text = replace_block(open_block(text, path.stem), path.stem, block)
    options.readme.write_text(text, encoding="utf-8")


def readme_command(arguments: list[str]) -> None:
    """Parse and write."""
    readme(tyro.cli(ReadmeOptions, prog="python -m eval readme", args=arguments))
