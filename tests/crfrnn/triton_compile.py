"""Compile every kernel for a GPU that need not be there: `python -m tests.crfrnn.triton_compile`.

The interpreter runs the kernels' logic, but knows nothing of what a compiler refuses or of what
fits into a GPU. Here the launchers run with a driver that only says which GPU is meant, and
every launch stops when its kernel is compiled. One line of JSON for each goes to standard output.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

HOPPER = GPUTarget("cuda", 90, 32)


class AbsentGpu:
    """A driver for compilation alone."""

    def get_current_target(self) -> GPUTarget:
        return HOPPER

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def compiled(launch: Any) -> list[dict[str, Any]]:
    """What the kernels of a launch need, in order.

    Args:
        launch: calls launchers; what they return is not computed.
    """
    found: list[dict[str, Any]] = []
    run = JITFunction.run

    def stop(self: Any, *args: Any, **options: Any) -> Any:
        kernel = run(self, *args, **{**options, "warmup": True})
        assert kernel is not None
        found.append(
            {"kernel": self.fn.__name__, "shared": kernel.metadata.shared, **usage(kernel)}
        )
        return kernel

    triton.runtime.driver.set_active(AbsentGpu())
    with patch.object(JITFunction, "run", stop):
        launch()
    return found


def usage(kernel: Any) -> dict[str, int]:
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


if __name__ == "__main__":
    from tests.crfrnn.triton_cases import CASES

    for name, launch in CASES.items():
        if len(sys.argv) == 1 or name in sys.argv[1:]:
            for row in compiled(launch):
                print(json.dumps({"case": name, **row}), flush=True)
