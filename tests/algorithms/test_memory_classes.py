"""A task does not read the entries of its own classes in the memory of past tasks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from memories import KEY, STEP, Filled, classifier, image_episode, regressor
from small import Lines, few_shot, run_engine
from torch import Tensor

from metarun import draws, testing
from metarun.algorithms.memory import Memory
from metarun.algorithms.parts.entries import CLASSES, EMPTY, KEYS, UNKNOWN, USAGE, VALUES
from metarun.compute.programs.recording import Recorded
from metarun.engine.training import gradients_of
from metarun.types import Episode, Examples, Params, State


def numbered_entries(*classes: int) -> tuple[Memory, Params, State]:
    """Return a learner whose memory holds six entries of these classes."""
    algorithm = classifier(Filled, "none")
    params, state = testing.start(algorithm)
    return algorithm, params, state | {CLASSES: torch.tensor([*classes, UNKNOWN, UNKNOWN])}


def of_classes(episode: Episode, *classes: int) -> Episode:
    return Episode(*(part._replace(classes=torch.tensor(classes)) for part in episode))


def without(state: State, *places: int) -> State:
    """Return the memory as if these places had no entry."""
    return state | {USAGE: state[USAGE].index_fill(0, torch.tensor(places), EMPTY)}


def results(algorithm: Memory, params: Params, state: State, episode: Episode) -> tuple[Any, ...]:
    """Return loss, gate, reads, and the prediction of an evaluation."""
    loss, aux = algorithm.loss(params, state, episode, KEY, STEP)
    outputs = algorithm.predict(algorithm.adapt(params, state, episode.support, KEY), episode.query.x)
    return loss, aux.metrics["gate"], aux.state["memory.reads"], outputs


@pytest.mark.parametrize("retrieval", ["attention", "random"])
def test_a_task_reads_no_entry_of_any_of_its_classes(retrieval: str):
    """The classes 7, 3 and 5 have the entries 0, 2 and 4. All columns read as if these entries were not there."""
    algorithm, params, state = numbered_entries(7, 8, 5, 9, 7, 6)
    algorithm = replace(algorithm, retrieval=retrieval)
    episode = of_classes(image_episode(), 7, 3, 5)
    expected = results(algorithm, params, without(state, 0, 2, 4), image_episode())
    testing.assert_same(results(algorithm, params, state, episode), expected, "the task", tolerance=0.0)
    reads = algorithm.loss(params, state, episode, KEY, STEP)[1].state["memory.reads"]
    assert (reads > 0).tolist() == [False, True, False, True, False, True, False, False]
    assert float(algorithm.loss(params, state, episode, KEY, STEP)[0]) != float(
        algorithm.loss(params, state, image_episode(), KEY, STEP)[0]
    )


def test_the_share_of_entries_of_its_own_classes_is_a_metric():
    algorithm, params, state = numbered_entries(7, 8, 5, 9, 7, 6)
    for classes, share in (((7, 3, 5), 3 / 6), ((1, 2, 3), 0.0), ((8, 9, 6), 3 / 6), ((7, 8, 5), 4 / 6)):
        metrics = algorithm.loss(params, state, of_classes(image_episode(), *classes), KEY, STEP)[1].metrics
        assert float(metrics["own_entries"]) == pytest.approx(share)
    assert "own_entries" not in algorithm.loss(params, state, image_episode(), KEY, STEP)[1].metrics, "nobody knows the share"


def test_a_memory_of_own_classes_alone_is_an_empty_memory():
    algorithm, params, state = numbered_entries(7, 3, 5, 5, 3, 7)
    episode = of_classes(image_episode(), 7, 3, 5)
    empty = state | {name: torch.zeros_like(state[name]) for name in (KEYS, VALUES)} | {USAGE: torch.full_like(state[USAGE], EMPTY)}
    loss, gate, reads, outputs = results(algorithm, params, state, episode)
    expected = results(algorithm, params, empty, image_episode())
    testing.assert_same((loss, gate, reads, outputs), expected, "the task", tolerance=0.0)
    off = replace(algorithm, retrieval="off")
    assert float(loss) == float(off.loss(params, state, episode, KEY, STEP)[0])
    assert (float(gate), float(reads.sum())) == (0.0, 0.0)


def test_an_absent_way_bars_no_entry_and_neither_does_a_class_without_a_number():
    algorithm, params, state = numbered_entries(1, 2, 3, UNKNOWN, 5, 6)
    source = few_shot(ways=3, min_ways=2)
    short = next(each for number in range(20) if (each := testing.double(source.episode("train", number))).query.mask.sum() == 2 * 3)
    taken = algorithm.loss(params, state, of_classes(short, UNKNOWN, 2, 5), KEY, STEP)[1]
    assert float(taken.metrics["own_entries"]) == pytest.approx(1 / 6), "class 2; way 2, of class 5, is absent"
    testing.assert_same(
        results(algorithm, params, state, of_classes(short, UNKNOWN, 2, 5)),
        results(algorithm, params, without(state, 1), short),
        "the task",
    )


def test_an_entry_keeps_the_number_of_its_class():
    algorithm, episode = classifier(norm="none"), of_classes(image_episode(), 7, 3, 5)
    params, state = testing.start(algorithm)
    assert (state[CLASSES] == UNKNOWN).all()
    aux = algorithm.loss(params, state, episode, KEY, STEP)[1]
    after = algorithm.update_state(state, {name: value[None] for name, value in aux.state.items()})
    filled = after[USAGE] >= 0
    assert sorted(after[CLASSES][filled].tolist()) == [3, 5, 7]
    assert (after[CLASSES][~filled] == UNKNOWN).all()
    for place in filled.nonzero()[:, 0].tolist():
        way = (7, 3, 5).index(int(after[CLASSES][place]))
        torch.testing.assert_close(after[KEYS][place], aux.state[KEYS][way])
    assert float(algorithm.loss(params, after, episode, KEY, STEP)[1].metrics["own_entries"]) == 1.0


def test_in_a_run_no_task_reads_an_entry_of_its_own_classes(tmp_path: Path):
    """Nine classes and eight places: with three ways, about a third of the entries belong to a task's own classes."""
    algorithm = classifier(norm="batch")
    source, states = few_shot().numbered(), []
    run = run_engine(
        tmp_path, algorithm, source, steps=20, save_every=1, on_save=lambda position, name: states.append((position.step, position.state))
    )
    shares = [line["train/own_entries"] for line in run.lines if "train/own_entries" in line]
    assert len(shares) == 20
    assert 0.2 < sum(shares[3:]) / len(shares[3:]) < 0.47
    for step, state in states[5:-1]:
        batch, keys = double_batch(source, step)
        for task in range(2):
            episode = Episode(*(Examples(*(None if field is None else field[task] for field in part)) for part in batch))
            reads = algorithm.loss(run.position.params, state, episode, keys[task], STEP)[1].state["memory.reads"]
            own = (state[CLASSES][:, None] == episode.support.classes).any(dim=1)
            assert reads[own].abs().sum() == 0
            assert reads.sum() == pytest.approx(3.0), "one for each way"


