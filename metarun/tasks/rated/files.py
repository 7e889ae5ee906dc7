"""Files of ratings: a MovieLens folder, or a CSV file of users, items and ratings with optional tables of users and items."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from metarun.errors import UserError, nearest, printable
from metarun.files.paths import expanded, is_folder
from metarun.tasks.fingerprint import Fingerprint, joined, of_table
from metarun.tasks.rated.checks import Duplicates, Outside, Raw, once, within
from metarun.tasks.rated.data import Feature, Owners, RatingData
from metarun.tasks.rated.feature_table import check_names, read_features
from metarun.tasks.rated.movielens import LAYOUTS, Described, Layout, layout_of
from metarun.tasks.tables.columns import Decimal, read_columns
from metarun.tasks.tables.csv_file import CsvFile, Delimiter, looks_like_data, open_csv, plain_name
from metarun.values import Finite, Length, Text

USUAL = {
    "user": ("user", "userid", "uid", "username", "reviewer", "reviewerid", "customer", "customerid", "member", "memberid", "person"),
    "item": (
        *("item", "itemid", "iid", "movie", "movieid", "film", "filmid", "book", "bookid", "isbn", "product", "productid", "asin"),
        *("song", "songid", "track", "trackid", "artist", "artistid", "anime", "animeid", "business", "businessid", "recipe", "recipeid"),
    ),
    "rating": ("rating", "ratings", "score", "stars", "star", "bookrating", "overall", "vote", "value", "grade"),
}
"""Usual names of the three columns, in lower case and without signs between the words."""

OF_FILES = ("user", "item", "rating", "users_path", "items_path", "categorical", "several", "delimiter", "decimal")
"""The keys of CSV files, which have no meaning for a MovieLens folder."""

ScaleKey = Annotated[Sequence[Finite], Length(2, 2)]


@dataclass(frozen=True)
class RatingFiles:
    """The keys that say where the ratings are and how the files are to be read.

    path: a MovieLens folder or a CSV file; None for made users. user, item, rating: the columns of the CSV file; None for the usual names.
    users_path, items_path: CSV files of features, one row for each user or item. categorical: columns of numbers that are codes. several:
    columns with several words, with `separator` between them. scale: the lowest and the highest rating. data: the name of the data set in
    place of the name of its file.
    """

    path: Text | None = None
    user: Text | None = None
    item: Text | None = None
    rating: Text | None = None
    users_path: Text | None = None
    items_path: Text | None = None
    categorical: Sequence[Text] = ()
    several: Sequence[Text] = ()
    separator: Text = "|"
    scale: ScaleKey | None = None
    outside: Outside = "refuse"
    duplicates: Duplicates = "refuse"
    delimiter: Delimiter | None = None
    decimal: Decimal | None = None
    data: Text | None = None


def changed_keys(files: RatingFiles) -> list[str]:
    """Return the keys of files, apart from `path` and `data`, that have another value than their default."""
    keys = [each for each in fields(RatingFiles) if each.name not in ("path", "data")]
    return [each.name for each in keys if (getattr(files, each.name) or None) != (each.default or None)]


def read_ratings(files: RatingFiles) -> RatingData:
    """Read the ratings that the keys name; UserError with one sentence for files that cannot be read or do not fit together."""
    place, shown = expanded(str(files.path)), printable(str(files.path))
    missing = f"task.path={shown}: there is no such file or folder."
    folder = is_folder(place, missing=missing, shown=f"task.path={shown}", remedy="give a MovieLens folder or a CSV file")
    if folder and (layout := layout_of(place)).is_of(place):
        return _movielens(place, layout, files)
    if folder:
        place /= layout.ratings
    layouts = [each for each in LAYOUTS if each.ratings == place.name and each.is_of(place.parent)]
    own = files.users_path is not None or files.items_path is not None  # tables for the file itself
    if layouts and not (own and place.suffix == ".csv"):
        return _movielens(place.parent, layouts[0], files)
    return _own(replace(files, path=str(place)), place)


def _own(files: RatingFiles, place: Path) -> RatingData:
    """Return the data of a CSV file with its own tables of users and items."""
    raw = _read_csv(files)
    sides: list[Described] = []
    used = {place.name: place}
    for of, path, names in (("user", files.users_path, raw.users), ("item", files.items_path, raw.items)):
        if path is None:
            sides.append(Described(names, ()))
            continue
        column = raw.columns[0 if of == "user" else 1]
        sides.append(read_features(path, of, column, files.categorical, files.several, files.separator, files.decimal))
        used[Path(path).name] = expanded(path)
    check_names(files.categorical, files.several, [each.name for side in sides for each in side.features])
    return _assembled(raw, files, None, sides, place.stem, used)


def _movielens(folder: Path, layout: Layout, files: RatingFiles) -> RatingData:
    """Return the data of a MovieLens folder, whose tables of users and items are optional."""
    strange = [key for key in OF_FILES if getattr(files, key)]
    if strange:
        raise UserError(f"task.{strange[0]} is a key of CSV files, and {printable(folder)} is a MovieLens folder; leave the key out.")
    raw = layout.read(folder / layout.ratings)
    sides, used = [], {layout.ratings: folder / layout.ratings}
    for table, names in ((layout.users, raw.users), (layout.items, raw.items)):
        if table is not None and (folder / table[0]).is_file():
            sides.append(table[1](folder / table[0]))
            used[table[0]] = folder / table[0]
        else:
            sides.append(Described(names, ()))
    return _assembled(raw, files, layout.scale, sides, folder.resolve().name, used)


def _assembled(
    raw: Raw, files: RatingFiles, known: tuple[float, float] | None, sides: Sequence[Described], name: str, used: dict[str, Path]
) -> RatingData:
    """Return the data set of ratings and of what is known of users and items. known: the scale of the layout."""
    scale = None if files.scale is None else (float(files.scale[0]), float(files.scale[1]))
    if scale is not None and scale[0] >= scale[1]:
        raise UserError(f"task.scale=[{scale[0]:g}, {scale[1]:g}] must be the lowest rating and then the highest one.")
    if known is not None and scale is None and (raw.rating % 1 == 0).all():
        known = (1.0, known[1])  # whole stars begin at 1
    raw, scale = within(raw, scale or known, files.outside)
    raw = once(raw, files.duplicates)
    user, users = _compact(raw.user, raw.users)
    item, items = _compact(raw.item, raw.items)
    owners = (_owners(users, sides[0], "user"), _owners(items, sides[1], "item"))
    prints: dict[str, Fingerprint] = {each: of_table(path, len(raw.rating), len(users)) for each, path in used.items()}
    return RatingData(user, item, raw.rating, *owners, scale, files.data or name, joined(prints))


def _compact(codes: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the codes and the names of those that still have a rating."""
    known, places = np.unique(codes, return_inverse=True)
    return places.astype(np.int64), tuple(names[place] for place in known.tolist())


