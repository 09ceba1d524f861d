"""`python -m eval export`: the network of a checkpoint as a file of weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro
from safetensors.torch import save_file

from runtime.checkpoint import load_segmenter, read_checkpoint


@dataclass(frozen=True)
class ExportOptions:
    """Write the network of a checkpoint as `--model.weights` reads it, without its CRF.

    Attributes:
        checkpoint: a file that `python -m train` wrote.
        out: the .safetensors file.
    """

    checkpoint: tyro.conf.Positional[Path]
    out: Path


def export(options: ExportOptions) -> None:
    """Write the network's weights, and say which network they are of."""
    checkpoint = read_checkpoint(options.checkpoint)
    segmenter = load_segmenter(checkpoint)
    if segmenter.config.label_bias:
        raise ValueError(
            f"{options.checkpoint} takes a bias from its logits, which a file of weights cannot "
            "hold: export the checkpoint that `python -m train bias` read."
        )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    state = {name: value.contiguous() for name, value in segmenter.network.state_dict().items()}
    save_file(state, options.out)
    print(f"wrote {options.out}, weights of {segmenter.config.network}")


def export_command(arguments: list[str]) -> None:
    """Parse and export."""
    export(tyro.cli(ExportOptions, prog="python -m eval export", args=arguments))
