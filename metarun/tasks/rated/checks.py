"""Checks of ratings as a file has them: their range, and pairs of a user and an item that occur twice. Each problem is one sentence."""

from __future__ import annotations

import logging
from typing import Literal, NamedTuple

import numpy as np

from metarun.errors import UserError, counted, printable

log = logging.getLogger(__name__)

Duplicates = Literal["refuse", "first", "last", "mean"]
Outside = Literal["refuse", "drop"]


class Raw(NamedTuple):
    """Ratings as they stand in a file.

    path: as messages show it. lines: (R,) the line of each rating. user, item: (R,) places in `users` and `items`, which hold the texts of
    the file. rating: (R,) float64. columns: the names of the three columns.
    """

    path: str
    lines: np.ndarray
    user: np.ndarray
    item: np.ndarray
    rating: np.ndarray
    users: list[str]
    items: list[str]
    columns: tuple[str, str, str] = ("user", "item", "rating")

    def at(self, row: int) -> str:
        """Return a rating in words, such as "user '7' and item '12'"."""
        user, item = (printable(names[place]) for names, place in ((self.users, self.user[row]), (self.items, self.item[row])))
        return f"user '{user}' and item '{item}'"

    def only(self, rows: np.ndarray) -> Raw:
        """Return the ratings of these rows."""
        return self._replace(lines=self.lines[rows], user=self.user[rows], item=self.item[rows], rating=self.rating[rows])


def within(raw: Raw, scale: tuple[float, float] | None, outside: Outside = "refuse") -> tuple[Raw, tuple[float, float]]:
    """Return the ratings inside the scale, and the scale; without one, the lowest and the highest rating.

    outside: "drop" leaves out the ratings outside of the scale. Raises UserError for a rating outside of a given scale, for one that lies
    apart from all others where no scale is given, and where all ratings are equal.
    """
    if scale is not None:
        bad = (raw.rating < scale[0]) | (raw.rating > scale[1])
        if bad.any() and outside == "refuse":
            row = int(np.flatnonzero(bad)[0])
            count = counted(int(bad.sum()), "rating")
            raise UserError(
                f"{count} of {raw.path} outside of {scale[0]:g} to {scale[1]:g}, such as {raw.rating[row]:g} on line {raw.lines[row]}; "
                "correct them, set task.scale=[LOWEST, HIGHEST], or leave them out with task.outside=drop."
            )
        if bad.any():
            facts = (bad.sum(), len(bad), raw.path, *scale)
            log.warning("%d of the %d ratings of %s lie outside of %g to %g and are left out", *facts)
        raw = raw.only(~bad)
    if not len(raw.rating) or raw.rating.min() == raw.rating.max():
        found = "no rating" if not len(raw.rating) else f"only ratings of {raw.rating[0]:g}"
        column = printable(raw.columns[2])
        raise UserError(f"{raw.path} has {found} in the column '{column}', so there is nothing to learn; is task.rating right?")
    if scale is None:
        _check_apart(raw)
        scale = float(raw.rating.min()), float(raw.rating.max())
    return raw, scale


def _check_apart(raw: Raw) -> None:
    """Raise UserError where the lowest or the highest rating is farther from the others than these are from one another."""
    known = np.unique(raw.rating)
    if len(known) < 4:
        return
    for far, others in ((known[-1], known[:-1]), (known[0], known[1:])):
        if np.abs(far - others).min() > others[-1] - others[0]:
            row = int(np.flatnonzero(raw.rating == far)[0])
            rest = f"{others[0]:g}, {others[-1]:g}"
            raise UserError(
                f"line {raw.lines[row]} of {raw.path} has the rating {far:g}, while all others lie in [{rest}]; correct it, or set "
                f"task.scale=[{rest}] with task.outside=drop."
            )


def once(raw: Raw, duplicates: Duplicates) -> Raw:
    """Return one rating for each pair of a user and an item.

    duplicates: which one of several; "mean" is their mean, in the place of the first. Raises UserError where "refuse" finds several.
    """
    pair = raw.user.astype(np.int64) * len(raw.items) + raw.item
    order = np.argsort(pair, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(pair[order]) != 0])
    if len(starts) == len(pair):
        return raw
    counts = np.diff(np.r_[starts, len(pair)])
    if duplicates == "refuse":
        start = starts[int(np.flatnonzero(counts > 1)[0])]
        first, second = order[start], order[start + 1]
        count = counted(int((counts > 1).sum()), "pair")
        raise UserError(
            f"{raw.path} rates {count} of a user and an item more than once, such as {raw.at(first)} on lines "
            f"{raw.lines[first]} and {raw.lines[second]}; remove all but one, or set task.duplicates=last (first, mean)."
        )
    what = "enter the mean of their user and item" if duplicates == "mean" else f"are left out, since the {duplicates} of each pair counts"
    facts = (int((counts[counts > 1] - (duplicates != "mean")).sum()), len(pair), raw.path)
    log.warning("%d of the %d ratings of %s repeat a user and an item and " + what, *facts)
    chosen = order[starts + counts - 1] if duplicates == "last" else order[starts]
    if duplicates == "mean":
        means = np.add.reduceat(raw.rating[order], starts) / counts
        raw = raw._replace(rating=raw.rating.copy())
        raw.rating[chosen] = means
    return raw.only(np.sort(chosen))
