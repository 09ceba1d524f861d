"""The command line's words."""

from __future__ import annotations

import json

import pytest
import torch

from eval.__main__ import COMMANDS, USAGE, main
from models import Segmenter
from runtime.checkpoint import load_segmenter, read_checkpoint


def test_without_words_it_says_what_there_is(capsys) -> None:
    main([])
    assert capsys.readouterr().out.startswith(USAGE)
    assert all(f"python -m eval {words} " in USAGE for words in COMMANDS)


# The explorer's own tests import Gradio, which takes seconds.
@pytest.mark.parametrize("words", sorted(COMMANDS.keys() - {"explore"}))
def test_every_command_has_help(words: str, capsys) -> None:
    with pytest.raises(SystemExit) as left:
        main([*words.split(), "--help"])
    assert left.value.code == 0
    assert f"python -m eval {words} " in capsys.readouterr().out


def test_wrong_words_end_with_one_line(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for words, message in (
        ("rum", "unknown command 'rum': .*Did you mean 'run'"),
        ("results", "unknown command 'results': choose one of .*results add"),
        ("run nowhere.pt", "no checkpoint at nowhere.pt"),
        ("run nowhere.pt --device cuda", "--device cuda: PyTorch sees no GPU here"),
    ):
        with pytest.raises(SystemExit, match=f"^error: {message}"):
            main(words.split())


def test_a_run_is_exported_with_cards(trained_run, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    main(["export", str(trained_run), "--out", "models", "--arms", "joint", "unary", "--seed", "1"])
    image = torch.randint(0, 256, (1, 3, 40, 50), dtype=torch.uint8)
    for arm in ("joint", "unary"):
        run = trained_run / "arms" / f"{arm}-seed1"
        model = Segmenter.from_pretrained(f"models/{arm}")
        original = load_segmenter(read_checkpoint(run / "checkpoint.pt"))
        assert torch.equal(model(image).logits, original(image).logits)
        assert model.about["labels"]["names"][1] == "brick"
        card = (tmp_path / "models" / arm / "README.md").read_text(encoding="utf-8")
        scores = json.loads((run / "result.json").read_text())["metrics"]["report"]
        assert f"| **{arm}** | {100 * scores['miou']:.2f} [" in card
        assert f'Segmenter.from_pretrained("models/{arm}")' in card
    # the commands read it in the place of a checkpoint
    main(["run", "models/joint", "--split", "tune", "--out", "scores.json"])
    expected = json.loads((trained_run / "arms/joint-seed1/result.json").read_text())
    found = json.loads((tmp_path / "scores.json").read_text())["crf"]["miou"]
    assert found == pytest.approx(expected["metrics"]["tune"]["miou"])
    with pytest.raises(SystemExit, match="has no finished joint of seed 7; finished are: start"):
        main(["export", str(trained_run), "--out", "models", "--seed", "7"])
