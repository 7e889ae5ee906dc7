"""The memory of past tasks: closed forms without it, retrieval and fusion by hand, eviction, and a task that needs a stored one."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from memories import KEY, STEP, Filled, classifier, image_episode, memory_of, regressor
from small import Double, Lines, conv_network, dense_network, few_shot, run_engine
from torch import Tensor

from metarun import draws, testing
from metarun.algorithms.memory import Memory
from metarun.algorithms.parts.entries import EMPTY, KEYS, USAGE, VALUES
from metarun.algorithms.parts.task_weights import ridge
from metarun.algorithms.protonet import ProtoNet
from metarun.backbones.mlp import Mlp
from metarun.engine.evaluation import evaluate
from metarun.engine.training import Position, gradients_of
from metarun.errors import UserError
from metarun.network import Network
from metarun.objectives import CLASSIFICATION, REGRESSION
from metarun.records import checkpoint
from metarun.types import Episode, Examples, Params, State


def normal(name: str, *shape: int) -> Tensor:
    return draws.normal(draws.key(11, name), *shape, dtype=torch.float64)


def lines_episode(index: int = 0) -> Episode:
    episode: Episode = testing.double(Lines().episode("train", index))
    return episode


def embedded(params: Params, x: Tensor) -> Tensor:
    return torch.tanh(x @ params["0.weight"].T + params["0.bias"])


# Without a memory


@pytest.mark.parametrize("options", [{"retrieval": "off"}, {}], ids=["retrieval off", "an empty memory"])
@pytest.mark.parametrize("norm", ["running", "batch", "support"])
def test_without_entries_it_is_a_prototypical_network(options: dict[str, Any], norm: str):
    ours, theirs = classifier(norm=norm, **options), ProtoNet(conv_network(norm, outputs=None), CLASSIFICATION)
    episode = image_episode()
    (params, state), (_, running) = testing.start(ours), testing.start(theirs)
    assert float(ours.loss(params, state, episode, KEY, STEP)[0]) == float(theirs.loss(params, running, episode, KEY, STEP)[0])
    outputs = [each.predict(each.adapt(params, state, episode.support, KEY), episode.query.x) for each in (ours, theirs)]
    testing.assert_same(outputs[0], outputs[1], "the logits", tolerance=0.0)


def test_ridge_solves_the_normal_equations_from_its_prior():
    """The minimum of |y - z w|² + s |w - w₀|² has zᵀ(z w - y) + s (w - w₀) = 0, so (zᵀz + s I) w = zᵀy + s w₀."""
    z, y, prior, strength = normal("z", 5, 3), normal("y", 5, 2), normal("prior", 2, 3), torch.tensor(0.7, dtype=torch.float64)
    expected = torch.linalg.solve(z.T @ z + strength * torch.eye(3, dtype=torch.float64), z.T @ y + strength * prior.T).T
    testing.assert_same(ridge(z, y, None, prior, strength), expected, "the heads")
    testing.assert_same(ridge(z[:4], y[:4], None, prior, strength), ridge(z, y, torch.arange(5) < 4, prior, strength), "the padded heads")


def test_without_entries_it_is_ridge_regression_on_the_features_from_the_learned_prior():
    algorithm, (support, query) = regressor(retrieval="off"), lines_episode()
    params, state = testing.start(algorithm)
    params |= {"prior": normal("mean", 6), "log_strength": torch.tensor(-1.0, dtype=torch.float64)}
    z, asked = (torch.cat([embedded(params, x), torch.ones(len(x), 1, dtype=torch.float64)], dim=1) for x in (support.x, query.x))
    strength = math.exp(-1.0)
    regular = z.T @ z + strength * torch.eye(6, dtype=torch.float64)
    heads = torch.linalg.solve(regular, z.T @ support.y + strength * params["prior"][:, None])
    outputs = algorithm.predict(algorithm.adapt(params, state, support, KEY), query.x)
    torch.testing.assert_close(outputs, asked @ heads, rtol=1e-9, atol=1e-9)


# Retrieval and fusion


def looked_up(params: Params, state: State, key: Tensor, count: int, shots: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return r, g and attention for one key, entry by entry."""
    filled = [m for m in range(len(state[USAGE])) if state[USAGE][m] >= 0]
    cosines = {m: float(key @ state[KEYS][m]) for m in filled}
    nearest = sorted(filled, key=cosines.__getitem__)[-count:]
    scale = math.exp(float(params["log_sharpness"]))
    total = sum(math.exp(scale * cosines[m]) for m in nearest)
    attention = torch.zeros(len(state[USAGE]), dtype=torch.float64)
    for m in nearest:
        attention[m] = math.exp(scale * cosines[m]) / total
    seen = torch.cat([key, torch.tensor([sum(float(attention[m]) * cosines[m] for m in nearest)], dtype=torch.float64)])
    trust = params["gate.weight"] @ seen + params["gate.bias"] - (0.0 if shots is None else math.log(shots))
    return sum(attention[m] * state[VALUES][m] for m in nearest), trust.sigmoid(), attention


