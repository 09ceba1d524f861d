"""Generated blocks: replaced, compared, refused."""

from __future__ import annotations

import pytest

from eval.readme import check_block, open_block, read_block, replace_block

TEXT = """# Title
<!-- results:demo -->
old
<!-- /results:demo -->
between
<!-- results:voc -->
<!-- /results:voc -->
end
"""


def test_only_the_named_block_changes() -> None:
    changed = replace_block(TEXT, "demo", "| a |\n| b |\n")
    assert changed == TEXT.replace("old", "| a |\n| b |")
    assert read_block(changed, "demo") == "| a |\n| b |"
    assert read_block(changed, "voc") == ""


def test_results_take_the_place_that_awaits_them() -> None:
    awaiting = "before\n<!-- awaits:gpu -->\nNothing yet.\n<!-- /awaits:gpu -->\nbehind\n"
    filled = replace_block(open_block(awaiting, "gpu"), "gpu", "| a |")
    assert filled == "before\n<!-- results:gpu -->\n| a |\n<!-- /results:gpu -->\nbehind\n"
    assert open_block(filled, "gpu") == filled
    assert open_block(awaiting, "demo") == awaiting


def test_replacing_twice_is_replacing_once() -> None:
    once = replace_block(TEXT, "voc", "\nnew\n\n")
    assert replace_block(once, "voc", "new") == once


@pytest.mark.parametrize(
    "text",
    [
        TEXT.replace("<!-- results:demo -->", ""),
        TEXT.replace("<!-- /results:demo -->", ""),
        TEXT + TEXT,
        "",
    ],
)
def test_markers_must_be_there_once(text: str) -> None:
    with pytest.raises(ValueError, match=r"marker <!-- /?results:demo --> exactly once, found"):
        replace_block(text, "demo", "new")


def test_markers_must_be_in_order() -> None:
    with pytest.raises(ValueError, match="the other way round"):
        read_block("<!-- /results:demo --> <!-- results:demo -->", "demo")


def test_a_block_cannot_hold_its_own_marker() -> None:
    with pytest.raises(ValueError, match="one of its own markers"):
        replace_block(TEXT, "demo", "<!-- /results:demo -->")


def test_check_accepts_the_present_block() -> None:
    check_block(TEXT, "demo", "old\n")


def test_check_shows_the_difference() -> None:
    with pytest.raises(ValueError, match=r"'demo' is not what its results give(.|\n)*-old\n\+new"):
        check_block(TEXT, "demo", "new")
