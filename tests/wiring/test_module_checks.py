"""The checks of a user's module that no backbone of `own_modules` reaches."""

from __future__ import annotations

import pytest
import torch
from own_modules import Call, Counting, Embedding, frozen_stem
from small import few_shot
from torch import nn

from metarun.errors import UserError
from metarun.layers.adopt import adopt_layers
from metarun.types import Episode
from metarun.wiring.module_checks import check_adopted, check_saved, examine, place_of, sample_of

EPISODE = few_shot().episode("train", 0)
X = sample_of(EPISODE)


def test_the_sample_has_a_few_rows_without_ties_and_is_always_the_same() -> None:
    assert X.shape == (4, 1, 8, 8)
    assert torch.equal(X, sample_of(EPISODE))
    assert len(X.unique()) == X.numel()
    support, query = EPISODE.support._replace(x=torch.zeros(6, 2).long()), EPISODE.query._replace(x=torch.ones(1, 2).long())
    assert sample_of(Episode(support, query)).tolist() == [[0, 0]] * 3 + [[1, 1]]


def test_another_function_and_other_gradients_are_found_after_an_adoption() -> None:
    module = Embedding(nn.Conv2d(4, 4, 3))
    torchs = examine(module, X, "Mine")
    check_adopted(module, torchs, "Mine")
    module.parts[0].forward = lambda x: nn.functional.conv2d(x, module.parts[0].weight)
    with pytest.raises(UserError, match="backbone Mine: with metarun's layers its outputs differ from torch's"):
        check_adopted(module, torchs, "Mine")
    module.parts[0].forward = lambda x: nn.functional.conv2d(x, module.parts[0].weight.detach(), module.parts[0].bias)
    with pytest.raises(UserError, match="its gradients differ from torch's"):
        check_adopted(module, torchs, "Mine")
    module.parts[0].bias = nn.Parameter(module.parts[0].bias.detach())
    with pytest.raises(UserError, match="has other parameters after"):
        check_adopted(module, torchs, "Mine")


def test_a_tensor_that_forward_changes_is_put_back() -> None:
    module = Counting()
    count = module.count
    torchs = examine(Embedding(), X, "Mine")
    with pytest.raises(UserError, match="changes its tensor 'count'"):
        check_adopted(module, torchs, "Mine")
    assert module.count is count
    assert float(count) == 0.0


def test_the_checks_leave_the_module_and_the_generator_as_they_are() -> None:
    module = frozen_stem()
    before, generator = {name: value.clone() for name, value in module.state_dict().items()}, torch.get_rng_state()
    torchs = examine(module, X, "Mine")
    adopt_layers(module)
    check_adopted(module, torchs, "Mine")
    check_saved(frozen_stem_of(1), module, torchs, "Mine")
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)
    assert not any(layer._forward_hooks for layer in module.modules())


def frozen_stem_of(seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return frozen_stem()


def test_a_module_of_another_structure_under_another_seed_is_refused() -> None:
    module = Embedding()
    torchs = examine(module, X, "Mine")
    with pytest.raises(UserError, match="draws random numbers in its __init__"):
        check_saved(Embedding(nn.Conv2d(4, 4, 1)), module, torchs, "Mine")


def test_a_module_that_makes_tensors_of_single_precision_is_checked_in_it() -> None:
    module = Embedding(Call(lambda x: x.mean((2, 3)) @ torch.eye(4)))
    assert examine(module, X, "Mine").outputs.dtype == torch.float32


def test_an_error_is_placed_in_the_users_code_alone() -> None:
    with pytest.raises(IndexError) as raised:
        Embedding(Call(lambda x: x[:, 9]))(X)
    assert place_of(raised.value).startswith(" (test_module_checks.py, line ")
    assert place_of(ValueError("raised nowhere")) == ""
