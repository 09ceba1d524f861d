"""Read and write the stored experiments, from which everything in RESULTS.md is computed.

experiments/says.md              what all studies together say, in words
experiments/STUDY/study.json     title, answer, split, what the rows are compared with; see `Study`
experiments/STUDY/asked.md       the question, in words
experiments/STUDY/says.md        what the tables say and what they do not, in words
experiments/STUDY/runs.json      one line for every run, what made it, and its configuration
experiments/STUDY/counts.npz.xz  what was counted on every image, see `packed`
"""

from __future__ import annotations

import io
import json
import lzma
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from eval.metrics import SplitCounts
from eval.runs import Line, Run, lines
from runtime.provenance import merged
from runtime.run_folder import ARMS, digest_of, what_matters

Base = tuple[str, str]  # label and arm

WIDTH = 3  # pixels, of the trimap band whose counts are stored beside those of the whole image

PATHS = (("data", "root"), ("data", "sbd"), ("model", "weights"), ("model", "backbone_weights"))


@dataclass(frozen=True, eq=False)
class Study:
    """One question, the runs that answer it, and the words around their tables.

    Attributes:
        folder: of its files.
        title: heading.
        answer: in a sentence or two.
        split: that is scored: "tune" while a method is looked for, "report" for what came out.
        against: label and arm that all others are compared with.
        also: others of the kind, each with a table of its own.
        parts: title -> beginning of the names of its images; a table is made for each.
        published: label -> what the literature has found of it.
        commands: that make its runs again; none where the code of today does not.
        labels: in the order of the rows.
        foreground: whether its page has the scores of background against all classes, too.
        asked, says: Markdown.
        runs: finished and failed ones; `result` holds what runs.json says of them, of a failed one
            "failed", and no counts.
    """

    folder: Path
    title: str
    answer: str
    split: Literal["tune", "report"]
    against: Base
    also: tuple[Base, ...]
    parts: Mapping[str, str]
    published: Mapping[str, str]
    commands: tuple[str, ...]
    labels: tuple[str, ...]
    foreground: bool
    asked: str
    says: str
    runs: tuple[Run, ...]
    _lines: dict[str, list[Line]] = field(default_factory=dict, init=False, repr=False)

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.folder.name

    def lines(self, beginning: str = "") -> list[Line]:
        """Return the rows of its tables, scored on the images whose names begin so.

        Raises:
            ValueError: no image's name does.
        """
        if beginning not in self._lines:
            finished = [run for run in self.runs if "failed" not in run.result]
            parts = finished if not beginning else [_part(run, beginning) for run in finished]
            self._lines[beginning] = lines(parts)
        return self._lines[beginning]

    def line(self, base: Base, beginning: str = "") -> Line:
        """Return the row of a label and arm, perhaps without runs."""
        found = [line for line in self.lines(beginning) if (line.label, line.arm) == base]
        return found[0] if found else Line(*base, runs=())

    def with_runs(self, runs: Sequence[Run]) -> Study:
        """Add runs, in the order of the rows; one of the same label, arm and seed is replaced."""
        known = {(run.label, run.arm, run.seed): run for run in (*self.runs, *runs)}
        labels = list(dict.fromkeys([*self.labels, *(run.label for run in known.values())]))

        def place(run: Run) -> tuple[int, int, int]:
            return labels.index(run.label), ARMS.index(run.arm), run.seed

        return replace(self, runs=tuple(sorted(known.values(), key=place)))

    def save(self) -> None:
        """Write the runs and their counts.

        Raises:
            ValueError: the runs were not scored on the same images.
        """
        counts: list[SplitCounts] = []
        places: dict[bytes, int] = {}
        configurations, made, rows = {}, [], []
        for run in self.runs:
            row = {"label": run.label, "arm": run.arm, "seed": run.seed, **run.result}
            configurations[row["configuration"]] = row.pop("config")
            if row["made"] not in made:
                made.append(row["made"])
            row["made"] = made.index(row["made"])
            for key, value in (("counts", run.counts), ("counts_before", run.before)):
                if value is not None:
                    if counts and value.names != counts[0].names:
                        alone = sorted({*value.names} ^ {*counts[0].names})[:1]
                        raise ValueError(
                            f"{run.label}, {run.arm}-seed{run.seed} cannot be paired by image with "
                            f"the other runs of {self.folder}: not in both are {alone}."
                        )
                    content = b"".join(array.tobytes() for array in packed([value]).values())
                    if content not in places:
                        places[content] = len(counts)
                        counts.append(value)
                    row[key] = places[content]
            rows.append(row)
        text = ",\n".join(json.dumps(row, sort_keys=True) for row in rows)
        about = {"configurations": configurations, "made": made}
        heads = [
            f'"{key}": ' + json.dumps(value, sort_keys=True).replace("}, ", "},\n")
            for key, value in about.items()
        ]
        (self.folder / "runs.json").write_text(
            "{" + ",\n".join([*heads, f'"runs": [\n{text}\n]']) + "}\n", encoding="utf-8"
        )
        if counts:
            file = io.BytesIO()
            arrays: dict[str, Any] = packed(counts)
            np.savez(file, **arrays)
            (self.folder / "counts.npz.xz").write_bytes(lzma.compress(file.getvalue()))


