"""`python -m crfrnn info`: the version, and which paths are active on this machine."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import torch

import crfrnn
from crfrnn import triton_kernels
from crfrnn.native import instructions


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m crfrnn", description=__doc__)
    parser.add_subparsers(dest="command", required=True).add_parser(
        "info", help="version, paths and threads"
    )
    parser.parse_args(arguments)
    for name, value in info().items():
        print(f"{name:<11} {value}")
    return 0


def info() -> dict[str, str]:
    """What `python -m crfrnn info` prints."""
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


if __name__ == "__main__":
    sys.exit(main())
