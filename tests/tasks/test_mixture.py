from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from small import Unnumbered

from metarun.errors import UserError
from metarun.tasks.ambiguous import ambiguous
from metarun.tasks.curves import line, quadratic
from metarun.tasks.mixture import Mixture, mixture
from metarun.tasks.pool import ClassPool
from metarun.tasks.regression import regression
from metarun.tasks.sampling import FewShot
from metarun.tasks.sinusoid import sinusoid
from metarun.types import Episode, Examples


def curves(**options):
    return mixture(sources={"sinusoid": sinusoid(), "line": line(), "quadratic": quadratic()}, **options)


def few_shot(images: int = 8, **options) -> FewShot:
    pool = ClassPool(torch.arange(6 * images, dtype=torch.uint8).reshape(-1, 1, 1, 1), [images] * 6, list("abcdef"))
    return FewShot({"train": pool, "val": pool, "test": pool}, ways=3, shots=2, queries=2, **options)


@dataclass(frozen=True)
class Slow:
    """A user's own source: no batch, no seeds, a mask where asked."""

    value: float
    masked: bool = False
    objective: str = "regression"

    def episode(self, split: str, index: int) -> Episode:
        part = Examples(
            torch.full((2, 1), self.value), torch.full((2, 1), float(index)), torch.tensor([True, False]) if self.masked else None
        )
        return Episode(part, part)


def test_every_episode_is_the_same_number_of_the_family_that_is_drawn_for_it():
    source, parts, indices = curves(seed=5), [sinusoid(seed=5), line(seed=5), quadratic(seed=5)], torch.tensor([9, 2, 40, 3, 3, 17, 8, 0])
    batch, families = source.batch("train", indices), source.family("train", indices)
    assert len(families.unique()) == 3
    for place, (family, index) in enumerate(zip(families.tolist(), indices.tolist(), strict=True)):
        for mixed, alone, single in zip(batch, parts[family].episode("train", index), source.episode("train", index), strict=True):
            assert torch.equal(mixed.x[place], alone.x)
            assert torch.equal(mixed.y[place], alone.y)
            assert torch.equal(single.y, alone.y)


def test_families_come_equally_often_without_weights():
    counts = curves().family("train", torch.arange(30_000)).bincount()
    assert (counts / 30_000 - 1 / 3).abs().max() < 0.015


def test_families_come_by_their_weights():
    drawn = curves(weights={"sinusoid": 0, "line": 3, "quadratic": 1}).family("train", torch.arange(20_000)).bincount(minlength=3)
    assert drawn[0] == 0
    assert drawn[1].item() / 20_000 == pytest.approx(0.75, abs=0.02)


def test_a_last_family_of_weight_zero_never_comes():
    source = curves(weights={"sinusoid": 1, "line": 1, "quadratic": 0})
    assert all(source.family(split, torch.arange(20_000)).max() == 1 for split in ("train", "val", "test"))


def test_an_evaluation_deals_the_families_in_turn_whatever_their_weights():
    source = curves(weights={"sinusoid": 7, "line": 0, "quadratic": 1}, eval_seed=3)
    assert source.family("val", torch.tensor([0, 1, 2, 3, 8])).tolist() == [0, 2, 0, 2, 0]
    assert source.family("test", torch.arange(600)).bincount().tolist() == [300, 0, 300]


def test_a_source_with_a_known_prior_draws_the_families_of_an_evaluation():
    assert ambiguous().source.family("val", torch.arange(2000)).double().mean().item() == pytest.approx(0.5, abs=0.05)
    assert ambiguous().source.family("val", torch.arange(8)).tolist() == [1, 1, 0, 1, 0, 1, 0, 1]


def test_the_draw_of_families_is_pinned():
    source = curves(seed=7)
    assert source.family("train", torch.arange(12)).tolist() == [1, 0, 1, 2, 0, 1, 0, 2, 0, 0, 1, 1]


def test_the_seed_changes_training_only():
    a, b, indices = curves(), curves(seed=1), torch.arange(100)
    assert not torch.equal(a.family("train", indices), b.family("train", indices))
    assert not torch.equal(a.batch("train", indices).query.x, b.batch("train", indices).query.x)
    assert torch.equal(a.batch("test", indices).query.y, b.batch("test", indices).query.y)


def test_shared_sizes_replace_those_of_the_sources():
    source = curves(shots=5, queries=7, train_queries=3)
    assert [len(part.x) for part in source.episode("train", 0)] == [5, 3]
    assert [len(part.x) for part in source.episode("val", 0)] == [5, 7]


def test_a_source_set_to_null_is_left_out():
    assert list(mixture(sources={"sinusoid": sinusoid(), "line": None}).sources) == ["sinusoid"]


def test_the_curve_is_that_of_the_family():
    source = curves()
    for index in range(8):
        query = source.episode("test", index).query
        torch.testing.assert_close(source.curve("test", index, query.x), query.y)


def test_masks_are_filled_in_where_only_some_families_pad():
    source = mixture(sources={"plain": Slow(0.0), "padded": Slow(1.0, masked=True)})
    for index in range(10):
        support = source.episode("train", index).support
        assert support.mask.tolist() == ([True, False] if support.x[0] == 1.0 else [True, True])
        assert support.y[0] == index
    assert mixture(sources={"plain": Slow(0.0)}).episode("train", 0).support.mask is None


