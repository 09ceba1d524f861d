"""The benchmark: what it measures, what it refuses, and what its tables say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from eval.__main__ import main
from eval.benchmark import BenchmarkOptions, benchmark, run
from eval.benchmark.figures import write_figures
from eval.benchmark.paths import NATIVE, PLAIN
from eval.benchmark.problem import TILE, Problem
from eval.benchmark.summary import batch_costs, exponent, median, ratio, rows_of, thread_scaling
from eval.readme import block_of

TINY = BenchmarkOptions(
    out=Path("tiny.json"),
    repeats=1,
    shape=(20, 24),
    labels=3,
    thetas=((10.0, 20.0),),
    sizes=((10, 12), (20, 24)),
    label_counts=(2,),
    batches=(1, 2),
    iterations=2,
    train_iterations=1,
    memory=False,
)


@pytest.fixture(scope="module", autouse=True)
def _no_peers() -> Any:
    """The same paths whatever is installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "PATHS", tuple(p for p in (NATIVE, PLAIN) if p.missing() is None))
        yield


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    if NATIVE.missing() is not None:
        pytest.skip("the native library is not built")
    threads = torch.get_num_threads()
    measured = benchmark(TINY)
    torch.set_num_threads(threads)
    return json.loads(json.dumps(measured))  # type: ignore[no-any-return]


def test_every_sweep_is_timed(results: dict[str, Any]) -> None:
    counts = {
        sweep: len(rows_of(results, sweep))
        for sweep in ("inference", "training", "labels", "batch", "pixels")
    }
    # Two paths; two numbers of threads; with and without theta.
    assert counts == {"inference": 4, "training": 8, "labels": 2, "batch": 2, "pixels": 4}
    assert all(len(row["seconds"]) == 1 for row in results["times"])
    assert [gate["path"] for gate in results["gate"]] == [NATIVE.name, PLAIN.name]
    assert all(gate["largest_difference"] <= 1e-4 for gate in results["gate"])


def test_peak_memory_grows_with_the_image() -> None:
    from eval.benchmark.memory import CLEAR, measure_memory

    if not CLEAR.exists():
        pytest.skip("the peak of the resident set is counted on Linux alone")
    problem = Problem((300, 300), 21, (10.0, 20.0), 1.0, 1)
    rows = measure_memory(problem, BenchmarkOptions(Path("x.json"), sizes=((300, 300), (600, 600))))
    own = [row for row in rows if row["path"] == NATIVE.name and not row["training"]]
    assert [row["shape"] for row in own] == [(300, 300), (600, 600)]
    # At least the rows and the result; the second has four times the pixels.
    assert own[0]["peak_bytes"] > 2 * own[0]["q_bytes"]
    assert 2 < own[1]["peak_bytes"] / own[0]["peak_bytes"] < 6


def test_a_path_that_computes_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        type(PLAIN), "infer", lambda self, problem: torch.softmax(problem.unary, dim=1)
    )
    with pytest.raises(ValueError, match="does not compute the same CRF"):
        run.agreement(PLAIN, Problem((20, 24), 3, (10.0, 20.0), 3.0, 5))


def test_photograph_is_mirrored_beyond_its_borders() -> None:
    image = Problem((2 * TILE[0], TILE[1] + 3), 2, (1.0, 1.0), 1.0, 1, batch=2).image
    assert image.shape == (2, 3, 2 * TILE[0], TILE[1] + 3)
    assert torch.equal(image, image.flip(2))
    assert torch.equal(image[..., -3:], image[..., TILE[1] - 3 : TILE[1]].flip(3))


def rows(sweep: str, seconds: list[float], **fields: Any) -> dict[str, Any]:
    common = {"shape": [10, 10], "thetas": [1.0, 1.0], "batch": 1, "learn_theta": False}
    return {"sweep": sweep, "path": NATIVE.name, "seconds": seconds} | common | fields


def test_ratios_and_exponents() -> None:
    a, b = rows("x", [3.0, 1.0, 2.0]), rows("x", [1.0, 1.0, 1.0])
    assert median(a) == 2.0
    assert ratio(a, b) == 2.0
    sizes = [rows("pixels", [n**1.5], shape=[n, 1]) for n in (10, 100, 1000)]
    assert exponent(sizes) == pytest.approx(1.5)
    times = {
        "times": [
            rows("inference", [4.0]), rows("inference", [2.0]),
            rows("training", [9.0]), rows("training", [6.0]),
            rows("batch", [1.0]), rows("batch", [3.0], batch=4),
        ]
    }  # fmt: skip
    assert thread_scaling(times) == {"inference": 2.0, "training": 1.5}
    assert batch_costs(times) == {1: 1.0, 4: 0.75}


def test_block_and_figures(results: dict[str, Any], tmp_path: Path) -> None:
    block = block_of(results)
    for part in ("Inference, T = 2", "| 10 / 20 | 2 |", "theta learns", "24 x 20", "pixels^"):
        assert part in block
    written = write_figures(results, tmp_path)
    assert {path.name for path in written} == {
        "tiny-pixels.png", "tiny-pixels.svg", "tiny-ratio.png", "tiny-ratio.svg"
    }  # fmt: skip
    assert all(path.stat().st_size > 5000 for path in written)


def test_errors(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="unknown command 'benchmark lattice'"):
        main(["benchmark", "lattice"])
    with pytest.raises(SystemExit):
        main(["benchmark", "crf", "--out", "x.json", "--repeats", "0"])
    assert "repeats is at least 1, got 0" in capsys.readouterr().err
    with pytest.raises(ValueError, match="expected 1 among them"):
        BenchmarkOptions(Path("x.json"), batches=(2, 4))
    with pytest.raises(ValueError, match="two different numbers of pixels"):
        BenchmarkOptions(Path("x.json"), sizes=((10, 12), (12, 10)))
