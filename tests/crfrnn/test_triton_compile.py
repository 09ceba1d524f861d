"""Every kernel compiles for a GPU, and fits into it, without one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.crfrnn.triton_path import needs_triton

# Bytes of a thread: what is kept between chunks of tiles, outside the loop over pairs, so that two
# programs run beside each other.
SPILLED = {"exact_filter_kernel": 64}
SHARED_BYTES = 227 * 1024  # of one program on an H100 or H200


@needs_triton
@pytest.mark.slow
def test_every_kernel_compiles_and_fits(tmp_path: Path) -> None:
    # In a process of its own: here Triton's kernels are interpreted.
    env = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    # Whether a multiply and an add are fused: Triton warns where nothing is said.
    env |= {"TRITON_CACHE_DIR": str(tmp_path), "TRITON_DEFAULT_FP_FUSION": "1"}
    shown = subprocess.run(
        [sys.executable, "-m", "tests.crfrnn.triton_compile"],
        cwd=REPOSITORY,
        env=env,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    rows = [json.loads(line) for line in shown.splitlines()]
    sources = (REPOSITORY / "crfrnn" / "triton_kernels").glob("[a-z]*.py")
    kernels = {name for x in sources for name in re.findall(r"def (\w+_kernel)\(", x.read_text())}
    assert {row["kernel"] for row in rows} == kernels
    for row in rows:
        assert row["shared"] <= SHARED_BYTES, row
        assert row["spilled"] <= SPILLED.get(row["kernel"], 0), row
