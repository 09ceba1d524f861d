"""Logits of whole splits, as many as memory is meant to hold."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from eval.inference import Coarse


class LogitsCache:
    """Keeps what was asked for last; several CRFs stand behind one network.

    Args:
        max_bytes: of all that is kept. A split that takes more is computed whenever it is asked
            for.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._kept: dict[Hashable, Coarse] = {}  # the latest last

    def of(self, key: Hashable, compute: Callable[[], Coarse]) -> Coarse:
        """The logits of that key, computed where they are not kept."""
        found = self._kept.pop(key, None)
        logits = compute() if found is None else found
        self._kept[key] = logits
        sizes = {k: num_bytes(kept) for k, kept in self._kept.items()}
        for oldest in list(self._kept):
            if sum(sizes.values()) <= self.max_bytes:
                break
            del self._kept[oldest], sizes[oldest]
        return logits


def num_bytes(logits: Coarse) -> int:
    """What the logits take in memory."""
    return sum(value.nbytes for value in logits.values())
