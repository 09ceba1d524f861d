"""Measure the CRF on a GPU: times by its events, peaks of its memory, the same bits again.

    python -m benchmarks.gpu --out results/gpu.json
    python -m benchmarks.gpu --out trial.json --device cpu --reduce 40    # every path, tiny

docs/gpu.md has the order of the commands for half an hour of a GPU, and what each figure decides.

    gate        q of every path beside plain PyTorch
    figures     the problems that the kernels were written for, twice for equal bits
    stages      build, splat, blur and slice apart, beside plain PyTorch and WarpConvNet
    joint       a training step of a network, without and with the CRF behind it
    times       the sweeps of benchmarks/crf.py
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor

from benchmarks import crf
from benchmarks import measure as m
from benchmarks.crf import LE_HUU, OWN, PLAIN, Path, Problem, own_task
from benchmarks.measure import Results
from benchmarks.networks import training_step
from crfrnn import lattice
from crfrnn.filters import ExactFilter
from crfrnn.inference import MeanField
from crfrnn.kernels import positions
from eval.tables import ABSENT, markdown
from models import CrfConfig, Segmenter, SegmenterConfig, builder
from models.describe import NUM_CLASSES
from runtime.distributed import DeviceName, device_named

Part = Literal["gate", "figures", "stages", "joint", "times"]

STANDARD = lattice.named("standard")
EXACT = Path("crfrnn, exact", partial(own_task, bilateral_filter="exact"), trains=False, own=True)
BFLOAT16 = MeanField(storage="bfloat16")
PATHS = (
    OWN,
    Path("crfrnn, q in bfloat16", partial(own_task, inference=BFLOAT16), own=True),
    EXACT,
    PLAIN,
    Path("crfrnn, on the CPU", lambda problem: own_task(replace(problem, device="cpu")), own=True),
    LE_HUU,
)
FIGURES: dict[str, tuple[Problem, Path]] = {
    "inference": (Problem((500, 500), 21), OWN),
    "training": (Problem((513, 513), 21, iterations=5, batch=16, training=True), OWN),
    "exact inference": (Problem((375, 500), 21), EXACT),
    "inference, two labels": (Problem((512, 512), 2), OWN),
}


@dataclass(frozen=True)
class GpuOptions(crf.SweepOptions):
    """Time the CRF on a GPU and measure its memory.

    Attributes:
        parts: what is measured.
        device: of the measurement; "cpu" is for trials.
        network: whose training step the CRF joins.
        reduce: divides every side and batch, for trials.
    """

    parts: tuple[Part, ...] = ("gate", "figures", "stages", "joint", "times")
    device: DeviceName = "cuda"
    network: str = "deeplab_v3_resnet101"
    reduce: int = 1

    def reduced(self, problem: Problem) -> Problem:
        """The problem on the device, no side shorter than 8 pixels."""
        shape = (max(8, problem.shape[0] // self.reduce), max(8, problem.shape[1] // self.reduce))
        batch = max(1, problem.batch // self.reduce)
        return replace(problem, shape=shape, batch=batch, device=self.device)


def measure(options: GpuOptions) -> Iterator[tuple[str, Any]]:
    """Yield every part that is wanted.

    Raises:
        ValueError: this library's own path does not compute what plain PyTorch does.
    """
    device = device_named(options.device)
    first = options.reduced(Problem(options.shape, options.labels))
    paths = [path for path in PATHS if not path.missing]
    yield "cuda", torch.version.cuda
    yield "missing", {path.name: path.missing for path in PATHS if path.missing}
    if "gate" in options.parts:
        gates = [crf.agreement(path, first) for path in paths if path.normalization is not None]
        crf.refuse(gates[0])  # the others round or approximate otherwise
        yield "gate", gates
    if "figures" in options.parts:
        yield "figures", [figure(name, options, device) for name in FIGURES]
    if "stages" in options.parts:
        yield "stages", list(stages(options, device))
    if "joint" in options.parts:
        yield "joint", list(joint_steps(options, device))
    if "times" in options.parts:
        times: list[dict[str, Any]] = []
        for sweep, case in crf.cases(options):
            problem = options.reduced(case)
            tasks: dict[str, crf.Task] = {}
            for path in crf.taking_part(sweep, problem, paths, times):
                with suppress(torch.OutOfMemoryError):  # left out
                    (task := path.prepare(problem))()
                    tasks[path.name] = task
            taken = m.rounds(tasks, options.repeats, device)
            times += [
                {"sweep": sweep, **asdict(problem), "path": name, "seconds": taken[name],
                 "peak_bytes": m.peak_bytes(tasks[name], device)}
                for name in tasks
            ]  # fmt: skip
            yield "times", times


def figure(name: str, options: GpuOptions, device: torch.device) -> dict[str, Any]:
    """Time a problem, measure its peak, and tell if a second call gives the same bits."""
    problem, path = options.reduced(FIGURES[name][0]), FIGURES[name][1]
    task, error = path.prepare(problem), None
    same = all(torch.equal(a, b) for a, b in zip(task(), task(), strict=True))
    if path is EXACT:  # of one K v in float32 on a crop, over its largest value
        crop = replace(problem, shape=(min(96, problem.shape[0]), min(96, problem.shape[1])))
        points, v = features(crop), crop.unary.flatten(2).transpose(1, 2).softmax(2).contiguous()
        exact = ExactFilter(points.double())(v.double())
        error = ((ExactFilter(points)(v) - exact).abs().max() / exact.abs().max()).item()
    return {
        "name": name, **asdict(problem), "path": path.name, "same_bits": same, "error": error,
        "seconds": m.rounds({name: task}, options.repeats, device)[name],
        "peak_bytes": m.peak_bytes(task, device),
    }  # fmt: skip


def features(problem: Problem) -> Tensor:
    """Position and colour in units of theta, of the first image: (1, N, 5)."""
    alpha, beta = problem.thetas
    image = problem.image[0].float().flatten(1).t()
    return torch.cat([positions(problem.shape, image) / alpha, image / beta], dim=1)[None]


@torch.inference_mode()
def stages(options: GpuOptions, device: torch.device) -> Iterator[dict[str, Any]]:
    """Time the stages of the lattice: of a photograph, and of WarpConvNet's own benchmark.

    That is its tests/nn/bench_permutohedral_d6.py: 196,608 points in six dimensions, four values.
    """
    count, generator = 196608 // options.reduce**2, torch.Generator().manual_seed(0)
    ends, widths = torch.tensor([[512, 512, 256, 256, 256, 0], [16, 16, 12, 12, 12, 1]])
    points = (torch.rand(1, count, 6, generator=generator) * ends).floor().div(widths).to(device)
    photo = features(options.reduced(Problem((512, 512), 21)))
    modules: dict[str, Any] = {"plain PyTorch": lattice}
    if device.type == "cuda":
        modules = {"crfrnn": import_module("crfrnn.gpu.lattice"), **modules}
    for name, source, labels in (("photograph", photo, 21), ("points", points, 4)):
        v = torch.rand(source.shape[1], labels, device=device)
        tasks: dict[str, Callable[[], object]] = {}
        for way, module in modules.items():
            tables, _ = module.build_lattice(source, STANDARD)
            blurred = partial(module.splat_and_blur, tables, v, STANDARD, transposed=False)
            tasks |= {
                f"{way}: build": partial(module.build_lattice, source, STANDARD),
                f"{way}: splat": partial(module.splat, tables, v),
                f"{way}: splat and blur": blurred,
                f"{way}: slice": partial(module.slice_, tables, blurred(), STANDARD),
            }
        if device.type == "cuda" and find_spec("warpconvnet") is not None:
            peer = import_module("warpconvnet.nn.functional.permutohedral").PermutohedralLattice
            built = peer.build(source[0])
            values = built._blur(built._splat(v))
            tasks |= {
                "WarpConvNet: build": partial(peer.build, source[0]),
                "WarpConvNet: splat": partial(built._splat, v),
                "WarpConvNet: splat and blur": partial(_composed, built._blur, built._splat, v),
                "WarpConvNet: slice": partial(built._slice, values, built.inverse, built.bary),
            }
        taken = m.rounds(tasks, options.repeats, device)
        yield {"name": name, "points": source.shape[1], "labels": labels, "seconds": taken}


def _composed(outer: Callable[[Any], Any], inner: Callable[[Any], Any], value: Tensor) -> object:
    return outer(inner(value))


def joint_steps(options: GpuOptions, device: torch.device) -> Iterator[dict[str, Any]]:
    """Time a step without and with the CRF, behind a network in bfloat16; BN is frozen."""
    problem = options.reduced(Problem((513, 513), NUM_CLASSES, batch=16))
    labels = torch.randint(0, NUM_CLASSES, (problem.batch, *problem.shape)).to(device)
    for behind in (None, CrfConfig()):
        network = builder(options.network).config
        config = SegmenterConfig(NUM_CLASSES, network, behind, freeze_batch_norm=True)
        segmenter = Segmenter(config).to(device).train()
        step = training_step(segmenter, problem.image.float(), labels, torch.bfloat16)
        yield {
            "network": options.network, "shape": problem.shape, "batch": problem.batch,
            "crf": behind is not None,
            "seconds": m.rounds({"step": step}, options.repeats, device)["step"],
            "peak_bytes": m.peak_bytes(step, device),
        }  # fmt: skip


LEGEND = """\
Milliseconds between two events on the GPU, in brackets over those of the first path in the same
rounds. Peaks are all that PyTorch had allocated, in GB, inputs included."""


def table(results: Results) -> str:
    """Write every part that was measured as Markdown."""
    remark = f"{results['config']['labels']} labels unless told; CUDA {results['cuda']}"
    parts = [m.origin(results, remark)]
    if "gate" in results:
        parts.append(crf.gate_table(results["gate"]))
    if "figures" in results:
        rows = [
            [f"{row['name']}, {row['batch']} x {m.size(row['shape'])} x {row['labels']}",
             m.milliseconds(row["seconds"]), m.gigabytes(row["peak_bytes"]),
             "yes" if row["same_bits"] else "no",
             ABSENT if row["error"] is None else f"{row['error']:.1g}"]
            for row in results["figures"]
        ]  # fmt: skip
        parts.append(markdown(["problem", "ms", "peak", "same bits", "error of K v"], rows))
    for row in results.get("stages", []):
        ways, steps = (
            list(dict.fromkeys(name.split(": ")[k] for name in row["seconds"])) for k in (0, 1)
        )
        rows = [[step, *(m.milliseconds(row["seconds"][f"{way}: {step}"]) for way in ways)]
                for step in steps]  # fmt: skip
        title = f"{row['name']}: {row['points']:,} points, {row['labels']} values"
        parts.append(markdown([title, *ways], rows))
    if "joint" in results:
        alone, both = results["joint"]
        more = f"{m.ratio(both['seconds'], alone['seconds']) - 1:+.1%} with the CRF"
        title = f"step of {alone['network']}, {alone['batch']} x {m.size(alone['shape'])}"
        rows = [[name, m.milliseconds(row["seconds"]), m.gigabytes(row["peak_bytes"])]
                for name, row in (("alone", alone), (more, both))]  # fmt: skip
        parts.append(markdown([title, "ms", "peak"], rows))
    if "times" in results:
        parts.append(crf.sweep_table(results["times"]))
    return "\n\n".join([*parts, LEGEND])


if __name__ == "__main__":
    m.main(GpuOptions, measure, table)
