"""Counter-based draws: golden values, uniformity, distinctness, and one key at a time against many at once."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from metarun import draws


def test_the_stream_of_a_key_is_pinned() -> None:
    """Changing any of these numbers would change every published seed."""
    key = draws.key(0, "train", torch.arange(3), "classes")
    assert key.tolist() == [6120731357117712506, 8536719716460684817, 9186716828805035098]
    assert draws.bits(draws.key(1), 2).tolist() == [6791897765849424158, -1041056189838986770]
    assert draws.integers(key, 4, size=1000).tolist() == [[844, 266, 420, 407], [748, 509, 440, 564], [801, 774, 853, 332]]
    assert draws.distinct(key, 5, torch.tensor([5, 20, 1000])).tolist() == [[4, 0, 3, 2, 1], [17, 5, 19, 4, 6], [859, 495, 709, 556, 257]]
    assert draws.permutation(draws.key(2), 8).tolist() == [3, 5, 2, 4, 6, 1, 7, 0]
    torch.testing.assert_close(
        draws.normal(draws.key(3), 3, dtype=torch.float64),
        torch.tensor([0.6357127514954793, 0.23612570476375788, 0.34045737052464664], dtype=torch.float64),
    )


def test_the_mixing_function_is_splitmix64() -> None:
    """SplitMix64 seeded with 0 starts 0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4; slots count from 1, as its state does."""
    unsigned = [value & (2**64 - 1) for value in draws.bits(torch.tensor(0), 2).tolist()]
    assert unsigned == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]


def test_a_key_is_its_path_folded_in_part_by_part_whether_numbers_or_tensors() -> None:
    for seed in (-3, 0, 2**40):
        folded = draws.fold(draws.fold(draws.fold(draws.key(seed), "train"), -5), 2**33)
        assert draws.key(seed, "train", -5, 2**33) == draws.key(seed, "train", torch.tensor(-5), 2**33) == folded


def test_a_batch_of_keys_draws_what_each_key_draws_alone() -> None:
    keys = draws.key(7, "val", torch.arange(20))
    sizes = torch.arange(20) + 6
    for i, key in enumerate(keys):
        assert key == draws.key(7, "val", i)
        assert torch.equal(draws.bits(keys, 3, 2)[i], draws.bits(key, 3, 2))
        assert torch.equal(draws.uniform(keys, 5)[i], draws.uniform(key, 5))
        assert torch.equal(draws.normal(keys, 5)[i], draws.normal(key, 5))
        assert torch.equal(draws.noise(keys, 5)[i], draws.noise(key, 5))
        assert torch.equal(draws.permutation(keys, 9)[i], draws.permutation(key, 9))
        assert torch.equal(draws.distinct(keys, 6, sizes)[i], draws.distinct(key, 6, sizes[i]))


@pytest.mark.parametrize("name", ["bits", "uniform", "normal", "noise"])
def test_drawing_inside_vmap_equals_drawing_a_batch(name: str) -> None:
    keys, draw = draws.key(1, torch.arange(6)), getattr(draws, name)
    assert torch.equal(torch.func.vmap(lambda key: draw(draws.fold(key, "noise"), 4))(keys), draw(draws.fold(keys, "noise"), 4))


def test_uniform_draws_fill_the_unit_interval_evenly() -> None:
    """Chi-squared of 100 bins has mean 99 and standard deviation 14.1; 160 lies beyond four deviations."""
    for values in (draws.uniform(draws.key(0), 100_000), draws.uniform(draws.key(0, torch.arange(100_000)))):
        assert values.min() >= 0.0
        assert values.max() < 1.0
        counts = torch.histc(values, bins=100, min=0.0, max=1.0)
        assert ((counts - 1000) ** 2 / 1000).sum() < 160


def test_neighbouring_keys_and_slots_are_uncorrelated() -> None:
    table = draws.uniform(draws.key(0, "train", torch.arange(50_000)), 2, dtype=torch.float64)
    pairs = [(table[:-1, 0], table[1:, 0]), (table[:, 0], table[:, 1])]
    for first, second in pairs:
        assert abs(torch.corrcoef(torch.stack([first, second]))[0, 1]) < 4 / math.sqrt(50_000)


@pytest.mark.parametrize("draw", [draws.normal, draws.noise])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normal_draws_have_the_moments_of_the_standard_normal(draw: Callable[..., Tensor], dtype: torch.dtype) -> None:
    values = draw(draws.key(0), 200_000, dtype=dtype).double()
    assert values.isfinite().all()
    for power, expected, deviation in ((1, 0.0, 1.0), (2, 1.0, math.sqrt(2)), (3, 0.0, math.sqrt(15)), (4, 3.0, math.sqrt(96))):
        assert abs((values**power).mean() - expected) < 4 * deviation / math.sqrt(200_000)


def test_the_two_draws_of_one_word_are_uncorrelated_and_so_are_their_squares() -> None:
    first, second = draws.noise(draws.key(0), 100_000, 2, dtype=torch.float64).unbind(dim=1)
    for one, other in ((first, second), (first.square(), second.square())):
        assert abs(torch.corrcoef(torch.stack([one, other]))[0, 1]) < 4 / math.sqrt(100_000)


@pytest.mark.parametrize("name", ["bits", "uniform", "normal", "noise"])
def test_more_draws_begin_with_the_same_ones(name: str) -> None:
    draw = getattr(draws, name)
    assert torch.equal(draw(draws.key(0), 8)[:5], draw(draws.key(0), 5))


def test_noise_follows_box_and_muller() -> None:
    """From the word w: r = sqrt(-2 ln((w_high + 1/2) / 2^32)) and a = 2 pi w_low / 2^32 give r cos a and r sin a."""
    word = int(draws.bits(draws.key(5), 1)) % 2**64
    r, a = math.sqrt(-2 * math.log(((word >> 32) + 0.5) / 2**32)), 2 * math.pi * (word % 2**32) / 2**32
    expected = torch.tensor([r * math.cos(a), r * math.sin(a)], dtype=torch.float64)
    torch.testing.assert_close(draws.noise(draws.key(5), 2, dtype=torch.float64), expected)


def test_distinct_draws_never_repeat_and_stay_in_range() -> None:
    keys = draws.key(3, torch.arange(200))
    for count in (1, 2, 5, 20):
        for extra in (0, 1, 7, 1000):
            chosen = draws.distinct(keys, count, torch.full_like(keys, count + extra))
            assert chosen.min() >= 0
            assert chosen.max() < count + extra
            assert all(len(set(row)) == count for row in chosen.tolist())


@pytest.mark.parametrize("count", [1, 2, 5, 16, 33])
def test_distinct_draws_are_floyds_algorithm_turn_by_turn(count: int) -> None:
    """In turn i a number from 0 … size - count + i is added to the set; that upper end itself where the number is in the set."""
    keys = draws.key(5, torch.arange(60))
    for extra in (0, 1, 3, 500):
        found = draws.distinct(keys, count, torch.full_like(keys, count + extra))
        for key, row in zip(keys, found.tolist(), strict=True):
            chosen: list[int] = []
            for turn, chance in enumerate(draws.uniform(draws.fold(key, "set"), count, dtype=torch.float64).tolist()):
                candidate = int(chance * (extra + turn + 1))
                chosen.append(extra + turn if candidate in chosen else candidate)
            assert row == [chosen[place] for place in draws.permutation(draws.fold(key, "order"), count).tolist()]


def test_distinct_draws_put_every_element_in_every_place_equally_often() -> None:
    """Of 30,000 draws of 3 from 5, each element is in each place 6000 times, give or take 69 (binomial)."""
    chosen = draws.distinct(draws.key(0, torch.arange(30_000)), 3, torch.tensor(5).expand(30_000))
    for place in range(3):
        assert (torch.bincount(chosen[:, place], minlength=5) - 6000).abs().max() < 4 * 69


def test_a_permutation_holds_every_number_once() -> None:
    orders = draws.permutation(draws.key(0, torch.arange(100)), 13)
    assert torch.equal(orders.sort(dim=-1).values, torch.arange(13).expand(100, 13))


def test_integers_follow_a_size_of_their_own() -> None:
    sizes = torch.tensor([1, 2, 10])
    values = draws.integers(draws.key(0, torch.arange(3000))[:, None].expand(-1, 3), size=sizes)
    assert torch.equal(values.amax(dim=0), sizes - 1)
    assert torch.equal(values.amin(dim=0), torch.zeros(3, dtype=torch.int64))


def test_different_seeds_names_and_numbers_give_different_keys() -> None:
    keys = [draws.key(s, name, i).item() for s in range(-2, 5) for name in ("train", "val", "test", 0) for i in range(50)]
    assert len(set(keys)) == len(keys)
