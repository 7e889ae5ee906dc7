"""Learning from a stream: the steps of a learner, new rows, and one pass over padded examples."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small import conv_network
from torch import Tensor
from trajectories import CLASSES, KEY, random_head, trajectory

from metarun import draws
from metarun.algorithms.parts.online import (
    InPlace,
    Learner,
    features_of,
    first_head,
    head_outputs,
    new_head,
    one_pass,
    renewed,
)
from metarun.algorithms.parts.rates import LR, PLAIN
from metarun.errors import UserError
from metarun.objectives import CLASSIFICATION
from metarun.types import Examples, Params


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_step_of_a_learner_is_that_of_torchs_optimizer(optimizer: Any):
    head = random_head()
    z, y = torch.ones(2, 4, dtype=torch.float64), torch.eye(CLASSES, dtype=torch.float64)[:2]
    learner = Learner.start(optimizer, head, {"test_inner_lr": torch.tensor(0.1, dtype=torch.float64)})
    weights = {name: value.clone().requires_grad_() for name, value in head.items()}
    theirs = (torch.optim.SGD if optimizer == "sgd" else torch.optim.Adam)(weights.values(), lr=0.1)
    for _ in range(3):
        learner = learner.after(CLASSIFICATION, head_outputs, z, y)
        theirs.zero_grad()
        F.cross_entropy(head_outputs(weights, z), y).backward()
        theirs.step()
    torch.testing.assert_close(learner.params["weight"], weights["weight"].detach(), rtol=1e-5, atol=1e-5)


def test_new_rows_have_the_variance_of_he_and_do_not_depend_on_their_number():
    head = new_head(KEY, 400, 50)
    assert float(head["weight"].var()) == pytest.approx(2.0 / 50, rel=0.05)
    assert head["bias"].abs().max() == 0.0
    assert torch.equal(new_head(KEY, 3, 50)["weight"], head["weight"][:3])


def test_the_output_layer_before_a_stream_is_zero_or_has_new_rows():
    like = torch.ones(2, 4, dtype=torch.float64)
    zero, random = (first_head(start, KEY, 3, like) for start in ("zero", "random"))
    assert [(tuple(head["weight"].shape), head["weight"].dtype) for head in (zero, random)] == [((3, 4), torch.float64)] * 2
    assert zero["weight"].abs().max() == 0.0
    assert torch.equal(random["weight"], new_head(KEY, 3, 4, like=like)["weight"])
    assert all(head["bias"].shape == (3,) and head["bias"].abs().max() == 0.0 for head in (zero, random))


def test_rows_are_new_for_the_classes_of_the_support_set_alone_and_for_each_key():
    support, head = trajectory((1, 3)).support, random_head()
    new, other = renewed(head, support, KEY), renewed(head, support, KEY + 1)
    changed = (new["weight"] != head["weight"]).any(dim=1)
    assert changed.tolist() == [False, True, False, True, False]
    assert new["bias"].tolist() == [-1.0, 0.0, 0.0, 0.0, 1.0]
    assert not torch.equal(new["weight"][1], new["weight"][3])
    assert not torch.equal(new["weight"][1], other["weight"][1])


def test_padding_rows_change_no_new_row():
    support, head = trajectory((1, 3)).support, random_head()
    padded = Examples(
        torch.cat([support.x[:1], support.x]),
        torch.cat([torch.eye(CLASSES, dtype=torch.float64)[:1], support.y]),
        torch.tensor([False, True, True, True, True]),
    )
    assert torch.equal(renewed(head, padded, KEY)["weight"], renewed(head, support, KEY)["weight"])


def test_one_pass_gives_each_real_example_its_number_and_leaves_padding_out():
    support = trajectory((1, 3)).support
    seen: list[int] = []

    def learn(learner: Tensor, z: Tensor, y: Tensor, key: Tensor) -> Tensor:
        seen.append(int(key))
        return 2.0 * learner + z.sum()

    z = torch.tensor([[1.0], [10.0], [100.0], [1000.0]])
    assert float(one_pass(torch.tensor(0.0), learn, z, support, KEY)) == 8.0 + 40.0 + 200.0 + 1000.0
    assert seen == [int(draws.fold(KEY, number)) for number in range(4)]
    seen.clear()
    padded = support._replace(mask=torch.tensor([True, False, True, True]))
    assert float(one_pass(torch.tensor(0.0), learn, z, padded, KEY)) == 4.0 + 200.0 + 1000.0
    assert [seen[0], seen[2], seen[3]] == [int(draws.fold(KEY, number)) for number in range(3)]


def test_features_of_a_normalisation_by_other_examples_are_refused():
    for norm in ("batch", "support", "reptile"):
        network = conv_network(norm, None)
        with pytest.raises(UserError, match=f"norm={norm} normalises several examples together"):
            features_of(network, *network.init(), torch.zeros(2, 1, 8, 8))


@pytest.mark.parametrize(("plain", "optimizer"), [(0.0, "adam"), (1.0, "sgd")])
def test_a_learner_with_a_chosen_optimizer_takes_its_steps(plain: float, optimizer: Any):
    head, rate = random_head(), {"test_inner_lr": torch.tensor(0.1, dtype=torch.float64)}
    z, y = torch.ones(2, 4, dtype=torch.float64), torch.eye(CLASSES, dtype=torch.float64)[:2]
    found = Learner.start("best", head, rate | {"test_sgd": torch.tensor(plain)})
    expected = Learner.start(optimizer, head, rate)
    for _ in range(3):
        found = found.after(CLASSIFICATION, head_outputs, z, y)
        expected = expected.after(CLASSIFICATION, head_outputs, z, y)
    assert torch.equal(found.params["weight"], expected.params["weight"])
    assert not torch.equal(found.params["weight"], head["weight"])


@pytest.mark.parametrize(("optimizer", "plain"), [("adam", 0.0), ("sgd", 0.0), ("best", 0.0), ("best", 1.0)])
def test_steps_in_place_give_the_values_of_the_other_learner_and_keep_the_first_parameters(optimizer: Any, plain: float):
    state = {LR: torch.tensor(0.02), PLAIN: torch.tensor(plain)}
    first = Learner.start(optimizer, random_head(), state)
    kept = {name: value.clone() for name, value in first.params.items()}
    one, other = first, InPlace(first)
    z = torch.linspace(-1.0, 2.0, 24, dtype=torch.float64).reshape(6, 4).sin()
    y = F.one_hot(torch.arange(6) % CLASSES, CLASSES).double()
    for number in range(6):
        rows = slice(number, number + 1)
        one = one.after(CLASSIFICATION, head_outputs, z[rows], y[rows])
        other = other.after(CLASSIFICATION, head_outputs, z[rows], y[rows])
    assert not torch.allclose(one.params["weight"], kept["weight"], atol=1e-3)
    for name, value in one.params.items():  # the corrections of Adam's moments are computed in float32 in the one learner
        torch.testing.assert_close(other.params[name], value, rtol=2e-5, atol=1e-6)
        assert torch.equal(first.params[name], kept[name])


def test_in_place_a_parameter_that_the_outputs_do_not_use_keeps_its_value():
    def outputs(params: Params, z: Tensor) -> Tensor:
        return head_outputs({**params, "bias": torch.zeros_like(params["bias"])}, z)

    first = Learner.start("sgd", random_head(), {LR: torch.tensor(0.1)})
    z, y = torch.ones(1, 4, dtype=torch.float64), torch.eye(CLASSES, dtype=torch.float64)[:1]
    after, expected = (learner.after(CLASSIFICATION, outputs, z, y) for learner in (InPlace(first), first))
    assert torch.equal(after.params["bias"], first.params["bias"])
    torch.testing.assert_close(after.params["weight"], expected.params["weight"])
    assert not torch.equal(after.params["weight"], first.params["weight"])


def test_in_place_the_mask_leaves_out_examples():
    first = Learner.start("sgd", random_head(), {LR: torch.tensor(0.1)})
    z, y = torch.eye(4, dtype=torch.float64)[:2], F.one_hot(torch.tensor([0, 1]), CLASSES).double()
    masked = InPlace(first).after(CLASSIFICATION, head_outputs, z, y, torch.tensor([True, False]))
    alone = first.after(CLASSIFICATION, head_outputs, z[:1], y[:1])
    torch.testing.assert_close(masked.params, alone.params)
