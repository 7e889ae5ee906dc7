"""Families of different ways and shots in one batch."""

from __future__ import annotations

import pytest
import torch
from small import algorithm_of, few_shot

from metarun import draws
from metarun.engine.evaluation import score_episode
from metarun.engine.training import gradients_of
from metarun.episodes import deal
from metarun.errors import UserError
from metarun.tasks.curves import line
from metarun.tasks.joining import layout_of
from metarun.tasks.mixture import Mixture
from metarun.tasks.regression import regression
from metarun.tasks.sinusoid import sinusoid
from metarun.testing import assert_same, double, start

INDICES = torch.arange(12)


def families() -> dict[str, object]:
    """Three families of 8x8 images: 3-way 2-shot, 2-way 5-shot, and 4-way 1-shot with more queries."""
    return {
        "a": few_shot(ways=3, shots=2, queries=3),
        "b": few_shot(ways=2, shots=5, queries=2, seed=1),
        "c": few_shot(ways=4, shots=1, queries=4),
    }


def test_a_layout_has_the_rows_and_columns_of_the_largest_family():
    shown = {name: source.episode("train", 0) for name, source in families().items()}
    layout = layout_of(shown, "train", "classification", all_classes=False)
    assert layout.rows == {"support": 10, "query": 16}
    assert (layout.columns, layout.first) == (4, [0, 0, 0])
    assert layout.masked == {"support": True, "query": True}


def test_labels_among_all_classes_follow_one_another_and_need_no_mask():
    """9 classes each, so the second family begins in column 9."""
    sources = {name: few_shot(ways=3, shots=2, queries=3, train_labels="global", seed=seed) for seed, name in enumerate("ab")}
    mixed = Mixture(sources)
    assert mixed.train_labels == "global"
    batch, which = mixed.batch("train", INDICES), mixed.family("train", INDICES)
    assert batch.support.y.shape == (12, 6, 18)
    assert batch.support.mask is None
    for place, source in enumerate(sources.values()):
        alone = source.batch("train", INDICES[which == place])
        for part, expected in zip(batch, alone, strict=True):
            assert torch.equal(part.y[which == place][..., 9 * place : 9 * place + 9], expected.y)
            assert (part.y[which == place].sum(dim=-1) == 1).all()
    assert mixed.batch("val", INDICES).support.y.shape == (12, 6, 3)


def test_sources_with_different_training_labels_are_refused():
    with pytest.raises(UserError, match=r"same train_labels; here a has global, b has episode\. Set task"):
        Mixture({"a": few_shot(train_labels="global"), "b": few_shot()})


def test_every_padded_episode_holds_the_episode_of_its_family_first():
    sources = families()
    mixed = Mixture(sources)
    batch, which = mixed.batch("train", INDICES), mixed.family("train", INDICES)
    assert len(which.unique()) == 3
    for place, source in enumerate(sources.values()):
        alone = source.batch("train", INDICES[which == place])
        for part, expected in zip(batch, alone, strict=True):
            rows, columns = expected.y.shape[1:]
            mine = which == place
            assert torch.equal(part.x[mine][:, :rows], expected.x)
            assert torch.equal(part.y[mine][:, :rows, :columns], expected.y)
            assert part.mask[mine][:, :rows].all()
            assert not part.mask[mine][:, rows:].any()
            assert part.y[mine].sum() == expected.y.sum()


def test_class_numbers_of_a_smaller_family_end_with_minus_one():
    mixed = Mixture(families()).numbered()
    batch, which = mixed.batch("train", INDICES), mixed.family("train", INDICES)
    alone = families()["b"].numbered().batch("train", INDICES[which == 1])
    assert torch.equal(batch.query.classes[which == 1][:, :2], alone.query.classes)
    assert (batch.query.classes[which == 1][:, 2:] == -1).all()


@pytest.mark.parametrize("name", ["protonet", "matching", "nearest", "r2d2"])
def test_a_padded_episode_of_a_family_gives_the_loss_gradient_and_score_of_the_family_alone(name: str):
    """Metric methods have no weights for each class, so the 4 columns of the mixture change nothing for 2 classes."""
    sources = families()
    mixed, algorithm = Mixture(sources), algorithm_of(name)
    params, state = start(algorithm)
    which = mixed.family("train", INDICES)
    for place, source in enumerate(sources.values()):
        at = INDICES[which == place][:2]
        keys = draws.key(0, "train", at)
        padded, alone = (double(deal(each, "train", at)) for each in (mixed, source))
        found, expected = (gradients_of(algorithm, params, state, batch, keys, torch.tensor(0)) for batch in (padded, alone))
        assert_same(found[:2], expected[:2], "padding changes the gradient or the loss of a family")
        one, other = (
            score_episode(algorithm, params, state, double(each.episode("train", int(at[0]))), keys[0])["by_step"]
            for each in (mixed, source)
        )
        assert_same(one, other, "padding changes the score of a family")


def test_a_single_family_is_dealt_as_it_is():
    source = families()["a"]
    for part, expected in zip(Mixture({"a": source}).episode("val", 4), source.episode("val", 4), strict=True):
        assert torch.equal(part.x, expected.x)
        assert part.mask is None


def test_function_families_may_differ_in_shots():
    sources = {"a": sinusoid(shots=3), "b": line(shots=10)}
    batch = Mixture(sources).batch("val", torch.arange(2))
    assert batch.support.mask.sum(dim=1).tolist() == [3, 10]
    assert batch.query.mask is None


def test_families_of_other_inputs_or_targets_are_refused_with_the_remedy():
    with pytest.raises(UserError, match=r"inputs are a \(1, 8, 8\), b \(1, 4, 4\)\. Convert .* task.image_size=4 task.channels=1"):
        Mixture({"a": few_shot(), "b": few_shot(side=4)})
    with pytest.raises(UserError, match=r"inputs are a \(1,\), b \(10,\)\. Leave one out, such as task.sources.b=null"):
        Mixture({"a": sinusoid(), "b": regression()})
