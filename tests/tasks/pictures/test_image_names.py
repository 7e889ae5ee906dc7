"""Which names count as images."""

from __future__ import annotations

import pytest

from metarun.tasks.pictures.image_names import hidden, may_be_image


@pytest.mark.parametrize("name", ["a/1.JPG", "b.jpeg", "IMG.HEIC", "no_ending", "x.unknown"])
def test_a_file_must_be_an_image_unless_its_name_says_otherwise(name: str) -> None:
    assert may_be_image(name)


@pytest.mark.parametrize("name", ["Thumbs.db", "a/README", "notes.TXT", "1.xmp", "clip.MOV"])
def test_files_of_other_kinds_are_left_out(name: str) -> None:
    assert not may_be_image(name)


@pytest.mark.parametrize(("name", "expected"), [(".DS_Store", True), ("__MACOSX", True), ("@eaDir", True), ("oak", False)])
def test_hidden_files_and_folders_of_devices_are_left_out(name: str, expected: bool) -> None:
    assert hidden(name) == expected
