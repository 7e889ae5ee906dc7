"""A trained model without its data: what it predicts, for whom it adapts, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small import Lines, composed, few_shot
from small_runs import CONV, IMAGES, SHORT, SINUSOID, image_config, shortened

from metarun import draws
from metarun.commands.model import ANY_WAYS, Model, load, stands_alone
from metarun.commands.train import train, use_of
from metarun.engine.evaluation import evaluate as run_evaluation
from metarun.errors import UserError
from metarun.files.run_folder import CHECKPOINTS
from metarun.records import checkpoint
from metarun.records.checkpoint import Checkpoint
from metarun.tasks.omniglot import PARTS, omniglot
from metarun.tasks.pictures.image_files import find_images, reader
from metarun.types import Episode, Examples
from metarun.wiring.build import build

KEY = draws.key(0, "evaluate", "test", 0)
"""Of the first test episode of an evaluation with seed 0."""


def untrained(folder: Path, config: dict[str, Any], **changes: Any) -> Model:
    """Save the first checkpoint of a run, and load it as a model."""
    parts = build(config)
    params, state = parts.algorithm.init(draws.key(0, "init"))
    saved = Checkpoint(3, params, state, config=parts.config, variance=0.25, **use_of(parts))
    path = folder / CHECKPOINTS / "best.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.save(path, dataclasses.replace(saved, **changes))
    return load(folder, trust=["small"], device="cpu")


def on_images(folder: Path, *overrides: str, norm: str = "batch", **task: Any) -> Model:
    config = shortened(image_config(*overrides))
    return untrained(folder, {**config, "task": {**IMAGES, **task}, "backbone": {**CONV, "norm": norm}})


def on_lines(folder: Path, *overrides: str) -> Model:
    config = composed("backbone=mlp", "backbone.widths=[4]", "device=cpu", *overrides)
    return untrained(folder, {**config, "task": {"_target_": "small.Lines"}})


def wanted(model: Model, episode: Episode) -> torch.Tensor:
    """Return the outputs of the algorithm on the queries of an episode."""
    with torch.no_grad():
        adapted = model.parts.algorithm.adapt(model.trained.params, model.trained.state, episode.support, KEY)
        return model.parts.algorithm.predict(adapted, episode.query.x, episode.query.mask)


def labels(examples: Examples) -> list[str]:
    return [f"class {place}" for place in examples.y.argmax(dim=1).tolist()]


HEADLESS, HEADED = ("protonet", "matching", "r2d2", "memory"), ("maml", "reptile", "mann", "metaprior", "pmaml", "imaml")


@pytest.mark.parametrize("algo", [*HEADLESS, *HEADED])
def test_a_predictor_gives_the_outputs_of_the_evaluation(tmp_path: Path, algo: str):
    model = on_images(tmp_path, f"algo={algo}")
    episode = few_shot().episode("test", 0)
    predictor = model.adapt(episode.support.x, labels(episode.support))
    torch.testing.assert_close(predictor.outputs(episode.query.x), wanted(model, episode), rtol=0, atol=0)
    assert predictor.classes == ["class 0", "class 1", "class 2"]
    guesses = wanted(model, episode).argmax(dim=1).tolist()
    assert predictor.predict(episode.query.x) == [f"class {guess}" for guess in guesses]
    probabilities = predictor.predict_proba(episode.query.x)
    assert probabilities.shape == (len(guesses), 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    assert probabilities.argmax(axis=1).tolist() == guesses


@pytest.mark.parametrize("algo", ["protonet", "matching", "r2d2", "maml", "reptile", "mann", "pmaml"])
def test_unequal_classes_and_absent_ones_give_the_outputs_of_a_padded_episode(tmp_path: Path, algo: str):
    """An episode with unequal shots and fewer ways has padding and a mask. The predictor gets its real rows alone."""
    source = few_shot(ways=4, shots=3, min_ways=2, min_shots=1)
    model = on_images(tmp_path, f"algo={algo}", norm="support", ways=4, shots=3)
    padded = next(each for each in map(partial(source.episode, "test"), range(50)) if not each.query.mask.all())
    support, query = padded
    real = support.mask
    predictor = model.adapt(support.x[real], np.array(labels(support))[real.numpy()])
    ways = len(predictor.classes)
    assert ways < 4
    outputs = wanted(model, padded)[query.mask][:, :ways]
    torch.testing.assert_close(predictor.outputs(query.x[query.mask]), outputs, rtol=1e-4, atol=1e-4)


def test_a_head_refuses_more_classes_than_it_has_and_names_algorithms_without_one(tmp_path: Path):
    model = on_images(tmp_path, "algo=maml")
    x = few_shot(ways=4).episode("test", 0).support
    assert model.ways == 3
    with pytest.raises(UserError, match=r"4 classes, and this model .* has a head for 3; .*protonet, simpleshot, matching") as caught:
        model.adapt(x.x, labels(x))
    assert "\n" not in str(caught.value)


def test_a_method_without_a_head_takes_any_number_of_classes(tmp_path: Path):
    model = on_images(tmp_path, "algo=protonet")
    support = few_shot(ways=9).episode("test", 0).support
    assert model.ways is None
    assert len(model.adapt(support.x, support.y.argmax(dim=1)).classes) == 9


@pytest.mark.parametrize(("norm", "alone"), [("batch", False), ("running", True), ("support", True), ("layer", True), ("reptile", True)])
def test_queries_go_through_the_network_in_parts_where_they_stand_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, norm: str, alone: bool
):
    model = on_images(tmp_path, "algo=maml", norm=norm)
    assert stands_alone(model) == alone
    episode = few_shot().episode("test", 0)
    predictor = model.adapt(episode.support.x, labels(episode.support))
    whole = predictor.outputs(episode.query.x)
    sizes: list[int] = []
    monkeypatch.setattr("metarun.commands.model.VALUES", 64 * 4)
    algorithm = type(model.parts.algorithm)
    before: Callable[..., Any] = algorithm.predict
    monkeypatch.setattr(algorithm, "predict", lambda self, adapted, x, mask=None: sizes.append(len(x)) or before(self, adapted, x, mask))
    torch.testing.assert_close(predictor.outputs(episode.query.x), whole, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(predictor.outputs(list(episode.query.x)), whole, rtol=1e-5, atol=1e-5)
    assert sizes == ([4, 4, 1] if alone else [9]) * 2


def test_a_regression_predicts_in_the_form_of_its_targets_with_an_interval(tmp_path: Path):
    model = on_lines(tmp_path, "algo=maml")
    episode = Lines().episode("test", 0)
    predictor = model.adapt(episode.support.x, episode.support.y)
    values = predictor.predict(episode.query.x)
    np.testing.assert_allclose(values, wanted(model, episode).numpy(), rtol=1e-6)
    ends = predictor.interval(episode.query.x)
    assert ends is not None
    half = 1.6448536 * np.sqrt(model.variance)
    np.testing.assert_allclose(ends[0], values - half, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ends[1], values + half, rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="no classes"):
        predictor.predict_proba(episode.query.x)


def test_a_distribution_of_the_algorithms_own_needs_no_variance_and_another_one_does(tmp_path: Path):
    episode = Lines().episode("test", 0)
    own = on_lines(tmp_path / "cnp", "algo=cnp")
    low, high = dataclasses.replace(own, variance=None).adapt(*episode.support[:2]).interval(episode.query.x) or ([], [])
    assert (low < high).all()
    point = dataclasses.replace(on_lines(tmp_path / "maml", "algo=maml"), variance=None)
    assert point.adapt(*episode.support[:2]).interval(episode.query.x) is None


@pytest.mark.parametrize(
    ("x", "y", "sentence"),
    [
        (torch.rand(2, 1, 8, 8), ["a"], "x has 2 examples and y has 1"),
        (torch.rand(1, 1, 8, 8), "a", "y is a str"),
        (torch.rand(1, 1, 8, 8), [["a"]], "label 0 of y is a list"),
        (torch.rand(1, 1, 8, 8), [], "y has no labels"),
        (torch.rand(2, 1, 8, 8), [1.0, math.nan], "label 1 of y is nan, which marks a missing value"),
        (torch.rand(2, 1, 8, 8), np.array([math.nan, math.nan]), "label 0 of y is nan"),
        (torch.rand(2, 1, 8, 8), {"a", "b"}, "y is a set"),
        (torch.rand(1, 1, 9, 9), ["a"], r"must have the shape \(1, 8, 8\)"),
    ],
)
def test_examples_that_do_not_fit_are_one_sentence(tmp_path: Path, x: torch.Tensor, y: object, sentence: str):
    with pytest.raises(UserError, match=sentence):
        on_images(tmp_path, "algo=protonet").adapt(x, y)


@pytest.mark.parametrize("seed", ["3", 0.5, None, True])
def test_a_seed_is_a_whole_number(tmp_path: Path, seed: Any):
    with pytest.raises(UserError, match=r"seed=.* should be a whole number"):
        on_images(tmp_path, "algo=protonet").adapt(torch.rand(2, 1, 8, 8), ["a", "b"], seed)


@pytest.mark.parametrize("level", [0, 1.0, 90, "0.9", None, math.nan])
def test_a_level_is_a_probability(tmp_path: Path, level: Any):
    predictor = on_images(tmp_path, "algo=protonet").adapt(torch.rand(2, 1, 8, 8), ["a", "b"])
    with pytest.raises(UserError, match=r"level=.* should be a number above 0 and below 1"):
        predictor.interval(torch.rand(1, 1, 8, 8), level)


@pytest.mark.parametrize("best", [0, -1, "5", 1.5, True])
def test_a_number_of_checkpoints_is_a_whole_number(tmp_path: Path, best: Any):
    on_images(tmp_path, "algo=protonet")
    with pytest.raises(UserError, match=r"best=.* should be a whole number from 1"):
        load(tmp_path, best=best)


def test_the_draws_of_an_adaptation_depend_on_its_seed_alone(tmp_path: Path):
    model = on_images(tmp_path, "algo=mann")
    episode = few_shot().episode("test", 0)
    first, same, other = (model.adapt(episode.support.x, labels(episode.support), seed).outputs(episode.query.x) for seed in (3, 3, 4))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_the_file_of_an_earlier_metarun_is_used_with_its_data_and_is_refused_without(tmp_path: Path):
    old = {"preparation": {}, "shapes": {}, "variance": None, "format": 3}
    assert on_images(tmp_path / "here", "algo=protonet").preparation.size == 8  # type: ignore[attr-defined]
    model = untrained(tmp_path / "there", image_config("algo=protonet"), **old)
    assert model.preparation.size == 8  # type: ignore[attr-defined]
    task = {**model.members[0].config["task"], "ways": 1000}
    stored = dataclasses.replace(model.members[0], config={**model.members[0].config, "task": task})
    checkpoint.save(tmp_path / "there" / CHECKPOINTS / "best.pt", stored)
    with pytest.raises(UserError, match=r"an earlier metarun \(0\..* not say how its inputs are prepared, and its data cannot be read"):
        load(tmp_path / "there", trust=["small"])


def test_a_run_is_loaded_from_any_place_and_several_runs_form_an_ensemble(tmp_path: Path):
    on_images(tmp_path / "run", "algo=protonet")
    shutil.move(tmp_path / "run", tmp_path / "elsewhere")
    episode = few_shot().episode("test", 0)
    one, two = (load(run, trust=["small"]) for run in (tmp_path / "elsewhere", [tmp_path / "elsewhere"] * 2))
    outputs = [model.adapt(episode.support.x, labels(episode.support)).predict_proba(episode.query.x) for model in (one, two)]
    np.testing.assert_allclose(*outputs, atol=1e-6)
    on_images(tmp_path / "other", "algo=protonet")
    file = tmp_path / "other" / CHECKPOINTS / "best.pt"
    stored = checkpoint.load(file)
    checkpoint.save(file, dataclasses.replace(stored, preparation={**stored.preparation, "inverted": True}))
    with pytest.raises(UserError, match="prepares its inputs in another way"):
        load([tmp_path / "elsewhere", tmp_path / "other"], trust=["small"])


def test_a_training_stores_the_variance_of_its_last_validation(tmp_path: Path):
    train(composed(*SHORT, *SINUSOID, "algo=maml", "algo.inner_steps=1"), tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert load(tmp_path / "checkpoints/last.pt").variance == pytest.approx(report["last"]["mean"], rel=1e-5)


def test_a_run_on_a_relative_path_is_used_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    lines = ["site,x,y", *(f"s{site},{row + site},{row * site}" for site in range(9) for row in range(6))]
    (tmp_path / "table.csv").write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    named = ("task.path=table.csv", "task.task_column=site", "task.target=y", "task.shots=2", "task.queries=2")
    train(composed(*SHORT, "steps=1", "task=table", *named, "algo=maml", "backbone=mlp", "backbone.widths=[4]"), tmp_path / "run")
    stored = checkpoint.load(tmp_path / "run/checkpoints/last.pt")
    assert stored.config["task"]["path"] == str(tmp_path / "table.csv")
    (tmp_path / "table.csv").unlink()
    model = load(tmp_path / "run")
    known, new = [{"x": 1.0}, {"x": 3.0}], {"x": [2.0]}
    alike = [model.adapt(x, y).predict(new) for x, y in ((known, [5.0, 9.0]), ([[1.0], [3.0]], {"y": [5.0, 9.0]}))]
    np.testing.assert_allclose(np.ravel(alike[0]), np.ravel(alike[1]))


def test_drawings_of_omniglot_in_their_files_give_the_outputs_of_the_episode(omniglot_root: Path, tmp_path: Path):
    few = ("task.ways=20", "task.train_ways=20", "task.queries=2", "task.train_queries=2")
    upright = "task.rotations={train:false,val:false,test:false}"
    config = composed("task=omniglot", f"task.root={omniglot_root}", "algo=protonet", "device=cpu", "backbone.filters=4", upright, *few)
    model = untrained(tmp_path, config)
    source = omniglot(root=str(omniglot_root), rotations=dict.fromkeys(("train", "val", "test"), False), ways=20, queries=2)
    rows = source.draw("test", torch.tensor([0]))[0][0]
    files = {part: find_images(next(omniglot_root.glob(f"{part}*"))) for part in PARTS}
    names: dict[str, list[tuple[str, str]]] = {}
    for part, found in files.items():
        for name in found.names:
            names.setdefault("/".join(name.split("/")[-3:-1]), []).append((part, name))
    drawings: list[list[bytes]] = [[], []]
    with ExitStack() as opened:
        read = {part: opened.enter_context(reader(found)) for part, found in files.items()}
        for row in rows.tolist():
            for place, number in enumerate(row):
                part, name = names[source.pools["test"].names[number // 20].removesuffix("/rot000")][number % 20]
                drawings[place > 0].append(read[part](name))
    episode = source.episode("test", 0)
    predictor = model.adapt(drawings[0], range(20))
    torch.testing.assert_close(predictor.outputs(drawings[1]), wanted(model, episode), rtol=0, atol=0)
    right = np.array(predictor.predict(drawings[1])) == episode.query.y.argmax(dim=1).numpy()
    report = run_evaluation(model.parts.algorithm, model.trained.params, model.trained.state, source, split="test", episodes=1)
    assert right.mean() == pytest.approx(report.mean, abs=1e-7)


@pytest.mark.parametrize("page", ["using", "transfer"])
def test_the_docs_list_the_algorithms_that_take_any_number_of_classes(page: str):
    text = (Path(__file__).parents[2] / f"docs/{page}.md").read_text(encoding="utf-8")
    assert f"{', '.join(f'`{name}`' for name in ANY_WAYS[:-1])} and `{ANY_WAYS[-1]}`" in " ".join(text.split())
