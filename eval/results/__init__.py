"""The experiments of the repository: stored runs, and the document that is written from them."""

from __future__ import annotations
