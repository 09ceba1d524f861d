"""Check a data set before training, and draw a contact sheet."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import track
from rich.table import Table as RichTable

from data.collage import Collage, CollageConfig
from data.dataset import VOID, CorruptSample, SegmentationDataset, Split, overlay
from data.kinds import DataConfig, config_to_dict
from data.paired import Layout, Pair, RootedConfig, Table, check_size, to_labels
from data.reading import (
    absent,
    image_header,
    map_files,
    read_ids,
    read_image,
    read_palette,
    require_unique,
    shortened,
)

T = TypeVar("T")


def contact_sheet(dataset: SegmentationDataset, count: int, columns: int, cell: int) -> Image.Image:
    """Draw the first samples of a data set, row by row: image, overlay, and the name below.

    Args:
        dataset: what to show.
        count: how many samples; fewer where the data set is smaller.
        columns: samples in a row.
        cell: side of the square that an image is fitted into, pixels.

    Raises:
        ValueError: count, columns or cell is below 1.
    """
    for name, value in (("count", count), ("columns", columns), ("cell", cell)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    count = min(count, len(dataset))
    columns = min(columns, count)
    gap, line = 4, 12
    wide, high = 2 * cell + gap, cell + line + gap
    sheet = Image.new("RGB", (columns * wide + gap, -(-count // columns) * high + gap), "white")
    draw = ImageDraw.Draw(sheet)
    palette = dataset.palette.copy()
    palette[VOID] = 255
    for i in range(count):
        sample = dataset[i]
        left, top = i % columns * wide + gap, i // columns * high + gap
        photograph = Image.fromarray(sample.pixels)
        ids = sample.mask.numpy()
        labelled = Image.fromarray(overlay(sample.pixels, ids, palette, opacity=0.6))
        factor = cell / max(photograph.size)
        size = (max(1, round(photograph.width * factor)), max(1, round(photograph.height * factor)))
        sheet.paste(photograph.resize(size, Image.Resampling.BICUBIC), (left, top))
        # Nearest: a mixed colour would look like another class.
        sheet.paste(labelled.resize(size, Image.Resampling.NEAREST), (left + cell, top))
        name = sample.name
        while len(name) > 1 and draw.textlength(name) > 2 * cell:
            name = name[:-1]
        draw.text((left, top + cell), name, fill="black")
    return sheet


# Reading a whole data set once, so that a bad file is found before a training run finds it.

ENOUGH = 5  # masks of which all have the same void


class Problem(NamedTuple):
    """One thing that is wrong: the file, list or folder, and what was expected and is there."""

    file: str
    what: str


@dataclass(frozen=True)
class Finding:
    """The contents of one sample.

    Attributes:
        pixels: (256,) int64, how many pixels each class id has; none where the mask is unusable.
        size: (H, W) of the mask.
        problems: with its files.
        turned: the photograph is turned, as its EXIF data say.
        void: a digest of the places without a label.
        colours: the colours that the mask's own palette gives to its class ids.
    """

    pixels: NDArray[np.int64] | None
    size: tuple[int, ...] = ()
    problems: tuple[Problem, ...] = ()
    turned: bool = False
    void: bytes = b""
    colours: tuple[tuple[int, tuple[int, ...]], ...] = ()


@dataclass
class SplitReport:
    """The contents of a split, and what is wrong with it.

    Attributes:
        split: its name.
        classes: the name of every class id.
        listed: how many samples are named; None where that could not be found out.
        published: how many there should be, by edition; empty where nothing is published.
        read: how many samples could be read.
        pixels: (256,) int64, pixels of each class id.
        images: (256,) int64, readable samples that show each class id.
        sides: the smallest and the largest side of any mask, pixels.
        turned: names of the photographs that are turned, as their EXIF data say.
        problems: all of them.
    """

    split: Split
    classes: tuple[str, ...] = ()
    listed: int | None = None
    published: dict[str, int] = field(default_factory=dict)
    read: int = 0
    pixels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(VOID + 1, np.int64))
    images: NDArray[np.int64] = field(default_factory=lambda: np.zeros(VOID + 1, np.int64))
    sides: tuple[int, int] | None = None
    turned: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def add(self, name: str, finding: Finding) -> None:
        """Count one sample."""
        self.problems.extend(finding.problems)
        if finding.pixels is None:
            return
        self.read += 1
        self.pixels += finding.pixels
        self.images += finding.pixels > 0
        low, high = self.sides or finding.size[:2]
        self.sides = min(low, *finding.size), max(high, *finding.size)
        self.turned += [name] if finding.turned else []

    def share(self, label: int) -> float:
        """Return the part of the labelled pixels that a class has, 0..1."""
        labelled = int(self.pixels[:VOID].sum())
        return int(self.pixels[label]) / labelled if labelled else 0.0

    @property
    def void(self) -> float:
        """The part of all pixels without a label, 0..1."""
        total = int(self.pixels.sum())
        return int(self.pixels[VOID]) / total if total else 0.0


def inspect(pair: Pair, *, table: Table, decode: bool) -> Finding:
    """Read the files of one sample and note all that is wrong.

    The mask is decoded whole; the image only where `decode` says so, else its header is read.
    """
    problems: list[Problem] = []
    size = labels = None
    turned = False
    try:
        *size, orientation = image_header(pair.image)
        turned = orientation > 1
        if decode:
            read_image(pair.image)
    except (CorruptSample, OSError) as error:
        problems.append(Problem(str(pair.image), str(error)))
    try:
        ids = read_ids(pair.mask)
        labels = to_labels(ids, table, pair.mask)
        if size is not None:
            check_size(pair, tuple(size), labels.shape)
    except (CorruptSample, OSError) as error:
        problems.append(Problem(str(pair.mask), str(error)))
    if problems or labels is None:
        return Finding(None, problems=tuple(problems))
    void = np.packbits(labels == VOID)
    return Finding(
        np.bincount(labels.ravel(), minlength=VOID + 1),
        labels.shape,
        turned=turned,
        void=hashlib.sha256(void.tobytes()).digest() if void.any() else b"",
        colours=_colours(pair.mask, np.unique(ids).tolist(), table),
    )


def _colours(path: Path, ids: list[int], table: Table) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """List the colours of the class ids in a mask's palette; none where two ids share one."""
    palette = read_palette(path)
    if palette is None:
        return ()
    shown = {i: tuple(palette[i].tolist()) for i in ids if table[i] != VOID and i < len(palette)}
    if len(set(shown.values())) < len(shown):
        return ()
    return tuple((int(table[i]), colour) for i, colour in shown.items())


