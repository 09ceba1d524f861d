"""Every kernel compiles for a GPU, without one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.conftest import REPOSITORY
from tests.full.crfrnn.triton_path import needs_triton


@needs_triton
def test_every_kernel_compiles(tmp_path: Path) -> None:
    # In a process of its own: here Triton's kernels are interpreted.
    env = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    # Whether a multiply and an add are fused: Triton warns where nothing is said.
    env |= {"TRITON_CACHE_DIR": str(tmp_path), "TRITON_DEFAULT_FP_FUSION": "1"}
    out = tmp_path / "kernels.json"
    command = [sys.executable, "-m", "tests.full.crfrnn.triton_compile", "--out", str(out)]
    subprocess.run(command, cwd=REPOSITORY, env=env, check=True)
    sources = (REPOSITORY / "crfrnn" / "triton_kernels").glob("[a-z]*.py")
    kernels = {name for x in sources for name in re.findall(r"def (\w+_kernel)\(", x.read_text())}
    assert {row["kernel"] for row in json.loads(out.read_text())} == kernels
