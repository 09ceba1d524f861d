"""What is installed, from where, and that the two lists of dependencies agree."""

from __future__ import annotations

import ast
import re
import sys
from typing import Any

import pytest
import setuptools
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.house.imports import imports_of, top
from tests.house.source_tree import ROOMS, ROOT, python_files, repository_files

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# conda's name -> the name in pyproject.toml, where they differ
CONDA_NAMES = {"pytorch": "torch", "playwright-python": "playwright"}
# the interpreter and the installer, which pyproject.toml does not list as packages
CONDA_ONLY = {"python", "pip"}
# imported name -> distribution, where they differ; Triton comes with torch, where it comes at all
DISTRIBUTIONS = {"PIL": "pillow", "skimage": "scikit-image", "yaml": "pyyaml", "triton": "torch"}
# Registry and mirror hosts, in pieces so that this file does not name one.
REGISTRY_HOSTS = [
    ".".join(parts)
    for parts in [
        ("pypi", "org"),
        ("pypi", "python", "org"),
        ("pypi", "nvidia", "com"),
        ("pythonhosted", "org"),
        ("download", "pytorch", "org"),
        ("anaconda", "org"),
        ("anaconda", "com"),
        ("conda", "io"),
        ("registry", "npmjs", "org"),
        ("static", "crates", "io"),
        ("pypi", "tuna"),
        ("mirrors", "aliyun", "com"),
    ]
]
# A home or workspace folder at the root of a file system: true on one machine only.
MACHINE_PATH = re.compile(r"(?<![\w.~/-])/(home|Users|root|work|workspace|mnt)/")


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def environment() -> dict[str, Any]:
    parsed: dict[str, Any] = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    return parsed


def bounds(requirements: list[str]) -> dict[str, str]:
    """Distribution name -> version bounds; markers are left out, conda has none."""
    parsed = [Requirement(line) for line in requirements]
    return {canonicalize_name(item.name): str(item.specifier) for item in parsed}


def listed(pyproject: dict[str, Any], *extras: str) -> list[str]:
    """The wheel's dependencies followed by those of the named extras."""
    project = pyproject["project"]
    optional = project["optional-dependencies"]
    return [*project["dependencies"], *(line for extra in extras for line in optional[extra])]


def test_environment_lists_what_pyproject_lists(pyproject, environment):
    lines = [line for line in environment["dependencies"] if isinstance(line, str)]
    conda = {CONDA_NAMES.get(name, name): spec for name, spec in bounds(lines).items()}
    assert {name: spec for name, spec in conda.items() if name not in CONDA_ONLY} == bounds(
        listed(pyproject, "research", "dev")
    )


def test_environment_installs_the_library_itself(environment):
    assert [item for item in environment["dependencies"] if isinstance(item, dict)] == [
        {"pip": ["-e ."]}
    ]


def test_environment_offers_the_declared_pythons(pyproject, environment):
    minors = sorted(
        int(match[1])
        for line in pyproject["project"]["classifiers"]
        if (match := re.fullmatch(r"Programming Language :: Python :: 3\.(\d+)", line))
    )
    assert pyproject["project"]["requires-python"] == f">=3.{minors[0]}"
    assert Requirement(
        next(line for line in environment["dependencies"] if str(line).startswith("python"))
    ) == Requirement(f"python>=3.{minors[0]},<3.{minors[-1] + 1}")


def test_no_dependency_is_listed_twice(pyproject):
    lines = listed(pyproject, "research", "dev")
    assert len(bounds(lines)) == len(lines)


# What the benchmark times where the user has installed it.
PEERS = {"crfasrnn", "crfseg", "permuto_cpp", "pydensecrf"}


@pytest.mark.parametrize(
    ("room", "extras"),
    [(room, () if room == "crfrnn" else ("research",)) for room in ROOMS]
    + [("tests", ("research", "dev"))],
)
def test_every_import_is_declared(pyproject, room, extras):
    declared = bounds(listed(pyproject, *extras))
    known = {*ROOMS, "tests", *sys.stdlib_module_names}
    if room == "eval":
        known |= PEERS
    missing = {
        f"{path.relative_to(ROOT)}: {module}"
        for path in python_files(room)
        for module in imports_of(path)
        if top(module) not in known
        and canonicalize_name(DISTRIBUTIONS.get(top(module), top(module))) not in declared
    }
    assert not missing, f"imported but not declared in pyproject.toml: {sorted(missing)}"


def test_wheel_holds_only_the_library(pyproject):
    find = pyproject["tool"]["setuptools"]["packages"]["find"]
    assert find["namespaces"] is False  # else every folder below crfrnn/ would count as a package
    packages = setuptools.find_packages(str(ROOT), include=find["include"])
    folders = {".".join(path.parent.relative_to(ROOT).parts) for path in python_files("crfrnn")}
    assert set(packages) == folders


def test_wheel_is_typed(pyproject):
    assert "py.typed" in pyproject["tool"]["setuptools"]["package-data"]["crfrnn"]
    assert (ROOT / "crfrnn" / "py.typed").is_file()


@pytest.mark.parametrize("room", ROOMS)
def test_every_package_has_a_docstring(room):
    packages = {path.parent for path in python_files(room)}
    silent = [
        str(package.relative_to(ROOT))
        for package in sorted(packages)
        if not (package / "__init__.py").is_file()
        or not ast.get_docstring(ast.parse((package / "__init__.py").read_text(encoding="utf-8")))
    ]
    assert not silent, f"__init__.py missing or without a docstring: {silent}"


def test_no_file_names_a_registry_or_a_machine():
    wrong = []
    for path in repository_files():
        text = path.read_bytes().decode("utf-8", errors="ignore")
        found = [host for host in REGISTRY_HOSTS if host in text.lower()]
        found += [match[0] for match in MACHINE_PATH.finditer(text)]
        wrong += [f"{path.relative_to(ROOT)} names {name}" for name in found]
    assert not wrong, "\n".join(wrong)


def test_version_is_the_same_everywhere(pyproject):
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == pyproject["project"]["version"]
    assert citation["license"] == pyproject["project"]["license"]
