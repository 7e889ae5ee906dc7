"""Features as inputs: the training alone gives the words and the scale."""

from __future__ import annotations

import numpy as np
import torch

from metarun.tasks.rated.data import Feature, Owners
from metarun.tasks.rated.encoding import encode, encode_feature, identifiers

TRAINED = np.array([True, True, False, True])


def test_words_of_the_training_have_indices_from_one_and_others_have_zero():
    coded = encode_feature(Feature("job", "category", ["nurse", "cook", "pilot", ""]), "user", TRAINED)
    assert coded.words == ("cook", "nurse")
    assert coded.column == ("job", "category", 3, "user")
    assert coded.values[:, 0].tolist() == [2, 1, 0, 0]


def test_several_words_become_a_column_each_and_unknown_words_none():
    coded = encode_feature(Feature("genre", "several", [("b", "a"), ("a",), ("c", "a"), ()]), "item", TRAINED)
    assert coded.words == ("a", "b")
    assert coded.values.tolist() == [[1, 1], [1, 0], [1, 0], [0, 0]]


def test_numbers_are_standardised_by_the_training_and_an_unknown_one_is_the_mean():
    """The trained numbers 2 and 4 have mean 3 and deviation 1; 10 is not trained, and so does not count."""
    coded = encode_feature(Feature("age", "number", np.array([2.0, 4.0, 10.0, np.nan])), "user", TRAINED)
    assert (coded.mean, coded.deviation) == (3.0, 1.0)
    assert coded.values[:, 0].tolist() == [-1, 1, 7, 0]


def test_a_number_that_does_not_vary_becomes_zero():
    coded = encode_feature(Feature("age", "number", np.full(4, 2.0)), "user", TRAINED)
    assert coded.values.abs().sum() == 0


def test_the_columns_of_an_owner_stand_side_by_side_and_the_extra_ones_last():
    owners = Owners(("i1", "i2", "i3", "i4"), (Feature("genre", "several", [("a",), (), ("a",), ("b",)]),))
    table = encode(owners, "item", TRAINED, [identifiers(owners, "item", TRAINED)])
    assert [each.column.name for each in table.features] == ["genre", "item"]
    torch.testing.assert_close(table.values, torch.tensor([[1.0, 0, 1], [0, 0, 2], [1, 0, 0], [0, 1, 3]]))


def test_owners_without_a_feature_have_no_column():
    assert encode(Owners(("u1", "u2")), "user", np.ones(2, dtype=bool)).values.shape == (2, 0)
