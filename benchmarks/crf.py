"""Time the CRF beside every peer that can be imported, and measure its peak memory.

    python -m benchmarks.crf --out results/crf.json
    python -m benchmarks.crf --out quick.json --sweeps inference training --repeats 3 --no-memory

All paths are timed in turn, from image and unary to q, so that their ratios hold on a machine whose
speed wanders. First each is checked: it must compute the same CRF. The peers are not installed with
this project; they are looked up by their usual module names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache, partial
from importlib import import_module
from importlib.util import find_spec
from io import StringIO
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor

from benchmarks import measure as m
from benchmarks.measure import Results, Shape
from crfrnn import CrfRnn, densecrf
from crfrnn.cpu import instructions
from crfrnn.filters import Normalization
from eval.tables import ABSENT, factor, markdown

Sweep = Literal["inference", "training", "labels", "batch", "pixels"]
Thetas = tuple[float, float]  # theta_alpha in pixels, theta_beta in grey levels
Task = Callable[[], tuple[Tensor, ...]]

THETAS: tuple[Thetas, ...] = ((80.0, 13.0), (160.0, 3.0), (49.0, 5.0))
LABEL_COUNTS = (2, 21, 150)
BATCHES = (1, 2, 4, 8)
SIZES: tuple[Shape, ...] = (
    (192, 256), (300, 450), (600, 800), (1000, 1000), (1200, 1600), (2400, 3330),
)  # fmt: skip
SLOWEST = 2.5  # seconds; a path that took longer at one size is left out at larger ones

LARGEST_DIFFERENCE = 1e-4  # of q, this library's own path against plain PyTorch
SMALLEST_AGREEMENT = 0.99  # of the labels, any path against plain PyTorch


@dataclass(frozen=True)
class SweepOptions(m.Options):
    """Say what is timed.

    Attributes:
        sweeps: over theta in inference, over what learns in training, over labels, and so on.
        shape: height and width of the photograph, except where it is the size that varies.
        labels: label count, except where it is that which varies.
    """

    sweeps: tuple[Sweep, ...] = ("inference", "training", "labels", "batch", "pixels")
    shape: Shape = (300, 450)
    labels: int = 21


@dataclass(frozen=True)
class CrfOptions(SweepOptions):
    """Time the CRF on the CPU, forward and backward, beside every peer that is importable.

    Attributes:
        threads: numbers of threads; the last serves all sweeps but inference and training.
        memory: measure peak memory, in processes of their own.
    """

    threads: tuple[int, ...] = (1, 2)
    memory: bool = True


@dataclass(frozen=True)
class Problem:
    """One call of a CRF: T iterations on a photograph and the logits of a network.

    Attributes:
        training: forward and backward, with L x L weights and compatibility; else inference
            with Potts and scalar weights.
        learn_theta: the widths learn, too.
        device: where image, unary and gradient lie; they are made on the CPU in any case.
    """

    shape: Shape
    labels: int
    thetas: Thetas = THETAS[0]
    theta_gamma: float = 3.0
    iterations: int = 10
    batch: int = 1
    training: bool = False
    learn_theta: bool = False
    device: str = "cpu"

    @cached_property
    def image(self) -> Tensor:
        """(B, 3, H, W), uint8: the photograph, mirrored beyond its borders where it is too small.

        So its detail, and the lattice's vertices for each pixel, are the same at every size.
        """
        photo = _photo()
        for axis, count in enumerate(self.shape):
            period = photo.shape[axis]
            index = torch.arange(count) % (2 * period)
            photo = photo.index_select(axis, torch.minimum(index, 2 * period - 1 - index))
        image = photo.permute(2, 0, 1).expand(self.batch, -1, -1, -1)
        return image.contiguous().to(self.device)

    @cached_property
    def unary(self) -> Tensor:
        """(B, L, H, W) logits: noise at stride 8, enlarged."""
        generator = torch.Generator().manual_seed(0)
        coarse = [-(-n // 8) for n in self.shape]
        noise = 3 * torch.randn(1, self.labels, *coarse, generator=generator)
        enlarged = F.interpolate(noise, self.shape, mode="bilinear", align_corners=False)
        return enlarged.expand(self.batch, -1, -1, -1).contiguous().to(self.device)

    @cached_property
    def logits_grad(self) -> Tensor:
        """(B, L, H, W), what a training step sends back."""
        generator = torch.Generator().manual_seed(1)
        grad = torch.randn(self.unary.shape, generator=generator) / self.unary.numel()
        return grad.to(self.device)


@lru_cache(maxsize=1)
def _photo() -> Tensor:
    return m.photograph("astronaut.png", (342, 500)).to(torch.uint8)


# Who computes it.


@dataclass(frozen=True)
class Path:
    """One way to compute a CRF.

    Attributes:
        name: in tables.
        prepare: makes a task of a problem: marginals (B, L, H, W), or the gradients of unary and
            parameters. Inputs and layer exist before the task, kernels are built within it.
        trains: it has a backward pass.
        needs: modules that it imports.
        normalization: of its kernels in inference; None: another model, timed but not compared.
        own: this library's layer.
        threaded: it uses more than one thread.
    """

    name: str
    prepare: Callable[[Problem], Task]
    trains: bool = True
    needs: tuple[str, ...] = ()
    normalization: Normalization | None = "symmetric"
    own: bool = False
    threaded: bool = True

    @property
    def missing(self) -> list[str]:
        """Modules that cannot be imported."""
        return [name for name in self.needs if find_spec(name) is None]


def layer(problem: Problem, **options: Any) -> CrfRnn:
    """Build `CrfRnn` as a problem asks for it; options as its own."""
    settings: dict[str, Any] = {
        "theta_alpha": problem.thetas[0],
        "theta_beta": problem.thetas[1],
        "theta_gamma": problem.theta_gamma,
        "spatial_weight": 3.0,
        "bilateral_weight": 10.0,
        "num_iterations": problem.iterations,
        "num_iterations_eval": problem.iterations,
        "kernel_weights": "matrix" if problem.training else "scalar",
        "compatibility": "full" if problem.training else "potts",
        "normalization": "after" if problem.training else "symmetric",
        "learn_theta": problem.learn_theta,
    }
    return CrfRnn(problem.labels, **settings | options).to(problem.device).train(problem.training)


def own_task(problem: Problem, **options: Any) -> Task:
    """Make the task of `CrfRnn`; options as its own."""
    crf, image = layer(problem, **options), problem.image

    def infer(unary: Tensor) -> Tensor:
        return crf.marginals(unary, image)

    learnt = [p for p in crf.parameters() if p.requires_grad]
    return layer_task(problem, lambda unary: crf(unary, image), learnt, infer)


def layer_task(
    problem: Problem,
    logits: Callable[[Tensor], Tensor],
    learnt: Sequence[Tensor] = (),
    marginals: Callable[[Tensor], Tensor] | None = None,
) -> Task:
    """Make the task of a layer from a unary to logits, with parameters that learn."""
    unary, grad = problem.unary, problem.logits_grad

    @torch.inference_mode()
    def infer() -> tuple[Tensor, ...]:
        return (logits(unary).softmax(dim=1) if marginals is None else marginals(unary),)

    def train() -> tuple[Tensor, ...]:
        leaf = unary.detach().requires_grad_()
        return torch.autograd.grad(logits(leaf), [leaf, *learnt], grad)

    return train if problem.training else infer


def dense_crf(dcrf: Any, problem: Problem) -> Task:
    """Make the task of pydensecrf's classes, or of those of this library's drop-in."""
    (height, width), (alpha, beta) = problem.shape, problem.thetas
    images, unaries = problem.image.permute(0, 2, 3, 1).contiguous().numpy(), problem.unary

    def marginals(image: Any, energy: Any) -> Tensor:
        crf = dcrf.DenseCRF2D(width, height, problem.labels)
        crf.setUnaryEnergy(energy)
        crf.addPairwiseGaussian(sxy=problem.theta_gamma, compat=3.0)
        crf.addPairwiseBilateral(sxy=alpha, srgb=beta, rgbim=image, compat=10.0)
        q = np.asarray(crf.inference(problem.iterations))
        return torch.from_numpy(q).view(problem.labels, height, width)

    def infer() -> tuple[Tensor, ...]:
        energies = (-unaries.flatten(2)).numpy()
        return (torch.stack([marginals(*pair) for pair in zip(images, energies, strict=True)]),)

    return infer


def pydensecrf(problem: Problem) -> Task:
    """Make the task of the C++ dense CRF by its Python wrapper."""
    return dense_crf(import_module("pydensecrf.densecrf"), problem)


def crf_as_rnn(problem: Problem) -> Task:
    """Make the task of the public CRF-as-RNN layer on its C++ lattice, one image at a time."""
    module: Any = import_module("crfasrnn.crfrnn")
    params: Any = import_module("crfasrnn.params")
    settings = params.DenseCRFParams(*problem.thetas, problem.theta_gamma, 3.0, 10.0)
    crf = module.CrfRnn(problem.labels, problem.iterations, settings)
    images = problem.image.float()

    def logits(unary: Tensor) -> Tensor:
        return torch.cat([crf(i[None], u[None]) for i, u in zip(images, unary, strict=True)])

    return layer_task(problem, logits, list(crf.parameters()))


def crf_seg(problem: Problem) -> Task:
    """Make the task of the `crfseg` package: a truncated spatial kernel alone, another model."""
    module: Any = import_module("crfseg")
    crf = module.CRF(
        2, n_iter=problem.iterations, smoothness_weight=3.0, smoothness_theta=problem.theta_gamma
    )
    return layer_task(problem, crf.to(problem.device), list(crf.parameters()))


def frank_wolfe_crf(problem: Problem) -> Task:
    """Make the task of Lê-Huu and Alahari's `CRF` (NeurIPS 2021), by its mean field."""
    module: Any = import_module("CRF")
    alpha, beta = problem.thetas
    with redirect_stdout(StringIO()):  # it tells its settings
        crf = module.DenseGaussianCRF(
            classes=problem.labels, alpha=alpha, beta=beta, gamma=problem.theta_gamma,
            spatial_weight=3.0, bilateral_weight=10.0, compatibility=1.0,
            init="potts", solver="mf", iterations=problem.iterations,
        ).to(problem.device)  # fmt: skip
    image = problem.image.float()
    return layer_task(problem, lambda unary: crf(image, unary), list(crf.parameters()))


