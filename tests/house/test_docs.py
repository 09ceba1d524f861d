"""README and pages tell the truth: their examples run, their links lead somewhere."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

from benchmarks.pages import PAGES as TABLES
from benchmarks.pages import pages

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_code_block_runs(page: Path) -> None:
    failures, _ = doctest.testfile(str(page), module_relative=False)
    assert failures == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page: Path) -> None:
    links = LINK.findall(page.read_text(encoding="utf-8"))
    assert not [link for link in links if not (page.parent / link).exists()]


def test_the_readme_fits_two_screens_and_shows_code() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) <= 200
    assert readme.count(">>>") >= 10


def test_the_readmes_numbers_are_those_of_the_generated_pages() -> None:
    """Wide intervals are those of RESULTS.md, times those of docs/performance.md."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    scores = re.findall(r"([+-][\d.]+) (\[[^]]*\])(?!\()", readme)
    times = [line for line in readme.splitlines() if re.match(r"\| (inference|training),", line)]
    assert len(scores) >= 10
    assert len(times) >= 3
    results = (ROOT / "RESULTS.md").read_text(encoding="utf-8")
    performance = (ROOT / "docs/performance.md").read_text(encoding="utf-8").splitlines()
    stored = re.findall(r"([+-][\d.]+) \[[^]]*\], (\[[^]]*\])", results)
    assert not set(scores) - set(stored)
    assert not [line for line in times if line not in performance]


def test_every_page_is_in_the_navigation() -> None:
    named = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    there = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    assert named == there


def test_pages_are_those_of_the_stored_results() -> None:
    for path, text in pages().items():
        assert path.read_text(encoding="utf-8") == text, "run python -m benchmarks.pages"


def test_every_results_file_is_shown() -> None:
    patterns = [pattern for _, sections in TABLES.values() for _, pattern, _, _ in sections]
    for path in (ROOT / "results").glob("*.json"):
        assert any(path.match(pattern) for pattern in patterns), path
