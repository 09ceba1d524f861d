"""The scripts that measure: small problems, one round, and the tables made of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import crf, filters, gpu, networks
from benchmarks.measure import Options, main
from models.describe import shell

PROBLEM = crf.Problem((20, 24), 3, (10.0, 20.0), iterations=5)


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    monkeypatch.setattr(crf, "THETAS", ((10.0, 20.0),))
    monkeypatch.setattr(crf, "SIZES", ((10, 12), (20, 24)))
    monkeypatch.setattr(crf, "LABEL_COUNTS", (2,))
    monkeypatch.setattr(crf, "BATCHES", (1, 2))


def results_of(module: Any, kind: type[Options], out: Path, words: str) -> dict[str, Any]:
    """Run a script's command line, and read what it wrote."""
    main(kind, module.measure, module.table, ["--out", str(out), "--repeats", "1", *words.split()])
    results: dict[str, Any] = json.loads(out.read_text())
    return results


def test_the_crf_is_timed_in_every_sweep_and_shown(monkeypatch, tmp_path: Path, capsys) -> None:
    monkeypatch.setattr(crf, "PATHS", crf.PATHS[:3])  # whatever is installed
    out = tmp_path / "crf.json"
    words = "--shape 20 24 --labels 3 --no-memory"
    results = results_of(crf, crf.CrfOptions, out, words)
    sweeps = [(row["sweep"], row["path"]) for row in results["times"]]
    # Two numbers of threads; with and without theta. The drop-in does not train.
    own, plain, drop_in = (path.name for path in crf.PATHS)
    assert {key: sweeps.count(key) for key in sweeps} == {
        ("inference", own): 2, ("inference", plain): 2, ("inference", drop_in): 2,
        ("training", own): 4, ("training", plain): 4,
        ("labels", own): 1, ("labels", plain): 1, ("labels", drop_in): 1,
        ("batch", own): 2, ("batch", plain): 2,
        ("pixels", own): 2, ("pixels", plain): 2, ("pixels", drop_in): 2,
    }  # fmt: skip
    assert all(gate["largest_difference"] <= 1e-4 for gate in results["gate"])
    shown = capsys.readouterr().out
    main(crf.CrfOptions, crf.measure, crf.table, ["--table", str(out)])
    assert capsys.readouterr().out == shown


def test_a_path_that_computes_something_else_is_refused() -> None:
    wrong = crf.Path(crf.OWN.name, lambda problem: lambda: (problem.unary.softmax(1),), own=True)
    with pytest.raises(ValueError, match="crfrnn does not compute the CRF"):
        crf.refuse(crf.agreement(wrong, PROBLEM))


def test_one_of_two_files_is_wanted(tmp_path: Path) -> None:
    for path in (None, tmp_path):
        with pytest.raises(ValueError, match="either --out"):
            crf.CrfOptions(out=path, table=path)


def test_filters_are_measured_in_their_order(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(filters, "KERNELS", ((12, 13), (3, None)))
    words = (
        "--photos coffee.png chelsea.png --gradient-shape 12 16 --error-shape 24 32 "
        "--time-shape 30 40 --labels 3"
    )
    results = results_of(filters, filters.FiltersOptions, tmp_path / "filters.json", words)
    _, spatial = results["kernels"]
    worst = {
        name: max(error for errors in photos.values() for error in errors.values())
        for name, photos in spatial["errors"].items()
    }
    # The separable filter is exact up to float32: 1e-4 leaves room for smooth inputs, whose
    # deviation from the mean is small beside their values.
    assert worst["separable"] < 1e-4 < worst["lattice, fine"] < worst["lattice"]


def test_flops_of_a_network_are_those_counted_by_hand(tmp_path: Path, capsys) -> None:
    """VGG-16 with LargeFOV at 33 x 33 pixels: grids of 33, 17, 9 and 5, for good."""
    layers = [
        (33, 3, 64), (33, 64, 64), (17, 64, 128), (17, 128, 128), (9, 128, 256), (9, 256, 256),
        (9, 256, 256), *[(5, 256, 512)], *[(5, 512, 512)] * 5, (5, 512, 1024),
    ]  # fmt: skip
    multiplications = sum(side**2 * 9 * into * out for side, into, out in layers)
    multiplications += 5**2 * (1024 * 1024 + 1024 * 21)
    name = "deeplab_v1_largefov"
    assert networks.flops(shell(name), 33) == 2 * multiplications
    words = f"--names {name} --flops-size 33 --no-speed"
    results_of(networks, networks.NetworksOptions, tmp_path / "networks.json", words)
    assert f"| `{name}` | 20,505,429 |" in capsys.readouterr().out


def test_every_task_of_a_network_is_timed() -> None:
    options = networks.NetworksOptions(
        out=Path("out.json"), size=65, repeats=1, limit=1e-9, device="cpu"
    )
    rows = networks.speeds("deeplab_v3plus_mobilenetv2", options)
    assert [(row["task"], row["crf"]) for row in rows] == [
        (task, crf) for crf in (False, True) for task in ("inference", "training")
    ]


def test_every_part_of_the_gpu_runs_on_the_cpu(tmp_path: Path, capsys) -> None:
    words = "--device cpu --reduce 40 --network deeplab_v3plus_mobilenetv2 --labels 3"
    results = results_of(gpu, gpu.GpuOptions, tmp_path / "gpu.json", words)
    assert {row["same_bits"] for row in results["figures"]} == {True}
    assert {row["path"] for row in results["times"]} == {
        path.name for path in gpu.PATHS if not path.missing
    }
    shown = capsys.readouterr().out
    assert "step of deeplab_v3plus_mobilenetv2" in shown
    assert "inference, two labels" in shown
