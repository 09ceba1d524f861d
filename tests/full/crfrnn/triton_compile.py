"""Compile every kernel for a GPU that need not be there, and write what each of them takes.

    python -m tests.full.crfrnn.triton_compile --out kernels.json

The interpreter runs the kernels' logic, but knows nothing of what a compiler refuses. Here the
launchers run with a driver that only says which GPU is meant, and every launch stops when its
kernel is compiled.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from tests.full.crfrnn.triton_cases import CASES

HOPPER = GPUTarget("cuda", 90, 32)


class AbsentGpu:
    """A driver for compilation alone."""

    def get_current_target(self) -> GPUTarget:
        return HOPPER

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def compiled(launch: Callable[[], None]) -> list[dict[str, Any]]:
    """What the kernels of a launch need, in order; what the launchers return is not computed."""
    found: list[dict[str, Any]] = []
    run = JITFunction.run

    def stop(self: Any, *args: Any, **options: Any) -> Any:
        kernel = run(self, *args, **{**options, "warmup": True})
        assert kernel is not None
        row = {"kernel": self.fn.__name__, "shared": kernel.metadata.shared}
        found.append(row | registers(kernel))
        return kernel

    triton.runtime.driver.set_active(AbsentGpu())
    with patch.object(JITFunction, "run", stop):
        launch()
    return found


def registers(kernel: Any) -> dict[str, int]:
    """Registers of a thread, and bytes of it that did not fit into them."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        shown = subprocess.run(
            [str(tool), "--dump-resource-usage", file.name],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    numbers = {key: int(value) for key, value in re.findall(r"(REG|LOCAL|STACK):(\d+)", shown)}
    return {"registers": numbers["REG"], "spilled": numbers["LOCAL"] + numbers["STACK"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="JSON file, one entry a kernel")
    out = parser.parse_args().out
    rows = [{"case": name, **row} for name, launch in CASES.items() for row in compiled(launch)]
    out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
