"""Calibrations on validation classes: which images they use, and what a file of a stranger may hold."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from metarun.commands.calibration import FILE, calibrate, store, stored
from metarun.engine.rejection import SCORES, Calibration
from metarun.tasks.pool import ClassPool


def pool(counts: Sequence[int], origins: Sequence[str] | None = None) -> ClassPool:
    """Return images of one pixel whose value is 10 times the class plus the number of the image."""
    values = [10 * place + number for place, count in enumerate(counts) for number in range(count)]
    names = [str(place) for place in range(len(counts))]
    return ClassPool(torch.tensor(values, dtype=torch.uint8).reshape(-1, 1, 1, 1), counts, names, origins=origins)


class Nearest:
    """A model whose logit of a class is 0 where the query's class is the known one, else -100. It notes the episodes."""

    def __init__(self) -> None:
        self.episodes: list[tuple[dict[int, list[int]], list[int]]] = []

    def adapt(self, x: Tensor, y: Sequence[Any]) -> Nearest:
        values = (255 * x).round().int().flatten().tolist()
        self.known = [values[place] // 10 for place in dict.fromkeys(list(y).index(label) for label in y)]
        by_class: dict[int, list[int]] = {}
        for label, value in zip(y, values, strict=True):
            by_class.setdefault(label, []).append(value)
        self.episodes.append((by_class, []))
        return self

    def outputs(self, x: Tensor) -> Tensor:
        values = (255 * x).round().int().flatten()
        self.episodes[-1][1].extend(values.tolist())
        return -100.0 * ((values // 10)[:, None] != torch.tensor(self.known)).float()


def test_true_queries_are_of_known_classes_and_foreign_ones_are_not() -> None:
    model = Nearest()
    found = calibrate(model, pool([8] * 9), [1, 3, 1], episodes=6)
    assert found is not None
    assert (found.ways, found.classes, found.shots) == (3, 9, pytest.approx(5 / 3))
    assert found.true["logit"].shape == (6, 15)
    assert found.foreign["logit"].shape == (6, 25)
    assert set(found.true["logit"].flatten().tolist()) == {0.0}
    assert set(found.foreign["logit"].flatten().tolist()) == {-100.0}
    for support, queries in model.episodes:
        assert sorted(map(len, support.values())) == [1, 1, 3]
        known = [value for values in support.values() for value in values]
        assert len({*known, *queries}) == len(known) + len(queries), "no image is known and asked"
    assert len({support[0][0] // 10 for support, _ in model.episodes}) > 1
    assert {len(support[0]) for support, _ in model.episodes} == {1, 3}


def test_few_validation_classes_give_fewer_ways_and_small_ones_fewer_shots() -> None:
    model = Nearest()
    found = calibrate(model, pool([4, 3, 3, 3]), [9] * 8, episodes=2)
    assert found is not None
    assert (found.ways, found.classes) == (3, 4)
    assert found.foreign["energy"].shape == (2, 1)
    assert all(len(values) in (2, 3) for support, _ in model.episodes for values in support.values())


def test_fewer_than_three_usable_classes_give_nothing() -> None:
    assert calibrate(Nearest(), pool([5, 5, 1]), [1, 1]) is None


def test_a_turned_copy_of_a_known_class_is_not_foreign() -> None:
    model = Nearest()
    calibrate(model, pool([5] * 6, origins=["a", "b", "c", "a", "b", "c"]), [1, 1], episodes=4)
    seen = {
        value // 10
        for support, queries in model.episodes
        for value in [*queries, *(known for values in support.values() for known in values)]
    }
    assert seen == {0, 1, 2}


def test_equal_episodes_are_dealt_each_time() -> None:
    first, second = Nearest(), Nearest()
    for model in (first, second):
        calibrate(model, pool([8] * 9), [2, 2], episodes=3)
    assert first.episodes == second.episodes


# The file of a run


def calibration(rows: int = 2) -> Calibration:
    scores = {name: torch.arange(rows * 3.0, dtype=torch.float64).reshape(rows, 3) / 7 for name in SCORES}
    return Calibration(scores, {name: -each for name, each in scores.items()}, 5, 1.5, 16)


def test_a_calibration_is_read_back_for_its_own_checkpoint_only(tmp_path: Path) -> None:
    given = calibration()
    given.true["energy"][0, 0] = -torch.inf
    store([given], 300, tmp_path)
    read = stored(tmp_path, 300, [1])
    assert read is not None
    assert (read.ways, read.shots, read.classes) == (5, 1.5, 16)
    for name in SCORES:
        assert torch.allclose(read.true[name], given.true[name], rtol=1e-5)
        assert torch.allclose(read.foreign[name], given.foreign[name], rtol=1e-5)
    assert stored(tmp_path, 299, [1]) is None
    assert stored(tmp_path / "nowhere", 300, [1]) is None


@pytest.mark.parametrize(("shots", "nearest"), [([1] * 18, (20, 1)), ([1, 1], (5, 1)), ([3, 6, 9], (5, 5)), ([2, 1], (5, 1))])
def test_the_stored_calibration_of_the_nearest_sizes_is_taken(tmp_path: Path, shots: list[int], nearest: tuple[int, int]) -> None:
    sizes = [(5, 1.0), (5, 5.0), (20, 1.0)]
    store([dataclasses.replace(calibration(), ways=ways, shots=each, classes=50) for ways, each in sizes], 9, tmp_path)
    read = stored(tmp_path, 9, shots)
    assert read is not None
    assert (read.ways, read.shots) == nearest


def test_no_stored_calibration_is_none(tmp_path: Path) -> None:
    store([], 9, tmp_path)
    assert stored(tmp_path, 9, [1, 1]) is None


@pytest.mark.parametrize(
    "change",
    [
        {"ways": 1},
        {"ways": "5"},
        {"shots": True},
        {"shots": 1e400},
        {"classes": 4},
        {"true": []},
        {"true": {"probability": [[1]], "logit": [[1]], "energy": [[1]]}},
        {"foreign": {"probability": [[1], [2, 3]], "logit": [[1], [2]], "energy": [[1], [2]]}},
        {"foreign": {"probability": [["x"], [2]], "logit": [[1], [2]], "energy": [[1], [2]]}},
        {"foreign": {"probability": [[], []], "logit": [[], []], "energy": [[], []]}},
        {"foreign": {"probability": [[float("nan")], [1]], "logit": [[1], [2]], "energy": [[1], [2]]}},
    ],
)
def test_a_file_that_holds_something_else_counts_as_none(tmp_path: Path, change: dict[str, Any]) -> None:
    store([calibration()], 300, tmp_path)
    content = json.loads((tmp_path / FILE).read_text())
    assert stored(tmp_path, 300, [1]) is not None
    (tmp_path / FILE).write_text(json.dumps({**content, "calibrations": [{**content["calibrations"][0], **change}]}))
    assert stored(tmp_path, 300, [1]) is None


def test_a_link_or_a_pipe_is_not_read(tmp_path: Path) -> None:
    store([calibration()], 300, tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / FILE).symlink_to(tmp_path / FILE)
    assert stored(tmp_path / "run", 300, [1]) is None
    (tmp_path / "run" / FILE).unlink()
    os.mkfifo(tmp_path / "run" / FILE)
    assert stored(tmp_path / "run", 300, [1]) is None
