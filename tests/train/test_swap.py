"""The networks of two arms before the CRFs of two arms."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from runtime.run_folder import read_json
from train.__main__ import main


def test_the_four_cells_and_what_they_are_made_of(trained_run: Path, tmp_path, capsys) -> None:
    run = Path(shutil.copytree(trained_run, tmp_path / "run"))
    main(["swap", str(run), "--split", "report"])
    found = read_json(run / "swap.json")
    assert found["seeds"] == [0, 1]
    cells = {cell: scores["mIoU"] for cell, scores in found["cells"].items()}
    for cell, arm in (("UU", "post-hoc"), ("JJ", "joint")):
        for seed in (0, 1):
            result = json.loads((run / "arms" / f"{arm}-seed{seed}" / "result.json").read_text())
            assert cells[cell][seed] == result["metrics"]["report"]["miou"]
    uu, uj, ju, jj = (cells[cell][1] for cell in ("UU", "UJ", "JU", "JJ"))
    effects = {name: scores["mIoU"]["by_seed"][1] for name, scores in found["effects"].items()}
    assert effects["network"] == pytest.approx((ju + jj - uu - uj) / 2)
    assert effects["CRF"] == pytest.approx((uj + jj - uu - ju) / 2)
    assert effects["interaction"] == pytest.approx(jj + uu - uj - ju)
    assert effects["network"] + effects["CRF"] == pytest.approx(jj - uu)
    (_, networks) = found["networks"]
    assert networks["unary moved"] > 0
    assert networks["joint moved"] > 0
    assert 0 < networks["same labels"] < 1
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("interaction", "joint moved", "foreground"))
    shutil.rmtree(run / "arms" / "joint-seed1")
    with pytest.raises(SystemExit, match=r"got them for the seeds \[0\]"):
        main(["swap", str(run), "--seeds", "0", "1"])
