"""The command line's words."""

from __future__ import annotations

import pytest
import torch

from eval.__main__ import COMMANDS, USAGE, main


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