def test_a_prototype_moves_towards_what_its_nearest_entries_hold_by_the_gate():
    algorithm, (support, _) = classifier(Filled, "none"), image_episode(shots=2)
    params, state = testing.start(algorithm)
    embeddings = algorithm.network.on_support(params, state, support, training=False)
    fused = algorithm.adapt(params, state, support, KEY).weights
    for n in range(3):
        z = embeddings[support.y[:, n] > 0]
        columns = torch.cat([z, torch.ones(2, 1, dtype=torch.float64)], dim=1)
        code = torch.tanh(columns @ params["key.weight"].T + params["key.bias"]).mean(dim=0)
        read, gate, _ = looked_up(params, state, code / code.norm(), count=3, shots=2)
        torch.testing.assert_close(fused[n], z.mean(dim=0) + gate * (read - z.mean(dim=0)), rtol=1e-8, atol=1e-9)


def test_a_head_is_ridge_regression_from_what_its_nearest_entries_hold():
    algorithm, (support, _) = regressor(Filled), lines_episode()
    params, state = testing.start(algorithm)
    params["prior"] = normal("mean", 6)
    z = embedded(params, support.x)
    heads = algorithm.adapt(params, state, support, KEY).weights
    for column in range(2):
        y = support.y[:, column : column + 1]
        code = torch.tanh(torch.cat([z, y], dim=1) @ params["key.weight"].T + params["key.bias"]).mean(dim=0)
        read, gate, _ = looked_up(params, state, code / code.norm(), count=3, shots=None)
        prior = params["prior"] + gate * (read - params["prior"])
        expected = ridge(torch.cat([z, torch.ones_like(y)], dim=1), y, None, prior[None], torch.ones((), dtype=torch.float64))
        torch.testing.assert_close(heads[column], expected[0], rtol=1e-8, atol=1e-9)


def test_more_shots_weigh_more_against_the_same_memory():
    """With G = 0 the gate of K shots is κ/(K + κ) with ln κ = b: a prior that is worth κ examples."""
    algorithm = classifier(Filled, "none", gate_bias=math.log(0.5))
    for shots in (1, 4):
        episode = image_episode(shots=shots)
        params, state = testing.start(algorithm)
        params["gate.weight"] = torch.zeros_like(params["gate.weight"])
        aux = algorithm.loss(params, state, episode, KEY, STEP)[1]
        assert float(aux.metrics["gate"]) == pytest.approx(0.5 / (shots + 0.5))


def test_fewer_entries_than_neighbours_share_the_attention():
    algorithm = regressor(Filled, entries=2)
    params, state = testing.start(algorithm)
    reads = algorithm.loss(params, state, lines_episode(), KEY, STEP)[1].state["memory.reads"]
    assert float(reads.sum()) == pytest.approx(2.0), "one for each of the two targets"
    assert (reads > 0).tolist() == [True, True, *[False] * 6]