def studies(root: Path) -> list[Study]:
    """Read all studies, by name.

    Raises:
        FileNotFoundError: there is none.
    """
    folders = sorted(path.parent for path in root.glob("*/study.json"))
    if not folders:
        raise FileNotFoundError(f"no study in {root}: expected {root}/*/study.json.")
    return [read_study(folder) for folder in folders]


def read_study(folder: Path) -> Study:
    """Read one study with its runs.

    Raises:
        FileNotFoundError: it does not exist.
        ValueError: its files are not what they should be.
    """
    path = folder / "study.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"no study {folder.name!r}: write {path} with title, split and against, and asked.md "
            "and says.md beside it."
        )
    about = read(path)
    try:
        study = Study(
            folder,
            about["title"],
            about.get("answer", ""),
            about["split"],
            _base(about["against"]),
            tuple(map(_base, about.get("also", ()))),
            about.get("parts", {"": ""}),
            about.get("published", {}),
            tuple(about.get("commands", ())),
            tuple(about.get("labels", ())),
            bool(about.get("foreground", False)),
            (folder / "asked.md").read_text(encoding="utf-8").strip(),
            (folder / "says.md").read_text(encoding="utf-8").strip(),
            (),
        )
        return study.with_runs(_stored_runs(folder))
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{path} or runs.json lacks {error}: study.json holds title, split and against, "
            "runs.json what `eval results add` wrote."
        ) from error


def _stored_runs(folder: Path) -> list[Run]:
    if not (folder / "runs.json").is_file():
        return []
    stored = read(folder / "runs.json")
    counts: list[SplitCounts] = []
    if (folder / "counts.npz.xz").is_file():
        try:
            file = io.BytesIO(lzma.decompress((folder / "counts.npz.xz").read_bytes()))
            with np.load(file, allow_pickle=False) as arrays:
                counts = unpacked({key: arrays[key] for key in arrays.files})
        except (lzma.LZMAError, OSError, EOFError) as error:
            raise ValueError(f"{folder}/counts.npz.xz is damaged: {error}") from error
    runs = []
    for row in stored["runs"]:
        label, arm, seed = (row.pop(key) for key in ("label", "arm", "seed"))
        row |= {
            "config": stored["configurations"][row["configuration"]],
            "made": stored["made"][row["made"]],
        }
        after, before = (row.pop(key, None) for key in ("counts", "counts_before"))
        runs.append(
            Run(
                arm,
                seed,
                row,
                label=label,
                counts=None if after is None else counts[after],
                before=None if before is None else counts[before],
            )
        )
    return runs


def _base(entry: Any) -> Base:
    if not isinstance(entry, list) or len(entry) != 2:
        raise ValueError(
            f'study.json: "against" is ["LABEL", "ARM"], and "also" a list of such; got {entry!r}.'
        )
    return entry[0], entry[1]


def _part(run: Run, beginning: str) -> Run:
    def part(counts: SplitCounts | None) -> SplitCounts | None:
        if counts is None:
            return None
        names = [name for name in counts.names if name.startswith(beginning)]
        if not names:
            raise ValueError(f"no image's name begins with {beginning!r}.")
        return counts.of(names)

    return replace(run, counts=part(run.counts), before=part(run.before))


