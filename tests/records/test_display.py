"""The line at the bottom of a terminal, and what takes place."""

from __future__ import annotations

import io
import threading

import pytest

from metarun.records import display
from metarun.records.display import Display


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(display, "FIRST", 0.0)
    monkeypatch.setattr(display, "LONG", 0.0)


@pytest.mark.usefixtures("at_once")
def test_a_terminal_shows_the_innermost_activity_and_then_nothing() -> None:
    shown = Display(Terminal())
    assert shown.text() == ""
    with shown.doing("loading the data"):
        assert shown.text() == "metarun: loading the data … 00:00"
        with shown.doing("reading 12 images"):
            assert shown.text() == "metarun: reading 12 images … 00:00"
        assert shown.text() == "metarun: loading the data … 00:00"
    assert shown.text() == ""


@pytest.mark.usefixtures("at_once")
def test_a_message_stands_above_the_line() -> None:
    stream = Terminal()
    shown = Display(stream)
    with shown.doing("loading the data"):
        shown.refresh()
        shown.say("metarun: warning: two images are black")
    rows = stream.getvalue().split("\n")
    assert rows[0].split("\r")[-1] == "metarun: warning: two images are black"


def test_an_activity_inside_of_another_one_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("metarun.records.display.time.monotonic", lambda: now[0])
    shown = Display(io.StringIO())
    with shown.doing("validating"):
        now[0] = 2.0
        with shown.doing("compiling"):
            now[0] = 5.0
    assert shown.aside == 5.0


@pytest.mark.usefixtures("at_once")
def test_a_file_gets_one_line_about_what_takes_long() -> None:
    stream = io.StringIO()
    shown = Display(stream)
    with shown.doing("compiling the step"):
        for _ in range(3):
            shown._tell_long()
    assert stream.getvalue() == "metarun: compiling the step …\n"


def test_an_error_in_an_activity_passes_and_ends_the_activity() -> None:
    shown = Display(io.StringIO())
    with pytest.raises(ValueError, match="no"), shown.doing("loading"):
        raise ValueError("no")
    assert shown.activity() is None


@pytest.mark.usefixtures("at_once")
def test_a_line_that_fails_in_one_thread_does_not_keep_the_others_waiting() -> None:
    """A value may come while another thread puts the line together, at its first or its second look."""
    stream = Terminal()
    shown, fails = Display(stream), iter([False, True, True])

    def bar(width: int, doing: str | None) -> str:
        if next(fails, False):
            raise RuntimeError("dictionary changed size during iteration")
        return "step 1/2"

    def paints() -> bool:
        thread = threading.Thread(target=shown.refresh, daemon=True)
        thread.start()
        thread.join(10)
        return not thread.is_alive()

    shown._bars.append(bar)
    assert [paints() for _ in range(4)] == [True] * 4
    assert "step 1/2" in stream.getvalue()


@pytest.mark.usefixtures("at_once")
def test_a_closed_terminal_ends_nothing() -> None:
    stream = Terminal()
    shown = Display(stream)
    stream.close()
    with shown.doing("loading"):
        shown.refresh()