def verify(
    config: DataConfig,
    splits: Sequence[Split],
    *,
    decode: bool = True,
    workers: int | None = None,
) -> list[SplitReport]:
    """Check lists, counts, existence, sizes, ids, voids and palettes of whole splits.

    Args:
        config: of the data set.
        splits: which.
        decode: every image too, not only every mask.
        workers: processes that read; 0 reads in this one, None chooses.

    Returns:
        A report for each split, with all problems.

    Raises:
        FileNotFoundError, PermissionError, ValueError: no split can be listed at all, as where the
            root is wrong.
        OSError: a reading process died.
    """
    if isinstance(config, CollageConfig):
        return [_made(config, split) for split in splits]
    reports = [SplitReport(split) for split in splits]
    present: list[tuple[SplitReport, Layout]] = []
    errors: list[Exception] = []
    for report in reports:
        try:
            present.append((report, config.layout(report.split)))
        except (OSError, ValueError) as error:
            errors.append(error)
            report.problems.append(Problem(str(config.root), str(error)))
    if not present:
        raise errors[0]
    labels = config.label_set()
    for report, layout in present:
        report.classes = labels.classes
        _check_listing(report, layout)
    _check_disjoint(present)
    # tune and report may be the same images: each is read once.
    missing = absent(path for _, layout in present for path in _files(layout))
    pairs = list(dict.fromkeys(pair for _, layout in present for pair in layout.pairs))
    whole = [pair for pair in pairs if not {pair.image, pair.mask} & missing.keys()]
    examine = partial(inspect, table=present[0][1].table, decode=decode)
    found = _progress(map_files(examine, whole, workers), len(whole))
    findings = dict(zip(whole, found, strict=True))
    for report, layout in present:
        why = f"does not exist, but {layout.source} names it"
        for path in dict.fromkeys(path for path in _files(layout) if path in missing):
            report.problems.append(Problem(str(path), f"{missing[path]} {why}"))
        for pair in layout.pairs:
            if pair in findings:
                report.add(pair.name, findings[pair])
        if report.read and not report.pixels[:VOID].any():
            report.problems.append(Problem(layout.source, "no pixel of the split has a label"))
    first = present[0][0]
    first.problems += _suspicions(config, [report for report, _ in present], findings)
    return reports


