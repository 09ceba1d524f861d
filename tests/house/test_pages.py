"""The pages of tables are what their results give."""

from __future__ import annotations

from benchmarks.pages import PAGES, ROOT, pages


def test_pages_are_those_of_the_stored_results() -> None:
    for path, text in pages().items():
        assert path.read_text(encoding="utf-8") == text, "run python -m benchmarks.pages"


def test_every_results_file_is_shown() -> None:
    patterns = [pattern for _, sections in PAGES.values() for _, pattern, _, _ in sections]
    for path in (ROOT / "results").glob("*.json"):
        assert any(path.match(pattern) for pattern in patterns), path
