"""The memory-augmented network: least recently used access by hand, labels that come one step late, scores by presentation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from small import Double, conv_network, few_shot, run_engine
from torch import Tensor, nn

from metarun import draws, testing
from metarun.algorithms.mann import CONTROLLER, External, Mann, access, by_presentation, cosine, shuffled
from metarun.engine.evaluation import evaluate
from metarun.engine.training import gradients_of
from metarun.errors import UserError
from metarun.objectives import CLASSIFICATION
from metarun.types import Episode, Examples, Params

KEY, STEP = torch.tensor(1), torch.tensor(0)
SMALL: dict[str, Any] = {"units": 5, "slots": 6, "width": 3, "heads": 2, "decay": 0.9, "sharpness": 1.5}


def normal(name: str, *shape: int) -> Tensor:
    return draws.normal(draws.key(13, name), *shape, dtype=torch.float64)


def numbers(*values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def mann(norm: str = "none", **options: Any) -> Mann:
    return Mann(conv_network(norm), CLASSIFICATION, **SMALL | options)


def image_episode(split: str = "train", **sampling: Any) -> Episode:
    episode: Episode = testing.double(few_shot(**sampling).episode(split, 0))
    return episode


# Access to the memory


def test_two_steps_of_access_follow_the_equations():
    """One head, three rows (2, 0), (0, 4), (0, 0), γ = 1/2; before, row 0 was read (w^r = (1, 0, 0)) and w^u = (1, 0, 0.1).

    Step 1, k = (1, 0), σ(α) = 1/2. Least used is row 1: w^w = (1/2, 1/2, 0). Row 1 is erased, so the rows are (2.5, 0), (0.5, 0), (0, 0).
    Their cosines with k are 1, 1, 0: w^r = (p, p, q) with p = e/(2e + 1), q = 1/(2e + 1), and
    w^u = (1/2 + p + 1/2, p + 1/2, 0.05 + q) = (1.42, 0.92, 0.21).

    Step 2, k = (0, 1), σ(α) = 1. All is written where step 1 has read, w^w = (p, p, q). Least used is row 2, which was (0, 0) already. The
    rows are (2.5, p), (0.5, p), (0, q), with the cosines p/√(6.25 + p²), p/√(0.25 + p²) and 1.
    """
    before = External(numbers([2.0, 0.0], [0.0, 4.0], [0.0, 0.0]), numbers([1.0, 0.0, 0.0]), numbers(1.0, 0.0, 0.1))
    first = access(before, k := numbers([1.0, 0.0]), k, numbers(0.5), decay=0.5)
    p, q = math.e / (2 * math.e + 1), 1 / (2 * math.e + 1)
    torch.testing.assert_close(first.rows, numbers([2.5, 0.0], [0.5, 0.0], [0.0, 0.0]))
    torch.testing.assert_close(first.reading, numbers([p, p, q]), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(first.usage, numbers(1 + p, 0.5 + p, 0.05 + q), rtol=1e-5, atol=1e-5)
    second = access(first, k := numbers([0.0, 1.0]), k, numbers(1.0), decay=0.5)
    torch.testing.assert_close(second.rows, numbers([2.5, p], [0.5, p], [0.0, q]), rtol=1e-5, atol=1e-5)
    weights = [math.exp(each) for each in (p / math.sqrt(6.25 + p * p), p / math.sqrt(0.25 + p * p), 1.0)]
    reading = [each / sum(weights) for each in weights]
    torch.testing.assert_close(second.reading, numbers(reading), rtol=1e-5, atol=1e-5)
    usage = [(1 + p) / 2 + p + reading[0], (0.5 + p) / 2 + p + reading[1], (0.05 + q) / 2 + q + reading[2]]
    torch.testing.assert_close(second.usage, numbers(*usage), rtol=1e-5, atol=1e-5)


def test_each_head_writes_to_a_row_of_its_own_and_the_least_used_alone_is_erased():
    """With σ(α) = 0 all goes to the least used rows: of w^u = (0.3, 0.1, 0.2) row 1 for head 0 and row 2 for head 1."""
    rows = numbers([1.0, 1.0], [2.0, 2.0], [3.0, 3.0])
    before = External(rows, numbers([1.0, 0.0, 0.0], [1.0, 0.0, 0.0]), numbers(0.3, 0.1, 0.2))
    after = access(before, k := numbers([5.0, 0.0], [0.0, 7.0]), k, numbers(0.0, 0.0), decay=0.5)
    torch.testing.assert_close(after.rows, numbers([1.0, 1.0], [5.0, 0.0], [3.0, 10.0]))


def test_what_is_written_need_not_be_what_is_looked_for():
    """Row 1 is the least used. The key (1, 0) finds it by what was written there, (3, 4): cosines 0 and 3/5."""
    before = External(numbers([0.0, 2.0], [9.0, 9.0]), numbers([1.0, 0.0]), numbers(1.0, 0.0))
    after = access(before, numbers([1.0, 0.0]), numbers([3.0, 4.0]), numbers(0.0), decay=0.5)
    torch.testing.assert_close(after.rows, numbers([0.0, 2.0], [3.0, 4.0]))
    torch.testing.assert_close(after.reading, numbers([1.0, math.exp(0.6)]) / (1 + math.exp(0.6)), rtol=1e-5, atol=1e-5)


def test_a_sharper_head_reads_fewer_rows():
    """Cosines 1 and 0 with β = log 3: weights 3/4 and 1/4; with the paper's β = 1, e/(e + 1) and 1/(e + 1)."""
    before = External(numbers([3.0, 0.0], [0.0, 4.0]), numbers([1.0, 0.0]), numbers(0.0, 1.0))
    for sharpness, weight in ((math.log(3.0), 0.75), (1.0, math.e / (math.e + 1))):
        after = access(before, k := numbers([1.0, 0.0]), k, numbers(0.0), decay=0.5, sharpness=sharpness)
        torch.testing.assert_close(after.reading, numbers([weight, 1 - weight]), rtol=1e-5, atol=1e-5)