def test_classification_sources_mix_with_variable_and_fixed_ways():
    source = mixture(sources={"fixed": few_shot(), "variable": few_shot(min_ways=2)})
    assert source.objective == "classification"
    batch = source.batch("train", torch.arange(40))
    assert batch.support.x.shape == (40, 6, 1, 1, 1)
    fixed = source.family("train", torch.arange(40)) == 0
    assert batch.support.mask[fixed].all()
    assert not batch.support.mask[~fixed].all()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"sources": {}}, "task.sources is empty"),
        ({"sources": {"a": sinusoid(), "b": few_shot()}}, "must share one objective; here a is regression, b is classification"),
        ({"sources": {"a": sinusoid(), "b": regression(shots=10)}}, r"train inputs are a \(1,\), b \(10,\)\. Leave one out"),
        ({"sources": {"a": sinusoid()}, "weights": {"b": 1}}, "task.weights names 'b', which is not among the sources a"),
        ({"sources": {"a": sinusoid(), "b": line()}, "weights": {"a": 1}}, "has no weight for the source 'b'"),
        ({"sources": {"a": sinusoid()}, "weights": {"a": -1}}, "task.weights.a=-1 must be a number of at least 0"),
        ({"sources": {"a": sinusoid()}, "weights": {"a": "much"}}, "task.weights.a=much must be a number"),
        ({"sources": {"a": sinusoid()}, "weights": {"a": 0}}, "task.weights are all 0"),
        ({"sources": {"a": Slow(0.0)}, "shots": 3}, "source 'a' of the mixture has no field 'shots' to set; give task.shots=null"),
        ({"sources": {"a": sinusoid()}, "shots": 0}, "task.shots=0 must be a whole number"),
    ],
)
def test_bad_arguments_are_told_in_a_sentence(options: dict, sentence: str):
    with pytest.raises(UserError, match=sentence):
        mixture(**options)


def test_each_episode_may_draw_its_shots_in_every_family():
    source = curves(shots=3, min_shots=1)
    batch, families = source.batch("train", torch.arange(200)), source.family("train", torch.arange(200))
    for family in range(3):
        assert batch.support.mask[families == family].sum(dim=1).unique().tolist() == [1, 2, 3]
    assert batch.query.mask is None


def test_the_shots_of_a_source_that_varies_by_itself_stay():
    source = mixture(sources={"few": sinusoid(shots=3, min_shots=1), "all": line(shots=3)})
    mask, families = source.batch("val", torch.arange(100)).support.mask, source.family("val", torch.arange(100))
    assert mask[families == 1].all()
    assert not mask[families == 0].all()


def test_noise_is_added_to_every_target_of_the_mixture():
    """20 sets of 100 queries: the deviation of the mean square 0.25 is 0.25 * sqrt(2 / 2000) = 0.008."""
    clean, noisy = curves(seed=2), curves(seed=2, noise=0.5)
    assert isinstance(clean, Mixture)
    before, after = (source.batch("val", torch.arange(20)) for source in (clean, noisy))
    assert torch.equal(before.query.x, after.query.x)
    assert (after.query.y - before.query.y).square().mean().item() == pytest.approx(0.25, abs=0.04)
    assert (after.support.y - before.support.y).square().mean().item() == pytest.approx(0.25, abs=0.08)
    x = torch.linspace(-1, 1, 5)[:, None]
    assert torch.equal(noisy.curve("val", 3, x), clean.curve("val", 3, x))
    with pytest.raises(UserError, match="this task is classification"):
        mixture(sources={"images": few_shot()}, noise=0.5)


def test_the_noise_of_a_mixture_is_independent_of_the_noise_of_its_sources():
    """Variances add up: 0.09 + 0.16 = 0.25, where the same draws twice would give 0.49."""
    inner = ambiguous(noise=0.3, shots=10, queries=100)
    clean, noisy = ambiguous(noise=0.0, shots=10, queries=100), mixture(sources={"inner": inner}, noise=0.4)
    difference = noisy.batch("val", torch.arange(40)).query.y - clean.batch("val", torch.arange(40)).query.y
    assert difference.square().mean().item() == pytest.approx(0.25, abs=0.03)


def test_sizes_and_seeds_reach_the_sources_inside_of_a_source():
    nested = mixture(sources={"noisy": ambiguous(), "mixed": curves(shots=4)}, shots=2, queries=6, seed=5)
    support, query = nested.episode("val", 0)
    assert (len(support.x), len(query.x)) == (2, 6)
    indices = torch.arange(30)
    batch, families = nested.batch("train", indices), nested.family("train", indices)
    for family, alone in enumerate((ambiguous(shots=2, queries=6, seed=5), curves(shots=2, queries=6, seed=5))):
        assert torch.equal(batch.query.y[families == family], alone.batch("train", indices[families == family]).query.y)


def test_a_numbered_mixture_numbers_the_classes_of_the_sources_that_can():
    plain = mixture(sources={"known": few_shot(), "other": Unnumbered(few_shot(seed=3))})
    assert plain.episode("train", 0).support.classes is None
    numbered, indices = plain.numbered(), torch.arange(20)
    batch, families = numbered.batch("train", indices), numbered.family("train", indices)
    alone = few_shot().numbered().batch("train", indices)
    for part, expected in zip(batch, alone, strict=True):
        assert torch.equal(part.classes[families == 0], expected.classes[families == 0])
        assert (part.classes[families == 1] == -1).all()
    assert torch.equal(batch.support.x, plain.batch("train", indices).support.x)
