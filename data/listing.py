"""Folders and lists of a data set: what is there, and what to do where it is not."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

_SHOWN = 5  # names in a message; a report lists all


def require_folders(root: Path, below: Sequence[str], layout: str) -> None:
    """Raise unless `root` is a folder that holds the folders `below`.

    Args:
        root: the folder that the user gave.
        below: paths relative to it.
        layout: what is expected and how to pass it, for the message.

    Raises:
        FileNotFoundError: the root or a folder below it is absent.
        PermissionError: it may not be read.
    """
    # `Path.is_dir` raises or denies without permission, depending on the version of Python.
    missing = [name for name in below if not _is_folder(root / name, layout)]
    if not _is_folder(root, layout) or missing:
        found = "lacks " + ", ".join(missing) if _is_folder(root, layout) else "does not exist"
        raise FileNotFoundError(f"the data root {root} {found}. Expected {layout}")


def _is_folder(path: Path, layout: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError as error:
        raise _denied(path, layout) from error


def _denied(path: Path, layout: str = "") -> PermissionError:
    hint = f" Expected {layout}" if layout else ""
    return PermissionError(
        f"no permission to read {path}: give this user the right to read it and to enter every "
        f"folder above it (chmod a+rX), or pass another folder.{hint}"
    )


def file_names(folder: Path) -> frozenset[str]:
    """The names in a folder, from one listing; none where there is no such folder.

    Raises:
        PermissionError: it may not be read.
    """
    try:
        return frozenset(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()
    except PermissionError as error:
        raise _denied(folder) from error


def absent(paths: Iterable[Path]) -> list[Path]:
    """Those of the files that do not exist, in order: one listing a folder, not one call a file.

    Raises:
        PermissionError: a folder may not be read.
    """
    listings: dict[Path, frozenset[str]] = {}
    missing = []
    for path in paths:
        folder = path.parent
        if folder not in listings:
            listings[folder] = file_names(folder)
        if path.name not in listings[folder]:
            missing.append(path)
    return missing


def read_lines(path: Path, option: str) -> tuple[str, ...]:
    """The lines of a list that are not blank, stripped.

    Args:
        path: the list; the others of its folder are named where it is absent.
        option: what chooses the list, for the message.

    Raises:
        FileNotFoundError: there is no such list.
        PermissionError: it may not be read.
        ValueError: it is empty or no text.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        present = ", ".join(sorted(Path(n).stem for n in file_names(path.parent) if _is_list(n)))
        raise FileNotFoundError(
            f"there is no list {path}; lists there: {present or 'none'}; see {option}"
        ) from error
    except PermissionError as error:
        raise _denied(path) from error
    except UnicodeDecodeError as error:
        raise ValueError(f"the list {path} is no text ({error}); expected one name a line") from (
            error
        )
    lines = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not lines:
        raise ValueError(f"the list {path} is empty; expected one image name a line")
    return lines


def _is_list(name: str) -> bool:
    return name.endswith(".txt")


def require_unique(names: Sequence[str], where: str) -> None:
    """Raise ValueError where a name occurs more than once.

    Args:
        names: of the samples of a split.
        where: what names them, for the message.
    """
    if len(set(names)) == len(names):
        return
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    raise ValueError(f"{where} names an image twice: {shortened(twice)}")


def shortened(items: Sequence[object]) -> str:
    """The first few of many, and how many more there are."""
    shown = ", ".join(str(item) for item in items[:_SHOWN])
    rest = len(items) - _SHOWN
    return f"{shown} and {rest} more" if rest > 0 else shown


def require_names(lines: Sequence[str], path: Path) -> tuple[str, ...]:
    """The lines of the list `path`, each a single name without a folder.

    Raises:
        ValueError: a line is something else.
    """
    wrong = [line for line in lines if len(line.split()) > 1 or "/" in line]
    if wrong:
        raise ValueError(f"{path}: expected one name a line, got {shortened(wrong)}")
    return tuple(lines)


def by_stem(folder: Path, endings: Sequence[str]) -> dict[str, str]:
    """The files of a folder by their name without its ending, sorted.

    Args:
        folder: none of its files are read.
        endings: in lower case, with the dot; where several files have a stem, the last one counts.
    """
    files = [name for name in file_names(folder) if Path(name).suffix.lower() in endings]
    files.sort(key=lambda name: (Path(name).stem, endings.index(Path(name).suffix.lower())))
    return {Path(name).stem: name for name in files}
