"""The header of a config file and the comments of its keys, read from text."""

from __future__ import annotations

import pytest

from metarun.cli.help.comments import comments_of, header_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# One sentence. Another one.\nkey: 1\n", "One sentence"),
        ("# One sentence over\n# two lines. More.\nkey: 1\n", "One sentence over two lines"),
        ("# @package _global_\n# After the package line.\n", "After the package line"),
        ("#\n# After an empty comment\n#\n# Not this.\n", "After an empty comment"),
        ("# Finn et al. 2017, e.g. on glyphs (5. and 6.). `x` next.\n", "Finn et al. 2017, e.g. on glyphs (5. and 6.)"),
        ("key: 1  # no header\n# too late\n", ""),
        ("", ""),
    ],
)
def test_the_first_sentence_of_a_header_has_no_full_stop(text: str, expected: str) -> None:
    assert header_of(text).sentence == expected


def test_labels_open_the_parts_of_a_header_at_the_start_of_a_line_or_of_a_sentence() -> None:
    header = header_of(
        "# MAML on x. Defaults as in MAML (Finn et al. 2017): 5 ways.\n# Command: metarun train\n# Time: 3 s. Score: 1 (at Time: 2).\n"
        "# Published (Lee et al. 2019, table 2): 0.7\n"
    )
    assert header.text == "MAML on x."
    assert header.parts == {
        "Defaults": "Defaults as in MAML (Finn et al. 2017): 5 ways.",
        "Command": "Command: metarun train",
        "Time": "Time: 3 s.",
        "Score": "Score: 1 (at Time: 2).",
        "Published": "Published (Lee et al. 2019, table 2): 0.7",
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1  # one\nb: 2\n", {"a": "one"}),
        ("a: 1  # one\n      # more\nb: 2  # two\n", {"a": "one more", "b": "two"}),
        ("a: 1  # one\n# about b\nb: 2\n", {"a": "one"}),
        ("a:  # outer\n  # about b\n  b: 1  # inner\n", {"a": "outer", "a.b": "inner"}),
        ("a: 'x # y'  # one\nb: [1,\n    2]  # two\nc: {d: 1}  # three\n", {"a": "one", "b": "two", "c": "three"}),
        ("a: ${oc.select:b,1}  # one\nb: ???  # two\nc: null # three\nd:  # four\n", {"a": "one", "b": "two", "c": "three", "d": "four"}),
        ("- 1  # a list\n", {}),
        ("a: [unclosed\n", {}),
        ("", {}),
    ],
)
def test_a_comment_belongs_to_the_key_in_front_of_it(text: str, expected: dict[str, str]) -> None:
    assert comments_of(text) == expected
