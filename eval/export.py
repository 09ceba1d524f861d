"""Export what was trained: models with a card for others, or the weights of a network."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import jinja2
import tyro
from safetensors.torch import save_file

from eval import tables
from eval.predict import labels_of
from eval.runs import Comparison, Estimate, Line, Run, comparisons, read_run
from models import Segmenter
from runtime.checkpoint import export_pretrained, load_segmenter, read_checkpoint
from runtime.run_folder import ABOUT_ARMS, ARMS, ArmName

SCORES: dict[str, tuple[str, str | None]] = {
    "mIoU": ("miou", None),
    "mIoU within 3 px of borders": ("trimap_miou", "3"),
    "pixel accuracy": ("pixel_accuracy", None),
}
"""The columns of a card's table: name and width of `Line.estimate`."""


@dataclass(frozen=True)
class ExportOptions:
    """Export what was trained.

    Of a run folder, each arm becomes a folder OUT/ARM: config.json and model.safetensors, which
    `Segmenter.from_pretrained` and every command that takes a checkpoint read, and README.md, a
    card with data, scores and licence. Of a checkpoint, the network alone becomes a file of
    weights, as `--model.weights` reads it.

    Attributes:
        source: a run folder, or a checkpoint that `python -m train` wrote.
        out: the folder of the models, or the .safetensors file of the network.
        arms: of a run.
        seed: of a run; its first if not given.
        data_root: of data sets of the kind `folder`: where classes.json lies now.
    """

    source: tyro.conf.Positional[Path]
    out: Path
    arms: tuple[ArmName, ...] = ("joint", "post-hoc")
    seed: int | None = None
    data_root: Annotated[Path | None, tyro.conf.arg(name="data.root")] = None


def export(options: ExportOptions) -> None:
    """Write the models of a run, or the weights of a checkpoint's network."""
    if not options.source.is_dir():
        export_network(options.source, options.out)
        return
    (comparison,) = comparisons([read_run(options.source)])
    for arm in options.arms:
        export_arm(comparison, arm, options)


def export_network(path: Path, out: Path) -> None:
    """Write the weights of a checkpoint's network, and say which network they are of."""
    segmenter = load_segmenter(read_checkpoint(path))
    if segmenter.config.label_bias:
        raise ValueError(
            f"{path} takes a bias from its logits, which a file of weights cannot hold: export "
            "the checkpoint that `python -m train bias` read."
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    state = {name: value.contiguous() for name, value in segmenter.network.state_dict().items()}
    save_file(state, out)
    print(f"wrote {out}, weights of {segmenter.config.network}")


def export_arm(comparison: Comparison, arm: ArmName, options: ExportOptions) -> None:
    """Write the model of one arm with its card.

    Raises:
        ValueError: the run has no finished arm of that name and seed.
    """
    runs = [run for run in comparison.of(arm) if options.seed in (None, run.seed)]
    if not runs:
        which = arm if options.seed is None else f"{arm} of seed {options.seed}"
        names = ", ".join(run.name for run in comparison.runs) or "none"
        raise ValueError(f"{options.source} has no finished {which}; finished are: {names}.")
    checkpoint = read_checkpoint(options.source / "arms" / runs[0].name / "checkpoint.pt")
    folder = options.out / arm
    labels = labels_of(checkpoint, options.data_root)
    segmenter = export_pretrained(checkpoint, folder, labels)
    text = card(comparison, runs[0], segmenter, folder)
    (folder / "README.md").write_text(text, encoding="utf-8")
    print(f"model:   {folder}")


def card(comparison: Comparison, run: Run, segmenter: Segmenter, folder: Path) -> str:
    """Write the model card of an arm: what it is, its scores, its data, how to load it."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    about, network = segmenter.about, asdict(segmenter.config.network)
    backbone = network.get("backbone", {})
    parts = (network["kind"], *(backbone.get(key, "") for key in ("kind", "name", "depth")))
    return environment.get_template("card.md").render(
        arm=run.arm,
        about_arm=ABOUT_ARMS[run.arm],
        recipe=comparison.recipe,
        seed=run.seed,
        network=" ".join(str(part) for part in parts if part),
        parameters=f"{sum(p.numel() for p in segmenter.parameters()):,}",
        crf=segmenter.describe_crf(),
        label_bias=segmenter.config.label_bias,
        labels=about["labels"]["names"],
        kind=about["data"]["kind"],
        splits=comparison.splits,
        table=tables.markdown(["arm", *SCORES], _rows(comparison, run)),
        command=comparison.provenance["command"],
        commit=tables.commit_line(comparison.provenance),
        folder=folder.as_posix(),
    )


def _rows(comparison: Comparison, run: Run) -> list[list[str]]:
    """Write the scores of all arms of a run's seed, and what it is ahead of the post-hoc CRF."""
    of_seed = {arm: comparison.find(arm, run.seed) for arm in ARMS}
    lines: dict[str, Line] = {
        arm: Line("", arm, (one,)) for arm, one in of_seed.items() if one is not None
    }
    rows = [
        [
            f"**{arm}**" if arm == run.arm else arm,
            *(_written(line.estimate(*score)) for score in SCORES.values()),
        ]
        for arm, line in lines.items()
    ]
    if run.arm != "post-hoc" and "post-hoc" in lines:
        this, other = lines[run.arm], lines["post-hoc"]
        differences = (this.minus(other, *score) for score in SCORES.values())
        rows.append([f"{run.arm} - post-hoc", *(_written(d, "+") for d in differences)])
    return rows


def _written(estimate: Estimate | None, sign: str = "") -> str:
    """Write a score in per cent with its interval: "71.20 [70.1, 72.3]"."""
    if estimate is None:
        return tables.ABSENT
    text = f"{100 * estimate.value:{sign}.2f}"
    if estimate.interval is None:
        return text
    low, high = (f"{100 * end:{sign}.1f}" for end in estimate.interval)
    return f"{text} [{low}, {high}]"


def export_command(arguments: list[str]) -> None:
    """Parse and export."""
    export(tyro.cli(ExportOptions, prog="python -m eval export", args=arguments))
