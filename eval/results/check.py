"""Whether every published number follows from what is stored."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.metrics import harm_rate
from eval.results.document import document
from eval.results.record import kept_scores
from eval.results.store import Record, Store

ROUNDING = 1e-9
"""Scores are ratios and means of some ten thousand sums in float64, which another machine may add
in another order: 1e-16 each."""


@dataclass(frozen=True)
class Places:
    """Where what is checked lies.

    Attributes:
        experiments: the studies.
        document: RESULTS.md.
    """

    experiments: Path = Path("experiments")
    document: Path = Path("RESULTS.md")


def problems(places: Places) -> Iterator[str]:
    """A sentence for everything that is not what its sources give."""
    store = Store(places.experiments)
    yield from record_problems(store)
    yield from document_problems(store, places.document)


def record_problems(store: Store) -> Iterator[str]:
    """Stored scores that are not those of the stored counts, and counts that no run has."""
    named: set[str] = set()
    for study in store.studies():
        for record in study.records:
            what = f"{study.name}, {record['label']}, {record['arm']}-seed{record['seed']}"
            named |= {record[key] for key in ("counts", "counts_before") if key in record}
            try:
                expected = recomputed(store, record)
            except (ValueError, FileNotFoundError) as error:
                yield f"{what}: {error}"
                continue
            for key, value in expected.items():
                for name, found, wanted in unequal(record[key], value):
                    yield f"{what}: {key}{name} is {found}, its counts give {wanted}"
    for path in sorted(store.counts_path("").parent.glob("*.npz")):
        if path.stem not in named:
            yield f"{path} belongs to no run: delete it."


def recomputed(store: Store, record: Record) -> dict[str, Any]:
    """What of a record follows from its counts."""
    if "failed" in record:
        return {}
    after = store.counts(record["counts"])
    found: dict[str, Any] = {"scores": kept_scores(after)}
    if "counts_before" in record:
        before = store.counts(record["counts_before"])
        found |= {"scores_before": kept_scores(before), "harm_rate": harm_rate(before, after)}
    return found


def unequal(found: Any, wanted: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every value below `found` that is another than below `wanted`: its path, and both."""
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        for key in dict.fromkeys([*wanted, *found]):
            yield from unequal(found.get(key), wanted.get(key), f"{name}.{key}")
    elif isinstance(wanted, float) and isinstance(found, float | int):
        if not math.isclose(found, wanted, rel_tol=ROUNDING, abs_tol=ROUNDING):
            yield name, found, wanted
    elif found != wanted:
        yield name, found, wanted


def document_problems(store: Store, path: Path) -> Iterator[str]:
    """Whether the document is what the studies give."""
    found = path.read_text(encoding="utf-8") if path.is_file() else ""
    try:
        expected = document(store)
    except (ValueError, FileNotFoundError) as error:
        yield f"{path} cannot be written: {error}"
        return
    if found != expected:
        lines = difflib.unified_diff(
            found.splitlines(), expected.splitlines(), "found", "expected", lineterm="", n=0
        )
        yield f"{path} is not what {store.root} gives; write it again:\n" + "\n".join(lines)
