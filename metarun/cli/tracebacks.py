"""An exception for a person: the frames of their own code, without those of metarun, torch and Hydra around them."""

from __future__ import annotations

import os
import sysconfig
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType

from metarun.errors import first_line

WHOLE = "METARUN_TRACEBACK"
"""The environment variable that asks for every frame."""
_PACKAGE = str(Path(__file__).resolve().parents[1])
_STANDARD = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib")})
_INSTALLED = ("site-packages", "dist-packages")

_trusted: set[str] = set()


def trust(packages: Iterable[str]) -> None:
    """Count installed packages as the user's code: those that the config of the job names."""
    _trusted.update(packages)


def told(error: BaseException) -> list[str]:
    """Return the lines about an exception that is no mistake in the input.

    Where the exception passed through the user's code, the lines are the frames of this code and the exception. Otherwise metarun has a
    bug, and the lines are the whole traceback.
    """
    chain = list(_chain(error))
    own = {id(each): frames for each in chain if (frames := own_frames(each.__traceback__))}
    if os.environ.get(WHOLE) or not own:
        return "".join(traceback.format_exception(error)).rstrip("\n").split("\n")
    lines = ["metarun: an error in your code:"]
    for each in chain:
        if id(each) in own or each is error:
            lines += "".join(traceback.format_list(own.get(id(each), []))).rstrip("\n").split("\n") if id(each) in own else []
            lines += "".join(traceback.format_exception_only(type(each), each)).rstrip("\n").split("\n")
    left_out = sum(len(traceback.extract_tb(each.__traceback__)) - len(own.get(id(each), [])) for each in chain)
    return [*lines, f"({left_out} frames of metarun and of libraries are left out; {WHOLE}=1 shows them)"]


def brief(error: BaseException) -> str:
    """Return an exception in one line, with the file and the line of the user's code: "ValueError: no such item (net.py, line 12)"."""
    places = [frame for each in _chain(error) for frame in own_frames(each.__traceback__)[-1:]]
    where = f" ({Path(places[0].filename).name}, line {places[0].lineno})" if places else ""
    return f"{type(error).__name__}: {first_line(error)}{where}"


def own_frames(trace: TracebackType | None) -> list[traceback.FrameSummary]:
    """Return the frames of the user's code that metarun called: those below the first frame of metarun."""
    frames = traceback.extract_tb(trace)
    first = next((place for place, frame in enumerate(frames) if _is_metaruns(frame.filename)), 0)
    return [frame for frame in frames[first:] if is_own(frame.filename)]


def is_own(filename: str) -> bool:
    """Return whether a file holds the user's code: neither metarun, nor an installed package, nor the standard library."""
    parts = Path(filename).parts
    for folder in _INSTALLED:
        if folder in parts:
            return parts[parts.index(folder) + 1 :][:1] != () and Path(parts[parts.index(folder) + 1]).stem in _trusted
    return not (filename.startswith("<") or _is_metaruns(filename) or filename.startswith(_STANDARD))


def _is_metaruns(filename: str) -> bool:
    return filename.startswith(_PACKAGE + os.sep)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions that led to this one, as Python shows them: the first cause first."""
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None:
        yield from _chain(before)
    yield error
