"""Calibrations for `abstain=RATE`: scores of validation queries, some of whose classes are not in the support set.

If the training data are there, `metarun predict` computes them at the sizes of the user's support set. `metarun train` stores some at usual
sizes, for a run folder that is copied elsewhere. They use no test class.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from metarun import draws
from metarun.engine.rejection import SCORES, Calibration, scores_of
from metarun.files.writing import open_to_read, write_text
from metarun.tasks.pool import ClassPool

FILE = "calibration.json"
"""The file in a run folder."""

EPISODES, QUERIES, FOREIGN = 200, 60, 10
"""Episodes, and the most true queries and foreign classes of each."""

_MOST_BYTES = 32 << 20


class Adapts(Protocol):
    """A model that adapts to labelled images."""

    def adapt(self, x: Any, y: Sequence[Any]) -> Any:
        """Return an object whose `outputs(x)` gives logits (B, N), for the classes in the order of their first labels."""


class _Sizes(NamedTuple):
    """The sizes of all episodes. shots: of each of the classes with known images. queries: of each class."""

    shots: list[int]
    foreign: int
    queries: int


def calibrate(
    model: Adapts, pool: ClassPool, shots: Sequence[int], episodes: int = EPISODES, progress: Callable[[int], None] = lambda done: None
) -> Calibration | None:
    """Return the scores of validation queries of known and of foreign classes; None where fewer than 3 classes have 2 images or more.

    pool: the validation classes; if a class has copies, such as turned ones, the first copy counts. shots: the number of known images of
    each class of the support set. With too few validation classes, the episodes have fewer ways; a class with too few images has fewer
    shots. progress: called with the number of episodes done.
    """
    first = {origin: place for place, origin in reversed(list(enumerate(pool.origins or pool.names))) if pool.counts[place] > 1}
    classes = list(first.values())
    if len(classes) < 3:
        return None
    sizes, given = _sizes(pool, classes, shots), 0
    true, foreign = (dict[str, list[Tensor]]((name, []) for name in SCORES) for _ in range(2))
    for episode in range(episodes):
        support, labels, queries = _deal(pool, classes, sizes, draws.key(0, "calibrate", episode), episode)
        given += len(support)
        logits = model.adapt(pool.values(torch.tensor(support)), labels).outputs(pool.values(torch.tensor(queries)))
        progress(episode + 1)
        for name, scores in scores_of(logits.detach().cpu()).items():
            true[name].append(scores[: len(sizes.shots) * sizes.queries])
            foreign[name].append(scores[len(sizes.shots) * sizes.queries :])
    trues, foreigns = ({name: torch.stack(each) for name, each in part.items()} for part in (true, foreign))
    return Calibration(trues, foreigns, len(sizes.shots), given / (len(sizes.shots) * episodes), len(classes))


def _sizes(pool: ClassPool, classes: Sequence[int], shots: Sequence[int]) -> _Sizes:
    ways = min(len(shots), len(classes) - 1)
    spare = min(pool.counts[place] for place in classes) - max(shots)
    queries = max(1, min(spare, QUERIES // ways, 5))
    foreign = min(len(classes) - ways, max(ways, 5), FOREIGN)
    return _Sizes([sorted(shots)[place * len(shots) // ways] for place in range(ways)], foreign, queries)


def _deal(pool: ClassPool, classes: Sequence[int], sizes: _Sizes, key: Tensor, episode: int) -> tuple[list[int], list[int], list[int]]:
    """Return the rows of the known images, their labels, and the rows of the queries, class by class, those of known classes first."""
    support, labels, queries = list[int](), list[int](), list[int]()
    ways = len(sizes.shots)
    chosen = draws.distinct(draws.fold(key, "classes"), ways + sizes.foreign, torch.tensor(len(classes))).tolist()
    for way, place in enumerate(classes[each] for each in chosen):
        # The numbers of shots rotate, so that each class gets each of them.
        shots = min(sizes.shots[(way + episode) % ways], pool.counts[place] - sizes.queries) if way < ways else 0
        slot, count = draws.fold(draws.fold(key, "rows"), way), torch.tensor(pool.counts[place])
        rows = (sum(pool.counts[:place]) + draws.distinct(slot, shots + sizes.queries, count)).tolist()
        support += rows[:shots]
        labels += [way] * shots
        queries += rows[shots:]
    return support, labels, queries


def store(calibrations: Sequence[Calibration], step: int, folder: Path) -> None:
    """Write calibrations of the checkpoint of this step into a run folder."""
    listed = []
    for each in calibrations:
        scores = {kind: {name: _rounded(values) for name, values in getattr(each, kind).items()} for kind in ("true", "foreign")}
        listed.append({"ways": each.ways, "shots": each.shots, "classes": each.classes, **scores})
    write_text(folder / FILE, json.dumps({"step": step, "calibrations": listed}, allow_nan=False) + "\n")


def stored(folder: Path, step: int, shots: Sequence[int]) -> Calibration | None:
    """Return a calibration in a run folder, which a stranger may have written; None without one for the checkpoint of this step.

    shots: the number of known images of each class. Its ways and shots are the nearest ones, by their ratios.
    """
    try:
        with open_to_read(folder / FILE) as file:
            content = json.loads(file.read(_MOST_BYTES))
        found = [_checked(each) for each in content["calibrations"]] if content["step"] == step else []
    except (OSError, ValueError, TypeError, KeyError, RecursionError, OverflowError):
        return None
    mean = sum(shots) / len(shots)
    return min(found, key=lambda each: abs(math.log(each.ways / len(shots))) + abs(math.log(each.shots / mean)), default=None)


def _rounded(scores: Tensor) -> list[list[float | None]]:
    return [[float(f"{value:.6g}") if math.isfinite(value) else None for value in row] for row in scores.tolist()]


def _checked(content: Mapping[str, Any]) -> Calibration:
    """Return the calibration that plain values describe. Raises ValueError, TypeError or KeyError for values that describe none."""
    parts = [{name: _scores(content[kind][name]) for name in SCORES} for kind in ("true", "foreign")]
    shapes = {(len(each), each.dim()) for part in parts for each in part.values()}
    ways, shots, classes = content["ways"], content["shots"], content["classes"]
    sound = type(ways) is int and type(classes) is int and type(shots) in (int, float)
    if len(shapes) != 1 or min(shapes)[0] < 2 or not sound or not (2 <= ways <= classes and shots >= 1 and math.isfinite(shots)):
        raise ValueError("no calibration")
    return Calibration(parts[0], parts[1], ways, float(shots), classes)


def _scores(rows: Any) -> Tensor:
    """Return scores (E, Q); a missing number stands for one that is not finite."""
    values = torch.tensor([[-math.inf if value is None else float(value) for value in row] for row in rows], dtype=torch.float64)
    if values.dim() != 2 or not values.numel() or values.isnan().any():
        raise ValueError("no scores")
    return values
