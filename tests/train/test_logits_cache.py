"""Which logits are kept, and which are computed again."""

from __future__ import annotations

import torch

from eval.inference import Coarse
from train.arms import LogitsCache


def test_what_was_asked_for_last_is_kept() -> None:
    computed: list[str] = []

    def ask(key: str, floats: int = 10) -> Coarse:
        def compute() -> Coarse:
            computed.append(key)
            return {"image": torch.full((floats,), float(ord(key)))}

        return cache.of(key, compute)

    cache = LogitsCache(80)  # bytes: two splits of ten floats
    for key in "ababcba":  # c puts a out, which b has overtaken
        assert ask(key)["image"][0] == ord(key)
    assert computed == ["a", "b", "c", "a"]
    for _ in range(2):  # too large to be kept
        ask("d", floats=100)
    assert computed[4:] == ["d", "d"]
