"""The exceptions that a user may see, and helpers for their messages."""

from __future__ import annotations

import difflib
import signal
from collections.abc import Iterable


class UserError(Exception):
    """Bad input. The message is one sentence with the numbers and the remedy; the command line prints it and exits with 2.

    The message may quote a file of a stranger, so it keeps no control characters except the newline.
    """

    def __init__(self, message: str) -> None:
        super().__init__("\n".join(map(printable, message.split("\n"))))


def printable(text: object) -> str:
    r"""Return text in one line that a terminal shows and does not obey: "\x1b[2J" in place of the code that clears the screen.

    All characters that Python does not count as printable become escapes: control characters, line breaks, marks that turn the direction of
    writing, and halves of characters.
    """
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in str(text))


class NotFiniteError(UserError):
    """A loss or a gradient of the training is not finite.

    The sentence gives the facts only. `metarun.commands.train` knows the config, so it adds what the user may change.
    """


class Stopped(KeyboardInterrupt):
    """Ends a command that a signal stopped, after the command has saved what it had and said how to go on.

    number: of the signal. The exit code is 128 + number.
    """

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__(f"stopped by {signal_name(number)}")
        self.number = int(number)


def signal_name(number: int) -> str:
    """Return the name of a signal, such as SIGTERM."""
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal has none
        return f"signal {number}"


def nearest(word: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the closest known word, or an empty string where no word is close."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its class where the message is empty."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def counted(number: int, noun: str) -> str:
    """Return a number and its noun, such as "1 class" or "3 queries"."""
    plural = f"{noun}es" if noun.endswith("class") else f"{noun[:-1]}ies" if noun.endswith(("query", "trajectory")) else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"
