"""The pool of a split's classes."""

from __future__ import annotations

import pytest
import torch

from metarun.errors import UserError
from metarun.tasks.pool import ClassPool, numbers_of, pool_of


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


def test_a_name_has_the_same_number_in_any_list() -> None:
    """The numbers are pinned, since a checkpoint holds them."""
    first, second = numbers_of(["a", "b", "ü"]), numbers_of(["b", "c", "a"])
    assert first.dtype == torch.int64
    assert first[[0, 1]].tolist() == second[[2, 0]].tolist() == [2340832890917691671, 4771952420932724666]
    assert numbers_of(["\udcff"]).shape == (1,), "a folder whose name is no text"


def test_different_names_have_different_numbers_from_0_on() -> None:
    numbers = numbers_of([f"omniglot/alphabet/character{n}/rot090" for n in range(5000)])
    assert len(numbers.unique()) == 5000
    assert (numbers >= 0).all()
