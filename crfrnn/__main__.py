"""Command line: `crfrnn refine` for folders, `crfrnn presets`, `crfrnn info`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import torch

import crfrnn
from crfrnn import PRESETS, triton_kernels
from crfrnn.cpu import instructions
from crfrnn.filters import Normalization
from crfrnn.folder import FolderOptions, refine_folder
from crfrnn.refine import Kind, Nodata, Output

SETTINGS = ("theta_gamma", "spatial_weight", "theta_alpha", "theta_beta", "bilateral_weight")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="crfrnn", description="Dense CRFs on your masks.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("info", help="version, active paths and threads")
    commands.add_parser("presets", help="published settings, with their sources")
    _add_refine(commands.add_parser("refine", help="sharpen a folder of maps, write masks"))
    options = vars(parser.parse_args(arguments))
    command = options.pop("command")
    if command == "refine":
        return _refine(FolderOptions(**options))
    print(_presets() if command == "presets" else _lines(info()))
    return 0


def _add_refine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", type=Path, metavar="IMAGES", help="folder of photographs")
    parser.add_argument(
        "maps", type=Path, metavar="MAPS", help="folder of NAME.npy, .npz, .pt or .png"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the masks")
    default = FolderOptions.preset
    parser.add_argument("--preset", default=default, help="see `crfrnn presets` (%(default)s)")
    for name in SETTINGS:
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=float, help="instead of the preset's"
        )
    parser.add_argument("--num-iterations", type=int, metavar="T", help="likewise")
    parser.add_argument("--normalization", choices=get_args(Normalization), help="likewise")
    parser.add_argument(
        "--output-scale", type=float, default=1.0, help="power of the probabilities (%(default)s)"
    )
    parser.add_argument(
        "--label-bias", type=float, nargs="+", help="nats of each label, taken from log P"
    )
    parser.add_argument(
        "--kind", choices=get_args(Kind), help="of the maps, where their values do not say it"
    )
    parser.add_argument("--output", choices=get_args(Output), default="mask", help="(%(default)s)")
    parser.add_argument(
        "--confidence", type=float, default=0.0, help="a mask is unsure below it (0: never)"
    )
    parser.add_argument("--unsure", type=int, default=255, help="its value then (%(default)s)")
    parser.add_argument(
        "--background", type=float, metavar="ALPHA", help="add label 0 as (1 - max)^ALPHA"
    )
    parser.add_argument(
        "--certainty", type=float, default=0.7, help="P of a label map's label (%(default)s)"
    )
    parser.add_argument("--num-labels", type=int, metavar="L", help="of label maps")
    parser.add_argument(
        "--nodata",
        choices=get_args(Nodata),
        default="error",
        help="pixels without any (%(default)s)",
    )
    parser.add_argument("--workers", type=int, default=1, help="processes (%(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (%(default)s)")
    parser.add_argument(
        "--trust-pickles", action="store_true", help="read .npy of Python objects that you made"
    )


def _refine(options: FolderOptions) -> int:
    try:
        left_out = refine_folder(options)
    except (ValueError, OSError, ImportError) as error:
        print(f"crfrnn refine: {error}", file=sys.stderr)
        return 2
    for name, reason in left_out.items():
        print(f"left out: {name}: {reason}", file=sys.stderr)
    return 1 if left_out else 0


def _presets() -> str:
    lines = []
    for name, p in PRESETS.items():
        lines.append(
            f"{name:<24} spatial {p.theta_gamma:g} / {p.spatial_weight:g}, bilateral "
            f"{p.theta_alpha:g} / {p.theta_beta:g} / {p.bilateral_weight:g}, "
            f"T = {p.num_iterations_eval}, {p.normalization}"
        )
        lines.append(f"    {p.source}")
    return "\n".join(lines)


def info() -> dict[str, str]:
    """Return the version, the active paths and the number of threads, in words."""
    active = instructions()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    kernels = "Triton kernels" if triton_kernels.available() else "no Triton: plain PyTorch serves"
    return {
        "crfrnn": crfrnn.__version__,
        "torch": torch.__version__,
        "native CPU": f"yes ({active})" if active else "no: plain PyTorch serves",
        "CUDA": f"yes ({gpu}), {kernels}" if gpu else "no",
        "threads": str(torch.get_num_threads()),
    }


def _lines(values: dict[str, str]) -> str:
    return "\n".join(f"{name:<11} {value}" for name, value in values.items())


if __name__ == "__main__":
    sys.exit(main())
