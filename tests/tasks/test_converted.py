"""Images of one shape as those of another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from small import few_shot

from metarun.errors import UserError
from metarun.tasks.converted import convert, fit_images


def pictures(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_grey_is_the_luminance_that_pillow_computes():
    colour = pictures(3, 3, 5, 4)
    grey = convert(colour, (1, 5, 4))
    expected = np.stack([np.asarray(Image.fromarray(image.permute(1, 2, 0).numpy()).convert("L")) for image in colour])
    assert grey.shape == (3, 1, 5, 4)
    assert np.abs(grey[:, 0].numpy().astype(int) - expected).max() <= 1


def test_colour_is_grey_three_times():
    grey = pictures(2, 1, 4, 4)
    assert torch.equal(convert(grey, (3, 4, 4)), grey.expand(-1, 3, -1, -1))


def test_halving_averages_and_a_plain_picture_stays_plain():
    plain = torch.full((1, 1, 8, 8), 77, dtype=torch.uint8)
    assert torch.equal(convert(plain, (1, 4, 4)), torch.full((1, 1, 4, 4), 77, dtype=torch.uint8))
    assert torch.equal(convert(plain, (3, 12, 6)), torch.full((1, 3, 12, 6), 77, dtype=torch.uint8))
    split = torch.zeros(1, 1, 16, 16, dtype=torch.uint8)
    split[..., 8:] = 200
    half = convert(split, (1, 8, 8))[0, 0]
    assert half[:, 0].eq(0).all()
    assert half[:, -1].eq(200).all()


def test_images_that_fit_are_the_same_tensor_and_two_channels_are_refused():
    images = pictures(2, 1, 4, 4)
    assert convert(images, (1, 4, 4)) is images
    with pytest.raises(UserError, match="takes images of 3 channels, and this data set has 2"):
        convert(pictures(2, 2, 4, 4), (3, 4, 4))


def test_a_source_deals_the_same_episodes_of_converted_images():
    source = few_shot()
    assert fit_images(source, source.pools["train"].images.shape[1:]) is source
    shape = (3, 6, 6)
    other = fit_images(source, shape)
    before, after = source.episode("test", 3), other.episode("test", 3)
    assert torch.equal(before.support.y, after.support.y)
    converted = convert((before.support.x * 255).round().to(torch.uint8), shape)
    torch.testing.assert_close(after.support.x, converted / 255.0)


def test_a_tensor_that_splits_share_is_converted_once():
    source = few_shot()
    pool = source.pools["train"]
    shared = {split: replace(pool, rows=torch.arange(len(pool.images))) for split in source.pools}
    pools = fit_images(replace(source, pools=shared), (1, 4, 4)).pools
    assert len({id(each.images) for each in pools.values()}) == 1
