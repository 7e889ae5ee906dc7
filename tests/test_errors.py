"""The helpers that word an error."""

from __future__ import annotations

import pickle

import pytest

from metarun.errors import NotFiniteError, UserError, counted, first_line, nearest, printable


@pytest.mark.parametrize(("word", "hint"), [("shot", " Did you mean 'shots'?"), ("batch_norm", ""), ("", "")])
def test_only_a_close_word_is_offered(word: str, hint: str):
    assert nearest(word, ["shots", "ways"]) == hint


def test_no_word_is_offered_from_an_empty_list():
    assert nearest("shots", []) == ""


def test_the_first_line_of_an_error_is_its_first_line_or_its_name():
    assert first_line(ValueError("one\ntwo")) == "one"
    assert first_line(ValueError()) == "ValueError"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("one\r\ntwo\ttab", "one\\r\\ntwo\\ttab"),
        ("abc\u202edef\u2066", "abc\\u202edef\\u2066"),
        ("\u2028\u2029\x85\x9b31m", "\\u2028\\u2029\\x85\\x9b31m"),
        ("\u200b\ufeff\U000e0041", "\\u200b\\ufeff\\U000e0041"),
        ("\udcff\ud800", "\\udcff\\ud800"),
        ("Müller, 文字, 'quoted' \\ 😀", "Müller, 文字, 'quoted' \\ 😀"),
        (3, "3"),
    ],
)
def test_text_of_a_stranger_is_shown_and_not_obeyed(text: object, shown: str):
    assert printable(text) == shown


def test_an_error_keeps_its_lines_and_no_other_control_character():
    assert str(UserError("one \x1b[31m\u202e\ntwo\r")) == "one \\x1b[31m\\u202e\ntwo\\r"
    assert str(NotFiniteError("a\x07")) == "a\\x07"
    assert str(pickle.loads(pickle.dumps(UserError("\x1b")))) == "\\x1b"


def test_a_number_and_its_noun_agree():
    words = [counted(1, "class"), counted(2, "other class"), counted(1200, "query"), counted(0, "image"), counted(2, "trajectory")]
    assert words == ["1 class", "2 other classes", "1,200 queries", "0 images", "2 trajectories"]
