"""Measure whether the tests catch typical faults: `python -m tests.mutants`.

Every mutant of `tests/mutants/list.py` is applied to a copy of the repository, and the tests that
should catch it are run there: those that it names, then the folder of its room. A mutant that no
test catches shows what the tests do not demand.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tests.mutants.list import MUTANTS, ROOT, Mutant, mutated

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NOT_COPIED = ("tests/mutants/", "tests/house/test_mutants.py")
FIRST_FAILURE = re.compile(r"^(?:FAILED|ERROR) (\S+?::[^\n]*?|\S+)(?: - .*)?$", re.MULTILINE)
LIMIT = 1800  # seconds for one run of tests


@dataclass(frozen=True)
class Result:
    """Hold what became of one mutant.

    Attributes:
        name, file: of the mutant.
        outcome: "killed", "survived", "timed out", "does not import", "does not build", or
            "unsound": what failed fails without the mutant, too.
        killer: the first test that failed, or the signal that ended the tests.
        seconds: that it took.
    """

    name: str
    file: str
    outcome: str
    killer: str
    seconds: float


def copy_repository(folder: Path) -> None:
    """Copy the tracked files, and the native library where it is built."""
    command = ["git", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    files = [name for name in listed.split("\0") if name and not name.startswith(NOT_COPIED)]
    files += [str(path.relative_to(ROOT)) for path in ROOT.glob("crfrnn/_native*.so")]
    for name in files:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def build_native(copy: Path) -> bool:
    """Build the native library of a copy as pyproject.toml says; return whether it compiles."""
    project = tomllib.loads((copy / "pyproject.toml").read_text(encoding="utf-8"))
    (module,) = project["tool"]["setuptools"]["ext-modules"]
    library = next((copy / "crfrnn").glob("_native*.so"), None)
    if library is None:
        raise FileNotFoundError("crfrnn/_native*.so is not built: `pip install -e .` first.")
    flags = [*module["extra-compile-args"], "-fPIC", "-shared", *module["extra-link-args"]]
    command = [os.environ.get("CXX", "c++"), *flags, *module["sources"], "-o", str(library)]
    return subprocess.run(command, cwd=copy, capture_output=True).returncode == 0


def pytest(copy: Path, arguments: Sequence[str]) -> tuple[int | None, str]:
    """Run pytest in a copy; return its exit status, None at the limit, and its output."""
    # No mutant's bytecode is written: a file of the same size and second would look unchanged.
    # Not --basetemp: runs that tests make keep the command line, where no full path may be.
    temporary = Path(f"{copy}.temporary")
    temporary.mkdir(exist_ok=True)
    environment = {"PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DEBUG_TEMPROOT": str(temporary)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=no"]
    with subprocess.Popen(
        [*command, *arguments],
        cwd=copy,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # and all that the tests started
            return None, process.communicate()[0]
        return process.returncode, output


def outcome_of(copy: Path, tests: Sequence[str]) -> tuple[str, str]:
    """Run tests up to the first that fails; return the outcome and that test."""
    code, output = pytest(copy, ["-x", *tests])
    failure = FIRST_FAILURE.search(output)
    killer = failure.group(1) if failure else ""
    if code is None:
        return "timed out", ""
    if code in (0, 5):
        return "survived", ""
    if code < 0:  # native code may crash
        return "killed", f"signal {-code}"
    if code == 1 and "::" in killer:
        return "killed", killer
    if killer or "ImportError while loading conftest" in output:
        return "does not import", killer
    raise RuntimeError(f"pytest {' '.join(tests)} ended with {code}:\n{output[-3000:]}")


def result_of(mutant: Mutant, copy: Path, *, hints_only: bool) -> Result:
    """Apply a mutant, run tests until one fails, and restore its file."""
    path, began = copy / mutant.file, time.perf_counter()
    text, times = path.read_text(encoding="utf-8"), path.stat()
    native = path.parent.name == "csrc"
    stages = [mutant.tests.split()]
    if not hints_only:
        stages.append([f"tests/{mutant.file.partition('/')[0]}"])
    path.write_text(mutated(text, mutant), encoding="utf-8")
    outcome, killer = "survived", ""
    try:
        if native and not build_native(copy):
            outcome = "does not build"
        while stages and outcome == "survived":
            outcome, killer = outcome_of(copy, stages.pop(0))
    finally:
        path.write_text(text, encoding="utf-8")
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        for library in ROOT.glob("crfrnn/_native*.so") if native else ():
            shutil.copy2(library, copy / "crfrnn" / library.name)
    return Result(mutant.name, mutant.file, outcome, killer, time.perf_counter() - began)


def measure(mutants: Sequence[Mutant], copy: Path, *, hints_only: bool) -> list[Result]:
    """Return the result of every mutant, in their order."""
    copy_repository(copy)
    for mutant in mutants:
        mutated((copy / mutant.file).read_text(encoding="utf-8"), mutant)
    results = []
    for mutant in mutants:
        result = result_of(mutant, copy, hints_only=hints_only)
        print(f"{result.outcome}: {result.name} ({result.seconds:.0f} s) {result.killer}")
        results.append(result)
    killers = sorted({r.killer for r in results if "::" in r.killer})
    output = pytest(copy, killers)[1] if killers else ""
    unsound = {match.group(1) for match in FIRST_FAILURE.finditer(output)}
    return [replace(r, outcome="unsound") if r.killer in unsound else r for r in results]


def main() -> int:
    """Run the mutants that are asked for; return 1 if one survives."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", nargs="+", default=[""], help="words of which a name or file has")
    parser.add_argument("--hints-only", action="store_true", help="leave the room's folder out")
    parser.add_argument("--out", type=Path, help="a JSON file of the results")
    options = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    words = [word.lower() for word in options.only]
    chosen = [m for m in MUTANTS if any(word in f"{m.name} {m.file}".lower() for word in words)]
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        results = measure(chosen, Path(folder) / "copy", hints_only=options.hints_only)
    caught = [r for r in results if r.outcome in ("killed", "timed out")]
    for r in results:
        if r not in caught:
            print(f"{r.outcome}: {r.name} in {r.file} {r.killer}")
    print(f"{len(caught)} of {len(results)} mutants are caught.")
    if options.out is not None:
        options.out.write_text(json.dumps([asdict(r) for r in results], indent=1), "utf-8")
    return int(len(caught) < len(results))


if __name__ == "__main__":
    sys.exit(main())
