"""Scoring, whole-image inference, post-hoc search, and the pages and tables made of the numbers."""
