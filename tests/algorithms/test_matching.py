"""Matching networks: attention and full context embeddings against hand-worked sets, one number at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from small import conv_network, few_shot, run_engine
from torch import Tensor, nn

from metarun import draws, testing
from metarun.algorithms.matching import Attended, Matching, in_context, similarity, with_attention
from metarun.algorithms.parts.orders import random_order
from metarun.errors import UserError
from metarun.network import Fitted, Network
from metarun.objectives import CLASSIFICATION
from metarun.types import Episode, Examples, Params

KEY, STEP = draws.key(1), torch.tensor(0)
SUPPORT = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
LABELS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
QUERY = torch.tensor([[2.0, 0.0]], dtype=torch.float64)


class Identity(nn.Module):
    """Embed a vector as itself."""

    out_features = 2

    def forward(self, x: Tensor) -> Tensor:
        return x


def matching(**options: Any) -> Matching:
    return Matching(Network(Identity()), CLASSIFICATION, **options)


def probabilities(algorithm: Matching, support: Examples, query: Tensor) -> Tensor:
    params, state = testing.start(algorithm)
    return algorithm.predict(algorithm.adapt(params, state, support, KEY), query).softmax(dim=1)


def image_episode(**sampling: Any) -> Episode:
    episode: Episode = testing.double(few_shot(**sampling).episode("train", 0))
    return episode


def softmax(*scores: float) -> list[float]:
    total = sum(map(math.exp, scores))
    return [math.exp(score) / total for score in scores]


@pytest.mark.parametrize(
    ("kind", "scores"),
    [
        ("cosine", (1.0, 0.0, 0.6)),  # (2,0) against (1,0), (0,2), (3,4)/5
        ("semi_cosine", (2.0, 0.0, 1.2)),  # the query keeps its length 2
        ("l2", (-1.0, -8.0, -17.0)),  # 1² + 0², 2² + 2², 1² + 4²
    ],
)
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_a_class_gets_the_attention_of_all_its_examples_together(kind: str, scores: tuple[float, ...], temperature: float):
    """The first class has one support example, the second has two, whose attention adds."""
    attention = softmax(*(score / temperature for score in scores))
    expected = torch.tensor([[attention[0], attention[1] + attention[2]]], dtype=torch.float64)
    algorithm = matching(similarity=kind, temperature=temperature)
    torch.testing.assert_close(probabilities(algorithm, Examples(SUPPORT, LABELS), QUERY), expected, rtol=1e-9, atol=1e-12)


def test_a_masked_example_gets_no_attention():
    mask = torch.tensor([True, False, True])
    attention = softmax(1.0, 0.6)
    found = probabilities(matching(), Examples(SUPPORT, LABELS, mask), QUERY)
    torch.testing.assert_close(found, torch.tensor([attention], dtype=torch.float64), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("ways", "bound"), [(5, 0.6488), (20, 0.2800)])
def test_pure_cosine_is_bounded_by_the_number_of_ways(ways: int, bound: float):
    """At best the right example is parallel and the others opposite: e / (e + (N-1)/e)."""
    support = torch.tensor([[1.0, 0.0]] + [[-1.0, 0.0]] * (ways - 1), dtype=torch.float64)
    examples = Examples(support, torch.eye(ways, dtype=torch.float64))
    best = probabilities(matching(), examples, QUERY)[0, 0]
    assert float(best) == pytest.approx(math.e / (math.e + (ways - 1) / math.e), abs=1e-9)
    assert float(best) == pytest.approx(bound, abs=1e-3)
    assert float(probabilities(matching(temperature=0.1), examples, QUERY)[0, 0]) > 0.999
    assert float(probabilities(matching(similarity="semi_cosine"), examples, 10 * QUERY)[0, 0]) > 0.999


def test_the_loss_is_minus_log_of_the_attention_on_the_right_class():
    query = Examples(QUERY, torch.tensor([[0.0, 1.0]], dtype=torch.float64))
    loss, _ = matching().loss({}, {}, Episode(Examples(SUPPORT, LABELS), query), KEY, STEP)
    attention = softmax(1.0, 0.0, 0.6)
    assert float(loss) == pytest.approx(-math.log(attention[1] + attention[2]), abs=1e-9)


def test_a_probability_that_underflows_leaves_loss_and_gradient_finite():
    far = torch.tensor([[1e4, 0.0]], requires_grad=True)
    algorithm = matching(similarity="l2")
    examples = Examples(SUPPORT.float(), LABELS.float())
    logits = algorithm.predict(algorithm.adapt({}, {}, examples, KEY), far)
    loss = CLASSIFICATION.loss(logits, torch.tensor([[1.0, 0.0]]))
    assert loss.isfinite()
    assert torch.autograd.grad(loss, far)[0].isfinite().all()


@pytest.mark.parametrize("kind", ["cosine", "semi_cosine", "l2"])
def test_with_one_shot_a_far_nearer_example_wins_under_every_similarity(kind: str):
    support = Examples(torch.tensor([[1.0, 0.1], [-1.0, 0.3]], dtype=torch.float64), torch.eye(2, dtype=torch.float64))
    assert probabilities(matching(similarity=kind), support, QUERY).argmax() == 0


def test_a_learned_temperature_starts_where_it_is_told_and_gets_its_exact_gradient():
    algorithm = matching(temperature=0.5, learn_temperature=True)
    params, state = testing.start(algorithm)
    assert float(params["log_temperature"]) == pytest.approx(math.log(0.5))
    episode = Episode(Examples(SUPPORT, LABELS), Examples(QUERY, torch.tensor([[1.0, 0.0]], dtype=torch.float64)))
    leaf = params["log_temperature"].clone().requires_grad_()

    def loss(log_temperature: Tensor) -> Tensor:
        return algorithm.loss({"log_temperature": log_temperature}, state, episode, KEY, STEP)[0]

    assert torch.autograd.gradcheck(loss, leaf)
    plain = matching(temperature=0.5).loss({}, {}, episode, KEY, STEP)[0]
    torch.testing.assert_close(loss(leaf), plain, rtol=1e-7, atol=1e-7)


# Full context embeddings.


@dataclass(frozen=True)
class Cell:
    """An LSTM cell written out gate by gate, in the order in, forget, new, out."""

    params: Params

    def __call__(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        gates = self.params["weight_input"] @ x + self.params["weight_hidden"] @ hidden + self.params["bias"]
        enter, forget, new, leave = gates.reshape(4, -1)
        cell = torch.sigmoid(forget) * cell + torch.sigmoid(enter) * torch.tanh(new)
        return torch.sigmoid(leave) * torch.tanh(cell), cell


def cell_params(inputs: int, seed: int) -> Params:
    key = draws.key(seed)
    shapes = {"weight_input": (8, inputs), "weight_hidden": (8, 2), "bias": (8,)}
    return {name: draws.normal(draws.fold(key, name), *shape, dtype=torch.float64) for name, shape in shapes.items()}


def by_hand(forward: Params, backward: Params, z: Tensor) -> Tensor:
    """g(x_i) = h→_i + h←_i + g'(x_i), for three examples, step by step."""
    zero = torch.zeros(2, dtype=torch.float64)
    there, back = Cell(forward), Cell(backward)
    h1, c1 = there(z[0], zero, zero)
    h2, c2 = there(z[1], h1, c1)
    h3, _ = there(z[2], h2, c2)
    k3, d3 = back(z[2], zero, zero)
    k2, d2 = back(z[1], k3, d3)
    k1, _ = back(z[0], k2, d2)
    return torch.stack([z[0] + h1 + k1, z[1] + h2 + k2, z[2] + h3 + k3])


