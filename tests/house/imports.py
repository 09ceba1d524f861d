"""What a Python file imports, read from its syntax tree."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.house.source_tree import ROOT


def imported_modules(source: str, package: str = "") -> set[str]:
    """Absolute names of all modules that `source` imports, wherever in the file.

    Args:
        source: Python source text.
        package: Dotted name of the package that holds the file, for relative imports.
    """
    modules: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1]
            prefix = base if node.level else []
            modules.add(".".join([*prefix, *([node.module] if node.module else [])]))
        elif isinstance(node, ast.Call) and _calls_import(node.func) and node.args:
            name = node.args[0]
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                modules.add(name.value)
            else:  # cannot be checked, so it is reported as what it is and refused below
                modules.add(f"<computed: {ast.unparse(name)}>")
    return modules


def _calls_import(function: ast.expr) -> bool:
    return (isinstance(function, ast.Name) and function.id in {"__import__", "import_module"}) or (
        isinstance(function, ast.Attribute) and function.attr == "import_module"
    )


def imports_of(path: Path) -> set[str]:
    """Absolute names of all modules that a file of the repository imports."""
    package = ".".join(path.relative_to(ROOT).parent.parts)
    return imported_modules(path.read_text(encoding="utf-8"), package)


def top(module: str) -> str:
    """The top-level package of a module's name."""
    return module.split(".")[0]