def read(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        ValueError: it is damaged; names the file.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error


# What is stored of the counts: sums from which mIoU, IoU by class, Boundary IoU, NLL, harm and
# their bootstrap intervals follow exactly; not which class was called which other one.


def packed(counts: Sequence[SplitCounts]) -> dict[str, npt.NDArray[Any]]:
    """Keep the sums of R runs on the same N images, for the S scored classes.

    Args:
        counts: of the runs, with the trimap width `WIDTH`.

    Returns:
        total: (N, 2) pixels within `WIDTH` of the borders, and in all.
        truth: (N, 2, S) those of each class.
        right, predicted: (N, 2, S, R) the same of those called rightly, and of all called so.
        outline: (N, S, 2, R), see `eval.metrics.boundary.boundary_iou_counts`.
        nll: (N, R) sums of -log p(truth) over `pixels`, (N,); names, classes, band.
    """
    first = counts[0]

    def scored(c: SplitCounts, sums: npt.NDArray[Any]) -> npt.NDArray[Any]:
        # Runs that were stored before have the scored classes alone.
        return sums[..., list(c.scored)]

    named = [[c.classes[k] for k in c.scored] for c in counts]
    for other in named:
        if other != named[0]:
            raise ValueError(
                f"the runs of a study score the same classes; got {', '.join(named[0])} and "
                f"{', '.join(other)}: make a study of its own for these."
            )
    bands = [np.stack([c.within(WIDTH), c.confusions], axis=1) for c in counts]
    pairs = list(zip(counts, bands, strict=True))

    def stacked(arrays: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        # Differences between runs are small numbers, which compress well.
        return np.diff(np.stack(arrays, axis=-1).astype("<i4"), axis=-1, prepend=0)

    return {
        "names": np.array(first.names),
        "classes": np.array(named[0]),
        "band": np.array(first.band),
        "total": bands[0].sum((-2, -1)).astype("<i4"),
        "truth": scored(first, bands[0].sum(-1)).astype("<i4"),
        "right": stacked([scored(c, np.diagonal(b, axis1=-2, axis2=-1)) for c, b in pairs]),
        "predicted": stacked([scored(c, b.sum(-2)) for c, b in pairs]),
        "outline": stacked([c.boundary[:, list(c.scored)] for c in counts]),
        "nll": np.stack([c.likelihood[:, 0] for c in counts], axis=-1).astype("<f4"),
        "pixels": np.max([c.bins[..., 0].sum(-1) for c in counts], axis=0).astype("<i4"),
    }


def unpacked(arrays: Mapping[str, npt.NDArray[Any]]) -> list[SplitCounts]:
    """Make the counts of R runs again, with one class "other" for all that are not scored.

    Pixels that a class lost, or took from another one, are counted as lost to and taken from
    "other": the scores of `packed` are the same, accuracies and confusions are not to be had.
    What is counted twice so is taken off again, from "other" as itself.
    """
    right, predicted, outline = (
        np.cumsum(arrays[key], axis=-1, dtype=np.int64) for key in ("right", "predicted", "outline")
    )
    truth = arrays["truth"].astype(np.int64)
    # Studies that were stored before there was a total show no score that needs it.
    total = arrays["total"].astype(np.int64) if "total" in arrays else truth.sum(-1)
    images, _, size, runs = right.shape
    found = []
    for run in range(runs):
        bands = np.zeros((images, 2, size + 1, size + 1), dtype=np.int64)
        each = np.arange(size)
        bands[..., each, each] = right[..., run]
        bands[..., :size, size] = truth - right[..., run]
        bands[..., size, :size] = predicted[..., run] - right[..., run]
        bands[..., size, size] = total - bands.sum((-2, -1))
        bands[:, 1] -= bands[:, 0]  # the ring beyond WIDTH
        likelihood = np.full((images, 2), np.nan)
        likelihood[:, 0] = arrays["nll"][:, run]
        bins = np.zeros((images, 15, 3))
        bins[:, 0, 0] = arrays["pixels"]
        found.append(
            SplitCounts(
                tuple(map(str, arrays["names"])),
                (*map(str, arrays["classes"]), "other"),
                tuple(range(size)),
                (WIDTH,),
                "void" if arrays["band"] == "void" else "edge",
                csr_array(bands.reshape(images, -1)),
                np.pad(outline[..., run], ((0, 0), (0, 1), (0, 0))),
                np.zeros((images, size + 1, 4), dtype=np.int64),
                likelihood,
                bins,
            )
        )
    return found


# From a run folder into a study.


def runs_of(folder: Path, label: str, split: str, arms: Sequence[str] = ()) -> list[Run]:
    """Take every run of a folder that is finished or has failed.

    Args:
        folder: that `python -m train` wrote.
        label: of the row that the runs belong to.
        split: whose counts are stored.
        arms: to take; all if none is named.

    Raises:
        FileNotFoundError: a file of a run is missing.
        ValueError: it is damaged, or not what is to be published.
    """
    config = read(folder / "config.json")
    invocations = read(folder / "origin.json")
    _check_paths(config, invocations, folder)
    found = []
    for arm_folder in sorted((folder / "arms").glob("*-seed*")):
        arm, _, seed = arm_folder.name.rpartition("-seed")
        if arms and arm not in arms:
            continue
        taken = (arm_folder / "taken_over.json").is_file()
        own = [e for e in invocations if e.get("taken_over", False) == taken] or invocations
        made = {
            **merged(invocations),
            **{key: own[0][key] for key in ("started", "machine", "versions")},
            "recipe": config.get("recipe", folder.name),
        }
        about = {
            "config": config,
            "configuration": digest_of(what_matters(config)),
            "made": {key: value for key, value in made.items() if key != "wall_seconds"},
        }
        if (arm_folder / "result.json").is_file():
            result = read(arm_folder / "result.json")
            if split not in result["metrics"]:
                raise ValueError(f"{arm_folder} was not scored on the {split} split.")
            path = arm_folder / f"counts-{split}-before-crf.npz"
            after = SplitCounts.load(arm_folder / f"counts-{split}.npz")
            before = None if result["crf"] is None else SplitCounts.load(path)
            row = {**about, **_in_short(result, after)}
            run = Run(arm, int(seed), row, label=label, counts=after, before=before)
        elif (arm_folder / "failed.json").is_file():
            row = {**about, "failed": read(arm_folder / "failed.json")["error"]}
            run = Run(arm, int(seed), row, label=label)
        else:
            continue
        found.append(run)
    return found


def _check_paths(config: Mapping[str, Any], invocations: Any, folder: Path) -> None:
    """Raise ValueError where a path of this machine would be published."""
    named = {
        f"--{part}.{name.replace('_', '-')} {path}": path
        for part, name in PATHS
        if (path := config.get(part, {}).get(name)) is not None
    }
    for entry in invocations:
        named |= {word: word.rpartition("=")[2] for word in shlex.split(entry["command"])}
    for words, path in named.items():
        if Path(path).is_absolute():
            raise ValueError(
                f"{folder} was run with {words}: run what is to be published with paths relative "
                "to the repository."
            )


def _in_short(result: Mapping[str, Any], counts: SplitCounts) -> dict[str, Any]:
    """Keep of a result.json what the tables do not compute from the counts."""
    crf = result["crf"]
    row = {key: result[key] for key in ("network_steps", "wall_seconds")}
    if "label_bias" in result:
        row["bias"] = result["label_bias"]["bias"]
    if crf is not None:
        matrices = {**crf["kernel_weights"], "compatibility": crf["compatibility"]}
        row["crf"] = {
            **{k: v for k, v in crf.items() if not isinstance(v, dict | list) or "theta" in k},
            **{name: _means(np.array(matrix)) for name, matrix in matrices.items()},
        }
        if "context" in crf["kernel_weights"]:
            row["context"] = _context(crf, counts)
    return row


def _means(matrix: npt.NDArray[Any]) -> dict[str, float]:
    """Average an (L, L) matrix on and off the diagonal."""
    on = np.eye(len(matrix), dtype=bool)
    short = {"diagonal": float(matrix[on].mean())}
    return short | ({"others": float(matrix[~on].mean())} if len(matrix) > 1 else {})


def _context(crf: Mapping[str, Any], counts: SplitCounts) -> dict[str, dict[str, float]]:
    """Return what each scored label pays for each other one around it, mu W of the context kernel.

    {payer: {other: penalty}}. A penalty that all labels pay alike changes nothing, so the mean over
    the payers is taken off.
    """
    scored = list(counts.scored)
    penalty = np.array(crf["compatibility"]) @ np.array(crf["kernel_weights"]["context"])
    penalty = penalty[np.ix_(scored, scored)]
    penalty -= penalty.mean(axis=0)
    names = [counts.classes[k] for k in scored]
    return {
        payer: {other: float(f"{p:.4g}") for other, p in zip(names, row, strict=True)}
        for payer, row in zip(names, penalty, strict=True)
    }