def test_random_retrieval_takes_as_many_entries_wherever_they_lie_and_the_same_ones_for_the_same_key():
    algorithm, episode = regressor(Filled, retrieval="random", entries=7), lines_episode()
    params, state = testing.start(algorithm)
    one_target = Episode(*(part._replace(y=part.y[:, :1]) for part in episode))
    taken = [
        algorithm.loss(params, state, one_target, draws.key(0, number), STEP)[1].state["memory.reads"] > 0
        for number in (0, 0, *range(1, 30))
    ]
    assert {int(each.sum()) for each in taken} == {3}
    assert torch.equal(taken[0], taken[1])
    assert torch.stack(taken).sum(dim=0).tolist()[7:] == [0], "no empty place"
    assert (torch.stack(taken).sum(dim=0)[:7] > 0).all(), "every entry at some time"


@pytest.mark.parametrize("retrieval", ["attention", "random", "off"])
def test_the_contract_holds_with_a_filled_memory(retrieval: str):
    testing.check_algorithm(classifier(Filled, "batch", retrieval=retrieval), few_shot())
    testing.check_algorithm(regressor(Filled, retrieval=retrieval), Lines())


@pytest.mark.parametrize("algorithm", [classifier(Filled, "none"), regressor(Filled)], ids=["classification", "regression"])
def test_the_gradient_agrees_with_finite_differences(algorithm: Memory):
    params, state = testing.start(algorithm)
    source = few_shot() if algorithm.objective == CLASSIFICATION else Lines()
    batch, keys = testing.first_episodes(source, 1)
    gradients = gradients_of(algorithm, params, state, batch, keys, STEP)[0]
    episode = Episode(*(Examples(part.x[0], part.y[0]) for part in batch))
    for name, value in params.items():
        direction = normal(name, *value.shape)
        ends = [algorithm.loss({**params, name: value + side * 1e-6 * direction}, state, episode, keys[0], STEP)[0] for side in (1.0, -1.0)]
        slope = float(ends[0] - ends[1]) / 2e-6
        assert float((gradients[name] * direction).sum()) == pytest.approx(slope, rel=1e-5, abs=1e-8), name
        assert gradients[name].abs().max() > 0, f"{name} gets no gradient"


# Storing


@pytest.mark.parametrize(("eviction", "left"), [("least_used", 1), ("oldest", 0)])
def test_what_is_read_stays_where_eviction_goes_by_use(eviction: str, left: int):
    """A memory of two with usage (0.4, 0.5), of which only entry 0 is read. By use it then has 0.5·0.4 + 1 against 0.25, by age 0.2."""
    algorithm = Memory(dense_network(None), REGRESSION, capacity=2, neighbours=1, key_size=1, eviction=eviction, decay=0.5)
    aux = {KEYS: torch.full((1, 1, 1), 7.0), VALUES: torch.full((1, 1, 1), 70.0)}
    aux |= {"memory.used": torch.ones(1, 1), "memory.reads": torch.tensor([[1.0, 0.0]])}
    after = algorithm.update_state(memory_of([0.4, 0.5]), aux)
    assert float(after[KEYS][left]) == 7.0
    assert float(after[USAGE][left]) == 1.0
    assert float(after[USAGE][1 - left]) == pytest.approx({"least_used": 1.2, "oldest": 0.25}[eviction])


def test_empty_places_do_not_fade():
    algorithm = Memory(dense_network(None), REGRESSION, capacity=3, neighbours=1, key_size=1, decay=0.5)
    aux = {KEYS: torch.ones(1, 1, 1), VALUES: torch.ones(1, 1, 1), "memory.used": torch.ones(1, 1), "memory.reads": torch.zeros(1, 3)}
    assert algorithm.update_state(memory_of([EMPTY] * 3), aux)[USAGE].tolist() == [1.0, EMPTY, EMPTY]


