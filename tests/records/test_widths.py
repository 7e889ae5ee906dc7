"""Sentences that fit the terminal."""

from __future__ import annotations

import os

import pytest

from metarun.records.widths import terminal_width, wrapped


def test_a_sentence_is_wrapped_between_words_and_a_long_path_stays_whole():
    path = "/a/path/that/is/longer/than/the/line"
    assert wrapped(f"written to {path} now", 20) == f"written to\n  {path}\n  now"
    assert wrapped("a short one", 20) == "a short one"
    assert wrapped("word " * 50, None) == "word " * 50


def test_the_width_is_that_of_the_terminal_and_none_elsewhere(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: False)
    assert terminal_width() is None
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((70, 20)))
    assert terminal_width() == 70