OWN = Path("crfrnn", own_task, own=True)
PLAIN = Path("crfrnn, plain PyTorch", partial(own_task, implementation="plain"), own=True)
LE_HUU = Path("CRF of Lê-Huu", frank_wolfe_crf, True, ("CRF", "PermutohedralFiltering"), None)
PATHS = (
    OWN,
    PLAIN,
    Path("crfrnn.densecrf", partial(dense_crf, densecrf), trains=False),
    Path("pydensecrf", pydensecrf, trains=False,
         needs=("pydensecrf",), threaded=False),
    Path("crfasrnn_pytorch", crf_as_rnn, needs=("permuto_cpp", "crfasrnn"), normalization="after"),
    Path("crfseg, spatial only", crf_seg, needs=("crfseg",), normalization=None),
    LE_HUU,
)  # fmt: skip


# The measurement.


def measure(options: CrfOptions) -> Iterator[tuple[str, Any]]:
    """Yield the check of all paths, times of every sweep, and peaks.

    Raises:
        ValueError: a path does not compute what the others do, so that its time would mean nothing.
    """
    console = Console(stderr=True)
    yield "instructions", instructions() or "none"
    yield "missing", {path.name: path.missing for path in PATHS if path.missing}
    paths = [path for path in PATHS if not path.missing]
    first = Problem(options.shape, options.labels)
    gates = [agreement(path, first) for path in paths if path.normalization is not None]
    for gate in gates:
        refuse(gate)
    yield "gate", gates
    times: list[dict[str, Any]] = []
    for sweep, problem in cases(options):
        few = options.threads if sweep in ("inference", "training") else options.threads[-1:]
        for threads in few:
            torch.set_num_threads(threads)
            tasks = {p: p.prepare(problem) for p in taking_part(sweep, problem, paths, times)}
            taken = m.rounds({path.name: task for path, task in tasks.items()}, options.repeats)
            times += [
                {"sweep": sweep, **asdict(problem), "threads": threads if path.threaded else 1,
                 "path": path.name, "seconds": taken[path.name]}
                for path in tasks
            ]  # fmt: skip
            shown = ", ".join(f"{name} {m.milliseconds(s)} ms" for name, s in taken.items())
            console.print(f"{sweep} {problem.shape} L={problem.labels} {threads} threads: {shown}")
    yield "times", times
    yield "memory", memory(first, paths, options.threads[-1]) if options.memory else []


