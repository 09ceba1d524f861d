"""The README's block of a tuning, from a result made by hand."""

from __future__ import annotations

from typing import Any

from eval.readme import block_of

RESULT: dict[str, Any] = {
    "kind": "tune",
    "command": "python -m eval tune start.pt --score-report",
    "commit": "0123456789ab",
    "dirty": False,
    "machine": {"cores": 2, "gpu": None},
    "split": "tune",
    "images": ["a", "b"],
    "settings": 5,
    "cpu_seconds": 2.0,
    "measuring_seconds": 61.0,
    "trimap_width": 3,
    "code": "from crfrnn import CrfRnn\ncrf = CrfRnn(3, theta_alpha=50).eval()",
    "network": {"miou": 0.8, "trimap_miou": None, "nll": 0.1894},
    "best": {"miou": 0.8194, "trimap_miou": None, "nll": 0.2368},
    "report": {
        "images": 3,
        "miou": {
            "network": 0.8345,
            "crf": 0.8497,
            "difference": {"value": 0.0152, "low": 0.0107, "high": 0.0202},
        },
        "trimap_miou": {"network": None, "crf": None, "difference": None},
    },
}


def test_scores_stand_beside_what_they_took() -> None:
    lines = block_of(RESULT).splitlines()
    assert lines[4] == (
        "- 5 settings x 2 images of the tune split in 1:01 min, 0.20 CPU seconds for each; "
        "cores: 2, gpu: none"
    )
    assert "- found: `crf = CrfRnn(3, theta_alpha=50).eval()`" in lines
    rows = [line for line in lines if line.startswith("| tune") or line.startswith("| report")]
    assert rows == [
        "| tune | mIoU | 80.00 | 81.94 | +1.94 |",
        "| tune | NLL | 0.1894 | 0.2368 | +0.0474 |",
        "| report | mIoU | 83.45 | 84.97 | +1.52 [+1.07, +2.02] |",
    ]


def test_without_the_report_split_there_are_no_rows_of_it() -> None:
    assert "| report |" not in block_of({**RESULT, "report": None})
