"""The pool of a split's classes."""

from __future__ import annotations

import pytest
import torch

from metarun.errors import UserError
from metarun.tasks.pool import ClassPool, pool_of


def test_values_are_those_of_the_bytes_divided_by_255_in_single_precision() -> None:
    every = ClassPool(torch.arange(256, dtype=torch.uint8).reshape(16, 1, 4, 4), [4] * 4, list("abcd"))
    expected = torch.tensor([byte / 255 for byte in range(256)], dtype=torch.float64).to(torch.float32)
    assert torch.equal(every.values(torch.arange(16)).flatten(), expected)


def test_a_pool_whose_groups_are_scattered_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match="next to each other"):
        ClassPool(torch.zeros(3, 1, 1, 1, dtype=torch.uint8), [1, 1, 1], list("xyz"), groups=["a", "b", "a"])


def test_an_unknown_split_is_refused_with_the_nearest() -> None:
    pool = ClassPool(torch.zeros(1, 1, 1, 1, dtype=torch.uint8), [1], ["x"])
    with pytest.raises(UserError, match=r"no split 'tset'; this task has train, val, test\. Did you mean 'test'\?"):
        pool_of({"train": pool, "val": pool, "test": pool}, "tset")


def test_numbers_that_do_not_fit_the_images_are_a_programming_error() -> None:
    images = torch.zeros(4, 1, 1, 1, dtype=torch.uint8)
    for counts, names in (([2, 1], ["x", "y"]), ([2, 2], ["x"])):
        with pytest.raises(ValueError, match="4 images do not fit"):
            ClassPool(images, counts, names)