def double_batch(source: Any, step: int) -> tuple[Episode, Tensor]:
    """Return the two episodes of a step and their keys, as the engine deals them."""
    indices = torch.arange(2 * step, 2 * step + 2)
    return testing.double(source.batch("train", indices)), draws.key(0, "train", indices)


def test_the_contract_holds_with_class_numbers():
    @dataclass(frozen=True)
    class Known(Filled):
        def init(self, key: Tensor) -> tuple[Params, State]:
            params, state = super().init(key)
            numbers = few_shot().numbers["train"]
            return params, state | {CLASSES: torch.cat([numbers[:6], torch.full((2,), UNKNOWN)])}

    algorithm = classifier(Known, "batch")
    testing.check_algorithm(algorithm, few_shot().numbered())
    shared, part = testing.start(algorithm), testing.first_episodes(few_shot().numbered(), 2)

    def train(shared: Any, part: Any) -> Any:
        return gradients_of(algorithm, *shared, *part, STEP)

    found, expected = Recorded(train).program(shared, part).call(shared, part), train(shared, part)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert float(expected[2].metrics["own_entries"].min()) > 0


def test_regression_has_no_classes_and_computes_what_it_computed_before_there_were_any(tmp_path: Path):
    """The numbers are those of the state of metarun without class numbers."""
    algorithm = regressor()
    assert CLASSES not in algorithm.init(KEY)[1]
    run = run_engine(tmp_path, algorithm, Lines(), steps=6)
    # In float32, so that processors differ in rounding.
    known = [5.212727544163304, 2.9921280170582416, 3.6506805238144464, 1.3672313052623624, 1.0877068863994965, 2.276627718537248]
    assert [line["train/loss"] for line in run.lines if "train/loss" in line] == pytest.approx(known, rel=1e-6)
