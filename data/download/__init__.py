"""Fetching the data sets that have a public address; run by `python -m data download`."""

from __future__ import annotations