def test_rows_that_are_used_as_little_are_taken_in_order():
    before = External(torch.zeros(4, 1), torch.zeros(1, 4), torch.tensor([1.0, 0.0, 0.0, 0.0]))
    after = access(before, torch.ones(1, 1), torch.ones(1, 1), torch.zeros(1), decay=0.5)
    assert after.rows.flatten().tolist() == [0.0, 1.0, 0.0, 0.0]


def test_cosines_of_hand_numbers():
    """(3, 4)·(4, 3) = 24 of 5·5; (3, 4)·(4, -3) = 0; length does not count; a row of zeros has 0."""
    found = cosine(numbers([3.0, 4.0]), numbers([4.0, 3.0], [4.0, -3.0], [0.3, 0.4], [-30.0, -40.0], [0.0, 0.0]))
    torch.testing.assert_close(found, numbers([0.96, 0.0, 1.0, -1.0, 0.0]), rtol=1e-5, atol=1e-5)


def test_a_row_of_zeros_has_a_finite_derivative():
    rows = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    cosine(numbers([1.0, 2.0, 3.0]), rows).sum().backward()
    assert rows.grad is not None
    assert rows.grad.isfinite().all()


def test_the_gradient_through_two_steps_of_access_agrees_with_finite_differences():
    rows, keys, written, gate = normal("rows", 4, 3), normal("keys", 2, 3), normal("written", 2, 3), normal("gate", 2).sigmoid()
    reading, usage = normal("reading", 2, 4).softmax(dim=1), numbers(0.3, 0.9, 0.1, 0.5)

    def run(rows: Tensor, reading: Tensor, keys: Tensor, written: Tensor, gate: Tensor) -> tuple[Tensor, Tensor]:
        after = access(access(External(rows, reading, usage), keys, written, gate, 0.9), keys.flip(0), written, gate, 0.9)
        return after.rows, after.reading

    assert torch.autograd.gradcheck(run, [each.requires_grad_() for each in (rows, reading, keys, written, gate)])


# The sequence