def cases(options: SweepOptions, device: str = "cpu") -> Iterator[tuple[Sweep, Problem]]:
    """List every problem of the sweeps that are wanted."""
    first = Problem(options.shape, options.labels, device=device)
    step = replace(first, iterations=5, training=True)
    every: dict[Sweep, list[Problem]] = {
        "inference": [replace(first, thetas=thetas) for thetas in THETAS],
        "training": [step, replace(step, learn_theta=True)],
        "labels": [replace(first, labels=labels, shape=SIZES[0]) for labels in LABEL_COUNTS],
        "batch": [replace(first, batch=batch) for batch in BATCHES],
        "pixels": [replace(first, shape=shape) for shape in SIZES],
    }
    yield from ((sweep, problem) for sweep in options.sweeps for problem in every[sweep])


def taking_part(
    sweep: Sweep | None, problem: Problem, paths: Sequence[Path], times: Sequence[Results] = ()
) -> list[Path]:
    """Choose the paths that can compute a problem, and were not too slow at a smaller size."""
    slow = {
        row["path"] for row in times
        if sweep == row["sweep"] == "pixels" and min(row["seconds"]) > SLOWEST
    }  # fmt: skip
    return [
        path
        for path in paths
        if (path.trains or not problem.training)
        and (path.own or not (problem.learn_theta or sweep == "batch"))
        # Another model has no bilateral kernel to change.
        and (path.normalization is not None or problem.thetas == THETAS[0])
        and (path is OWN or path.name not in slow)
    ]


