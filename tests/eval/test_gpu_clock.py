"""Times by events and on the wall: what is counted, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch

from eval.benchmark.gpu.ceilings import Sizes, matmul_precision, measure_ceilings
from eval.benchmark.gpu.clock import (
    Clock,
    Entry,
    EventClock,
    Task,
    WallClock,
    clock_of,
    found_memory,
    rounds,
)

GPU = torch.device("cuda", 0)


class Halves(Clock):
    """Every call takes half a second."""

    def seconds(self, task: Task) -> float:
        task()
        return 0.5

    def peak_bytes(self, task: Task) -> int | None:
        return None


def test_events_stand_around_the_task_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    class Event:
        def __init__(self, *, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            said.append("record")

        def synchronize(self) -> None:
            said.append("wait")

        def elapsed_time(self, end: Event) -> float:
            return 7.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: said.append(f"all of {device}"))
    seconds = EventClock(GPU).seconds(lambda: said.append("task"))
    assert seconds == pytest.approx(7e-3)
    assert said == ["all of cuda:0", "record", "task", "record", "wait"]


def test_the_peak_is_that_of_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def says(name: str) -> Callable[[torch.device], int]:
        def call(device: torch.device) -> int:
            said.append(name)
            return 12

        return call

    for name in ("synchronize", "reset_peak_memory_stats", "max_memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, says(name))
    assert EventClock(GPU).peak_bytes(lambda: said.append("task")) == 12
    assert said == [
        "synchronize", "reset_peak_memory_stats", "task", "synchronize", "max_memory_allocated"
    ]  # fmt: skip


def test_the_clock_is_the_devices() -> None:
    assert isinstance(clock_of(GPU), EventClock)
    assert isinstance(clock_of(torch.device("cpu")), WallClock)
    assert WallClock().peak_bytes(lambda: None) is None
    assert 0 <= WallClock().seconds(lambda: None) < 1


def test_rounds_take_turns_within_what_is_active() -> None:
    said: list[str] = []

    @contextmanager
    def active() -> Iterator[None]:
        said.append("in")
        yield
        said.append("out")

    entries = [
        Entry(Halves(), lambda: said.append("a")), Entry(Halves(), lambda: said.append("b"), active)
    ]  # fmt: skip
    assert rounds(entries, 2) == [[0.5, 0.5], [0.5, 0.5]]
    assert said == ["a", "in", "b", "out"] * 2


def test_want_of_memory_is_no_error() -> None:
    def large() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    assert not found_memory(Entry(WallClock(), large))
    assert found_memory(Entry(WallClock(), lambda: None))


def test_ceilings_count_bytes_both_ways_and_two_operations() -> None:
    found = measure_ceilings(torch.device("cpu"), Halves(), 1, Sizes(copy_bytes=400, side=10))
    assert found == {"copy": 1600, "float32": 4000, "tf32": 4000, "bfloat16": 4000}


def test_the_precision_of_products_comes_back() -> None:
    before = torch.get_float32_matmul_precision()
    with matmul_precision("high"):
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == before
