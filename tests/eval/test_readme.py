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
    changed = replace_block(TEXT, "demo", "\n| a |\n| b |\n\n")
    assert changed == TEXT.replace("old", "| a |\n| b |")
    assert read_block(changed, "demo") == "| a |\n| b |"
    assert read_block(changed, "voc") == ""


def test_results_take_the_place_that_awaits_them() -> None:
    awaiting = "before\n<!-- awaits:gpu -->\nNothing yet.\n<!-- /awaits:gpu -->\nbehind\n"
    filled = replace_block(open_block(awaiting, "gpu"), "gpu", "| a |")
    assert filled == "before\n<!-- results:gpu -->\n| a |\n<!-- /results:gpu -->\nbehind\n"
    assert open_block(filled, "gpu") == filled
    assert open_block(awaiting, "demo") == awaiting


def test_markers_must_be_there_once_and_in_order() -> None:
    for text, block, message in (
        (TEXT.replace("<!-- results:demo -->", ""), "new", "exactly once, found it 0 times"),
        (TEXT + TEXT, "new", "exactly once, found it 2 times"),
        ("<!-- /results:demo --> <!-- results:demo -->", "new", "the other way round"),
        (TEXT, "<!-- /results:demo -->", "one of its own markers"),
    ):
        with pytest.raises(ValueError, match=message):
            replace_block(text, "demo", block)


def test_a_block_is_checked() -> None:
    check_block(TEXT, "demo", "old\n")
    with pytest.raises(ValueError, match=r"'demo' is not what its results give(.|\n)*-old\n\+new"):
        check_block(TEXT, "demo", "new")
