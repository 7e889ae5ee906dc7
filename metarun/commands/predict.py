"""What `metarun predict` does, from a plain config to predictions: labels of images, targets of table rows, or recommended items."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from metarun.commands.keys import check_prediction_keys
from metarun.commands.model import Model, load
from metarun.commands.predicting.images import predict_images
from metarun.commands.predicting.ratings import predict_ratings
from metarun.commands.predicting.table import predict_table
from metarun.commands.report_files import write_json
from metarun.errors import UserError, printable
from metarun.files.paths import expanded
from metarun.tasks.preparing.feature_preparation import FeaturePreparation
from metarun.tasks.preparing.image_preparation import ImagePreparation
from metarun.tasks.preparing.ratings_preparation import RatingsPreparation
from metarun.tasks.preparing.table_preparation import TablePreparation


class Places(NamedTuple):
    """Where the predictions go: a CSV file, the page of images, and the report."""

    rows: Path
    page: Path
    report: Path


def predict(config: dict[str, Any], folder: Path) -> float:
    """Predict for the user's queries; write `predictions.csv`, `predictions.html` and `report.json`, and print the result.

    Returns the error where the truth is known, 1 - accuracy or the mean absolute error of the first target, else 0.
    config: the keys of `predict.yaml`. folder: takes the files, unless the key `out` names others.
    Raises UserError for files that cannot be used or that would be overwritten, before the model works.
    """
    config = check_prediction_keys(config)
    places = places_of(config["out"], folder)
    model = load(config["checkpoint"], config["trust"], config["device"]["name"])
    ranks = isinstance(model.preparation, RatingsPreparation)
    check_kind(config, ranks=ranks)
    if ranks:
        found = predict_ratings(model, config, places.rows, places.page)
    elif isinstance(model.preparation, TablePreparation):
        found = predict_table(model, config, places.rows)
    elif isinstance(model.preparation, ImagePreparation | FeaturePreparation) and model.kind == "classification":
        found = predict_images(model, config, places.rows, places.page)
    else:
        raise UserError(
            f"predict labels images, predicts tables and recommends items, and {_named(model)} was trained on other inputs; use "
            "metarun.load in Python."
        )
    facts = {"checkpoint": [str(path) for path in model.paths], "step": model.members[0].step, "support": config["support"]}
    write_json(places.report, {**facts, "query": config["query"], **found.facts})
    print("\n".join(map(printable, [*found.lines, f"report: {places.report}"])))
    return found.error


def check_kind(config: Mapping[str, Any], *, ranks: bool) -> None:
    """Raise UserError for keys that this kind of run does not read, and for a missing query. ranks: whether the run recommends items."""
    if not ranks and config["query"] is None:
        raise UserError("query= is missing: it names the images to label, or the table whose rows to predict.")
    for key in ("top", "user"):
        if not ranks and config[key] is not None:
            raise UserError(f"{key}= is for a run on task=ratings, which recommends items to a user; leave it out.")


def places_of(out: str | None, folder: Path) -> Places:
    """Return where the predictions go; UserError for a file that exists, and for a name that does not end in .csv."""
    rows = folder / "predictions.csv" if out is None else expanded(out)
    if rows.suffix.lower() != ".csv":
        raise UserError(f"out={out} must end in .csv; the page of images gets the same name with .html.")
    if not rows.parent.is_dir():
        raise UserError(f"out={out}: there is no folder {rows.parent}; make it first.")
    places = Places(rows, rows.with_suffix(".html"), folder / "report.json")
    for file in places:
        if file.exists() or file.is_symlink():
            raise UserError(f"{file} is there already; choose another name with out=FILE.csv.")
    return places


def _named(model: Model) -> str:
    task = (model.members[0].config.get("options") or {}).get("task")
    return f"the run {model.paths[0]}" + (f" (task={printable(task)})" if task else "")