def test_the_controller_reads_features_of_mean_0_and_variance_1():
    """In training by the statistics of the sequence, at test by the running ones."""
    algorithm, (support, query) = mann("running"), image_episode()
    params, state = testing.start(algorithm)
    z = torch.cat(algorithm.embedding.on_episode(params, state, Episode(support, query))[:2])
    moving = z.std(dim=0) > 1e-3  # a feature may be off for all images
    assert int(moving.sum()) > 3
    torch.testing.assert_close(z.mean(dim=0)[moving], torch.zeros_like(z[0, moving]), rtol=0, atol=1e-6)
    torch.testing.assert_close(z.var(dim=0, correction=0)[moving], torch.ones_like(z[0, moving]), rtol=0, atol=0.1)
    state = state | {"running.standard.mean": state["running.standard.mean"] + 2, "running.standard.var": 4 * state["running.standard.var"]}
    fitted = algorithm.embedding.fit(params, state, support, training=False)
    plain = algorithm.embedding.on_query(
        fitted._replace(statistics=fitted.statistics | {"standard.mean": torch.zeros(()), "standard.var": torch.ones(())}), query.x
    )[0]
    torch.testing.assert_close(algorithm.embedding.on_query(fitted, query.x)[0], (plain - 2) / 2, rtol=1e-4, atol=1e-4)


def plain_network(algorithm: Mann, params: Params, z: Tensor, y: Tensor) -> Tensor:
    """Return the logits of a sequence by torch's own cell on [x_t, r_{t-1}, y_{t-1}], and loops over heads and rows."""
    params = {name: value.detach() for name, value in params.items()}
    units, slots, width, heads = algorithm.units, algorithm.slots, algorithm.width, algorithm.heads
    reads, ways = algorithm.reads, y.shape[1]
    cell = nn.LSTMCell(z.shape[1] + reads + ways, units).double()
    weights = torch.cat([params[f"{CONTROLLER}weight_input"], params["head.label"].T], dim=1)
    named = {"weight_ih": weights, "weight_hh": params[f"{CONTROLLER}weight_hidden"], "bias_ih": params[f"{CONTROLLER}bias"]}
    cell.load_state_dict(named | {"bias_hh": torch.zeros(4 * units)})
    h, c, r, label = (torch.zeros(1, size, dtype=torch.float64) for size in (units, units, reads, ways))
    rows = [torch.full((width,), 1e-6, dtype=torch.float64) for _ in range(slots)]
    reading = [[float(i == 0) for i in range(slots)] for _ in range(heads)]
    usage, logits = [float(i == 0) for i in range(slots)], []
    for t in range(len(z)):
        h, c = cell(torch.cat([z[t][None], r, label], dim=1), (h, c))
        if slots:
            keys = (params["key.weight"] @ h[0] + params["key.bias"]).tanh().reshape(heads, width)
            own = algorithm.write == "own"
            written = (params["write.weight"] @ h[0] + params["write.bias"]).tanh().reshape(heads, width) if own else keys
            gate = (params["gate.weight"] @ h[0] + params["gate.bias"]).sigmoid()
            order = sorted(range(slots), key=lambda i, usage=usage: usage[i])
            writing = [[gate[k] * reading[k][i] + (1 - gate[k]) * (order[k] == i) for i in range(slots)] for k in range(heads)]
            rows = [row * (i != order[0]) + sum(writing[k][i] * written[k] for k in range(heads)) for i, row in enumerate(rows)]
            cosines = [torch.stack([keys[k] @ row / (keys[k].norm() * row.norm() + 1e-6) for row in rows]) for k in range(heads)]
            reading = [(algorithm.sharpness * each).softmax(dim=0).tolist() for each in cosines]
            weighed = [torch.stack([reading[k][i] * rows[i] for i in range(slots)]).sum(dim=0) for k in range(heads)]
            r = torch.cat(weighed)[None]
            usage = [
                algorithm.decay * usage[i] + float(sum(reading[k][i] + writing[k][i] for k in range(heads)).detach()) for i in range(slots)
            ]
        logits.append(params["head.weight"] @ torch.cat([h, r], dim=1)[0] + params["head.bias"])
        label = y[t][None]
    return torch.stack(logits)


