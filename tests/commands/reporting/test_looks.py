"""The sections from a look at episodes, with hand-made predictions."""

from __future__ import annotations

import base64
import io

import pytest
import torch
from PIL import Image

from metarun.commands.reporting.drawing import Gallery
from metarun.commands.reporting.looking import Look, Shown, _count_classes
from metarun.commands.reporting.looks import (
    accuracies,
    calibration_section,
    classes_section,
    episodes_section,
    png,
    reliability,
    scatter_section,
    tiles,
)
from metarun.commands.reporting.page import Picture, Table, Tiles
from metarun.types import Examples


def test_a_bin_has_its_mean_confidence_its_accuracy_and_its_share() -> None:
    """15 bins: 0.5 and 0.52 are in the eighth, (7/15, 8/15]; 0.99 is in the last."""
    found = reliability([(0.5, True), (0.52, False), (0.99, True), (0.98, True)])
    assert [tuple(round(value, 6) for value in each) for each in found] == [(0.51, 0.5, 0.5), (0.985, 1.0, 0.5)]
    assert reliability([(0.0, False), (1.0, True)]) == [(0.0, 0.0, 0.5), (1.0, 1.0, 0.5)]


def look() -> Look:
    """A look at one task of three classes: two queries of each; one query of oak is taken for elm, and padding is left out."""
    found = Look(episodes=1)
    guesses = torch.tensor([0, 1, 1, 1, 2, 2, 0])
    probabilities = 0.8 * torch.nn.functional.one_hot(guesses, 3) + 0.2 / 3
    y = torch.nn.functional.one_hot(torch.tensor([0, 0, 1, 1, 2, 2, 1]), 3).float()
    mask = torch.tensor([True] * 6 + [False])
    _count_classes(found, probabilities, Examples(torch.zeros(7, 1), y, mask), ["oak", "elm", "fir"])
    return found


def test_the_hardest_class_is_first() -> None:
    assert accuracies(look()) == [("oak", 0.5, 2), ("elm", 1.0, 2), ("fir", 1.0, 2)]
    assert len(look().confidence) == 6


def test_the_classes_section_has_the_hardest_classes_the_confusion_and_the_mistakes() -> None:
    found = classes_section({"maml": look()}, Gallery())
    assert found is not None
    hardest, picture, mistakes = found.blocks
    assert isinstance(hardest, Table)
    assert isinstance(picture, Picture)
    assert isinstance(mistakes, Table)
    assert [cell.text for cell in hardest.rows[0]] == ["oak", "50.0 %", "2"]
    assert [cell.text for cell in mistakes.rows[0]] == ["oak", "elm", "1", "50.0 %"]
    assert classes_section({"maml": Look()}, Gallery()) is None


def test_classes_that_rarely_meet_have_no_picture() -> None:
    found = Look()
    for name in map(str, range(15)):
        found.confused[name, name] = found.met[name, name] = 3
    section = classes_section({"a": found}, Gallery())
    assert section is not None
    assert not any(isinstance(block, Picture) for block in section.blocks)


def test_the_reliability_is_drawn() -> None:
    assert calibration_section({"maml": look()}, Gallery()) is not None
    assert calibration_section({"maml": Look()}, Gallery()) is None


def test_predictions_stand_against_the_true_targets() -> None:
    one, two = Look(pairs=[(0.0, 0.1, 0), (1.0, 0.9, 0)]), Look(pairs=[(0.0, 0.1, 0), (1.0, 0.9, 1)])
    assert scatter_section({"maml": one}, [], Gallery()) is not None
    section = scatter_section({"maml": two}, ["price", "rent"], Gallery())
    assert section is not None
    picture = section.blocks[0]
    assert isinstance(picture, Picture)
    assert "maml, price" in picture.svg
    assert "maml, rent" in picture.svg
    assert scatter_section({"maml": Look()}, [], Gallery()) is None


def test_each_query_is_marked_right_or_wrong() -> None:
    x, y = torch.rand(2, 1, 8, 8), torch.eye(2)
    episode = Shown(Examples(x, y), Examples(x, y), torch.tensor([[0.9, 0.1], [0.6, 0.4]]), ["a/oak", "a/elm"])
    shown = tiles("t", episode)
    assert [row.title for row in shown.rows] == ["1: a/oak", "2: a/elm"]
    assert [(tile.mark, tile.text) for row in shown.rows for tile in row.query] == [("right", "90%"), ("wrong", "1: 60%")]
    section = episodes_section({"maml": Look(shown={0: episode})}, Gallery(), {})
    assert section is not None
    assert any(isinstance(block, Tiles) for block in section.blocks)


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_is_a_small_png(channels: int) -> None:
    image = Image.open(io.BytesIO(base64.b64decode(png(torch.rand(channels, 200, 100)))))
    assert image.size == (42, 84)
    assert image.format == "PNG"
