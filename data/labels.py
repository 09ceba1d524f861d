"""From the ids that a file stores to class ids, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.reading import Ids
from data.sample import VOID, CorruptSample

NO_CLASS = -1
"""In a table: no file of this data set may hold the id."""

Table = NDArray[np.int64]
"""(256,): stored id -> class id, `VOID`, or `NO_CLASS`."""


def label_table(classes: Mapping[int, int], void: Sequence[int] = (VOID,)) -> Table:
    """The table of a data set.

    Args:
        classes: stored id -> class id; several may share a class.
        void: the stored ids that mean no label.

    Returns:
        (256,) int64; every other id is `NO_CLASS`.
    """
    table = np.full(256, NO_CLASS, dtype=np.int64)
    table[list(void)] = VOID
    for stored, label in classes.items():
        table[stored] = label
    return table


def to_labels(ids: Ids, table: Table, path: Path) -> NDArray[np.int64]:
    """Class ids of a mask.

    Args:
        ids: (H, W) uint8, as stored.
        table: of the data set.
        path: the file, for the message.

    Raises:
        CorruptSample: an id that the data set does not know.
    """
    labels: NDArray[np.int64] = table[ids]
    if labels.size and labels.min() == NO_CLASS:
        wrong = np.unique(ids[labels == NO_CLASS]).tolist()
        raise CorruptSample(f"{path} holds the label ids {wrong}; expected {describe(table)}")
    return labels


def describe(table: Table) -> str:
    """The ids that a file may hold, as runs: "0..20 or 255 (void)"."""
    known = _runs(np.flatnonzero((table != NO_CLASS) & (table != VOID)).tolist())
    void = _runs(np.flatnonzero(table == VOID).tolist())
    return f"{known} or {void} (void)" if void else known


def _runs(values: list[int]) -> str:
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return ", ".join(str(a) if a == b else f"{a}..{b}" for a, b in runs)


def check_scored(scored: Sequence[str], classes: Sequence[str]) -> None:
    """Raise ValueError unless `scored` names classes, each once."""
    for name in scored:
        if name not in classes:
            near = get_close_matches(name, classes, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"expected some of {tuple(classes)}"
            raise ValueError(f"scored: there is no class {name!r}; {hint}")
    if len(set(scored)) != len(scored):
        raise ValueError(f"scored names a class twice: {scored}")


def scored_ids(scored: Sequence[str], classes: Sequence[str]) -> tuple[int, ...]:
    """The ids of the scored classes, ascending; none named means all."""
    return tuple(sorted(classes.index(name) for name in scored or classes))
