"""What is installed, from where, and that the two lists of dependencies agree."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest
import setuptools
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from runtime.provenance import CODE
from tests.house.source_tree import ROOMS, ROOT, imports_of, python_files, repository_files, top

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# conda's name -> the name in pyproject.toml, where they differ
CONDA_NAMES = {"pytorch": "torch", "playwright-python": "playwright"}
# imported name -> distribution, where they differ; Triton comes with torch, where it comes at all
DISTRIBUTIONS = {"PIL": "pillow", "skimage": "scikit-image", "yaml": "pyyaml", "triton": "torch"}
# What the benchmark times where the user has installed it.
PEERS = {"CRF", "crfasrnn", "crfseg", "pydensecrf", "warpconvnet"}

# Registry and mirror hosts, and a home or workspace folder at the root of a file system.
OF_A_MACHINE = re.compile(
    r"pypi\.(?:org|python\.org|nvidia\.com|tuna)|pythonhosted\.org|download\.pytorch\.org"
    r"|conda\.(?:org|com|io)|registry\.npmjs\.org|static\.crates\.io|mirrors\.aliyun\.com"
    r"|(?<![\w.~/-])/(?:home|Users|root|work|workspace|mnt)/"
)


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def environment() -> list[Any]:
    """The dependencies of environment.yml."""
    parsed = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    return list(parsed["dependencies"])


def bounds(requirements: list[str]) -> dict[str, str]:
    """Distribution name -> version bounds; markers are left out, conda has none."""
    parsed = [Requirement(line) for line in requirements]
    assert len({canonicalize_name(item.name) for item in parsed}) == len(parsed), "listed twice"
    return {canonicalize_name(item.name): str(item.specifier) for item in parsed}


def listed(pyproject: dict[str, Any], *extras: str) -> dict[str, str]:
    """The wheel's dependencies and those of the named extras, with their bounds."""
    project = pyproject["project"]
    optional = project["optional-dependencies"]
    return bounds([*project["dependencies"], *(line for e in extras for line in optional[e])])


def test_environment_lists_what_pyproject_lists(pyproject, environment):
    conda = bounds([line for line in environment if isinstance(line, str)])
    python = conda.pop("python")
    del conda["pip"]
    conda = {CONDA_NAMES.get(name, name): spec for name, spec in conda.items()}
    assert conda == listed(pyproject, "research", "dev")
    assert [item for item in environment if isinstance(item, dict)] == [{"pip": ["-e ."]}]
    classifiers = "\n".join(pyproject["project"]["classifiers"])
    minors = sorted(map(int, re.findall(r"Python :: 3\.(\d+)$", classifiers, re.MULTILINE)))
    assert pyproject["project"]["requires-python"] == f">=3.{minors[0]}"
    assert set(python.split(",")) == {f">=3.{minors[0]}", f"<3.{minors[-1] + 1}"}


@pytest.mark.parametrize("room", [*ROOMS, "tests"])
def test_every_import_is_declared(pyproject, room):
    extras = {"crfrnn": ("images",), "tests": ("research", "dev")}.get(room, ("research",))
    declared = listed(pyproject, *extras)
    # tomllib is in the standard library from 3.11, and imported there alone.
    known = {
        *ROOMS,
        "tests",
        "tomllib",
        *sys.stdlib_module_names,
        *(PEERS if room == "benchmarks" else ()),
    }
    missing = {
        f"{path.relative_to(ROOT)}: {module}"
        for path in python_files(room)
        for module in imports_of(path)
        if top(module) not in known
        and canonicalize_name(DISTRIBUTIONS.get(top(module), top(module))) not in declared
    }
    assert not missing, f"imported but not declared in pyproject.toml: {sorted(missing)}"


def test_wheel_holds_only_the_library_and_its_types(pyproject):
    tool = pyproject["tool"]["setuptools"]
    assert tool["packages"]["find"]["namespaces"] is False
    packages = setuptools.find_packages(str(ROOT), include=tool["packages"]["find"]["include"])
    folders = {".".join(path.parent.relative_to(ROOT).parts) for path in python_files("crfrnn")}
    assert set(packages) == folders
    assert "py.typed" in tool["package-data"]["crfrnn"]
    assert (ROOT / "crfrnn" / "py.typed").is_file()


def test_no_file_names_a_registry_or_a_machine():
    wrong = []
    for path in repository_files():
        content = path.read_bytes()
        if b"\0" in content[:1024]:
            continue  # pictures and arrays
        text = content.decode("utf-8", errors="ignore")
        wrong += [f"{path.relative_to(ROOT)}: {match[0]}" for match in OF_A_MACHINE.finditer(text)]
    assert not wrong, "\n".join(wrong)


def test_version_is_the_same_everywhere(pyproject):
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == pyproject["project"]["version"]
    assert citation["license"] == pyproject["project"]["license"]


def test_a_change_of_any_room_marks_a_result_as_of_changed_code():
    # A benchmark makes no run; its own results add its room to these.
    assert {f":/{room}" for room in ROOMS if room != "benchmarks"} <= set(CODE)
