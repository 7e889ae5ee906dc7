"""Labels for the user's images: read all of them, adapt to the known ones, label the others, and write the table and the page."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from metarun.commands.abstaining import abstention
from metarun.commands.model import Model, Predictor, stands_alone
from metarun.commands.predicting.scores import REJECTED, scored, told
from metarun.errors import UserError
from metarun.files.writing import write_text
from metarun.records.contact_sheet import Query, Sheet, choose
from metarun.records.predictions import HEADER, Found, write_rows
from metarun.tasks.pictures.decoding import decode
from metarun.tasks.pictures.image_files import reader
from metarun.tasks.pictures.labelled import Pictures, copies_of, pixels_of, read_query, read_support
from metarun.tasks.pool import unit_range
from metarun.tasks.preparing.feature_preparation import FeaturePreparation
from metarun.tasks.preparing.image_preparation import ImagePreparation

_THUMBNAIL, _QUALITY = 112, 80
"""The side of an image on the page, in pixels, and its JPEG quality."""

_PART = 1024
"""Queries that are in floating point at one time, where a label does not depend on the other queries."""


def predict_images(model: Model, config: Mapping[str, Any], rows: Path, page: Path) -> Found:
    """Label the queries, write the CSV file and the page, and return the result.

    config: the keys support, query and abstain of `predict.yaml`. Raises UserError for images that cannot be read, all of them at once.
    """
    rate = config["abstain"]
    support = read_support(config["support"])
    counts = Counter(str(label) for label in support.labels)
    classes = list(counts)
    if rate is not None and REJECTED in counts:
        raise UserError(f"a class of the support set is called '{REJECTED}', which is the label of rejected queries; rename the class.")
    query = read_query(config["query"], classes)
    known, asked = _pixels(model, support, query)
    predictor = model.adapt(unit_range(known), list(support.labels))
    abstained = None if rate is None else abstention(model, rate, list(counts.values()))
    logits = outputs(model, predictor, asked)
    probabilities = logits.double().softmax(dim=1)
    certain, best = probabilities.max(dim=1)
    rejected = [False] * len(logits) if abstained is None else abstained.choice.rejects(logits).tolist()
    labels = [None if no else classes[place] for no, place in zip(rejected, best.tolist(), strict=True)]
    queries = [Query(*each) for each in zip(query.names, labels, certain.tolist(), query.labels, strict=True)]
    result = scored(queries, classes, copies_of(asked, known), rate is not None)
    lines = [*support.notes, *query.notes, told(queries, counts), *result.lines, *([] if abstained is None else abstained.lines)]
    write_rows(rows, [*HEADER, *classes], _table(queries, probabilities))
    write_text(page, _sheet(lines, queries, support, query, classes).html())
    facts = {
        "classes": dict(counts),
        "queries": len(queries),
        "labels": dict(Counter(REJECTED if each.label is None else each.label for each in queries)),
        **result.facts,
        "abstain": None if abstained is None else abstained.facts,
        "predictions": str(rows),
        "page": str(page),
    }
    return Found([*lines, f"predictions: {rows}", f"page: {page}"], facts, 0.0 if result.accuracy is None else 1.0 - result.accuracy)


def outputs(model: Model, predictor: Predictor, pixels: Tensor) -> Tensor:
    """Return the logits (M, N) of images, uint8 (M, C, H, W); UserError where some are not finite."""
    parts = pixels.split(_PART if stands_alone(model) else max(1, len(pixels)))
    logits = torch.cat([predictor.outputs(unit_range(part)) for part in parts])
    if bad := int((~logits.isfinite()).any(dim=1).sum()):
        raise UserError(
            f"the outputs for {bad} of the {len(logits)} query images are not finite numbers, so the adaptation to the known images "
            "diverged; give other known images, or another checkpoint."
        )
    return logits


def _pixels(model: Model, *pictures: Pictures) -> list[Tensor]:
    preparation = model.preparation.images if isinstance(model.preparation, FeaturePreparation) else model.preparation
    assert isinstance(preparation, ImagePreparation)
    return pixels_of(pictures, size=preparation.size, channels=preparation.channels, inverted=preparation.inverted)


def _table(queries: Iterable[Query], probabilities: Tensor) -> Iterable[list[str]]:
    for query, row in zip(queries, probabilities.tolist(), strict=True):
        yield [query.name, REJECTED if query.label is None else query.label, *(f"{value:.6g}" for value in (query.probability, *row))]


def _sheet(lines: Sequence[str], queries: Sequence[Query], support: Pictures, query: Pictures, classes: Sequence[str]) -> Sheet:
    labels = [str(label) for label in support.labels]
    shown = choose(queries, labels, classes)
    asked = _thumbnails(query, [place for places in shown.queries.values() for place in places])
    known = _thumbnails(support, [place for places in shown.support.values() for place in places])
    return Sheet("Predictions", lines, queries, labels, shown, asked, known, REJECTED)


def _thumbnails(pictures: Pictures, places: Sequence[int]) -> dict[int, bytes]:
    """Return small JPEG files of some of the images, by their places, cropped as the network sees them."""
    small = {}
    with reader(pictures.files) as read:
        for place in places:
            name, file = pictures.files.names[place], io.BytesIO()
            Image.fromarray(decode(read(name), size=_THUMBNAIL, channels=3, name=name)).save(file, "JPEG", quality=_QUALITY)
            small[place] = file.getvalue()
    return small
