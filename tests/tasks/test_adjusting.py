"""Values that a mixture sets for all of its sources."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from small import few_shot

from metarun.errors import UserError
from metarun.tasks.adjusting import adjusted, with_images
from metarun.tasks.curves import line
from metarun.tasks.mixture import Mixture, mixture
from metarun.tasks.pool import ClassPool
from metarun.tasks.sampling import FewShot
from metarun.types import Episode, Examples

SEEDS = {"seed": 3, "eval_seed": 4}


@dataclass(frozen=True)
class Own:
    """A user's own source of images: no sizes, no seeds, nothing to convert."""

    objective: str = "classification"

    def episode(self, split: str, index: int) -> Episode:
        part = Examples(torch.full((4, 3, 6, 6), 0.1 * index), torch.eye(2).repeat(2, 1))
        return Episode(part, part)


def colours(side: int = 6) -> FewShot:
    pool = ClassPool(torch.arange(4 * 9 * 3 * side**2).remainder(256).to(torch.uint8).view(-1, 3, side, side), [9] * 4, list("abcd"))
    return FewShot(dict.fromkeys(("train", "val", "test"), pool), ways=3, shots=2, queries=2)


def test_ways_labels_and_sizes_reach_image_sources():
    source = adjusted("a", few_shot(), {**SEEDS, "ways": 5, "train_ways": 4, "shots": 1, "train_labels": "global"})
    assert (source.ways, source.train_ways, source.shots, source.train_labels, source.seed, source.eval_seed) == (5, 4, 1, "global", 3, 4)


def test_functions_that_train_with_as_many_queries_as_shots_go_on_to():
    assert adjusted("a", line(shots=10, train_queries=10), {**SEEDS, "shots": 3}).sampling.train_queries == 3
    assert adjusted("a", line(shots=10, train_queries=50), {**SEEDS, "shots": 3}).sampling.train_queries == 50
    assert adjusted("a", line(shots=10, train_queries=10), {**SEEDS, "shots": 3, "train_queries": 7}).sampling.train_queries == 7


def test_functions_have_no_ways():
    with pytest.raises(UserError, match=r"the source 'a' of the mixture has no field 'ways' to set; give task.ways=null"):
        adjusted("a", line(), {**SEEDS, "ways": 5})


def test_images_of_several_shapes_become_one_shape():
    mixed = mixture(sources={"grey": few_shot(), "colour": colours()}, image_size=4, channels=1)
    assert mixed.batch("train", torch.arange(9)).support.x.shape == (9, 6, 1, 4, 4)
    nested = with_images("outer", Mixture({"inner": colours()}), 4, None)
    assert nested.episode("val", 0).support.x.shape == (6, 3, 4, 4)


def test_a_source_keeps_its_images_where_nothing_is_asked_or_they_fit():
    source = colours()
    assert with_images("a", source, None, None) is source
    assert with_images("a", source, 6, 3) is source
    own = Own()
    assert with_images("a", own, 6, None) is own


def test_inputs_that_are_no_images_are_not_converted():
    with pytest.raises(UserError, match=r"task.image_size converts images, and the source 'a' of the mixture deals inputs of shape \(1,\)"):
        with_images("a", line(), 28, None)
    with pytest.raises(UserError, match=r"task.channels converts images, and the source 'a' .* deals inputs of shape \(3, 6, 6\)"):
        with_images("a", Own(), None, 1)
