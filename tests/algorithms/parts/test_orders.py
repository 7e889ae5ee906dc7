"""Orders of the examples of one task: every row once a pass, and padding changes nothing."""

from __future__ import annotations

import torch

from metarun.algorithms.parts.orders import mini_batches, random_order
from metarun.types import Examples

KEY = torch.tensor(3)
MASK = torch.tensor([True, False, True, True, False, True])
REAL = [0, 2, 3, 5]


def examples(rows: int, mask: torch.Tensor | None = None) -> Examples:
    return Examples(torch.zeros(rows, 1), torch.zeros(rows, 1), mask)


def test_each_pass_takes_every_row_once_in_a_new_order():
    rows = torch.cat(mini_batches(examples(6), KEY, count=4, size=3)).reshape(2, 6)
    assert rows.sort(dim=1).values.tolist() == [list(range(6))] * 2
    assert rows[0].tolist() != rows[1].tolist()


def test_a_batch_may_go_on_in_the_next_pass():
    batches = mini_batches(examples(3), KEY, count=3, size=2)
    assert [len(batch) for batch in batches] == [2, 2, 2]
    assert sorted(torch.cat(batches)[:3].tolist()) == sorted(torch.cat(batches)[3:].tolist()) == [0, 1, 2]


def test_mini_batches_of_a_padded_task_are_those_of_its_real_rows():
    padded = torch.cat(mini_batches(examples(6, MASK), KEY, count=4, size=2))
    plain = torch.cat(mini_batches(examples(4, torch.ones(4, dtype=torch.bool)), KEY, count=4, size=2))
    assert sorted(padded[:4].tolist()) == REAL
    assert [REAL.index(row) for row in padded.tolist()] == plain.tolist()


def test_a_random_order_puts_padding_last_and_depends_on_the_real_rows_alone():
    order = random_order(torch.zeros(6, 1), MASK, KEY).tolist()
    assert sorted(order[:4]) == REAL
    whole = random_order(torch.zeros(4, 1), torch.ones(4, dtype=torch.bool), KEY).tolist()
    assert [REAL.index(row) for row in order[:4]] == whole
    assert sorted(random_order(torch.zeros(5, 1), None, KEY).tolist()) == list(range(5))
