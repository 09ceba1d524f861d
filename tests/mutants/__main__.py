"""Measure whether the tests catch typical faults: `python -m tests.mutants`.

Every mutant of `tests/mutants/list.py` is applied to a copy of the repository, and the tests that
should catch it are run there: those that it names, then the folder of its room. A mutant that no
test catches shows what the tests do not demand.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tests.mutants.list import MUTANTS, ROOT, Mutant, mutated

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NOT_COPIED = ("tests/mutants/", "tests/house/test_mutants.py")
FIRST_FAILURE = re.compile(r"^(?:FAILED|ERROR) (\S+?::[^\n]*?|\S+)(?: - .*)?$", re.MULTILINE)


@dataclass(frozen=True)
class Result:
    """Hold what became of one mutant.

    Attributes:
        name, file: of the mutant.
        outcome: "killed", "survived", "timed out", "does not import", "does not build", "not run":
            none of its tests is there, or "unsound": what failed fails without the mutant, too.
        killer: the first test that failed, or the signal that ended the tests.
        tests: that were run, in the order in which they were.
        seconds: that they took.
    """

    name: str
    file: str
    outcome: str
    killer: str
    tests: tuple[str, ...]
    seconds: float


class Copy:
    """Copy the repository to a folder of its own, where files are changed and tests are run.

    Args:
        folder: to be made.
        objects: compiled files of the native library without a mutant, for all copies.
        options: of the command line.
    """

    def __init__(self, folder: Path, objects: Objects, options: argparse.Namespace) -> None:
        self.folder, self.objects, self.options = folder, objects, options
        take_files(ROOT, folder, ["."])
        if options.tests_from is not None:
            shutil.rmtree(folder / "tests")
            take_files(options.tests_from, folder, ["tests", "pyproject.toml"])
        # No mutant's bytecode is written: a file of the same size and second would look unchanged.
        # Not --basetemp: runs that tests make keep the command line, where no full path may be.
        temporary = Path(f"{folder}.temporary")
        temporary.mkdir()
        self.environment = {
            **os.environ,
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTEST_DEBUG_TEMPROOT": str(temporary),
        }
        compile_all = [sys.executable, "-m", "compileall", "-q", "."]
        subprocess.run(compile_all, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        self.library = next((folder / "crfrnn").glob("_native*.so"), None)

    def result_of(self, mutant: Mutant) -> Result:
        """Apply a mutant, run tests until one fails, and restore its file."""
        path = self.folder / mutant.file
        text, times = path.read_text(encoding="utf-8"), path.stat()
        path.write_text(mutated(text, mutant), encoding="utf-8")
        native = path.parent.name == "csrc"
        began = time.perf_counter()
        outcome, killer, ran = "not run", "", []
        try:
            if native and not self.objects.build(self.folder, self.library):
                outcome = "does not build"
            for chosen in self.stages(mutant) if outcome == "not run" else []:
                ran += chosen
                outcome, killer = self.run(chosen)
                if outcome != "survived":
                    break
        finally:
            path.write_text(text, encoding="utf-8")
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
            if native:
                self.objects.restore(self.library)
        seconds = time.perf_counter() - began
        return Result(mutant.name, mutant.file, outcome, killer, tuple(ran), seconds)

    def stages(self, mutant: Mutant) -> list[list[str]]:
        """List what is run one after the other, without what this suite does not have."""
        room = [] if self.options.hints_only else [f"tests/{mutant.file.partition('/')[0]}"]
        stages = [self.options.tests] if self.options.tests else [mutant.tests.split(), room]
        present = [[t for t in stage if (self.folder / t).exists()] for stage in stages]
        return [stage for k, stage in enumerate(present) if stage and stage not in present[:k]]

    def run(self, tests: Sequence[str]) -> tuple[str, str]:
        """Run tests up to the first that fails; return the outcome and that test."""
        code, output = self.pytest(["-x", *tests], self.options.limit)
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

    def failing(self, tests: Sequence[str]) -> set[str]:
        """Return those of some tests that fail without a mutant."""
        _, output = self.pytest(tests, len(tests) * self.options.limit)
        return {match.group(1) for match in FIRST_FAILURE.finditer(output)}

    def pytest(self, arguments: Sequence[str], limit: float) -> tuple[int | None, str]:
        """Run pytest; return its exit status, None at a limit of seconds, and its output."""
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=no"]
        with subprocess.Popen(
            [*command, *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process:
            try:
                output, _ = process.communicate(timeout=limit)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # and all that the tests started
                return None, process.communicate()[0]
            return process.returncode, output


class Objects:
    """Compile the native library as pyproject.toml says, each file again only where it must.

    Args:
        folder: of the compiled files, and of the library without a mutant.
    """

    def __init__(self, folder: Path) -> None:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
        (module,) = project["tool"]["setuptools"]["ext-modules"]
        self.sources: list[str] = module["sources"]
        self.flags: list[str] = [*module["extra-compile-args"], "-fPIC"]
        self.link_flags: list[str] = module["extra-link-args"]
        self.compiler = os.environ.get("CXX", "c++")
        self.folder = folder
        self.lock = threading.Lock()
        self.original = next((ROOT / "crfrnn").glob("_native*.so"), None)

    def build(self, copy: Path, library: Path | None) -> bool:
        """Build the library of a copy; return whether that is possible with its mutant."""
        if library is None:
            raise FileNotFoundError("crfrnn/_native*.so is not built: `pip install -e .` first.")
        objects, changed = [], []
        for source in self.sources:
            at = self.folder / f"{Path(source).name}.o"
            if self.is_changed(source, copy):
                at = Path(f"{copy}.{at.name}")
                changed.append((source, at))
            else:
                with self.lock:
                    if not at.exists() and not self.compile(source, ROOT, at):
                        raise RuntimeError(f"{source} does not compile without a mutant.")
            objects.append(str(at))
        with ThreadPoolExecutor(len(changed)) as threads:
            compiled = threads.map(lambda one: self.compile(one[0], copy, one[1]), changed)
            if not all(compiled):
                return False
        built = library.with_suffix(".new")
        link = [self.compiler, "-shared", *self.link_flags, *objects, "-o", str(built)]
        subprocess.run(link, check=True)
        built.replace(library)
        return True

    def is_changed(self, source: str, copy: Path) -> bool:
        """Tell whether a file, or one that it includes, differs in a copy."""
        command = [self.compiler, "-MM", *self.flags, source]
        rule = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        files = rule.replace("\\\n", " ").split()[1:]
        return any((ROOT / file).read_bytes() != (copy / file).read_bytes() for file in files)

    def compile(self, source: str, root: Path, target: Path) -> bool:
        """Compile one file; return whether that is possible."""
        command = [self.compiler, *self.flags, "-c", source, "-o", str(target)]
        return subprocess.run(command, cwd=root, capture_output=True).returncode == 0

    def restore(self, library: Path | None) -> None:
        """Put the library without a mutant back."""
        if library is not None and self.original is not None:
            shutil.copy2(self.original, library)


def take_files(source: Path, target: Path, names: Sequence[str]) -> None:
    """Copy the tracked files below some names, and the native library where it is built."""
    command = ["git", "ls-files", "-z", *names]
    listed = subprocess.run(command, cwd=source, check=True, capture_output=True, text=True).stdout
    files = [name for name in listed.split("\0") if name and not name.startswith(NOT_COPIED)]
    if "." in names:
        files += [str(path.relative_to(source)) for path in source.glob("crfrnn/_native*.so")]
    for name in files:
        if (source / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, target / name)


def table(results: Sequence[Result]) -> str:
    """Write the results as a Markdown table."""
    lines = ["| mutant | file | result | by | s |", "|---|---|---|---|---|"]
    for r in results:
        killer = r.killer.replace("|", "\\|")
        lines.append(f"| {r.name} | {r.file} | {r.outcome} | {killer} | {r.seconds:.0f} |")
    return "\n".join(lines)


def measure(mutants: Sequence[Mutant], options: argparse.Namespace, folder: Path) -> list[Result]:
    """Return the result of every mutant, in their order."""
    objects = Objects(folder / "objects")
    objects.folder.mkdir()
    copies: queue.SimpleQueue[Copy] = queue.SimpleQueue()
    for k in range(options.jobs):
        copy = Copy(folder / f"copy{k}", objects, options)
        copies.put(copy)
    for mutant in mutants:
        mutated((copy.folder / mutant.file).read_text(encoding="utf-8"), mutant)

    def result_of(mutant: Mutant) -> Result:
        copy = copies.get()
        try:
            result = copy.result_of(mutant)
        finally:
            copies.put(copy)
        seconds = f"({result.seconds:.0f} s)"
        print(f"{result.outcome}: {result.name} {seconds} {result.killer}", flush=True)
        return result

    with ThreadPoolExecutor(options.jobs) as threads:
        results = list(threads.map(result_of, mutants))
    killers = sorted({r.killer for r in results if "::" in r.killer})
    unsound = copies.get().failing(killers) if killers else set()
    return [replace(r, outcome="unsound") if r.killer in unsound else r for r in results]


def main() -> int:
    """Run the mutants that are asked for; return 1 if one survives."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", nargs="+", default=[], help="words of which a name or file has")
    parser.add_argument("--tests", nargs="+", default=[], help="to run in the place of the hints")
    parser.add_argument("--hints-only", action="store_true", help="leave the room's folder out")
    parser.add_argument("--tests-from", type=Path, help="a checkout whose tests are run")
    parser.add_argument("--jobs", type=int, default=1, help="mutants at once")
    parser.add_argument("--limit", type=float, default=1800, help="seconds for one run of tests")
    parser.add_argument("--out", type=Path, help="a JSON file of the results")
    options = parser.parse_args()
    chosen = [
        mutant
        for mutant in MUTANTS
        if not options.only
        or any(word.lower() in f"{mutant.name} {mutant.file}".lower() for word in options.only)
    ]
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        results = measure(chosen, options, Path(folder))
    print(table(results))
    caught = [r for r in results if r.outcome in ("killed", "timed out")]
    print(f"\n{len(caught)} of {len(results)} mutants are caught.")
    if options.out is not None:
        options.out.write_text(json.dumps([asdict(r) for r in results], indent=1), "utf-8")
    return int(len(caught) < len(results))


if __name__ == "__main__":
    sys.exit(main())
