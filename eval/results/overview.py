"""The one table over all studies: what a CRF that learns is ahead of the tuned post-hoc CRF."""

from __future__ import annotations

import re
from collections.abc import Sequence

from eval.results.lines import Load
from eval.results.paired import BY_SEED, differences
from eval.results.store import Study

LEARNT = ("crf-only", "joint")


def overview_rows(studies: Sequence[Study], load: Load) -> list[list[str]]:
    """Title, and a row for each learnt arm of every study of the report split.

    Of the studies that are compared with the arm post-hoc of a label, that label's arms alone, on
    all images.
    """
    titles = [score.title for score in BY_SEED]
    rows = [["", "arm", "n", *titles, *(f"{title} by seed" for title in titles)]]
    for study in studies:
        label, base = study.against
        if base != "post-hoc" or study.split != "report":
            continue
        link = f"[{study.title}](#{anchor(study.title)})"
        for line, found in differences(study, load, ""):
            if line.label == label and line.arm in LEARNT:
                rows.append([link, line.arm, str(len(found.seeds)), *found.cells(BY_SEED)])
                link = ""  # a title stands once
    return rows


def anchor(title: str) -> str:
    """What GitHub makes of a heading: lower case, without punctuation, spaces as hyphens."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
