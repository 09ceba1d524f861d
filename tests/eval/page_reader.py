"""What a page of HTML says, whatever it looks like."""

from __future__ import annotations

from html.parser import HTMLParser

UNCLOSED = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """Its text, its tables cell by cell, and what it refers to; its elements close in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.refers: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.refers += [str(value) for name, value in attrs if name in ("src", "href")]
        if tag not in UNCLOSED:
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in UNCLOSED:
            self.handle_endtag(tag)

    def handle_data(self, data: str) -> None:
        if {"script", "style"} & set(self._open):
            return
        self.text += f" {data.strip()}" if data.strip() else ""
        if {"td", "th"} & set(self._open):
            row = self.tables[-1][-1]
            row[-1] = f"{row[-1]} {data.strip()}".strip()

    def row(self, arm: str) -> dict[str, str]:
        """The cells of an arm by the titles of their columns, in the table of all scores."""
        table = next(table for table in self.tables if "mIoU" in table[0])
        cells = next(row for row in table if row[0] == arm)
        return dict(zip(table[0], cells, strict=True))