def test_the_support_set_in_context_equals_a_hand_worked_one():
    forward, backward = cell_params(2, 1), cell_params(2, 2)
    torch.testing.assert_close(in_context(forward, backward, SUPPORT, None), by_hand(forward, backward, SUPPORT), rtol=1e-12, atol=1e-12)


def test_the_support_set_in_context_is_that_of_torchs_bidirectional_lstm():
    forward, backward = cell_params(2, 1), cell_params(2, 2)
    theirs = nn.LSTM(2, 2, bidirectional=True, dtype=torch.float64)
    with torch.no_grad():
        for params, end in ((forward, ""), (backward, "_reverse")):
            getattr(theirs, f"weight_ih_l0{end}").copy_(params["weight_input"])
            getattr(theirs, f"weight_hh_l0{end}").copy_(params["weight_hidden"])
            getattr(theirs, f"bias_ih_l0{end}").copy_(params["bias"])
            getattr(theirs, f"bias_hh_l0{end}").zero_()
        out = theirs(SUPPORT)[0]
    torch.testing.assert_close(in_context(forward, backward, SUPPORT, None), SUPPORT + out[:, :2] + out[:, 2:], rtol=1e-12, atol=1e-12)


def test_the_lstm_passes_over_padded_rows_in_both_directions():
    forward, backward = cell_params(2, 1), cell_params(2, 2)
    noise = torch.full((2,), 77.0, dtype=torch.float64)
    padded = torch.stack([noise, SUPPORT[0], SUPPORT[1], noise, SUPPORT[2], noise])
    real = torch.tensor([False, True, True, False, True, False])
    found = in_context(forward, backward, padded, real)
    torch.testing.assert_close(found[real], by_hand(forward, backward, SUPPORT), rtol=1e-12, atol=1e-12)


