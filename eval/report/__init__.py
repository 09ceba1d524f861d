"""The page that shows what runs found: read tolerantly, drawn once, opened anywhere."""

from __future__ import annotations

from eval.report.page import Report, write_report

__all__ = ["Report", "write_report"]
