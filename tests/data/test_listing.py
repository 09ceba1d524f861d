from __future__ import annotations

import os

import pytest

from data.listing import (
    absent,
    file_names,
    read_lines,
    require_folders,
    require_unique,
    shortened,
)
from tests.data.layouts import as_nobody, write_lines


def test_absent_files_are_found_in_order(tmp_path):
    write_lines(tmp_path / "b" / "y.txt", "y")
    wanted = [tmp_path / name for name in ("b/y.txt", "b/x.txt", "a/z.txt")]
    assert absent(wanted) == wanted[1:]


def test_a_folder_is_listed_once(tmp_path, monkeypatch):
    calls = []
    real = os.listdir

    def counted(folder):
        calls.append(folder)
        return real(folder)

    monkeypatch.setattr("data.listing.os.listdir", counted)
    absent(tmp_path / f"{i}.png" for i in range(100))
    assert calls == [tmp_path]


def test_a_missing_root_says_what_is_expected(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere does not exist\. Expected a layout"):
        require_folders(tmp_path / "nowhere", ("a",), "a layout")


def test_a_file_is_no_root(tmp_path):
    write_lines(tmp_path / "file", "x")
    with pytest.raises(FileNotFoundError, match="file does not exist"):
        require_folders(tmp_path / "file", ("a",), "a layout")


def test_a_root_that_lacks_folders_names_them(tmp_path):
    (tmp_path / "a").mkdir()
    require_folders(tmp_path, ("a",), "a layout")
    with pytest.raises(FileNotFoundError, match="lacks b, c/d"):
        require_folders(tmp_path, ("a", "b", "c/d"), "a layout")


@pytest.mark.parametrize("closed", ["", "a"])
def test_a_root_without_permission_says_what_to_do(open_folder, closed):
    root = open_folder / "root"
    (root / "a" / "b").mkdir(parents=True)
    (root / closed).chmod(0)
    with (
        as_nobody(),
        pytest.raises(PermissionError, match=r"no permission to read .*a.*chmod.*Expected"),
    ):
        require_folders(root, ("a/b",), "a layout")
    (root / closed).chmod(0o755)


def test_a_folder_without_permission_is_not_taken_for_an_empty_one(open_folder):
    folder = open_folder / "a"
    folder.mkdir()
    folder.chmod(0)
    with as_nobody(), pytest.raises(PermissionError, match="no permission to read"):
        file_names(folder)


def test_a_list_without_permission(open_folder):
    write_lines(open_folder / "train.txt", "x")
    (open_folder / "train.txt").chmod(0)
    with as_nobody(), pytest.raises(PermissionError, match=r"train\.txt"):
        read_lines(open_folder / "train.txt", "--data.train-list")


def test_lines_are_stripped_and_blank_ones_dropped(tmp_path):
    (tmp_path / "l.txt").write_bytes(b"a\r\n\r\n  b c \r\n")
    assert read_lines(tmp_path / "l.txt", "") == ("a", "b c")


def test_a_list_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "l.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"l\.txt is no text"):
        read_lines(tmp_path / "l.txt", "")


def test_names_are_unique():
    require_unique(("a", "b"), "the list")
    with pytest.raises(ValueError, match=r"the list names an image twice: a, b$"):
        require_unique(("b", "a", "c", "a", "b"), "the list")


def test_long_enumerations_are_cut():
    assert shortened(range(5)) == "0, 1, 2, 3, 4"
    assert shortened(range(7)) == "0, 1, 2, 3, 4 and 2 more"