@pytest.mark.parametrize(
    "options", [{}, {"write": "own"}, {"slots": 0}], ids=["writing its keys", "writing what it likes", "without a memory"]
)
def test_the_loss_is_that_of_a_plain_network_over_the_shuffled_sequence(options: dict[str, Any]):
    algorithm, episode = mann(**options), image_episode()
    params, state = testing.start(algorithm)
    embeddings = [algorithm.embedding.on_support(params, state, part, training=False) for part in episode]
    z, y, _ = shuffled(torch.cat(embeddings), torch.cat([part.y for part in episode]), None, KEY)
    logits = plain_network(algorithm, params, z, y)
    loss, aux = algorithm.loss(params, state, episode, KEY, STEP)
    torch.testing.assert_close(loss, CLASSIFICATION.loss(logits, y), rtol=1e-9, atol=1e-10)
    assert float(aux.metrics["accuracy"]) == pytest.approx(float(CLASSIFICATION.score(logits, y)))


@pytest.mark.parametrize("slots", [6, 0], ids=["with a memory", "without"])
def test_an_output_hangs_on_earlier_labels_and_not_on_its_own(slots: int):
    algorithm, length = mann(slots=slots), 5
    params, _ = testing.start(algorithm)
    z, y = normal("z", length, 12), torch.eye(3, dtype=torch.float64)[torch.tensor([0, 1, 2, 0, 1])]
    by_label = torch.func.jacrev(lambda y: algorithm._read(params, z, y, None)[0])(y).abs().sum(dim=(1, 3))
    for t in range(length):
        assert (by_label[t, :t] > 0).all(), f"output {t} should see all labels before it"
        assert (by_label[t, t:] == 0).all(), f"output {t} sees its own label, or a later one"


def test_an_output_hangs_on_its_own_input_and_on_none_after_it():
    algorithm = mann()
    params, _ = testing.start(algorithm)
    z, y = normal("z", 4, 12), torch.eye(3, dtype=torch.float64)[torch.tensor([0, 1, 2, 0])]
    by_input = torch.func.jacrev(lambda z: algorithm._read(params, z, y, None)[0])(z).abs().sum(dim=(1, 3))
    assert (by_input.triu(1) == 0).all()
    assert (by_input.tril() == by_input).all()
    assert (by_input.diagonal() > 0).all()


def test_a_query_is_the_input_after_the_support_set():
    algorithm, (support, query) = mann(), image_episode()
    params, state = testing.start(algorithm)
    z, asked = (algorithm.embedding.on_support(params, state, part, training=False) for part in (support, query))
    z, y, _ = shuffled(z, support.y, None, KEY)
    outputs = algorithm.predict(algorithm.adapt(params, state, support, KEY), query.x)
    for row in range(len(asked)):
        longer = plain_network(algorithm, params, torch.cat([z, asked[row : row + 1]]), torch.cat([y, query.y[row : row + 1]]))
        torch.testing.assert_close(outputs[row], longer[-1], rtol=1e-8, atol=1e-9)


def test_the_order_hangs_on_the_key_and_padding_comes_last():
    z, y = torch.arange(6.0)[:, None], torch.eye(2).repeat(3, 1)
    orders = {tuple(shuffled(z, y, None, draws.key(0, n))[0].flatten().tolist()) for n in range(5)}
    assert len(orders) == 5
    real = torch.tensor([True, False, True, True, False, True])
    shown, _, after = shuffled(z, y, real, draws.key(0, 0))
    assert after is not None
    assert after.tolist() == [True] * 4 + [False] * 2
    plain = shuffled(z[real], y[real], None, draws.key(0, 0))[0]
    assert torch.equal(shown[:4], plain), "padding changes no order"


def test_the_gradient_agrees_with_finite_differences():
    algorithm, source = mann("batch"), few_shot()
    params, state = testing.start(algorithm)
    batch, keys = testing.first_episodes(source, 1)
    gradients = gradients_of(algorithm, params, state, batch, keys, STEP)[0]
    episode = Episode(*(Examples(part.x[0], part.y[0]) for part in batch))
    for name, value in params.items():
        direction = normal(name, *value.shape)
        ends = [algorithm.loss({**params, name: value + e * direction}, state, episode, keys[0], STEP)[0] for e in (1e-6, -1e-6)]
        slope = float(ends[0] - ends[1]) / 2e-6
        assert float((gradients[name] * direction).sum()) == pytest.approx(slope, rel=1e-4, abs=1e-8), name


# Scores by presentation