def test_a_task_leaves_its_key_and_the_weights_that_all_of_its_examples_lead_to():
    algorithm, episode = regressor(), lines_episode()
    params, state = testing.start(algorithm)
    aux = algorithm.loss(params, state, episode, KEY, STEP)[1]
    after = algorithm.update_state(state, {name: value[None] for name, value in aux.state.items()})
    whole = Examples(*(torch.cat(pair) for pair in zip(episode.support[:2], episode.query[:2], strict=True)))
    weights = replace(algorithm, retrieval="off").adapt(params, state, whole, KEY).weights
    stored = (after[USAGE] == 1.0).nonzero()[:, 0]
    assert len(stored) == 2, "a head for each target"
    testing.assert_same(after[VALUES][stored].sort(dim=0).values, weights.sort(dim=0).values, "the heads")
    torch.testing.assert_close(after[KEYS][stored].norm(dim=1), torch.ones(2, dtype=torch.float64))


def test_a_class_leaves_the_mean_of_all_its_examples_and_an_absent_way_nothing():
    algorithm = classifier(norm="none")
    source = few_shot(ways=4, min_ways=2, queries=2)
    episode = next(each for number in range(20) if (each := testing.double(source.episode("train", number))).query.mask.sum() == 2 * 3)
    present = 3
    params, state = testing.start(algorithm)
    aux = algorithm.loss(params, state, episode, KEY, STEP)[1]
    after = algorithm.update_state(state, {name: value[None] for name, value in aux.state.items()})
    filled = after[USAGE] >= 0
    assert int(filled.sum()) == present
    x, y, mask = (torch.cat(pair) for pair in zip(*(part[:3] for part in episode), strict=True))
    embeddings = algorithm.network.on_support(params, state, Examples(x[mask], y[mask]), training=False)
    means = torch.stack([embeddings[y[mask][:, n] > 0].mean(dim=0) for n in range(present)])
    testing.assert_same(after[VALUES][filled].sort(dim=0).values, means.sort(dim=0).values, "the prototypes")


def test_evaluation_reads_the_memory_and_leaves_it_as_it_is(tmp_path: Path):
    algorithm, source = regressor(), Lines()
    trained = run_engine(tmp_path, algorithm, source).position
    before = {name: value.clone() for name, value in trained.state.items()}
    with_memory, without = (
        evaluate(each, trained.params, trained.state, Double(source), split="test", episodes=3)
        for each in (algorithm, replace(algorithm, retrieval="off"))
    )
    assert with_memory.mean != without.mean
    testing.assert_same(before, trained.state, "the memory after evaluation", tolerance=0.0)


def test_a_run_that_is_resumed_with_a_filled_memory_is_the_run_that_never_stopped(tmp_path: Path):
    algorithm = regressor()
    whole = run_engine(tmp_path / "whole", algorithm, Lines(), steps=6).position
    half = run_engine(tmp_path / "half", algorithm, Lines(), steps=3).position
    assert (half.state[USAGE] >= 0).all(), "three steps of two tasks of two targets fill eight places"
    checkpoint.save(tmp_path / "last.pt", checkpoint.Checkpoint(half.step, half.params, half.state))
    stored = checkpoint.load(tmp_path / "last.pt")
    position = Position(stored.step, stored.params, stored.state)
    resumed = run_engine(tmp_path / "resumed", algorithm, Lines(), steps=6, position=position).position
    testing.assert_same((resumed.params, resumed.state), (whole.params, whole.state), "the end", tolerance=0.0)


# A network of several layers for the keys


@pytest.mark.parametrize("layers", [2, 3])
def test_deeper_keys_are_those_of_a_perceptron(layers: int):
    algorithm, (support, _) = regressor(Filled, key_layers=layers), lines_episode()
    params, state = testing.start(algorithm)
    params["key.1.bias"] = normal("bias", 4)
    z = embedded(params, support.x)
    found = algorithm.loss(params, state, Episode(support, support), KEY, STEP)[1].state[KEYS]
    for column in range(2):
        codes = torch.tanh(torch.cat([z, support.y[:, column : column + 1]], dim=1) @ params["key.weight"].T + params["key.bias"])
        for layer in range(1, layers):
            codes = torch.tanh(codes @ params[f"key.{layer}.weight"].T + params[f"key.{layer}.bias"])
        code = codes.mean(dim=0)
        torch.testing.assert_close(found[column], code / code.norm(), rtol=1e-9, atol=1e-9)


