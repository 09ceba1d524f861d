"""What a page of HTML says, whatever it looks like."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any

UNCLOSED = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """Its text, its tables cell by cell, what it refers to, and the data of its gallery.

    Its elements close in order.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.refers: list[str] = []
        self.pictures: dict[str, Any] = {}
        self._data = False
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.refers += [str(value) for name, value in attrs if name in ("src", "href")]
        self._data = ("class", "cards-data") in attrs
        if tag not in UNCLOSED:
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert tag in UNCLOSED or self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"script", "style"} & set(self._open):
            self.pictures |= json.loads(data) if self._data else {}
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
