"""The repository's own files, and what its Python files import."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("crfrnn", "models", "data", "runtime", "eval", "train", "benchmarks")


def python_files(room: str) -> list[Path]:
    """Every module of a room (a top-level folder), sorted."""
    return sorted(path for path in repository_files(ROOT / room) if path.suffix == ".py")


def repository_files(folder: Path = ROOT) -> Iterator[Path]:
    """Every file below `folder` that .gitignore does not leave out.

    The tree is walked instead of asking git, so that a downloaded archive is tested like a clone.
    """
    lines = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    yield from _walk(folder, [".git", *lines])


def _walk(folder: Path, patterns: list[str]) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if any(_matches(path, pattern) for pattern in patterns):
            continue
        if path.is_dir():
            yield from _walk(path, patterns)
        else:
            yield path


def _matches(path: Path, pattern: str) -> bool:
    """The part of .gitignore's language that this repository uses: name globs, `dir/`, `/top/`."""
    if pattern.endswith("/") and not path.is_dir():
        return False
    if pattern.startswith("/") and path.parent != ROOT:
        return False
    return fnmatch(path.name, pattern.strip("/"))


def imported_modules(source: str) -> set[str]:
    """Names of all modules that a source text imports, wherever in the file.

    What cannot be told from the text is named in angle brackets: "<computed>", "<relative>".
    """
    modules: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add("<relative>" if node.level else str(node.module))
        elif isinstance(node, ast.Call) and node.args:
            function = ast.unparse(node.func).rpartition(".")[2]
            if function in ("__import__", "import_module"):
                name = node.args[0]
                known = isinstance(name, ast.Constant) and isinstance(name.value, str)
                modules.add(ast.literal_eval(name) if known else "<computed>")
    return modules


def imports_of(path: Path) -> set[str]:
    """Names of all modules that a file imports."""
    return imported_modules(path.read_text(encoding="utf-8"))


def top(module: str) -> str:
    """The top-level package of a module's name."""
    return module.partition(".")[0]