def test_one_layer_of_keys_has_the_parameters_that_it_always_had():
    one, two = (regressor(key_layers=layers).init(KEY)[0] for layers in (1, 2))
    assert set(two) - set(one) == {"key.1.weight", "key.1.bias"}
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_the_contract_holds_with_deeper_keys():
    testing.check_algorithm(classifier(Filled, "batch", key_layers=2), few_shot())
    testing.check_algorithm(regressor(Filled, key_layers=2), Lines())


# A task that only a stored one can solve


@dataclass(frozen=True)
class Twins:
    """Two families y = s max(t, 0) and y = -s max(t, 0), s = ±1, told apart by an input that is 0.5 in one and -0.5 in the other.

    All support points have t < 0, where both are 0: the targets of all support sets are the same. s is drawn anew every `span`
    episodes, so a network cannot have learned it either. Without a task of the same family and time the best prediction is 0. Its error is
    the mean of t² over [0, 1], 1/3. The test episodes are of the time of the training episode number `now`.
    """

    span: int = 40
    now: int = 0
    objective: str = "regression"

    def episode(self, split: str, index: int) -> Episode:
        key = draws.key(0, split, index)
        time = (index if split == "train" else self.now) // self.span
        s = 1.0 if draws.uniform(draws.key(5, time)) < 0.5 else -1.0
        family = 1.0 if draws.uniform(draws.fold(key, "family")) < 0.5 else -1.0
        t = draws.uniform(draws.fold(key, "t"), 12)
        t = torch.where(torch.arange(12) < 4, -t, t)
        x = torch.stack([t, torch.full((12,), 0.5 * family)], dim=1)
        y = (s * family * t.clamp(min=0))[:, None]
        return Episode(Examples(x[:4], y[:4]), Examples(x[4:], y[4:]))


def test_two_families_that_look_alike_are_told_apart_by_a_stored_task_only(tmp_path: Path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Network(Mlp([2], [16]))
    algorithm = Memory(network, REGRESSION, capacity=8, neighbours=2, key_size=8, eviction="oldest", decay=0.9)
    adam = {"name": "Adam", "lr": 0.02, "schedule": "cosine"}  # to 0, so that the weights do not follow the last time's s
    errors = {}
    for retrieval in ("attention", "off"):
        learner = replace(algorithm, retrieval=retrieval)
        end = run_engine(tmp_path / retrieval, learner, Twins(), steps=400, tasks_per_step=2, optimizer=adam, log_every=100).position
        for at_test in {retrieval, "off", "random"} if retrieval == "attention" else {"off"}:
            tested = replace(learner, retrieval=at_test)
            report = evaluate(tested, end.params, end.state, Double(Twins(now=2 * 400 - 1)), split="test", episodes=60)
            errors[retrieval, at_test] = report.mean
    assert errors["attention", "attention"] < 0.03
    assert errors["off", "off"] > 0.3
    assert errors["attention", "off"] > 0.3
    assert errors["attention", "random"] > 0.2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"retrieval": "atention"}, r"algo\.retrieval=atention is unknown.*Did you mean 'attention'"),
        ({"eviction": "fifo"}, r"algo\.eviction=fifo is unknown; it must be one of least_used, oldest"),
        ({"capacity": 0}, r"algo\.capacity=0 must be at least 1"),
        ({"neighbours": 9}, r"algo\.neighbours=9 exceeds algo\.capacity=8"),
        ({"decay": 0.0}, r"algo\.decay=0\.0 must be above 0"),
        ({"key_layers": 0}, r"algo\.key_layers=0 must be at least 1"),
    ],
)
def test_a_bad_option_is_a_sentence(options: dict[str, Any], words: str):
    with pytest.raises(UserError, match=words):
        regressor(**options)
