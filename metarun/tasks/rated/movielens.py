"""The layouts of the MovieLens data sets of GroupLens (Harper and Konstan 2015, https://doi.org/10.1145/2827872).

    ml-latest-small, ml-latest, ml-20m, ml-25m    ratings.csv, movies.csv
    ml-100k                                       u.data, u.user, u.item
    ml-1m, ml-10m                                 ratings.dat, movies.dat, and users.dat in ml-1m

Nothing is bundled or downloaded: the terms of GroupLens forbid redistribution. The year of a movie is in its title or its release date.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from metarun.errors import UserError, printable
from metarun.tasks.rated.checks import Raw
from metarun.tasks.rated.data import Feature
from metarun.tasks.tables.columns import read_columns
from metarun.tasks.tables.csv_file import open_csv

_YEAR = re.compile(r"\((\d{4})(?:[-–]\d{0,4})?\)\s*$")
_DATE = re.compile(r"(\d{4})\s*$")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
NO_GENRE = "(no genres listed)"
GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy", "Film-Noir",
    "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
"""The genres of ml-100k in the order of the columns of u.item, as its file u.genre has them."""


class Described(NamedTuple):
    """What a file tells of users or of items. names: the identifiers. features: one value for each name. titles: () where it has none."""

    names: Sequence[str]
    features: tuple[Feature, ...]
    titles: Sequence[str] = ()


class Layout(NamedTuple):
    """A layout of files. ratings: the file by which it is known. scale: of its ratings, None where it differs between data sets.

    items, users: a file and its reader. ml-10m has no file of users.
    """

    ratings: str
    read: Callable[[Path], Raw]
    scale: tuple[float, float] | None
    items: tuple[str, Callable[[Path], Described]]
    users: tuple[str, Callable[[Path], Described]] | None = None

    def is_of(self, folder: Path) -> bool:
        """Return whether a folder with the file of the ratings has this layout. A CSV file without the file of the items is any table."""
        return not self.ratings.endswith(".csv") or (folder / self.items[0]).is_file()


def layout_of(folder: Path) -> Layout:
    """Return the layout of a folder; UserError where it holds none."""
    found = [layout for layout in LAYOUTS if (folder / layout.ratings).is_file()]
    if not found:
        names = ", ".join(layout.ratings for layout in LAYOUTS)
        raise UserError(
            f"task.path={printable(folder)} has none of the files {names} of a MovieLens folder; give one, or a CSV file with the columns "
            "user, item and rating."
        )
    return found[0]


def _latest(path: Path) -> Raw:
    names = ("userId", "movieId", "rating")
    columns = read_columns(open_csv(str(path), "comma", names), {names[0]: "user", names[1]: "item"}, {names[2]: "rating"}, "point")
    user, item = (columns.words[name] for name in names[:2])
    return Raw(columns.path, columns.lines, user.codes, item.codes, columns.numbers[names[2]], user.known, item.known, names)


def _latest_movies(path: Path) -> Described:
    columns = open_csv(str(path), "comma", ("movieId", "title", "genres"))
    place = [columns.header.index(name) for name in ("movieId", "title", "genres")]
    rows = [[row[at].strip() for at in place] for _, row in columns.rows()]
    return _movies(rows)


def _movies(rows: Sequence[Sequence[str]]) -> Described:
    """Return movies of rows (identifier, title, genres)."""
    genres = [tuple(word for word in row[2].split("|") if word and word != NO_GENRE) for row in rows]
    years = np.array([_year(_YEAR, row[1]) for row in rows])
    features = (Feature("genres", "several", genres), Feature("year", "number", years))
    return Described([row[0] for row in rows], features, [row[1] for row in rows])


def _year(pattern: re.Pattern[str], text: str) -> float:
    found = pattern.search(text)
    return float(found[1]) if found else float("nan")


def _rows(path: Path, separator: str, fields: int, encoding: str = "latin-1") -> Iterator[tuple[int, list[str]]]:
    """Yield the line number and the fields of each line; UserError for a line with fewer fields."""
    try:
        with path.open(encoding=encoding, errors="strict", newline="\n") as file:
            for line, text in enumerate(file, 1):
                row = text.rstrip("\r\n").split(separator)
                if len(row) >= fields:
                    yield line, row
                elif text.strip():
                    shown = {"\t": "tabs"}.get(separator, f"'{separator}'")
                    raise UserError(f"line {line} of {printable(path)} has {len(row)} fields between {shown}; it needs {fields}.")
    except (OSError, UnicodeError) as error:
        raise UserError(f"{printable(path)} cannot be read ({getattr(error, 'strerror', None) or 'it is no text'}).") from error


def _plain(separator: str) -> Callable[[Path], Raw]:
    """Return the reader of lines of user, item and rating."""

    def read(path: Path) -> Raw:
        users: dict[str, int] = {}
        items: dict[str, int] = {}
        rows = []
        for line, (user, item, rating, *_) in _rows(path, separator, 3):
            if not _NUMBER.fullmatch(rating.strip()):
                shown = printable(rating[:60])
                raise UserError(f"line {line} of {printable(path)} has '{shown}' as rating, which is not a number; correct it.")
            rows.append((line, users.setdefault(user.strip(), len(users)), items.setdefault(item.strip(), len(items)), float(rating)))
        if not rows:
            raise UserError(f"{printable(path)} has no rating.")
        lines, user_codes, item_codes, ratings = (np.array(column) for column in zip(*rows, strict=True))
        return Raw(printable(path), lines, user_codes, item_codes, ratings, list(users), list(items))

    return read


def _movies_100k(path: Path) -> Described:
    rows = [row for _, row in _rows(path, "|", 5 + len(GENRES))]
    genres = [tuple(name for name, flag in zip(GENRES, row[5:], strict=False) if flag.strip() == "1" and name != "unknown") for row in rows]
    dates = [_year(_DATE, row[2]) for row in rows]
    years = np.array([_year(_YEAR, row[1]) if np.isnan(date) else date for row, date in zip(rows, dates, strict=True)])
    features = (Feature("genres", "several", genres), Feature("year", "number", years))
    return Described([row[0].strip() for row in rows], features, [row[1].strip() for row in rows])


def _users_100k(path: Path) -> Described:
    rows = [[text.strip() for text in row] for _, row in _rows(path, "|", 5)]
    for line, row in enumerate(rows, 1):
        if not _NUMBER.fullmatch(row[1]):
            raise UserError(f"line {line} of {printable(path)} has the age '{printable(row[1][:60])}', which is not a number; correct it.")
    return _users([row[0] for row in rows], np.array([float(row[1]) for row in rows]), *([row[n] for row in rows] for n in (2, 3, 4)))


def _movies_dat(path: Path) -> Described:
    encoding = "utf-8" if _is_utf8(path) else "latin-1"  # ml-10m is UTF-8, and ml-1m is Latin-1
    return _movies([[text.strip() for text in row] for _, row in _rows(path, "::", 3, encoding)])


def _users_1m(path: Path) -> Described:
    """Read users of ml-1m, whose ages are codes of seven groups."""
    rows = [[text.strip() for text in row] for _, row in _rows(path, "::", 5)]
    return _users(*([row[n] for row in rows] for n in (0, 2, 1, 3, 4)))


def _users(names: list[str], age: list[str] | np.ndarray, gender: list[str], occupation: list[str], zips: list[str]) -> Described:
    """Return users; of a zip code the first digit, which is the region of the United States, and nothing for other codes."""
    region = [code[0] if code[:1].isdigit() else "" for code in zips]
    ages = Feature("age", "category" if isinstance(age, list) else "number", age)
    words = (("gender", gender), ("occupation", occupation), ("region", region))
    return Described(names, (ages, *(Feature(name, "category", values) for name, values in words)))


def _is_utf8(path: Path) -> bool:
    try:
        path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        return False
    except OSError as error:
        raise UserError(f"{printable(path)} cannot be read ({error.strerror}).") from error
    return True


LAYOUTS = (
    Layout("ratings.csv", _latest, (0.5, 5.0), ("movies.csv", _latest_movies)),
    Layout("u.data", _plain("\t"), (1.0, 5.0), ("u.item", _movies_100k), ("u.user", _users_100k)),
    Layout("ratings.dat", _plain("::"), (0.5, 5.0), ("movies.dat", _movies_dat), ("users.dat", _users_1m)),
)
