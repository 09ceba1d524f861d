"""The scripts that measure: small problems, one round, and the tables made of them."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import crf, filters, folder, gpu, networks, patterns
from benchmarks.measure import in_process, main
from crfrnn import densecrf
from models.describe import shell

PROBLEM = crf.Problem((20, 24), 3, (10.0, 20.0), iterations=5)
SCRIPTS: dict[Any, tuple[Any, str]] = {
    crf: (crf.CrfOptions, "--shape 20 24 --labels 3 --no-memory"),
    filters: (filters.FiltersOptions, "--photos coffee.png chelsea.png --gradient-shape 12 16 "
              "--error-shape 24 32 --time-shape 30 40 --labels 3"),
    networks: (networks.NetworksOptions,
               "--names deeplab_v1_largefov --flops-size 33 --no-speed"),
    gpu: (gpu.GpuOptions, "--device cpu --reduce 40 --network deeplab_v3plus_mobilenetv2 "
          "--labels 3"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    monkeypatch.setattr(crf, "PATHS", crf.PATHS[:3])  # whatever is installed
    monkeypatch.setattr(crf, "THETAS", ((10.0, 20.0),))
    monkeypatch.setattr(crf, "SIZES", ((10, 12), (20, 24)))
    monkeypatch.setattr(crf, "LABEL_COUNTS", (2,))
    monkeypatch.setattr(crf, "BATCHES", (1, 2))
    monkeypatch.setattr(filters, "KERNELS", ((12, 13), (3, None)))


def results_of(module: Any, out: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Run a script's command line, and read what it wrote and shows again."""
    options, words = SCRIPTS[module]
    run = options, module.measure, module.table
    main(*run, ["--out", str(out), "--repeats", "1", *words.split()])
    shown = capsys.readouterr().out
    main(*run, ["--table", str(out)])
    assert capsys.readouterr().out == shown
    results: dict[str, Any] = json.loads(out.read_text())
    return results


def test_the_crf_is_timed_in_every_sweep(tmp_path: Path, capsys) -> None:
    results = results_of(crf, tmp_path / "crf.json", capsys)
    assert all(gate["largest_difference"] <= 1e-4 for gate in results["gate"])
    every = {(row["sweep"], row["path"]) for row in results["times"]}
    sweeps = ("inference", "training", "labels", "batch", "pixels")
    own, plain, drop_in = (path.name for path in crf.PATHS)
    expected = {(sweep, name) for sweep in sweeps for name in (own, plain)}
    # The drop-in neither trains nor takes a batch.
    assert every == expected | {(sweep, drop_in) for sweep in ("inference", "labels", "pixels")}


def test_a_path_that_computes_something_else_is_refused() -> None:
    wrong = crf.Path(crf.OWN.name, lambda problem: lambda: (problem.unary.softmax(1),), own=True)
    with pytest.raises(ValueError, match="crfrnn does not compute the CRF"):
        crf.refuse(crf.agreement(wrong, PROBLEM))
    with pytest.raises(ValueError, match="either --out"):
        crf.CrfOptions(out=None, table=None)


def test_filters_are_measured_in_their_order(tmp_path: Path, capsys) -> None:
    _, spatial = results_of(filters, tmp_path / "filters.json", capsys)["kernels"]
    worst = {
        name: max(error for errors in photos.values() for error in errors.values())
        for name, photos in spatial["errors"].items()
    }
    # The separable filter is exact up to float32: 1e-4 leaves room for smooth inputs, whose
    # deviation from the mean is small beside their values.
    assert worst["separable"] < 1e-4 < worst["lattice, fine"] < worst["lattice"]


def test_flops_and_tasks_of_a_network(tmp_path: Path, capsys) -> None:
    """VGG-16 with LargeFOV at 33 x 33 pixels by hand: grids of 33, 17, 9 and 5."""
    layers = [
        (33, 3, 64), (33, 64, 64), (17, 64, 128), (17, 128, 128), (9, 128, 256), (9, 256, 256),
        (9, 256, 256), (5, 256, 512), *[(5, 512, 512)] * 5, (5, 512, 1024),
    ]  # fmt: skip
    multiplications = sum(side**2 * 9 * into * out for side, into, out in layers)
    multiplications += 5**2 * (1024 * 1024 + 1024 * 21)
    assert networks.flops(shell("deeplab_v1_largefov"), 33) == 2 * multiplications
    results_of(networks, tmp_path / "networks.json", capsys)
    options = networks.NetworksOptions(
        out=Path("out.json"), size=65, repeats=1, limit=1e-9, device="cpu"
    )
    rows = networks.speeds("deeplab_v3plus_mobilenetv2", options)
    expected = [(task, crf) for crf in (False, True) for task in ("inference", "training")]
    assert [(row["task"], row["crf"]) for row in rows] == expected


def test_every_part_of_the_gpu_runs_on_the_cpu(tmp_path: Path, capsys) -> None:
    results = results_of(gpu, tmp_path / "gpu.json", capsys)
    assert {row["same_bits"] for row in results["figures"]} == {True}
    paths = {path.name for path in gpu.PATHS if not path.missing}
    assert {row["path"] for row in results["times"]} == paths


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux counts the peak")
def test_the_peak_of_a_crf_is_a_multiple_of_its_marginals() -> None:
    problem = crf.Problem((150, 200), 21, iterations=1)
    peak = in_process(crf.peak_of, "crfrnn", problem, 1)
    q_bytes = 4 * problem.unary.numel()
    assert peak is not None
    assert q_bytes < peak < 30 * q_bytes


@pytest.mark.parametrize("pattern", patterns.PATTERNS, ids=lambda pattern: pattern.project)
@pytest.mark.filterwarnings("ignore:.*sums over axis 0")
def test_the_calls_of_public_projects_run(pattern: patterns.Pattern) -> None:
    """And give the mask of the C++ package, where that is installed."""
    shape = tuple(side // 10 for side in pattern.shape)
    given = patterns.scene(shape, pattern.labels)
    mask = pattern.step(densecrf, densecrf, given)
    assert mask.shape == shape
    assert set(np.unique(mask)) <= {*range(pattern.labels), patterns.UNSURE}
    assert len(np.unique(mask)) > 1
    try:
        theirs = pattern.step(*patterns.peer(), given)
    except ValueError:
        return
    assert (mask == theirs).mean() > 0.995


def test_a_folder_is_sharpened_and_compared(tmp_path: Path) -> None:
    """By our command alone: the other package may not be there."""
    rng = np.random.default_rng(0)
    images, maps = tmp_path / "images", tmp_path / "maps"
    for made in (images, maps):
        made.mkdir()
    for name in "abc":
        pixels = rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{name}.jpg")
        np.save(maps / f"{name}.npy", rng.dirichlet(np.ones(3), (9, 12)).transpose(2, 0, 1))
    outs = [tmp_path / "one", tmp_path / "two"]
    for out in outs:
        assert folder.run(folder.WAYS[0], images, maps, out, "stego", 1) > 0
    assert folder.equal_pixels(outs[0], outs[1]) == 1
    Image.new("L", (12, 9), 7).save(outs[1] / "b.png")
    assert folder.equal_pixels(outs[0], outs[1]) == pytest.approx(2 / 3)
    assert folder.resident(os.getpid()) > 1e6
