"""The picture of an episode of images, read back from the figure."""

from __future__ import annotations

import pytest
import torch
from figures import png, texts

from metarun.records.episode_picture import episode_figure, shown_names


def episode(ways: int, shots: int, queries: int, channels: int = 1) -> dict[str, torch.Tensor]:
    eye = torch.eye(ways)
    return {
        "support_x": torch.linspace(0, 1, ways * shots * channels * 64).reshape(-1, channels, 8, 8),
        "support_y": eye.repeat_interleave(shots, 0),
        "query_x": torch.linspace(0, 1, ways * queries * channels * 64).reshape(-1, channels, 8, 8),
        "query_y": eye.repeat_interleave(queries, 0),
        "probabilities": 0.8 * eye.repeat_interleave(queries, 0) + 0.2 / ways,
    }


@pytest.mark.parametrize("channels", [1, 3])
def test_an_episode_shows_every_image_with_its_prediction(channels: int) -> None:
    given = episode(3, 2, 4, channels)
    given["probabilities"][0] = torch.tensor([0.2, 0.7, 0.1])
    figure = episode_figure(**given)
    assert len(figure.axes[0].images) == 3 * (2 + 4)
    assert "✗ 1  70%" in texts(figure)
    assert texts(figure).count("✓ 0  87%") == 3
    assert any("11 of 12 right" in text for text in texts(figure))
    assert png(figure).startswith(b"\x89PNG")


@pytest.mark.parametrize(("ways", "shots", "queries"), [(1, 1, 1), (2, 1, 1), (5, 1, 2), (10, 5, 1), (3, 9, 3)])
def test_a_small_episode_is_drawn_without_a_warning(ways: int, shots: int, queries: int) -> None:
    """A warning is an error here: matplotlib warns where the words leave no room for the images."""
    assert png(episode_figure(**episode(ways, shots, queries))).startswith(b"\x89PNG")


def test_images_stand_in_the_row_of_their_class_whatever_their_order() -> None:
    given = episode(2, 1, 1)
    for name in ("query_x", "query_y", "probabilities"):
        given[name] = given[name].flip(0)
    drawn = episode_figure(**given).axes[0].images
    by_height = sorted((image for image in drawn if image.get_extent()[0] > 1), key=lambda image: image.get_extent()[3])
    expected = given["query_x"].flip(0)[:, 0]
    for image, pixels in zip(by_height, expected, strict=True):
        torch.testing.assert_close(torch.tensor(image.get_array().data), pixels)


def test_padding_is_not_drawn_and_not_counted() -> None:
    given = episode(3, 2, 2)
    support_mask = torch.tensor([True, False, True, True, False, False])
    query_mask = torch.tensor([True] * 4 + [False] * 2)
    figure = episode_figure(**given, support_mask=support_mask, query_mask=query_mask)
    assert len(figure.axes[0].images) == 3 + 4
    assert any("4 of 4 right" in text for text in texts(figure))


def test_a_large_episode_is_cut_and_its_accuracy_still_over_all() -> None:
    figure = episode_figure(**episode(20, 10, 15))
    assert len(figure.axes[0].images) == 10 * (5 + 8)
    assert any("300 of 300 right" in text for text in texts(figure))


@pytest.mark.parametrize(("size", "ways"), [((8, 8), 3), ((6, 12), 3), ((12, 6), 10), ((5, 20), 1)])
def test_an_image_keeps_the_ratio_of_its_sides_on_the_screen(size: tuple[int, int], ways: int) -> None:
    given = episode(ways, 2, 3)
    for name in ("support_x", "query_x"):
        given[name] = torch.zeros(len(given[name]), 1, *size)
    figure = episode_figure(**given)
    png(figure)  # lays the figure out
    (axes,) = figure.axes
    for image in axes.images:
        left, right, bottom, top = image.get_extent()
        (x0, y0), (x1, y1) = axes.transData.transform([(left, bottom), (right, top)])
        assert (x1 - x0) / (y1 - y0) == pytest.approx(size[1] / size[0], rel=1e-6)


def test_the_names_of_the_classes_stand_beside_their_rows_and_in_the_predictions() -> None:
    given = episode(3, 2, 4)
    given["probabilities"][0] = torch.tensor([0.2, 0.7, 0.1])
    figure = episode_figure(**given, names=["a/cat", "a/dog", "a/$x$"])
    shown = texts(figure)
    assert {"cat", "dog", "$x$", "✗ 70%\ndog", "✓ 87%"} <= set(shown)
    assert png(figure).startswith(b"\x89PNG")


def test_a_name_loses_the_folders_that_all_share_and_its_middle_where_it_is_long() -> None:
    assert shown_names(["omniglot/Greek/c01", "omniglot/Latin/c01"], 2, 20) == ["Greek/c01", "Latin/c01"]
    assert shown_names(["n01-a-long-name-for-a-donkey", "cat"], 2, 9) == ["n01-…nkey", "cat"]
    assert shown_names(["x/a", "x"], 2, 9) == ["x/a", "x"]
    assert shown_names(["a\nb"], 1, 9) == ["a\ufffdb"]
    assert shown_names(None, 3, 9) == ["0", "1", "2"]


@pytest.mark.parametrize("ways", [1, 2, 10])
def test_long_names_leave_room_for_the_images(ways: int) -> None:
    names = [f"{n} " + 60 * "w" for n in range(ways)]
    assert png(episode_figure(**episode(ways, 1, 1), names=names)).startswith(b"\x89PNG")
