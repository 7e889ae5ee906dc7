from __future__ import annotations

from typing import Any

import pytest
import torch
from small_ratings import COLUMNS, WIDTH, inputs
from torch import Tensor
from torch.func import functional_call, grad, vmap

from metarun import draws
from metarun.backbones.embeddings import Embeddings
from metarun.compute.programs.recording import Recorded
from metarun.errors import UserError

KINDS = (("age", "category", 4, "user"), ("genres", "several", 3, "item"), ("year", "number", 1, "item"), ("item", "category", 3, "item"))


def network(columns: Any = KINDS, width: int = 6, **options: Any) -> Embeddings:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Embeddings((width,), columns, **{"dimension": 2, "widths": (4,), **options})


def test_categories_words_and_numbers_stand_side_by_side():
    """The table has the rows of age (4), item (3) and genres (3): age 2 is row 2, item 1 is row 5, genres 0 and 2 are rows 7 and 9."""
    net = network()
    found = net.embeddings(torch.tensor([[2.0, 1.0, 0.0, 1.0, -0.5, 1.0]]))
    table = net.embeddings.table
    expected = torch.cat([table[2], table[5], (table[7] + table[9]) / 2, torch.tensor([-0.5])])
    torch.testing.assert_close(found[0], expected)
    assert net.embeddings.width == 7


def test_an_item_without_words_has_the_vector_zero():
    assert (network().embeddings(torch.tensor([[1.0, 0, 0, 0, 0, 1]]))[0, 4:6] == 0).all()


@pytest.mark.parametrize("index", [0.0, -1.0, 4.0, 1e9, -1e9, float("nan"), float("inf")])
def test_an_index_that_is_no_category_counts_as_unknown(index: float):
    """The unknown category is the mean of ages 1, 2 and 3, plus row 0 of the table, which is 0 at first."""
    net = network()
    with torch.no_grad():
        assert (net.embeddings.table[0] == 0).all()
        net.embeddings.table[0] += 5.0
    table = net.embeddings.table
    found = net.embeddings(torch.tensor([[index, 0, 0, 0, 0, 1]]))
    torch.testing.assert_close(found[0, :2], table[0] + (table[1] + table[2] + table[3]) / 3)


def test_large_indices_find_their_rows():
    net = network([("item", "category", 3_000_001, "item")], 1, dimension=1)
    index = torch.tensor([[3_000_000.0], [2_999_999.0], [1.0]])
    assert torch.equal(net.embeddings(index)[:, 0], net.embeddings.table[index[:, 0].long(), 0])


def test_a_category_of_the_unknown_alone_has_its_learned_vector():
    net = network([("zip", "category", 1, "user"), ("year", "number", 1, "item")], 2)
    assert torch.equal(net.embeddings(torch.tensor([[7.0, 0.5]])), torch.tensor([[0.0, 0.0, 0.5]]))


def test_columns_that_are_left_out_change_nothing():
    net = network(leave_out=["item", "genres"])
    x = torch.tensor([[2.0, 1, 0, 1, -0.5, 1], [2.0, 0, 1, 0, -0.5, 2]])
    first, second = net(x)
    assert torch.equal(first, second)
    assert len(net.embeddings.table) == 4


def test_numbers_alone_need_no_table():
    net = network([("a", "number", 1, "item"), ("b", "number", 1, "user")], 2)
    x = torch.tensor([[1.0, -2.0]])
    assert torch.equal(net.embeddings(x), x)


def test_the_decision_layers_are_those_of_melu():
    """Dimension 32, two layers of 64: 3 vectors and a number are 97 inputs."""
    net = Embeddings((WIDTH,), COLUMNS)
    assert [tuple(value.shape) for value in net.layers.parameters()] == [(64, 97), (64,), (64, 64), (64,)]
    assert net.out_features == 64
    assert tuple(net.embeddings.table.shape) == (3 + 9 + 4, 32)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"width": 7}, "describes inputs of 6 numbers, and the task has 7"),
        ({"leave_out": ["gender"]}, "leave_out names 'gender', and the task has the columns age, genres, year, item"),
        ({"leave_out": ["age", "genres", "year", "item"]}, "names every column"),
    ],
)
def test_columns_that_do_not_fit_are_refused(options: dict[str, Any], sentence: str):
    with pytest.raises(UserError, match=sentence):
        network(**options)


def weights_of(net: Embeddings) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in net.named_parameters()}


def test_second_derivatives_mapped_over_tasks_equal_a_loop():
    net = network(COLUMNS, WIDTH, activation="tanh").double()
    x = torch.stack([inputs(draws.key(0, index), 5) for index in range(3)]).double()

    def adapted_loss(params: dict[str, Tensor], x: Tensor) -> Tensor:
        def loss(params: dict[str, Tensor]) -> Tensor:
            outputs: Tensor = functional_call(net, params, (x,))
            return outputs.square().mean()

        slopes = grad(loss)(params)
        return loss({name: value - 0.1 * slopes[name] for name, value in params.items()})

    params = weights_of(net)
    mapped = vmap(grad(adapted_loss), in_dims=(None, 0))(params, x)
    for task in range(3):
        alone = grad(adapted_loss)(params, x[task])
        for name in params:
            torch.testing.assert_close(mapped[name][task], alone[name])


def test_a_recorded_program_gives_the_same_bits():
    net = network(COLUMNS, WIDTH)
    params, x = weights_of(net), torch.stack([inputs(draws.key(0, index), 5) for index in range(3)])

    def slopes(params: dict[str, Tensor], x: Tensor) -> dict[str, Tensor]:
        def loss(params: dict[str, Tensor]) -> Tensor:
            outputs: Tensor = vmap(lambda x: functional_call(net, params, (x,)))(x)
            return outputs.square().mean()

        return grad(loss)(params)

    recorded = Recorded(slopes)
    found, expected = recorded.program(params, x).call(params, x), slopes(params, x)
    assert recorded.whole
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
