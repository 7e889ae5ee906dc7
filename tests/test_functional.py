"""The small functions that algorithms share, against loops."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap

from metarun.episodes import deal, stack
from metarun.functional import Moments, adam, map_tasks, prototypes, recomputed, split_tensors, squared_distances
from metarun.types import Episode, Examples


def test_prototypes_are_class_means_in_a_double_loop():
    embeddings, labels = torch.randn(7, 4, dtype=torch.float64), [0, 2, 1, 0, 0, 2, 1]
    y = torch.eye(3, dtype=torch.float64)[labels]
    found = prototypes(embeddings, y)
    for n in range(3):
        members = [embedding for embedding, label in zip(embeddings, labels, strict=True) if label == n]
        torch.testing.assert_close(found[n], sum(members) / len(members), rtol=1e-12, atol=1e-12)


def test_prototypes_leave_masked_rows_out():
    embeddings, y = torch.randn(4, 2), torch.eye(2)[[0, 0, 1, 1]]
    found = prototypes(embeddings, y, torch.tensor([True, False, True, True]))
    torch.testing.assert_close(found, torch.stack([embeddings[0], embeddings[2:].mean(dim=0)]))


def test_the_prototype_of_a_class_without_examples_is_zero():
    assert torch.equal(prototypes(torch.ones(2, 3), torch.eye(3)[[0, 2]])[1], torch.zeros(3))


def test_squared_distances_are_those_of_a_double_loop():
    a, b = torch.randn(3, 5, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    looped = torch.tensor(
        [[sum((p - q) ** 2 for p, q in zip(x, y, strict=True)) for y in b.tolist()] for x in a.tolist()], dtype=torch.float64
    )
    torch.testing.assert_close(squared_distances(a, b), looped, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("beta1", [0.0, 0.9])
def test_adam_is_torchs_with_eps_added_to_the_uncorrected_root(beta1: float):
    """m/(1-β1^t) / (√(v/(1-β2^t)) + ε') equals √(1-β2^t)/(1-β1^t) m / (√v + ε) for ε' = ε/√(1-β2^t)."""
    weight = torch.randn(5, dtype=torch.float64)
    theirs = weight.clone().requires_grad_()
    optimizer = torch.optim.Adam([theirs], lr=0.1, betas=(beta1, 0.99))
    params, moments = {"w": weight}, Moments.zero({"w": weight})
    moments = moments._replace(updates=moments.updates.double())
    for step in range(1, 6):
        gradient = torch.randn(5, dtype=torch.float64)
        params, moments = adam(params, {"w": gradient}, moments, 0.1, beta1=beta1, beta2=0.99, eps=1e-3)
        optimizer.param_groups[0]["eps"] = 1e-3 / math.sqrt(1 - 0.99**step)
        theirs.grad = gradient
        optimizer.step()
        torch.testing.assert_close(params["w"], theirs.detach(), rtol=1e-10, atol=1e-12)
    assert float(moments.updates) == 5.0


def test_adam_leaves_parameters_without_a_gradient_and_its_arguments_alone():
    params = {"moved": torch.ones(2), "held": torch.ones(2)}
    moments = Moments.zero({"moved": params["moved"]})
    after, _ = adam(params, {"moved": torch.ones(2)}, moments, 0.1)
    assert torch.equal(after["held"], torch.ones(2))
    assert torch.equal(params["moved"], torch.ones(2))
    assert float(moments.updates) == 0.0
    torch.testing.assert_close(after["moved"], torch.full((2,), 0.9), atol=1e-5, rtol=0)


def test_the_tensors_of_a_pytree_are_replaced_in_order_and_other_leaves_stay():
    examples = Examples(torch.tensor([1.0]), torch.tensor([2.0]), None)
    tensors, refill = split_tensors({"examples": examples, "name": "a", "last": torch.tensor(3.0)})
    assert [float(tensor) for tensor in tensors] == [1.0, 2.0, 3.0]
    changed = refill(10 * tensor for tensor in tensors)
    assert changed == {"examples": Examples(torch.tensor([10.0]), torch.tensor([20.0]), None), "name": "a", "last": torch.tensor(30.0)}


def test_a_pytree_refuses_too_few_tensors():
    with pytest.raises(StopIteration):
        split_tensors([torch.ones(1), torch.ones(1)])[1]([torch.ones(1)])


def test_mapping_over_tasks_is_a_loop_and_keeps_what_is_no_tensor():
    batch = Examples(torch.randn(3, 4, 2), torch.randn(3, 4, 1), None)

    def one(examples: Examples, factor: Tensor) -> dict[str, Tensor]:
        assert examples.mask is None
        assert examples.x.shape == (4, 2)
        return {"sum": factor * examples.x.sum()}

    found = map_tasks(one, batch, torch.tensor([1.0, 2.0, 3.0]))
    torch.testing.assert_close(found["sum"], torch.stack([(i + 1) * batch.x[i].sum() for i in range(3)]))


def episode(number: int, masked: bool = False) -> Episode:
    mask = torch.tensor([True, number % 2 == 0]) if masked else None
    part = Examples(torch.full((2, 3), float(number)), torch.eye(2), mask)
    return Episode(part, part)


def test_stacking_adds_a_leading_axis_to_every_tensor():
    batch = stack([episode(0, masked=True), episode(1, masked=True)])
    assert batch.support.x.shape == (2, 2, 3)
    assert batch.query.mask is not None
    assert batch.query.mask.tolist() == [[True, True], [True, False]]
    assert stack([episode(0)]).support.mask is None


@dataclass(frozen=True)
class OneByOne:
    objective: str = "classification"

    def episode(self, split: str, index: int) -> Episode:
        return episode(index)


@dataclass(frozen=True)
class AtOnce(OneByOne):
    def batch(self, split: str, indices: Tensor) -> Episode:
        return stack([episode(10 * int(index)) for index in indices])


def test_dealing_takes_the_batched_form_where_a_source_has_one():
    indices = torch.tensor([4, 7])
    assert deal(OneByOne(), "train", indices).support.x[:, 0, 0].tolist() == [4.0, 7.0]
    assert deal(AtOnce(), "train", indices).support.x[:, 0, 0].tolist() == [40.0, 70.0]


def test_a_recomputed_function_remembers_its_arguments_only():
    """Of x -> 10 sines of sines only x is kept, where autograd would keep 10 tensors."""

    def sines(x: Tensor) -> dict[str, Tensor]:
        for _ in range(10):
            x = x.sin()
        return {"out": x}

    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    x = torch.linspace(0, 1, 5, dtype=torch.float64, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = recomputed(sines)(x)["out"]
    assert [tensor.data_ptr() for tensor in kept] == [x.data_ptr()]
    torch.testing.assert_close(torch.autograd.grad(out.sum(), x), torch.autograd.grad(sines(x)["out"].sum(), x))


def test_a_recomputed_function_leaves_what_is_no_number_without_a_gradient():
    def chosen(values: dict[str, Tensor], rows: Tensor, nothing: None) -> Tensor:
        assert nothing is None
        return values["a"][rows] * values["b"]

    values = {"a": torch.arange(3.0, requires_grad=True), "b": torch.tensor(2.0)}
    gradient = torch.autograd.grad(recomputed(chosen)(values, torch.tensor([0, 2]), None).sum(), values["a"])[0]
    assert gradient.tolist() == [2, 0, 2]


def test_a_recomputed_function_can_be_mapped_and_differentiated_inside():
    """d/dw of the loss after w - 0.1 dl/dw, per row of x, against the same without recomputation."""

    def inner(w: Tensor, x: Tensor) -> Tensor:
        return w - 0.1 * grad(lambda w: (w * x).tanh().square().sum())(w)

    def outer(step: Callable[..., Tensor]) -> Tensor:
        return vmap(grad(lambda w, x: step(step(w, x), x).pow(3).sum()), (None, 0))(weight, rows)

    weight = torch.tensor([0.3, -0.7], dtype=torch.float64)
    rows = torch.tensor([[1.0, 2.0], [0.5, -1.5], [2.0, 0.1]], dtype=torch.float64)
    torch.testing.assert_close(outer(recomputed(inner)), outer(inner))