def test_scores_are_by_how_often_the_class_was_presented():
    """Classes 0 1 0 1 1 0: presentations 1 1 2 2 3 3. Named 0 0 0 1 1 1, so right are one of two, two of two, one of two."""
    y, named = torch.eye(2)[torch.tensor([0, 1, 0, 1, 1, 0])], torch.eye(2)[torch.tensor([0, 0, 0, 1, 1, 1])]
    right, presented = by_presentation(named, y, None)
    assert right.tolist() == [1.0, 2.0, 1.0]
    assert presented.tolist() == [2.0, 2.0, 2.0]


def test_padding_is_no_presentation():
    y, named = torch.eye(2)[torch.tensor([0, 0, 0, 1])], torch.eye(2)[torch.tensor([0, 0, 0, 1])]
    right, presented = by_presentation(named, y, torch.tensor([True, False, True, True]))
    assert right.tolist() == presented.tolist() == [2.0, 1.0]


def test_a_step_whose_logits_are_not_finite_is_wrong():
    """The largest logit of each step is at its class; in the second and the third step a logit is infinite or no number."""
    y = torch.eye(2)[torch.tensor([0, 0, 1, 1])]
    logits = torch.tensor([[2.0, 1.0], [torch.inf, 1.0], [1.0, torch.nan], [1.0, 2.0]])
    right, presented = by_presentation(logits, y, None)
    assert (right.tolist(), presented.tolist()) == ([1.0, 1.0], [2.0, 2.0])


def test_an_episode_has_as_many_presentations_of_each_class_as_examples():
    algorithm, episode = mann("running"), image_episode("test", shots=1, queries=3)
    params, state = testing.start(algorithm)
    right, presented = algorithm.by_presentation(params, state, episode, KEY)
    assert presented.tolist() == [3.0] * 4, "of three classes"
    assert ((right >= 0) & (right <= presented)).all()


# As a whole


def test_without_a_memory_there_is_nothing_of_it_among_the_parameters():
    with_memory, without = (testing.start(mann(slots=slots, write="own"))[0] for slots in (6, 0))
    memory = {f"{part}.{kind}" for part in ("key", "write", "gate") for kind in ("weight", "bias")}
    assert set(with_memory) - set(without) == memory
    assert with_memory[f"{CONTROLLER}weight_input"].shape[1] - without[f"{CONTROLLER}weight_input"].shape[1] == 6, "r has two heads of 3"


def test_the_label_starts_as_strong_as_it_is_asked_to():
    weak, strong = (testing.start(mann(label_scale=scale))[0]["head.label"] for scale in (0.5, 40.0))
    assert weak.abs().max() <= 0.5 / math.sqrt(5)
    torch.testing.assert_close(strong, 80 * weak, rtol=1e-3, atol=1e-4)


def test_the_backbones_own_head_is_not_learned():
    params, _ = testing.start(mann())
    assert params["head.weight"].shape == (3, 5 + 6)
    assert not [name for name in params if name.startswith("body.head")]


def test_training_lowers_the_loss_and_evaluation_repeats_itself(tmp_path: Path):
    algorithm, source = mann("running"), few_shot(shots=1, queries=2)
    run = run_engine(tmp_path, algorithm, source, steps=100, optimizer={"name": "Adam", "lr": 0.02})
    losses = [line["train/loss"] for line in run.lines if "train/loss" in line]
    assert sum(losses[-10:]) / 10 < sum(losses[:10]) / 10 - 0.05
    assert {"train/presentation_1", "train/presentation_2"} <= run.lines[0].keys()
    position = run.position
    first, second = (evaluate(algorithm, position.params, position.state, Double(source), split="val", episodes=3) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"units": 0}, r"algo\.units=0 must be at least 1"),
        ({"slots": 1}, r"algo\.slots=1 leaves no row to write to for some of algo\.heads=2"),
        ({"decay": 1.5}, r"algo\.decay=1\.5 must lie between 0 and 1"),
        ({"sharpness": 0.0}, r"algo\.sharpness=0\.0 must be above 0"),
        ({"label_scale": 0.0}, r"algo\.label_scale=0\.0 must be above 0"),
        ({"write": "keys"}, r"algo\.write is key or own, not 'keys'\. .*'key'"),
    ],
)
def test_a_bad_option_is_a_sentence(options: dict[str, Any], words: str):
    with pytest.raises(UserError, match=words):
        mann(**options)