def attention_by_hand(params: Params, z: Tensor, g: Tensor, steps: int) -> Tensor:
    """ĥ_k, c_k = LSTM(f'(x), [h, r], c) and h_k = ĥ_k + f'(x), with weights on [h, r] written as one matrix on the two."""
    of_inputs, of_read = params["weight_input"].split(2, dim=1)
    stacked = torch.cat([params["weight_hidden"], of_read], dim=1)  # what the paper calls the recurrent weights
    hidden, cell = z, torch.zeros(2, dtype=torch.float64)
    for _ in range(steps):
        weights = softmax(*(float(hidden @ row) for row in g))
        read = sum(weight * row for weight, row in zip(weights, g, strict=True))
        step = Cell({"weight_input": of_inputs, "weight_hidden": stacked, "bias": params["bias"]})
        output, cell = step(z, torch.cat([hidden, read]), cell)
        hidden = output + z
    return hidden


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_a_query_in_context_equals_a_hand_worked_one(steps: int):
    params = cell_params(4, 3)
    queries = torch.tensor([[2.0, 0.0], [-0.5, 0.3]], dtype=torch.float64)
    expected = torch.stack([attention_by_hand(params, query, SUPPORT, steps) for query in queries])
    torch.testing.assert_close(with_attention(params, queries, SUPPORT, None, steps), expected, rtol=1e-12, atol=1e-12)


def test_a_query_reads_no_padded_row():
    params = cell_params(4, 3)
    padded = torch.cat([SUPPORT[:1], torch.full((1, 2), 9.0, dtype=torch.float64), SUPPORT[1:]])
    real = torch.tensor([True, False, True, True])
    plain = with_attention(params, QUERY, SUPPORT, None, 2)
    torch.testing.assert_close(with_attention(params, QUERY, padded, real, 2), plain, rtol=1e-12, atol=1e-12)


