"""The buffer of past examples: a uniform sample of the stream, of a fixed size."""

from __future__ import annotations

import torch
from torch import Tensor

from metarun import draws
from metarun.algorithms.parts.reservoir import Reservoir, empty_reservoir, recalled, stored


def numbered(count: int) -> tuple[Tensor, Tensor]:
    return torch.arange(float(count))[:, None], torch.arange(float(count))[:, None].expand(count, 2)


def filled(size: int, count: int, seed: int = 0) -> Reservoir:
    x, y = numbered(count)
    return stored(empty_reservoir(size, x, y), x, y, draws.key(seed))


def test_the_first_examples_fill_the_buffer_in_order():
    buffer = filled(5, 3)
    assert buffer.x.flatten().tolist() == [0.0, 1.0, 2.0, 0.0, 0.0]
    assert int(buffer.seen) == 3


def test_a_full_buffer_keeps_its_size_and_each_x_its_y():
    buffer = filled(5, 40)
    assert buffer.x.shape == (5, 1)
    assert torch.equal(buffer.y[:, 0], buffer.x[:, 0])
    assert len(set(buffer.x.flatten().tolist())) == 5


def test_every_example_of_the_stream_is_kept_equally_often():
    """Each of 12 examples stays with chance 4 / 12; over 600 buffers the share has a deviation of 0.02."""
    kept = torch.zeros(12)
    for seed in range(600):
        kept[filled(4, 12, seed).x.flatten().long()] += 1.0
    assert (kept / 600 - 1 / 3).abs().max() < 0.08


def test_an_empty_buffer_recalls_nothing_and_a_part_of_a_buffer_recalls_that_part():
    x, y = numbered(3)
    assert not recalled(empty_reservoir(5, x, y), draws.key(0), 4)[2].any()
    past_x, past_y, real = recalled(filled(5, 2), draws.key(0), 100)
    assert real.all()
    assert set(past_x.flatten().tolist()) == {0.0, 1.0}
    assert torch.equal(past_x[:, 0], past_y[:, 1])
