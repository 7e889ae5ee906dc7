"""The names behind the columns of an episode's labels."""

from __future__ import annotations

from typing import Any

import torch
from small import few_shot

from metarun.commands.class_names import names_by_number, names_in
from metarun.tasks.mixture import Mixture
from metarun.tasks.pool import SPLITS, ClassPool
from metarun.tasks.sampling import FewShot
from metarun.tasks.sinusoid import sinusoid


def marked(names: list[str], first: int, data: str, **sampling: Any) -> FewShot:
    """Return classes whose images all have the pixel value first, first + 1, …"""
    images = torch.arange(first, first + len(names)).repeat_interleave(6).to(torch.uint8)[:, None, None, None].expand(-1, 1, 4, 4)
    pool = ClassPool(images.contiguous(), [6] * len(names), names)
    return FewShot(dict.fromkeys(SPLITS, pool), shots=2, queries=2, data=data, **sampling)


def test_each_column_has_the_name_of_the_class_whose_images_carry_its_label() -> None:
    names = ["cat", "dog", "emu", "fox"]
    source = marked(names, 10, "animals", ways=3)
    for index in range(5):
        episode = source.episode("val", index)
        marks = (255 * episode.support.x[:, 0, 0, 0]).round().int() - 10
        found = names_in(source, "val", index)
        assert found is not None
        assert [found[column] for column in episode.support.y.argmax(dim=1).tolist()] == [names[mark] for mark in marks.tolist()]


def test_a_mixture_names_the_classes_of_the_family_of_the_episode() -> None:
    source = Mixture({"a": marked(["cat", "dog"], 0, "a", ways=2), "b": marked(["oak", "elm", "ash"], 0, "b", ways=3)})
    found = [names_in(source, "val", index) for index in range(4)]
    assert all(set(names or ()) in ({"cat", "dog", ""}, {"oak", "elm", "ash"}) for names in found)
    assert len({len(set(names or ())) for names in found}) >= 1


def test_a_source_without_names_has_none() -> None:
    assert names_in(sinusoid(shots=2, queries=2), "val", 0) is None
    assert names_by_number(sinusoid(shots=2, queries=2), "val") == {}
    assert names_by_number(few_shot(), "nowhere") == {}