def test_with_context_the_logits_are_those_of_both_embeddings():
    algorithm = matching(fce=True, fce_steps=2, fce_shuffle=False, similarity="l2")
    params, state = testing.start(algorithm)
    forward, backward, attention = cell_params(2, 1), cell_params(2, 2), cell_params(4, 3)
    for prefix, cell in (("forward", forward), ("backward", backward), ("attention", attention)):
        params |= {f"fce.{prefix}.{name}": value for name, value in cell.items()}
    g = by_hand(forward, backward, SUPPORT)
    f = attention_by_hand(attention, QUERY[0], g, 2)
    weights = softmax(*(-float((f - row).square().sum()) for row in g))
    found = algorithm.predict(algorithm.adapt(params, state, Examples(SUPPORT, LABELS), KEY), QUERY).softmax(dim=1)
    expected = torch.tensor([[weights[0], weights[1] + weights[2]]], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def turned(examples: Examples, order: list[int]) -> Examples:
    return Examples(examples.x[order], examples.y[order])


def test_without_context_the_order_of_the_support_set_changes_nothing():
    support = Examples(SUPPORT, LABELS)
    plain, other = (probabilities(matching(), each, QUERY) for each in (support, turned(support, [2, 0, 1])))
    torch.testing.assert_close(plain, other, rtol=1e-12, atol=1e-12)


def test_with_context_the_order_of_the_support_set_changes_the_prediction():
    algorithm, (support, query) = Matching(conv_network(outputs=None), CLASSIFICATION, fce=True, fce_shuffle=False), image_episode()
    params, state = testing.start(algorithm)

    def logits(examples: Examples) -> Tensor:
        return algorithm.predict(algorithm.adapt(params, state, examples, KEY), query.x)

    dealt, other = logits(support), logits(turned(support, [5, 2, 0, 1, 4, 3]))
    assert (dealt - other).abs().max() > 1e-4, "a set has no order, but a bidirectional LSTM reads one"


def test_read_backwards_the_two_directions_change_places():
    """Reversing the set and exchanging the LSTMs gives the same embeddings, reversed; with one LSTM for both, reversal alone does."""
    forward, backward = cell_params(2, 1), cell_params(2, 2)
    dealt, other = in_context(forward, backward, SUPPORT, None), in_context(backward, forward, SUPPORT.flip(0), None).flip(0)
    torch.testing.assert_close(dealt, other, rtol=1e-12, atol=1e-12)
    assert (dealt - in_context(forward, backward, SUPPORT.flip(0), None).flip(0)).abs().max() > 1e-3


def test_shuffled_the_reading_order_hangs_on_the_key_and_not_on_the_classes():
    algorithm, (support, query) = Matching(conv_network(outputs=None), CLASSIFICATION, fce=True), image_episode()
    params, state = testing.start(algorithm)
    logits = [algorithm.predict(algorithm.adapt(params, state, support, draws.key(seed)), query.x) for seed in (1, 1, 2)]
    assert torch.equal(logits[0], logits[1])
    assert (logits[0] - logits[2]).abs().max() > 1e-4


def test_a_random_order_of_padded_rows_is_that_of_the_real_ones():
    real = torch.tensor([True, False, True, True, False])
    places = real.nonzero()[:, 0]
    plain = random_order(torch.zeros(3, 2), None, KEY)
    assert random_order(torch.zeros(5, 2), real, KEY)[:3].tolist() == places[plain].tolist()


@pytest.mark.parametrize(
    "options", [{"fce": True}, {"fce": True, "fce_shuffle": False}, {"learn_temperature": True, "similarity": "l2"}], ids=str
)
@pytest.mark.parametrize("norm", ["running", "support"])
def test_the_contract_holds_with_every_part(options: dict[str, Any], norm: str):
    algorithm = Matching(conv_network(norm, outputs=None), CLASSIFICATION, fce_steps=2, **options)
    testing.check_algorithm(algorithm, few_shot(shots=1))


def test_every_parameter_of_the_context_gets_a_gradient(tmp_path: Path):
    algorithm = Matching(conv_network(outputs=None), CLASSIFICATION, fce=True, learn_temperature=True)
    start, _ = testing.start(algorithm)
    run = run_engine(tmp_path, algorithm, few_shot(), steps=1)
    own = [name for name in start if name.startswith("fce.") or name == "log_temperature"]
    assert len(own) == 10
    assert not [name for name in own if torch.equal(run.position.params[name], start[name])]


def test_training_lowers_the_loss(tmp_path: Path):
    algorithm = Matching(conv_network("running", outputs=None), CLASSIFICATION, similarity="l2")
    run = run_engine(tmp_path, algorithm, few_shot(), steps=12, optimizer={"name": "Adam", "lr": 0.01})
    losses = [line["train/loss"] for line in run.lines if "train/loss" in line]
    assert sum(losses[-3:]) < sum(losses[:3])


def test_similarities_are_those_of_torch():
    f, g = torch.randn(4, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    cosine = torch.cosine_similarity(f[:, None], g[None], dim=2)
    torch.testing.assert_close(similarity(f, g, "cosine"), cosine, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(similarity(f, g, "semi_cosine"), cosine * f.norm(dim=1)[:, None], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(similarity(f, g, "l2"), -torch.cdist(f, g).square(), rtol=1e-10, atol=1e-10)


def test_an_absent_class_has_no_probability():
    adapted = Attended(SUPPORT, LABELS, torch.tensor([True, False, False]), Fitted({}, {}, None, None), torch.tensor([True, False]))
    assert matching().predict(adapted, QUERY)[0].tolist()[1] == -1e9


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"similarity": "cosin"}, r"algo\.similarity=cosin is unknown.*Did you mean 'cosine'"),
        ({"temperature": 0.0}, r"algo\.temperature=0\.0 must be above 0"),
        ({"fce_steps": -1}, r"algo\.fce_steps=-1 must not be negative"),
    ],
)
def test_bad_options_are_told_in_a_sentence(options: dict[str, Any], sentence: str):
    with pytest.raises(UserError, match=sentence):
        matching(**options)
