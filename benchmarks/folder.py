"""Sharpen a folder of photographs with `crfrnn refine`, and with a Pool around pydensecrf.

    python -m benchmarks.folder --images DIR --maps DIR --out results/folder.json
    python -m benchmarks.folder --images DIR --maps DIR --whole --out results/folder-whole.json

Both read NAME.jpg and NAME.npy, (L, H, W) probabilities, and write NAME.png. The second line takes
all images, kills the command by SIGKILL half-way, goes on, and notes its memory on the way.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.measure import Options, Results, in_process, main, origin
from benchmarks.patterns import of_probabilities, peer
from crfrnn import PRESETS
from crfrnn.folder import SETTINGS, FolderOptions, refine_folder
from eval.tables import ABSENT, duration, markdown

WAYS = ("crfrnn refine", "Pool around pydensecrf")


@dataclass(frozen=True)
class FolderTimes(Options):
    """Time both on some images; or run one on all, killed and resumed.

    Attributes:
        images: folder of photographs.
        maps: folder of NAME.npy, (L, H, W) probabilities.
        preset: of both.
        count: of the images, the first ones by name.
        workers: processes; one of `crfrnn refine` uses all cores, several a core each.
        whole: take all images.
    """

    images: Path = Path("images")
    maps: Path = Path("maps")
    preset: str = "stego"
    count: int = 200
    workers: tuple[int, ...] = (1, 2)
    whole: bool = False


def by_pydensecrf(images: Path, maps: Path, out: Path, preset: str, name: str) -> None:
    """Do what a worker of such a Pool does, with one image."""
    dcrf, utils = peer()
    p = PRESETS[preset]
    with Image.open(images / f"{name}.jpg") as file:
        image = np.array(file.convert("RGB"))
    q = np.load(maps / f"{name}.npy").astype(np.float32)
    q = of_probabilities(
        dcrf, utils, q, image, p.theta_gamma, p.spatial_weight, p.theta_alpha, p.theta_beta,
        p.bilateral_weight, steps=p.num_iterations_eval,
    )  # fmt: skip
    Image.fromarray(q.argmax(0).astype(np.uint8)).save(out / f"{name}.png")


def run(way: str, images: Path, maps: Path, out: Path, preset: str, workers: int) -> float:
    """Sharpen the folder in this process and its workers; return the seconds."""
    began = time.perf_counter()
    if way == WAYS[0]:
        left_out = refine_folder(FolderOptions(images, maps, out, preset, workers=workers))
        assert not left_out, left_out
    else:
        out.mkdir()
        work = partial(by_pydensecrf, images, maps, out, preset)
        names = sorted(path.stem for path in images.iterdir())
        with get_context("spawn").Pool(workers) as pool:
            pool.map(work, names, chunksize=1)
    return time.perf_counter() - began


def equal_pixels(a: Path, b: Path) -> float:
    """Return the share of pixels with one label in the masks of both folders."""
    equal = total = 0
    for path in a.glob("*.png"):
        same = np.array(Image.open(path)) == np.array(Image.open(b / path.name))
        equal, total = equal + int(same.sum()), total + same.size
    return equal / total


def measure(options: FolderTimes) -> Iterator[tuple[str, Any]]:
    """Run the folder, in turn by every way."""
    peer()
    with TemporaryDirectory() as folder:
        some = Path(folder) / "images"
        some.mkdir()
        for path in islice(sorted(options.images.iterdir()), options.count):
            (some / path.name).symlink_to(path.absolute())
        if options.whole:
            yield "whole", whole(options, some, Path(folder))
            return
        rows = []
        for workers in options.workers:
            for way in WAYS:
                out = Path(folder) / f"{workers}-{way}"
                seconds = in_process(run, way, some, options.maps, out, options.preset, workers)
                rows.append({"way": way, "workers": workers, "seconds": seconds})
            outs = (Path(folder) / f"{workers}-{way}" for way in WAYS)
            rows[-2]["equal"] = equal_pixels(*outs)
        yield "images", len(list(some.iterdir()))
        yield "ways", rows


def whole(options: FolderTimes, some: Path, folder: Path) -> dict[str, Any]:
    """Run the command on all images, kill it once, and go on; then on some, without.

    Args:
        options: of the measurement.
        some: folder of the first images, more than were done when it was killed.
        folder: for the results.
    """
    out, again = folder / "killed", folder / "at-once"
    results: dict[str, Any] = {"images": len(list(options.images.iterdir()))}
    results["killed"] = command(options, options.images, out, stop_at=options.count // 2)
    results["resumed"] = command(options, options.images, out)
    results["parts_left"] = len(list(out.glob("*.part")))
    results["at_once"] = command(options, some, again)
    results["equal"] = equal_pixels(again, out)
    return results


def command(
    options: FolderTimes, images: Path, out: Path, stop_at: int | None = None
) -> dict[str, Any]:
    """Run `crfrnn refine`, look at it twice a second, and kill it at that many results."""
    words = [sys.executable, "-m", "crfrnn", "refine", str(images), str(options.maps)]
    words += ["--out", str(out), "--preset", options.preset, "--workers", str(options.workers[-1])]
    began = time.perf_counter()
    memory: dict[int, int] = {}
    process = subprocess.Popen(words, start_new_session=True, stderr=subprocess.DEVNULL)
    done, before = 0, len(list(out.glob("*.png")))
    while process.poll() is None:
        time.sleep(0.5)
        done = len(list(out.glob("*.png")))
        if done > before:
            memory[done // 100 * 100] = max(resident(process.pid), memory.get(done // 100 * 100, 0))
        if stop_at is not None and done >= stop_at:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return {"done": done, "memory": memory}
    assert process.returncode == 0, process.returncode
    assert (out / SETTINGS).exists()
    seconds = time.perf_counter() - began
    made = len(list(out.glob("*.png"))) - before
    return {"made": made, "seconds": seconds, "memory": memory}


def resident(pid: int) -> int:
    """Sum the resident sets of a process and its children, in bytes."""
    tasks = Path(f"/proc/{pid}/task")
    try:
        children = [c for t in tasks.iterdir() for c in (t / "children").read_text().split()]
        pages = [int(Path(f"/proc/{p}/statm").read_text().split()[1]) for p in (pid, *children)]
    except OSError:  # it has just ended
        return 0
    return sum(pages) * os.sysconf("SC_PAGE_SIZE")


def table(results: Results) -> str:
    """Write a row for each way, or say how the whole folder went."""
    preset = results["config"]["preset"]
    if "whole" in results:
        w = results["whole"]
        memory = {int(n): b for n, b in w["resumed"]["memory"].items()}
        said = ", ".join(f"{b / 1e9:.2f} GB from {n} on" for n, b in sorted(memory.items()))
        made, seconds = w["resumed"]["made"], w["resumed"]["seconds"]
        lines = [
            f"- {w['images']} images, {results['config']['workers'][-1]} workers, preset {preset}; "
            f"killed by SIGKILL at {w['killed']['done']} results and started again: the other "
            f"{made} in {duration(seconds)} at low priority",
            f"- {w['parts_left']} half-written files; of the first {w['at_once']['made']} masks, "
            f"{100 * w['equal']:g} % of the pixels are those of a run that was not killed",
            f"- most memory of all processes, by the number of results: {said}",
        ]
        return "\n".join([*lines, "", origin(results)])
    rows = []
    for row in results["ways"]:
        rate = results["images"] / row["seconds"]
        equal = f"{100 * row['equal']:.3f} %" if "equal" in row else ABSENT
        rows.append([row["way"], str(row["workers"]), f"{rate:.2f}", equal])
    titles = ["way", "workers", "images a second", "pixels equal to the other's"]
    remark = f"{results['images']} images, preset {preset}, from files to files"
    return f"{markdown(titles, rows, left=1)}\n\n{origin(results, remark)}"


if __name__ == "__main__":
    main(FolderTimes, measure, table)
