"""Random changes of training photographs: how far they go, that they are exact, and where they apply."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from metarun import draws
from metarun.tasks.augment import BRIGHTNESS, LEAST, SHAPE, augmented, drawn
from metarun.tasks.pool import SPLITS, ClassPool
from metarun.tasks.sampling import FewShot


def keys(count: int) -> torch.Tensor:
    return draws.fold(torch.tensor(7), torch.arange(count))


def a_source(size: int = 8, channels: int = 3, **sampling: Any) -> FewShot:
    pixels = (255 * draws.uniform(torch.tensor(3), 60, channels, size, size)).to(torch.uint8)
    pool = ClassPool(pixels, [10] * 6, [f"c{number}" for number in range(6)])
    return FewShot(dict.fromkeys(SPLITS, pool), **{"ways": 3, "shots": 2, "queries": 3, **sampling})


def test_windows_stay_inside_the_picture_and_keep_the_stated_area_and_shape() -> None:
    window, brightness = drawn(keys(20_000))
    length, centre = window.abs()[..., 0], window[..., 1]
    assert (length + centre.abs() <= 1 + 1e-6).all()
    width, height = length.unbind(dim=1)
    assert LEAST * (1 - 1e-5) <= float((width * height).min()) < LEAST * 1.05
    assert float((width * height).max()) > 0.97
    inside = (width < 1) & (height < 1)
    ratio = (width / height)[inside]
    assert 1 / SHAPE - 1e-5 <= float(ratio.min()) < 0.79
    assert 1.26 < float(ratio.max()) <= SHAPE + 1e-5
    assert abs(float((window[:, 0, 0] < 0).float().mean()) - 0.5) < 0.02
    assert pytest.approx((float(brightness.min()), float(brightness.max())), abs=1e-3) == (1 - BRIGHTNESS, 1 + BRIGHTNESS)


def test_a_ramp_shows_the_window_the_mirror_and_the_brightness() -> None:
    """The picture is x on a line from -1 to 1, so the crop must show centre + length * x at each of its pixels."""
    centres = (2 * torch.arange(64) + 1) / 64 - 1
    ramp = (0.5 + 0.25 * centres).expand(100, 1, 64, 64)
    window, brightness = drawn(keys(100))
    seen = window[:, 0, :1] * centres + window[:, 0, 1:]
    expected = (brightness[:, None] * (0.5 + 0.25 * seen.clamp(centres[0], centres[-1]))).clamp(0, 1)
    assert torch.allclose(augmented(ramp, keys(100)), expected[:, None, None, :].expand(-1, 1, 64, -1), atol=1e-5)
    tall = augmented(ramp.transpose(2, 3), keys(100))
    seen = window[:, 1, :1] * centres + window[:, 1, 1:]
    expected = (brightness[:, None] * (0.5 + 0.25 * seen.clamp(centres[0], centres[-1]))).clamp(0, 1)
    assert torch.allclose(tall, expected[:, None, :, None].expand(-1, 1, -1, 64), atol=1e-5)


def test_a_picture_changes_alike_alone_and_among_others() -> None:
    images = draws.uniform(torch.tensor(1), 50, 3, 84, 84)
    together = augmented(images, keys(50))
    for place in (0, 17, 49):
        assert torch.equal(augmented(images[place : place + 1], keys(50)[place : place + 1]), together[place : place + 1])
    assert float(together.min()) >= 0
    assert float(together.max()) <= 1


@pytest.mark.parametrize("options", [{}, {"min_shots": 1, "min_ways": 2}, {"train_labels": "global"}, {"channels": 1}])
def test_training_pictures_change_and_nothing_else_does(options: dict[str, Any]) -> None:
    plain, changed = a_source(**options), a_source(augment=True, **options)
    for split in SPLITS:
        one, other = plain.batch(split, torch.arange(4)), changed.batch(split, torch.arange(4))
        for before, after in zip(one, other, strict=True):
            assert torch.equal(before.x, after.x) == (split != "train")
            assert torch.equal(before.y, after.y)
            assert (before.mask is None) == (after.mask is None)
            assert before.mask is None or torch.equal(before.mask, after.mask)


def test_an_augmented_episode_depends_on_its_number_and_seed_alone() -> None:
    source = a_source(augment=True)
    batch = source.batch("train", torch.tensor([5, 2, 9]))
    for place, index in enumerate((5, 2, 9)):
        for part, whole in zip(a_source(augment=True).episode("train", index), batch, strict=True):
            assert torch.equal(part.x, whole.x[place])
    assert not torch.equal(a_source(augment=True, seed=1).episode("train", 5).query.x, batch.query.x[0])


def test_one_picture_changes_differently_in_another_place_and_in_another_episode() -> None:
    pool = ClassPool(draws.uniform(torch.tensor(3), 1, 3, 8, 8).mul(255).to(torch.uint8).expand(20, -1, -1, -1), [10, 10], ["a", "b"])
    source = FewShot(dict.fromkeys(SPLITS, pool), ways=2, shots=2, queries=2, augment=True)
    shown = torch.cat([part.x.flatten(0, 1) for part in source.batch("train", torch.arange(3))]).flatten(1)
    assert len(shown.unique(dim=0)) == len(shown) == 24


def test_the_changes_of_the_first_episode_are_pinned() -> None:
    """Other numbers would change the episodes of every run with augmentation."""
    window, brightness = drawn(draws.fold(torch.tensor(0), torch.arange(2)))
    expected = [0.983186, -0.003796, 0.875704, 0.038883, -0.776749, 0.16927, 0.914701, -0.059554]
    assert window.flatten().tolist() == pytest.approx(expected, abs=1e-6)
    assert brightness.tolist() == pytest.approx([0.858494, 1.004923], abs=1e-6)
