"""Recommendations for a new user: adapt to the ratings of a small CSV file, and rank the items that the user has not rated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from metarun.commands.model import Model
from metarun.commands.predicting.recommending import Recommendation, ranked, recommended
from metarun.engine.averages import interval
from metarun.errors import UserError, counted, printable
from metarun.files.writing import write_text
from metarun.records.predictions import Found, write_rows
from metarun.records.ranking_page import page
from metarun.tasks.preparing.ratings_preparation import ITEM, RatingsPreparation
from metarun.tasks.rated.feature_table import TITLES
from metarun.tasks.rated.files import USUAL
from metarun.tasks.tables.csv_file import CsvFile, open_csv, plain_name
from metarun.tasks.tables.table_rows import naming
from metarun.values import plain

TOP = 10
HEADER = ("item", "title", "predicted rating")


class Given(NamedTuple):
    """The rows of a user's file.

    names: the identifiers of the items. places: in the catalogue. ratings: None where the file has none. user: the identifier in its column
    of users; None where it has none.
    """

    path: str
    names: list[str]
    places: list[int]
    ratings: np.ndarray | None
    user: str | None = None


def predict_ratings(model: Model, config: Mapping[str, Any], rows: Path, sheet: Path) -> Found:
    """Recommend for the user of `support`; write the CSV file and the page, and return the result.

    config: the keys support, query, top and user of `predict.yaml`. Raises UserError for files that do not fit the model.
    """
    prepared, task = model.preparation, model.members[0].config["task"]
    assert isinstance(prepared, RatingsPreparation)
    if config["abstain"] is not None:
        raise UserError("abstain= rejects images of unknown classes, and this run predicts ratings; leave it out.")
    support = read_ratings(config["support"], "support", prepared, task)
    facts = dict(config["user"] or {})
    predictor = model.adapt({**facts, ITEM: support.names}, _ratings(support))
    top = TOP if config["top"] is None else config["top"]
    known = counted(len(support.places), "known rating")
    lines, told, error = list[str](), dict[str, Any](), 0.0
    if config["query"] is None:
        found = recommended(prepared, {**facts, ITEM: support.names}, predictor.predict, None)
    else:
        query = read_ratings(config["query"], "query", prepared, task)
        _check_same_user(support, query)
        found = ranked(prepared, query.places, facts, predictor.predict)
        lines, told = scores(query, support, found, prepared)
        error = told.get("mae", 0.0)
    write_rows(rows, HEADER, ((each.item, each.title, repr(each.rating)) for each in found))
    best = [f"{place}. {each.title}: {plain(each.rating, 3)}" for place, each in enumerate(found[:top], 1)]
    said = f"{counted(len(found), 'item')} ranked from {known}; the best {counted(len(best), 'item')}:"
    title = f"Recommendations from {known}"
    rated = [(prepared.shown[place], plain(float(rating), 3)) for place, rating in zip(support.places, _ratings(support), strict=True)]
    write_text(sheet, page(title, rated, [(each.title, plain(each.rating, 3)) for each in found[:top]]))
    told = {"known_ratings": len(support.places), "ranked": len(found), "top": [each._asdict() for each in found[:top]], **told}
    return Found([said, *best, *lines, f"predictions: {rows}", f"page: {sheet}"], {**told, "predictions": str(rows)}, error)


def read_ratings(path: str, key: str, prepared: RatingsPreparation, task: Mapping[str, Any]) -> Given:
    """Read a CSV file with a column of items, by identifier or title, and a column of ratings, which a query may lack.

    task: of the run's config. A column has its name from the training file, or a usual one. In a column of titles, a text that is a title
    and an identifier means the title. Raises UserError with the line of a bad value, and for a file of several users.
    """
    with naming(key):
        file = open_csv(path)
        by_name = _column(file, [str(task.get("item")), *USUAL["item"]])
        item = _column(file, TITLES) if by_name is None else by_name
        rating = _column(file, [str(task.get("rating")), *USUAL["rating"]])
        missing = "items, such as item or title" if item is None else "ratings, such as rating"
        if item is None or (rating is None and key == "support"):
            raise UserError(f"{key}={file.path} has no column of {missing}; it has {printable(', '.join(file.header))}.")
        lines = list(file.rows())
    if not lines:
        raise UserError(f"{key}={file.path} has no row below its header; give at least one item.")
    user = _user(file, lines, key, [str(task.get("user")), *USUAL["user"]], (item, rating))
    try:
        places = prepared.places([row[item] for _, row in lines], titles=by_name is None)
    except UserError as error:
        raise UserError(f"{key}={file.path}: {error}") from error
    ratings = None if rating is None else np.array([_rating(row[rating], line, file, prepared.scale) for line, row in lines])
    first: dict[int, int] = {}
    for (line, _), place in zip(lines, places, strict=True):
        if first.setdefault(place, line) != line:
            raise UserError(
                f"line {line} of {file.path} has '{printable(prepared.shown[place])}' again, after line {first[place]}; keep one of them."
            )
    return Given(file.path, [prepared.names[place] for place in places], places, ratings, user)


def _user(
    file: CsvFile, lines: Sequence[tuple[int, Sequence[str]]], key: str, names: Sequence[str], taken: Sequence[int | None]
) -> str | None:
    """Return the only user of a file; None without a column of users. names: of this column. taken: columns that are others."""
    column = _column(file, names)
    if column is None or column in taken:
        return None
    users = list(dict.fromkeys(row[column].strip() for _, row in lines))
    if len(users) > 1:
        shown = f"{printable(users[0][:60])}' and '{printable(users[1][:60])}"
        raise UserError(
            f"{key}={file.path} has lines of {len(users):,} users in its column '{printable(file.header[column])}', such as '{shown}'; "
            "keep the lines of one user."
        )
    return users[0] or None


def _check_same_user(support: Given, query: Given) -> None:
    """Raise UserError where both files name their user, and the users differ."""
    if None not in (support.user, query.user) and support.user != query.user:
        mine, other = (printable(str(each.user)[:60]) for each in (support, query))
        raise UserError(f"query={query.path} is of the user '{other}', and support={support.path} of '{mine}'; give lines of one user.")


def scores(query: Given, support: Given, found: list[Recommendation], prepared: RatingsPreparation) -> tuple[list[str], dict[str, Any]]:
    """Return the errors of the predictions where the query has ratings: lines for a person, and facts for report.json."""
    if query.ratings is None:
        return [], {}
    predicted = {each.item: each.rating for each in found}
    errors = np.abs(np.array([predicted[prepared.names[place]] for place in query.places]) - query.ratings)
    half = interval(torch.from_numpy(errors)) if len(errors) > 1 else float("inf")
    mean = float(np.abs(_ratings(support).mean() - query.ratings).mean())
    mae = float(errors.mean())
    facts = {"mae": mae, "mae_ci95": half, "mae_of_the_mean": mean, "rows": len(errors), "ci95_over": "rows"}
    line = (
        f"mean absolute error {plain(mae)} ± {plain(half, 3)} (95 % interval over {counted(len(errors), 'rating')}); the mean of "
        f"the known ratings would have {plain(mean)}"
    )
    return [line], facts


def _ratings(given: Given) -> np.ndarray:
    assert given.ratings is not None
    return given.ratings


def _column(file: CsvFile, names: Sequence[str]) -> int | None:
    """Return the place of the first of these columns that the file has, in any letters and signs; None where it has none."""
    known = [plain_name(name) for name in file.header]
    return next((known.index(plain_name(name)) for name in names if plain_name(name) in known), None)


def _rating(text: str, line: int, file: CsvFile, scale: tuple[float, float]) -> float:
    """Return a rating; UserError for text that is no number, and for a number outside of the scale."""
    least, most = (plain(end) for end in scale)
    try:
        value = float(text.strip().replace(",", "."))
    except ValueError:
        raise UserError(f"line {line} of {file.path} has the rating '{printable(text[:60])}', which is no number; correct it.") from None
    if not scale[0] <= value <= scale[1]:
        raise UserError(f"line {line} of {file.path} has the rating {plain(value)}; ratings go from {least} to {most}.")
    return value