def _files(layout: Layout) -> Iterator[Path]:
    return (path for pair in layout.pairs for path in (pair.image, pair.mask))


def _check_listing(report: SplitReport, layout: Layout) -> None:
    names = [pair.name for pair in layout.pairs]
    report.listed = len(names)
    report.published = dict(layout.published)
    try:
        require_unique(names, layout.source)
    except ValueError as error:
        report.problems.append(Problem(layout.source, str(error)))
    if report.published and len(names) not in report.published.values():
        known = ", ".join(f"{count} ({name})" for name, count in report.published.items())
        what = f"{layout.source} names {len(names)} images; published: {known}"
        report.problems.append(Problem(layout.source, what))


def _check_disjoint(present: list[tuple[SplitReport, Layout]]) -> None:
    """Whoever trains on what is tuned or reported on measures nothing."""
    names = {report.split: {pair.name for pair in layout.pairs} for report, layout in present}
    for report, layout in present:
        shared = sorted(names.get("train", set()) & names[report.split])
        if shared and report.split != "train":
            what = f"{len(shared)} images are in train too: {shortened(shared)}"
            report.problems.append(Problem(layout.source, what))


def _suspicions(
    config: RootedConfig, reports: list[SplitReport], findings: dict[Pair, Finding]
) -> Iterator[Problem]:
    """Find what is well formed in every file and wrong in all of them together."""
    where, labels = str(config.root), config.label_set()
    pixels = np.sum([report.pixels for report in reports], axis=0)
    never = [labels.classes[label] for label in labels.scored if not pixels[label]]
    as_published = all(report.listed in report.published.values() for report in reports)
    if never and pixels[:VOID].any() and not as_published:
        void = pixels[VOID] / pixels.sum()
        hint = (
            f", and {100 * void:.1f} % of the pixels are void (255). If 255 is a class, write "
            f'"ids": [0, 255] (what the masks store for each class) into classes.json'
            if void and config.kind == "folder"
            else ""
        )
        yield Problem(
            where,
            f"no mask holds the class {shortened(never)}{hint}. If it is absent on purpose, name "
            'the others as "scored"',
        )
    voids = {(finding.void, finding.size) for finding in findings.values() if finding.size}
    ((void_of_all, _),) = voids if len(voids) == 1 else ((b"", ()),)
    count = sum(report.read for report in reports)
    if void_of_all and pixels[:VOID].any() and count >= ENOUGH:
        yield Problem(
            where,
            f"the same {pixels[VOID] // count} pixels are void in all {count} masks: are they a "
            "class, or a stamp on the pictures?",
        )
    yield from _palettes(config, findings)


