"""The text of a progress display: as many values as fit into a width, the most important ones first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from metarun.values import percent, plain

SPACE = "  "
WIDEST_BAR, NARROWEST_BAR = 40, 8
_BLOCKS, _ASCII = " ▏▎▍▌▋▊▉█", " #"


class Shown(NamedTuple):
    """A value of the display. value: a number, or text as it is. step: at which a validation measured it; None for a training value."""

    value: float | str
    step: int | None = None


class Piece(NamedTuple):
    """A part of the line, by its forms from the longest to the shortest. rank: 0 never goes; the largest rank goes first."""

    rank: int
    forms: tuple[str, ...]


def line(
    count: str, shown: Mapping[str, Shown], *, step: int, width: int | None = None, doing: str | None = None, left: str | None = None
) -> str:
    """Return one line of at most `width` letters, always with the count. The least important values go first.

    count: such as "900/2,000". step: now; the value of an earlier validation says its step. width: None for all values. doing: what takes
    place beside the steps. left: the time left.
    """
    pieces = [Piece(0, (count,)), *([Piece(2, (doing,))] if doing else [])]
    pieces += [piece(name, value, step, rank) for rank, name, value in _ranked(shown)]
    pieces += [Piece(1, (f"{left} left",))] if left else []
    return fitted(pieces, width)


def fitted(pieces: Sequence[Piece], width: int | None) -> str:
    """Return the pieces in their order: those of the largest ranks in a shorter form, or left out, until the line fits."""
    forms = {place: list(each.forms) for place, each in enumerate(pieces)}

    def text() -> str:
        return SPACE.join(form[0] for form in forms.values() if form)

    by_rank = sorted(forms, key=lambda place: -pieces[place].rank)
    while width is not None and len(text()) > width:
        shorter = next((place for place in by_rank if len(forms[place]) > 1), None)
        dropped = next((place for place in by_rank if forms[place] and pieces[place].rank > 0), None)
        if shorter is not None:
            forms[shorter].pop(0)
        elif dropped is not None:
            forms[dropped].clear()
        else:
            return text()[:width]
    return text()


def with_bar(text: str, share: float, width: int, *, unicode: bool = True) -> str:
    """Return the text with a bar and a percentage after it, where the width has room for them."""
    done = f"{SPACE}{100 * share:.0f} %"
    room = width - len(text) - len(done)
    if room < 0:
        return text
    bar = min(room - len(SPACE), WIDEST_BAR)
    if bar < NARROWEST_BAR:
        return text + done
    return f"{text}{SPACE}{_bar(share, bar, _BLOCKS if unicode else _ASCII)}{done}"


def _bar(share: float, width: int, letters: str) -> str:
    """Return a bar. letters: from the empty to the full one."""
    whole, part = divmod(int(min(max(share, 0.0), 1.0) * width * (len(letters) - 1)), len(letters) - 1)
    return (letters[-1] * whole + (letters[part] if whole < width else "")).ljust(width)


def piece(name: str, shown: Shown, step: int, rank: int) -> Piece:
    """Return a value in its long and in its short form: "val accuracy 91.20 % (step 500)" and "val 91.2 % (500)"."""
    value, measured = shown
    since = "" if measured in (None, step) else f" (step {measured:,})"
    if isinstance(value, str):
        return Piece(rank, (f"{name} {value}{since}",))
    if name.endswith("accuracy"):
        short = name.replace("val accuracy", "val").replace("accuracy", "acc")
        forms = f"{name} {percent(value)}{since}", f"{short} {percent(value, 1)}{since.replace('step ', '')}"
        return Piece(rank, forms)
    if name.endswith("/s"):
        return Piece(rank, (f"{_number(value)} {name}", f"{_number(value, 3)}/s"))
    return Piece(rank, (f"{name} {_number(value)}{since}", f"{name} {_number(value, 3)}{since.replace('step ', '')}"))


def _number(value: float, digits: int = 4) -> str:
    """Return a number with all its digits, such as 3.160, so that the line does not jump."""
    large = abs(float(f"{value:.{digits}g}")) >= 10 ** (digits - 1)
    return plain(value, digits) if large else f"{value:#.{digits}g}"


def _ranked(shown: Mapping[str, Shown]) -> list[tuple[int, str, Shown]]:
    """Return the values in the order of the line, each with its rank: families and targets go before the speed, and so on."""
    score = next((name for name in shown if name.startswith("val ")), None)
    places, important = ["loss", "accuracy", "mse", score, "tasks/s"], ["loss", score, "accuracy", "mse", "tasks/s"]

    def found(name: str, order: list[str | None]) -> int:
        return order.index(name) if name in order else len(order)

    return [(3 + found(name, important), name, shown[name]) for name in sorted(shown, key=lambda name: found(name, places))]
