"""A memory of fixed size: attention to the nearest or to random entries, fading, and the places of new entries."""

from __future__ import annotations

import math

import pytest
import torch
from memories import memory_of

from metarun.algorithms.parts.entries import CLASSES, EMPTY, KEYS, UNKNOWN, USAGE, VALUES, attend, available, empty_memory, faded, write

QUERY = torch.tensor([[1.0, 0.0]])
SHARPNESS = torch.tensor(2.0)
FILLED = torch.tensor([True, True, True, False])


def three_entries() -> dict[str, torch.Tensor]:
    """Entries at cosines 1, 0 and -1 to the query, and one empty place."""
    keys = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, 0.0]])
    return {KEYS: keys, VALUES: torch.arange(4.0)[:, None], USAGE: torch.tensor([0.5, 1.0, 2.0, EMPTY])}


def test_an_empty_memory_has_no_entry_and_attends_evenly():
    memory = empty_memory(4, 2, 3)
    assert [tuple(memory[name].shape) for name in (KEYS, VALUES, USAGE)] == [(4, 2), (4, 3), (4,)]
    assert (memory[USAGE] == EMPTY).all()
    attention, cosine = attend(QUERY, memory, available(memory), SHARPNESS, 2)
    assert attention.tolist() == [[0.25] * 4]
    assert cosine.tolist() == [[0.0]]


def test_attention_is_a_softmax_over_the_nearest_entries():
    """Of cosines 1 and 0 with sharpness 2: e²/(e² + 1) and 1/(e² + 1); the mean cosine is the first of these."""
    attention, cosine = attend(QUERY, three_entries(), FILLED, SHARPNESS, 2)
    first = math.exp(2.0) / (math.exp(2.0) + 1.0)
    torch.testing.assert_close(attention, torch.tensor([[first, 1.0 - first, 0.0, 0.0]]))
    torch.testing.assert_close(cosine, torch.tensor([[first]]))


def test_random_retrieval_takes_any_entries_but_no_empty_place():
    attended = [attend(QUERY, three_entries(), FILLED, SHARPNESS, 1, torch.tensor(key))[0][0] for key in range(30)]
    assert {int(attention.argmax()) for attention in attended} == {0, 1, 2}
    assert all(sorted(attention.tolist()) == [0.0, 0.0, 0.0, 1.0] for attention in attended)


def test_usage_fades_and_grows_by_attention_and_an_empty_place_stays_empty():
    reads = torch.tensor([0.25, 0.0, 0.0, 0.75])
    assert faded(three_entries(), 0.5, reads)[USAGE].tolist() == [0.5, 0.5, 1.0, EMPTY]
    assert faded(three_entries(), 0.5, None)[USAGE].tolist() == [0.25, 0.5, 1.0, EMPTY]


def test_a_memory_of_classes_begins_with_places_of_no_class():
    assert CLASSES not in empty_memory(4, 2, 3)
    memory = empty_memory(4, 2, 3, classes=True)
    assert memory[CLASSES].tolist() == [UNKNOWN] * 4
    assert memory[CLASSES].dtype == torch.int64


def test_places_with_an_entry_are_available_unless_their_class_is_barred():
    memory = three_entries() | {CLASSES: torch.tensor([2**62 + 1, 5, UNKNOWN, UNKNOWN])}
    for barred, expected in (([5, 6], [True, False, True]), ([2**62 + 1], [False, True, True]), ([2**62, UNKNOWN], [True, True, True])):
        assert available(memory, torch.tensor(barred)).tolist() == [*expected, False]
    assert torch.equal(available(memory), FILLED)


def test_only_available_places_are_attended_to():
    """Without the entry of cosine 1, the nearest two have the cosines 0 and -1."""
    attention, cosine = attend(QUERY, three_entries(), torch.tensor([False, True, True, False]), SHARPNESS, 2)
    first = 1.0 / (1.0 + math.exp(-2.0))
    torch.testing.assert_close(attention, torch.tensor([[0.0, first, 1.0 - first, 0.0]]))
    torch.testing.assert_close(cosine, torch.tensor([[first - 1.0]]))


def test_an_entry_moves_with_its_class_and_fading_leaves_the_class():
    memory = faded(three_entries() | {CLASSES: torch.tensor([4, 5, 6, UNKNOWN])}, 0.5, None)
    assert memory[CLASSES].tolist() == [4, 5, 6, UNKNOWN]
    new = {KEYS: torch.ones(2, 2), VALUES: torch.ones(2, 1), USAGE: torch.ones(2), CLASSES: torch.tensor([2**62 + 1, 8])}
    assert write(memory, new, torch.tensor([True, True]))[CLASSES].tolist() == [2**62 + 1, 5, 6, 8]


def entries(*numbers: float) -> dict[str, torch.Tensor]:
    columns = torch.tensor(numbers)[:, None]
    return {KEYS: columns, VALUES: 10 * columns, USAGE: torch.ones(len(numbers))}


def test_new_entries_take_empty_places_first_and_then_those_of_the_least_usage():
    before = memory_of([0.5, EMPTY, 0.2, 0.9])
    after = write(before, entries(7.0, 8.0), torch.tensor([True, True]))
    assert sorted(after[KEYS].flatten().tolist()) == [0.0, 3.0, 7.0, 8.0], "place 1 was empty, place 2 the least used"
    assert after[USAGE][[0, 3]].tolist() == pytest.approx([0.5, 0.9])
    assert after[USAGE][[1, 2]].tolist() == [1.0, 1.0]
    torch.testing.assert_close(after[VALUES], 10 * after[KEYS])
    assert before[KEYS].flatten().tolist() == [0.0, 1.0, 2.0, 3.0], "the old memory stays as it was"


def test_what_is_no_entry_takes_no_place():
    after = write(memory_of([0.5, EMPTY, 0.2, 0.9]), entries(7.0, 8.0, 9.0), torch.tensor([False, True, False]))
    assert after[KEYS].flatten().tolist() == [0.0, 8.0, 2.0, 3.0]


def test_of_more_entries_than_there_are_places_the_last_are_kept():
    after = write(memory_of([0.5, 0.1]), entries(6.0, 7.0, 8.0, 9.0), torch.tensor([True, True, True, False]))
    assert sorted(after[KEYS].flatten().tolist()) == [7.0, 8.0]
