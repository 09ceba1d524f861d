"""The repository's own files, and what its Python files import."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("crfrnn", "models", "data", "runtime", "eval", "train", "benchmarks")


def python_files(room: str) -> list[Path]:
    """Every module of a room (a top-level folder), sorted."""
    return sorted((ROOT / room).rglob("*.py"))


def repository_files() -> list[Path]:
    """Every file that git tracks, or that it would; skips in an archive without git."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("needs a clone with git")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def imports_of(path: Path) -> set[str]:
    """Names of all modules that a file imports, wherever in it; "<relative>" for those of a dot."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add("<relative>" if node.level else str(node.module))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
            ("__import__", "import_module")
        ):
            modules |= {str(name.value) for name in node.args if isinstance(name, ast.Constant)}
    return modules


def top(module: str) -> str:
    """The top-level package of a module's name."""
    return module.partition(".")[0]