def _owners(names: tuple[str, ...], described: Described, of: str) -> Owners:
    """Return what is known of users or items, in the order of `names`; unknown values for those that the table lacks."""
    if not described.features:
        return Owners(names)
    place = {name: row for row, name in enumerate(described.names)}
    twice = [name for name, count in Counter(described.names).items() if count > 1]
    if twice:
        raise UserError(f"the table of {of}s has the {of} '{printable(twice[0])}' more than once; leave one row for each {of}.")
    rows = [place.get(name, -1) for name in names]
    if max(rows) < 0:
        raise UserError(
            f"none of the {len(names)} {of}s of the ratings, such as '{printable(names[0])}', is in the table of {of}s, which has "
            f"'{printable(described.names[0])}'; its column of identifiers must hold the same ones."
        )
    features = tuple(_taken(each, rows) for each in described.features)
    titles = tuple(described.titles[row] if row >= 0 else name for row, name in zip(rows, names, strict=True)) if described.titles else ()
    return Owners(names, features, titles)


def _taken(feature: Feature, rows: Sequence[int]) -> Feature:
    unknown: dict[str, Any] = {"category": "", "several": (), "number": float("nan")}
    values: Any = [feature.values[row] if row >= 0 else unknown[feature.kind] for row in rows]
    return feature._replace(values=np.array(values, dtype=np.float64) if feature.kind == "number" else values)


def _read_csv(files: RatingFiles) -> Raw:
    """Return the ratings of a CSV file."""
    named = {"user": files.user, "item": files.item, "rating": files.rating}
    file = open_csv(str(files.path), files.delimiter, [name for name in named.values() if name is not None])
    if any(_guess(file.header, key) is None for key in named) and files.delimiter is None:
        file = _by_guess(files, file)
    names = tuple(_column(file, key, name) for key, name in named.items())
    if len(set(names)) < 3:
        raise UserError(f"task.user, task.item and task.rating must be three columns, and here they are {printable(', '.join(names))}.")
    columns = read_columns(file, {names[0]: "user", names[1]: "item"}, {names[2]: "rating"}, files.decimal)
    user, item = columns.words[names[0]], columns.words[names[1]]
    rating = columns.numbers[names[2]]
    return Raw(columns.path, columns.lines, user.codes, item.codes, rating, user.known, item.known, (names[0], names[1], names[2]))


def _by_guess(files: RatingFiles, file: CsvFile) -> CsvFile:
    """Return the file under the delimiter with which most of the three columns are found."""
    tried = [open_csv(str(files.path), name) for name in ("comma", "semicolon", "tab", "pipe")]
    return max([file, *tried], key=lambda each: sum(_guess(each.header, key) is not None for key in USUAL))


def _guess(header: Sequence[str], key: str) -> str | None:
    """Return the column with a usual name, the most usual one of several."""
    plain = {plain_name(name): name for name in reversed(header)}
    return next((plain[name] for name in USUAL[key] if name in plain), None)


def _column(file: CsvFile, key: str, name: str | None) -> str:
    """Return the column that a key names, or one with a usual name; UserError where the file has none."""
    shown = printable(", ".join(file.header))
    if name is not None and name in file.header:
        return name
    if looks_like_data(file.header):
        raise UserError(f"task.path={file.path} has the first line {shown}; it must be a header with the names of the columns.")
    if name is not None:
        raise UserError(
            f"task.{key}: {file.path} has no column '{printable(name)}'; it has {shown}.{printable(nearest(name, file.header))}"
        )
    found = _guess(file.header, key)
    if found is None:
        told = f"task.path={file.path} has the columns {shown}, and none has a usual name for the {key}"
        raise UserError(f"{told}; name it with task.{key}=COLUMN.")
    return found
