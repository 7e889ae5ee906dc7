"""Tables of features: a CSV file with one row for each user or for each item.

A column is a number where all its values are numbers, several words where it is named in `several`, and else a word. A column of words with
almost as many words as rows, such as a title or a link, is no feature. A column of the name "title" or "name" gives the titles.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from metarun.errors import UserError, nearest, printable
from metarun.tasks.rated.data import Feature
from metarun.tasks.rated.movielens import Described
from metarun.tasks.tables.columns import MISSING
from metarun.tasks.tables.csv_file import CsvFile, open_csv, plain_name

TITLES = ("title", "name", "booktitle", "movietitle", "productname")
"""Usual names of the column of titles, in lower case and without signs between the words."""
MOSTLY = 0.5
"""A column of words is no feature where it has more different words than this share of its rows."""

_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")


def read_features(
    path: str, of: str, identifier: str, categorical: Sequence[str], several: Sequence[str], separator: str, decimal: str | None
) -> Described:
    """Read a table of users or items.

    of: "user" or "item". identifier: the name of the column with the identifiers in the file of ratings; the table has it under the same
    name, or has the identifiers in its first column. Raises UserError for a table that cannot be read, and for one without a feature.
    """
    file = _opened(path, of, identifier)
    place = file.header.index(identifier) if identifier in file.header else 0
    rows = [[text.strip() for text in row] for _, row in file.rows()]
    if not rows:
        raise UserError(f"task.{of}s_path={file.path} has no rows below its header line.")
    columns = {name: [row[at] for row in rows] for at, name in enumerate(file.header)}
    features: list[Feature] = []
    titles: list[str] = []
    for at, (name, values) in enumerate(columns.items()):
        if at == place:
            continue
        if plain_name(name) in TITLES and not titles and name not in (*categorical, *several):
            titles = values
        elif (feature := _feature(name, values, name in categorical, name in several, separator, decimal)) is not None:
            features.append(feature)
    if not features:
        listed = printable(", ".join(file.header))
        raise UserError(
            f"task.{of}s_path={file.path} has the columns {listed}, and none of them is a feature: nearly every row has another word; name "
            "one in task.categorical or task.several."
        )
    return Described([row[place] for row in rows], tuple(features), titles)


def check_names(categorical: Sequence[str], several: Sequence[str], known: Sequence[str]) -> None:
    """Raise UserError where `categorical` or `several` names no feature of the tables. known: the features of both tables."""
    for key, names in (("categorical", categorical), ("several", several)):
        for name in names:
            if name not in known:
                shown = printable(", ".join(known)) or "none"
                raise UserError(
                    f"task.{key} names '{printable(name)}', which is no feature; the features are {shown}.{nearest(name, known)}"
                )


def _opened(path: str, of: str, identifier: str) -> CsvFile:
    """Open the table; the messages name its own key."""
    try:
        return open_csv(path, None, [identifier])
    except UserError as error:
        raise UserError(str(error).replace("task.path=", f"task.{of}s_path=")) from None


def _feature(name: str, values: Sequence[str], category: bool, several: bool, separator: str, decimal: str | None) -> Feature | None:
    """Return the feature of a column; None where the column is none."""
    if several:
        return Feature(name, "several", [tuple(word.strip() for word in text.split(separator) if word.strip()) for text in values])
    if not category:
        texts = [text.replace(",", ".") if decimal in ("comma", ",") else text for text in values]
        missing = [text.lower() in MISSING for text in texts]
        if not all(missing) and all(gap or _NUMBER.fullmatch(text) for gap, text in zip(missing, texts, strict=True)):
            numbers = np.array([np.nan if gap else float(text) for gap, text in zip(missing, texts, strict=True)])
            return Feature(name, "number", numbers) if np.isfinite(numbers[~np.isnan(numbers)]).all() else None
        if len(set(values)) > max(2.0, MOSTLY * len(values)):
            return None
    return Feature(name, "category", values)
