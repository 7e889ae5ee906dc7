"""The preparation of `task=ratings`: the catalogue of items, the columns of users, and the scale of the ratings, as plain values.

With it a checkpoint recommends to a new user, without the ratings of the training.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from metarun.errors import UserError, printable
from metarun.tasks.preparing.rating_features import MOST_ITEMS, MOST_VALUES, Feature, are_texts, is_number, stored_feature
from metarun.tasks.tables.raw_numbers import rows_of

ITEM, RATING = "item", "rating"
"""The keys of the items and of the ratings in raw examples."""
CLOSE, SHOWN = 3, 5
"""Names that a message offers for an unknown item, and unknown items that it shows."""

_ARTICLE = re.compile(r"(.+?), (the|an?)(?= \(|$)")
"""A title in small letters whose article stands behind it, as in MovieLens: "matrix, the (1999)"."""
_BRACKETS = re.compile(r"(?<=\S)( \([^()]*\))+$")
"""Further titles and the year behind a title: "1984 (nineteen eighty-four) (1984)"."""


@dataclass(frozen=True)
class RatingsPreparation:
    """Turns items by name, and facts about a user, into inputs x, and outputs into ratings.

    names: the identifiers of the items, in the order of the catalogue. titles: for people; () where there are none.
    user, item: the features in the order of the columns of x; those of the items have a value for each item.
    scale: the lowest and the highest rating. mean, deviation: they standardise targets. offsets: of the items, added to the mean where the
    targets are residuals; () otherwise.
    """

    names: tuple[str, ...]
    titles: tuple[str, ...]
    user: tuple[Feature, ...]
    item: tuple[Feature, ...]
    scale: tuple[float, float]
    mean: float
    deviation: float
    offsets: tuple[float, ...] = ()
    kind: ClassVar[str] = "ratings"

    @property
    def shape(self) -> tuple[int]:
        """The shape of one input."""
        return (sum(feature.width for feature in (*self.user, *self.item)),)

    @property
    def shown(self) -> tuple[str, ...]:
        """The titles of the items, or their identifiers where there are no titles."""
        return self.titles or self.names

    def inputs(self, x: Any) -> Tensor:
        """Return items as inputs of one user, float32 (B, C).

        x: names of items, or a mapping with the names under "item" and facts about the user under the names of the user's columns, such as
        {"item": ["Heat (1995)"], "gender": "F"}. A fact that is not given is unknown. A name is an identifier or a title (`places`).
        """
        facts = dict(x) if isinstance(x, Mapping) else {ITEM: x}
        if ITEM not in facts:
            raise UserError(f"x has the keys {printable(', '.join(map(str, facts)))}; it needs the key '{ITEM}', with names of items.")
        places = self.places(facts.pop(ITEM))
        return self.rows(places, facts)

    def rows(self, places: Sequence[int], facts: Mapping[str, Any]) -> Tensor:
        """Return the items at these places of the catalogue as inputs of one user, float32 (B, C). facts: about the user, by column."""
        known = [feature.name for feature in self.user]
        for name in facts:
            if name not in known:
                has = f"the columns {printable(', '.join(known))}" if known else "no column of users"
                raise UserError(f"the model knows nothing about '{printable(name)}' of a user; it was trained with {has}.")
        of_user = [feature.coded(facts.get(feature.name)) for feature in self.user]
        user = torch.tensor([value for values in of_user for value in values])
        return torch.cat([user.expand(len(places), -1), self._values[torch.tensor(places, dtype=torch.int64)]], dim=1)

    def targets(self, y: Any) -> Tensor:
        """Return ratings (B,) or (B, 1) in the unit of the file as standardised targets, float32 (B, 1)."""
        return ((rows_of(y, 1).double() - self.mean) / self.deviation).to(torch.float32)

    def in_units(self, y: Tensor) -> Tensor:
        """Return standardised targets (..., 1) as ratings, float64."""
        return y.double().cpu() * self.deviation + self.mean

    def added(self, x: Any) -> Tensor | None:
        """Return the ratings (B, 1) that the items of raw inputs add to the mean, float64; None where they add nothing."""
        if not self.offsets:
            return None
        places = self.places(x[ITEM] if isinstance(x, Mapping) else x)
        return torch.tensor([self.offsets[place] for place in places], dtype=torch.float64)[:, None]

    def places(self, names: Iterable[Any], *, titles: bool = False) -> list[int]:
        """Return the places of items in the catalogue, by identifier, or by title.

        A title may lack what stands in brackets behind it, have other letters, and have its article in front or behind ("The Matrix").
        titles: whether a name that is an identifier and a title means the title.
        Raises UserError, with the nearest titles, for names that the catalogue lacks, and for a name that several items have.
        """
        if isinstance(names, (str, bytes)) or not isinstance(names, Iterable):
            raise UserError(f"the items are a {type(names).__name__}; give a list of identifiers or titles.")
        wanted = [str(name).strip() for name in names]
        found = [self._find(name, titles) for name in wanted]
        missing = list(dict.fromkeys(name for name, place in zip(wanted, found, strict=True) if place is None))
        if missing:
            told = "; ".join(f"'{name}'{self._nearest(name)}" for name in missing[:SHOWN])
            more = f"; and {len(missing) - SHOWN:,} more" if len(missing) > SHOWN else ""
            items = "1 item is" if len(missing) == 1 else f"{len(missing):,} items are"
            raise UserError(f"{items} not among the {len(self.names):,} items of the model: {printable(told + more)}. Correct the names.")
        return [place for place in found if place is not None]

    def stored(self) -> dict[str, Any]:
        """Return the plain values."""
        plain: dict[str, Any] = {name: list(getattr(self, name)) for name in ("names", "titles", "scale", "offsets")}
        features = {name: [feature.stored() for feature in getattr(self, name)] for name in ("user", "item")}
        return {"kind": self.kind, **plain, **features, "mean": self.mean, "deviation": self.deviation}

    def _find(self, name: str, titles: bool) -> int | None:
        if name in self._by_name and not (titles and self.titles):
            return self._by_name[name]
        places = self._by_title.get(name) or self._by_letters.get(plain_letters(name)) or self._by_plain.get(plain_title(name)) or []
        if len(places) > 1:
            listed = ", ".join(f"{self.names[place]} ({self.shown[place]})" for place in places[:SHOWN])
            raise UserError(f"{len(places)} items have the title '{printable(name)}'; name one by its identifier: {printable(listed)}.")
        return places[0] if places else self._by_name.get(name)

    def _nearest(self, name: str) -> str:
        close = difflib.get_close_matches(plain_title(name), list(self._by_plain), n=CLOSE, cutoff=0.5)
        titles = dict.fromkeys(f"'{self.shown[self._by_plain[each][0]]}'" for each in close)
        return f" (did you mean {' or '.join(titles)}?)" if titles else ""

    @cached_property
    def _values(self) -> Tensor:
        """The columns of the items, float32 (I, columns of the item)."""
        parts = [feature.matrix() for feature in self.item]
        return torch.cat(parts, dim=1) if parts else torch.zeros(len(self.names), 0)

    @cached_property
    def _by_name(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.names)}

    @cached_property
    def _by_title(self) -> dict[str, list[int]]:
        return _grouped(self.titles)

    @cached_property
    def _by_letters(self) -> dict[str, list[int]]:
        return _grouped(map(plain_letters, self.shown))

    @cached_property
    def _by_plain(self) -> dict[str, list[int]]:
        """Places by titles without the year, and by titles without any brackets behind them."""
        return _grouped(map(plain_title, self.shown), map(short_title, self.shown))


_STORED = ("names", "titles", "scale", "offsets", "mean", "deviation", "user", "item")


def stored_ratings(stored: Mapping[str, Any]) -> RatingsPreparation | None:
    """Return the preparation of a checkpoint, which a stranger may have written; None where its values are no preparation of ratings."""
    values: list[Any] = [stored.get(name) for name in _STORED]
    names, titles, scale, offsets, mean, deviation, *lists = values
    if not (are_texts(names) and are_texts(titles) and all(type(each) is list for each in (scale, offsets, *lists))):
        return None
    items = len(names)
    if not 0 < items <= MOST_ITEMS or len(set(names)) != items or len(titles) not in (0, items) or len(offsets) not in (0, items):
        return None
    if not (len(scale) == 2 and all(map(is_number, (*scale, *offsets, mean, deviation))) and scale[0] < scale[1] and deviation > 0):
        return None
    user, item = ([stored_feature(each, count) for each in found] for found, count in zip(lists, (0, items), strict=True))
    known = [each for each in (*user, *item) if each is not None]
    if not known or len(known) < len(user) + len(item) or len({each.name for each in known}) < len(known):
        return None
    if items * sum(each.width for each in known) > MOST_VALUES:
        return None
    features = (tuple(known[: len(user)]), tuple(known[len(user) :]))
    return RatingsPreparation(tuple(names), tuple(titles), *features, (scale[0], scale[1]), mean, deviation, tuple(offsets))


def plain_letters(title: str) -> str:
    """Return a title for comparisons: small letters, single spaces, and the article in front."""
    return _ARTICLE.sub(r"\2 \1", " ".join(title.casefold().split()), count=1)


def plain_title(title: str) -> str:
    """Return a title for comparisons as `plain_letters` does, and without a year in brackets at the end."""
    words = plain_letters(title).split()
    if len(words) > 1 and len(words[-1]) == 6 and words[-1][0] + words[-1][-1] == "()" and words[-1][1:-1].isdigit():
        words = words[:-1]
    return " ".join(words)


def short_title(title: str) -> str:
    """Return a title for comparisons as `plain_letters` does, and without anything in brackets at the end."""
    return _BRACKETS.sub("", plain_letters(title))


def _grouped(*forms: Iterable[str]) -> dict[str, list[int]]:
    """Return the places of each title. forms: each has the titles of all places in order, in a form of its own."""
    found: dict[str, list[int]] = {}
    for place, titles in enumerate(zip(*forms, strict=True)):
        for title in dict.fromkeys(titles):
            found.setdefault(title, []).append(place)
    return found