def agreement(path: Path, problem: Problem) -> dict[str, Any]:
    """Compare q of a path with plain PyTorch on the CPU, of its normalisation and filters."""
    crf = layer(
        replace(problem, device="cpu"), implementation="plain", normalization=path.normalization,
        spatial_filter="separable" if path.own else "lattice",
    )  # fmt: skip
    with torch.inference_mode():
        expected = crf.marginals(problem.unary.cpu(), problem.image.cpu())
    q = path.prepare(problem)()[0].cpu()
    return {
        "path": path.name,
        "largest_difference": (q - expected).abs().max().item(),
        "same_labels": (q.argmax(1) == expected.argmax(1)).double().mean().item(),
    }


def refuse(gate: Results) -> None:
    """Demand that a path computes the CRF, so that its time means something.

    Raises:
        ValueError: it differs by more than rounding and another lattice explain.
    """
    difference, same = gate["largest_difference"], gate["same_labels"]
    limit = LARGEST_DIFFERENCE if gate["path"] == OWN.name else 1.0
    if same < SMALLEST_AGREEMENT or not difference <= limit:
        raise ValueError(
            f"{gate['path']} does not compute the CRF of plain PyTorch: expected q within {limit} "
            f"and at least {SMALLEST_AGREEMENT:.0%} of the labels, got a difference of "
            f"{difference:.2g} and {same:.2%} of the labels."
        )


def memory(first: Problem, paths: Sequence[Path], threads: int) -> list[dict[str, Any]]:
    """Measure peaks of inference and training, and of inference at the largest size."""
    step = replace(first, iterations=5, training=True)
    wanted = [
        (problem, path)
        for problem in (first, step, replace(step, learn_theta=True))
        for path in taking_part(None, problem, paths)
    ]
    return [
        {**asdict(problem), "path": path.name, "q_bytes": 4 * problem.unary.numel(),
         "peak_bytes": m.in_process(peak_of, path.name, problem, threads)}
        for problem, path in [*wanted, (replace(first, shape=SIZES[-1]), OWN)]
    ]  # fmt: skip


