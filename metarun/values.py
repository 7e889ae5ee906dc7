"""Ranges of values, to write beside the type of an argument.

    from typing import Annotated
    from metarun.values import Count, Positive, Range

    def mine(*, width: Count = 64, temperature: Positive = 1.0, power: Annotated[float, Range(least=1, below=3)] = 2.0) -> ...

A key of a YAML file is an argument of the function that its `_target_` names. metarun reads the annotations of this function, and refuses
a value that does not fit before any work: "algo.width=0 should be a whole number from 1 to 1,000,000,000." An argument without an
annotation takes every value. `metarun.wiring.fitting` checks the values; this module only describes them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

LARGEST, SMALLEST = 3.4e38, 1.2e-38
"""Bounds of the size of a number, other than 0, that single precision holds without overflow and in full precision."""


@dataclass(frozen=True)
class Range:
    """The numbers between two bounds; None for no bound. Infinity and NaN are in no range, and neither are sizes beyond single precision.

    least, most: the smallest and the largest number. above, below: bounds that are not in the range.
    """

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def holds(self, value: Any) -> bool:
        """Return whether a number is in the range."""
        return (
            _is_finite(value)
            and (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
            and self._is_single(value)
        )

    def described(self, kind: Any, value: Any = None) -> str:
        """Return the range in words, such as "a number above 0". kind: int or float. value: the number that is refused."""
        noun = "a whole number" if kind is int else "a number"
        if self.least is not None and self.most is not None:
            words = f"{noun} from {number(self.least)} to {number(self.most)}"
        else:
            bounds = {"above": self.above, "at least": self.least, "below": self.below, "at most": self.most}
            limits = " and ".join(f"{name} {number(bound)}" for name, bound in bounds.items() if bound is not None)
            words = f"{noun} {'of ' if limits.startswith('at') else ''}{limits or 'that is finite'}"
        if isinstance(value, float) and math.isfinite(value) and not self._is_single(value):
            words += f" that single precision holds ({number(SMALLEST)} to {number(LARGEST)})"
        return words

    @staticmethod
    def _is_single(value: Any) -> bool:
        return isinstance(value, int) or value == 0 or SMALLEST <= abs(value) <= LARGEST


@dataclass(frozen=True)
class Length:
    """The number of entries of a list, or of letters of a text."""

    least: int = 1
    most: int | None = None

    def holds(self, value: Any) -> bool:
        """Return whether a list or a text has such a length; text of spaces alone counts as empty."""
        size = len(value.strip()) if isinstance(value, str) else len(value)
        return self.least <= size and (self.most is None or size <= self.most)

    def described(self, kind: Any, value: Any = None) -> str:
        """Return the length in words. kind: str, or the type of a list."""
        if kind is str:
            return "text that is not empty"
        entries = "entry" if self.least == 1 else "entries"
        return f"a list of at least {self.least} {entries}" + (f" and at most {number(self.most)}" if self.most is not None else "")


@dataclass(frozen=True)
class Form:
    """Text of a form. pattern: a regular expression for the whole text. words: the form, for a person."""

    pattern: str
    words: str

    def holds(self, value: Any) -> bool:
        """Return whether a text has the form."""
        return re.fullmatch(self.pattern, value) is not None

    def described(self, kind: Any, value: Any = None) -> str:
        """Return the form in words."""
        return self.words


@dataclass(frozen=True)
class Built:
    """An object that a nested `_target_` builds; numbers, text, lists and null are none. words: what to give, for a person."""

    words: str = "a mapping with a _target_"

    def holds(self, value: Any) -> bool:
        """Return whether a value is more than plain data."""
        return value is not None and not isinstance(value, (bool, int, float, str, list, tuple, dict))

    def described(self, kind: Any, value: Any = None) -> str:
        """Return the words."""
        return self.words


@dataclass(frozen=True)
class Keys:
    """Keys with the annotations of another class: of the entries of a mapping, or of `**options` that a function passes on.

    holder: a class with annotations, such as a dataclass or a TypedDict. hidden: fields of the class that are no keys.
    closed: whether a key of another name is refused.
    """

    holder: Any
    hidden: tuple[str, ...] = ()
    closed: bool = True


def _is_finite(value: Any) -> bool:
    return isinstance(value, int) or math.isfinite(value)  # an integer may be too large for a float


def number(value: float | None) -> str:
    """Return a bound as text, with separators: 1,000,000."""
    return f"{value:,}" if isinstance(value, int) else re.sub(r"e\+0*", "e", f"{value:g}")


HUGE = 1e9
"""No paper has a rate, a weight or a scale beyond this number, and its square still fits into single precision."""

Finite = Annotated[float, Range(least=-HUGE, most=HUGE)]
Positive = Annotated[float, Range(above=0, most=HUGE)]
NotNegative = Annotated[float, Range(least=0, most=HUGE)]
Share = Annotated[float, Range(least=0, most=1)]
BelowOne = Annotated[float, Range(least=0, below=1)]
"""A factor that fades something: momentum, a decay of averages."""

MANY, FEW = 1_000_000_000, 10_000

Count = Annotated[int, Range(least=1, most=MANY)]
CountOrZero = Annotated[int, Range(least=0, most=MANY)]
Few = Annotated[int, Range(least=1, most=FEW)]
"""A number of things that are made or done one by one for each task: samples, steps."""
Layers = Annotated[int, Range(least=1, most=1000)]
FewOrZero = Annotated[int, Range(least=0, most=FEW)]
Size = Annotated[int, Range(least=1, most=1_000_000)]
"""A number of units or channels."""
Seed = Annotated[int, Range(least=0, most=2**63 - 1)]

Text = Annotated[str, Length(1)]
Names = Annotated[Sequence[Text], Length(1)]
Sizes = Annotated[tuple[Size, ...], Length(1, 1000)]
"""The sizes of the layers of a network."""
SizesOrNone = Annotated[tuple[Size, ...], Length(0, 1000)]
"""The same, or an empty list."""
Rates = Annotated[Sequence[Positive], Length(1)]
"""Learning rates to choose from."""
Listed = Annotated[Sequence[str], Length(1)]
Shares = tuple[Positive, Positive, Positive]
"""Of training, validation and test."""
Pixels = Annotated[int, Range(least=1, most=10_000)]
"""The side of an image."""
NormMode = Literal["batch", "support", "running", "reptile", "layer", "instance", "none"]
"""How a network normalises (`metarun.network`)."""
InputShape = Annotated[Sequence[Size], Length(1, 10)]
Episodes = Annotated[int, Range(least=1, most=10_000_000)]


def plain(value: float, digits: int = 4) -> str:
    """Return a number with so many digits that count, with separators and without an exponent: 11,040, not 1.104e+04."""
    rounded = float(f"{value:.{digits}g}")
    return f"{rounded:,.0f}" if 10 ** (digits - 1) <= abs(rounded) < 1e15 else f"{value:.{digits}g}"


def percent(share: float, digits: int = 2) -> str:
    """Return a share in [0, 1] as a percentage: 93.91 %."""
    return f"{100 * share:.{digits}f} %"