def suspicions(config: DataConfig, count: int = 1000) -> list[str]:
    """Say what is wrong in the training masks of one's own data, taken together.

    A training that would learn one class everywhere is better not begun. Published data sets are
    left to `verify`.

    Args:
        config: of the data set.
        count: masks that are read, evenly spaced; all of them if there are fewer.
    """
    if isinstance(config, CollageConfig) or config.kind != "folder":
        return []
    layout, report = config.layout("train"), SplitReport("train")
    step = -(-len(layout.pairs) // count)
    pairs = layout.pairs[::step]
    examine = partial(inspect, table=layout.table, decode=False)
    findings = dict(zip(pairs, map_files(examine, pairs, None), strict=True))
    for pair, finding in findings.items():
        report.add(pair.name, finding)
    return [problem.what for problem in _suspicions(config, [report], findings)]


def _palettes(config: RootedConfig, findings: dict[Pair, Finding]) -> Iterator[Problem]:
    """Find palettes that show a class in the colour that another class has elsewhere."""
    classes, known = config.label_set().classes, config.mask_palette()
    owner: dict[tuple[int, ...], tuple[int, str]] = {}
    if known is not None:
        colours = enumerate(known[: len(classes)].tolist())
        owner = {tuple(colour): (label, "the data set") for label, colour in colours}
    for pair, finding in findings.items():
        for label, colour in finding.colours:
            other, place = owner.setdefault(colour, (label, pair.mask.name))
            if other != label:
                yield Problem(
                    str(pair.mask),
                    f"{pair.mask} shows {classes[label]} in the colour {colour}, which is that of "
                    f"{classes[other]} in {place}: its ids are in another order",
                )
                break


def _made(config: CollageConfig, split: Split) -> SplitReport:
    dataset = Collage(config, split)
    report = SplitReport(split, classes=dataset.classes, listed=len(dataset))
    for index in _progress(range(len(dataset)), len(dataset)):
        mask = dataset[index].mask.numpy()
        found = Finding(np.bincount(mask.ravel(), minlength=VOID + 1), mask.shape)
        report.add(dataset.names[index], found)
    return report


def _progress(items: Iterable[T], total: int) -> Iterable[T]:
    return track(items, "reading", total, console=Console(stderr=True), transient=True)


# The reports of `python -m data verify`, for the eye and as JSON.


def to_json(config: DataConfig, reports: list[SplitReport]) -> dict[str, Any]:
    """Return everything that was found, as plain values."""
    plain = ("split", "listed", "published", "read", "sides", "void", "turned")
    splits = [
        {
            **{name: getattr(report, name) for name in plain},
            "classes": [
                {"name": name, "share": report.share(label), "images": int(report.images[label])}
                for label, name in enumerate(report.classes)
            ],
            "problems": [problem._asdict() for problem in report.problems],
        }
        for report in reports
    ]
    return {"data": config_to_dict(config), "splits": splits}


def print_report(console: Console, reports: list[SplitReport], *, limit: int) -> None:
    """Print a table of all splits, then the first `limit` problems of each."""
    classes = next(report.classes for report in reports if report.classes)
    table = RichTable(box=SIMPLE, padding=(0, 1), pad_edge=False)
    table.add_column("id", justify="right")
    table.add_column("class", no_wrap=True, min_width=max(map(len, classes)))
    for report in reports:
        table.add_column(f"{report.split}\npixels", justify="right", no_wrap=True)
        table.add_column("\nimages", justify="right", no_wrap=True)
    for label, name in enumerate(classes):
        cells = [(f"{100 * r.share(label):.2f} %", str(r.images[label])) for r in reports]
        table.add_row(str(label), name, *(cell for pair in cells for cell in pair))
    console.print(table)
    for report in reports:
        console.print(_line(report), markup=False, soft_wrap=True)
        for problem in report.problems[:limit]:
            console.print(f"  {problem.what}", style="red", markup=False, soft_wrap=True)
        if len(report.problems) > limit:
            rest = len(report.problems) - limit
            console.print(f"  and {rest} more; --out FILE.json lists all", style="red")


def _line(report: SplitReport) -> str:
    if report.listed is None:
        return f"{report.split}: could not be listed"
    editions = [name for name, count in report.published.items() if count == report.listed]
    known = f" (as {' or '.join(editions)})" if editions else ""
    low, high = report.sides or (0, 0)
    end = f"{len(report.problems)} problems" if report.problems else "every file is well formed"
    turned = len(report.turned)
    if turned:
        whose = "image is turned as its" if turned == 1 else "images are turned as their"
        end = f"{turned} {whose} EXIF data say: {shortened(report.turned)}; {end}"
    return (
        f"{report.split}: {report.listed} images{known}, {report.read} read, sides {low}..{high} "
        f"px, {100 * report.void:.2f} % void; {end}"
    )