def peak_of(name: str, problem: Problem, threads: int) -> int | None:
    """Measure the peak of a path beyond the inputs, in a process that did nothing before.

    A small problem runs first, so that code and its constant tables are not counted.
    """
    torch.set_num_threads(threads)
    path = next(path for path in PATHS if path.name == name)
    task = path.prepare(problem)
    path.prepare(replace(problem, shape=(40, 40)))()
    return m.peak_bytes(task, before=m.resident_bytes())


# Tables.

LEGEND = """\
Times in milliseconds, in brackets over that of the first path in the same rounds; one thread where
a path has no more. Inference is 10 iterations, training forward and backward of 5. Peaks are bytes
beyond the inputs over those of q."""


def table(results: Results) -> str:
    """Write the times of every sweep and the peaks as Markdown."""
    config = results["config"]
    remark = (
        f"a photograph of scikit-image, {m.size(config['shape'])} unless told, {config['labels']} "
        "labels; everything from image and unary to q; median of "
        f"{config['repeats']} rounds over all paths; native path with {results['instructions']}"
    )
    missing = [f"{name} was not timed: it is not installed" for name in results["missing"]]
    parts = [
        m.origin(results, remark, *missing),
        sweep_table(results["times"]),
        gate_table(results["gate"]),
    ]
    rows = []
    for row in results["memory"]:
        peak, q = row["peak_bytes"], row["q_bytes"]
        beyond = ABSENT if peak is None else f"{peak / q:.1f} q"
        rows.append(
            [f"{_task(row)}, {m.size(row['shape'])}", row["path"], beyond, f"{q / 1e6:.0f}"]
        )
    if rows:
        parts.append(markdown(["peak memory", "path", "beyond the inputs", "q, MB"], rows, left=2))
    return "\n\n".join([*parts, LEGEND])


def gate_table(gates: Sequence[Results]) -> str:
    """Write how near every path is to plain PyTorch."""
    rows = [
        [row["path"], f"{row['largest_difference']:.1g}", f"{100 * row['same_labels']:.2f} %"]
        for row in gates
    ]
    return markdown(["path", "largest difference of q to plain PyTorch", "same label"], rows)


def sweep_table(rows: Sequence[Results]) -> str:
    """Write a row for each problem, a column for each path; the first path begins each problem."""
    names = list(dict.fromkeys(row["path"] for row in rows))
    titles = ["problem", *(["threads"] if "threads" in rows[0] else []), *names]
    starts = [k for k, row in enumerate(rows) if row["path"] == names[0]]
    lines = []
    for start, stop in zip(starts, [*starts[1:], len(rows)], strict=True):
        first = rows[start]
        cells = {row["path"]: _cell(row, first) for row in rows[start:stop]}
        threads = [str(first["threads"])] if "threads" in first else []
        lines.append([_title(first), *threads, *(cells.get(name, ABSENT) for name in names)])
    return markdown(titles, lines)


def _cell(row: Results, first: Results) -> str:
    time = m.milliseconds(row["seconds"])
    return time if row is first else f"{time} ({factor(m.ratio(row['seconds'], first['seconds']))})"


def _title(row: Results) -> str:
    what = {
        "inference": "theta {:g} / {:g}".format(*row["thetas"]),
        "labels": f"{row['labels']} labels, {m.size(row['shape'])}",
        "batch": f"batch of {row['batch']}",
        "pixels": m.size(row["shape"]),
    }
    return f"{_task(row)}, {what[row['sweep']]}" if row["sweep"] in what else _task(row)


def _task(row: Results) -> str:
    if not row["training"]:
        return "inference"
    return f"training, {'theta learns' if row['learn_theta'] else 'matrices learn'}"


if __name__ == "__main__":
    m.main(CrfOptions, measure, table)
