"""A memory of fixed size: attention to the nearest or to random entries, fading, and the places of new entries."""

from __future__ import annotations

import math

import torch

from metarun.algorithms.parts.entries import EMPTY, KEYS, USAGE, VALUES, attend, empty_memory, faded

QUERY = torch.tensor([[1.0, 0.0]])
SHARPNESS = torch.tensor(2.0)


def three_entries() -> dict[str, torch.Tensor]:
    """Entries at cosines 1, 0 and -1 to the query, and one empty place."""
    keys = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, 0.0]])
    return {KEYS: keys, VALUES: torch.arange(4.0)[:, None], USAGE: torch.tensor([0.5, 1.0, 2.0, EMPTY])}


def test_an_empty_memory_has_no_entry_and_attends_evenly():
    memory = empty_memory(4, 2, 3)
    assert [tuple(memory[name].shape) for name in (KEYS, VALUES, USAGE)] == [(4, 2), (4, 3), (4,)]
    assert (memory[USAGE] == EMPTY).all()
    attention, cosine = attend(QUERY, memory, SHARPNESS, 2)
    assert attention.tolist() == [[0.25] * 4]
    assert cosine.tolist() == [[0.0]]


def test_attention_is_a_softmax_over_the_nearest_entries():
    """Of cosines 1 and 0 with sharpness 2: e²/(e² + 1) and 1/(e² + 1); the mean cosine is the first of these."""
    attention, cosine = attend(QUERY, three_entries(), SHARPNESS, 2)
    first = math.exp(2.0) / (math.exp(2.0) + 1.0)
    torch.testing.assert_close(attention, torch.tensor([[first, 1.0 - first, 0.0, 0.0]]))
    torch.testing.assert_close(cosine, torch.tensor([[first]]))


def test_random_retrieval_takes_any_entries_but_no_empty_place():
    attended = [attend(QUERY, three_entries(), SHARPNESS, 1, torch.tensor(key))[0][0] for key in range(30)]
    assert {int(attention.argmax()) for attention in attended} == {0, 1, 2}
    assert all(sorted(attention.tolist()) == [0.0, 0.0, 0.0, 1.0] for attention in attended)


def test_usage_fades_and_grows_by_attention_and_an_empty_place_stays_empty():
    reads = torch.tensor([0.25, 0.0, 0.0, 0.75])
    assert faded(three_entries(), 0.5, reads)[USAGE].tolist() == [0.5, 0.5, 1.0, EMPTY]
    assert faded(three_entries(), 0.5, None)[USAGE].tolist() == [0.25, 0.5, 1.0, EMPTY]
