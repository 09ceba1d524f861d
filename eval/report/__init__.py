"""Write the page that shows the results of runs."""

from __future__ import annotations

from eval.report.page import Report, print_report, write_report

__all__ = ["Report", "print_report", "write_report"]
