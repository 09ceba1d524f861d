"""A word that must be one of a few."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def chosen(kind: str, word: str, choices: Iterable[str]) -> str:
    """The word, if it is a choice.

    Raises:
        ValueError: it is not; the message has the choices, and the nearest.
    """
    known = list(choices)
    if word in known:
        return word
    near = get_close_matches(word, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"unknown {kind} {word!r}: choose one of {', '.join(known)}.{hint}")
