"""The helpers that word an error."""

from __future__ import annotations

import pytest

from metarun.errors import first_line, nearest, printable


@pytest.mark.parametrize(("word", "hint"), [("shot", " Did you mean 'shots'?"), ("batch_norm", ""), ("", "")])
def test_only_a_close_word_is_offered(word: str, hint: str):
    assert nearest(word, ["shots", "ways"]) == hint


def test_no_word_is_offered_from_an_empty_list():
    assert nearest("shots", []) == ""


def test_the_first_line_of_an_error_is_its_first_line_or_its_name():
    assert first_line(ValueError("one\ntwo")) == "one"
    assert first_line(ValueError()) == "ValueError"


def test_text_from_a_file_is_printed_without_control_characters():
    assert printable("Müller 日本 😀") == "Müller 日本 😀"
    assert printable("a\nb\x1b[2J\u202e\udcff") == r"a\nb\x1b[2J\u202e\udcff"
