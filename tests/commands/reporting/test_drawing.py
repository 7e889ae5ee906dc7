"""How a report draws."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from metarun.commands.reporting.drawing import ACCENT, INK, VARIABLES, Gallery, canvas, label, plain_log, spread, whole_numbers
from metarun.commands.reporting.html import template


def draw() -> Any:
    figure, axes = canvas(2.0)
    axes.plot([0, 1500], [1.0, 20.0], color=ACCENT)
    axes.set_title("a < b & $x$".replace("$", r"\$"))
    plain_log(axes)
    whole_numbers(axes)
    return figure


def test_each_colour_of_a_figure_is_a_variable_of_the_page() -> None:
    css = template("page.css")
    for color, name in VARIABLES.items():
        assert css.count(f"--{name}: ") == 3, f"--{name} needs a light, a dark and a printed value"
        assert f"--{name}: {color};" in css
    picture = Gallery().picture("a", draw)
    assert picture is not None
    assert "var(--c0)" in picture.svg
    assert not re.findall(f"{ACCENT}|{INK}", picture.svg)


def test_an_svg_refers_to_nothing_outside_of_it() -> None:
    picture = Gallery().picture("a", draw)
    assert picture is not None
    assert picture.svg.startswith("<svg")
    assert not re.search(r"https?:|xmlns|<!|<\?|@import|url\((?!#)", picture.svg)


def test_a_text_stays_text_and_is_escaped() -> None:
    picture = Gallery().picture("a", draw)
    assert picture is not None
    assert "a &lt; b &amp; $x$" in picture.svg
    assert "<style" not in picture.svg
    assert "font-family" not in picture.svg
    assert ">1,200</text>" in picture.svg


def test_equal_figures_give_equal_pictures_and_files(tmp_path: Path) -> None:
    first, second = Gallery(tmp_path / "1"), Gallery(tmp_path / "2")
    for gallery in (first, second):
        assert gallery.folder is not None
        gallery.folder.mkdir()
        gallery.picture("a", draw)
    assert first.written[0].read_bytes() == second.written[0].read_bytes()
    assert Gallery().picture("a", draw) == Gallery().picture("a", draw)


@pytest.mark.parametrize("form", ["png", "svg"])
def test_a_gallery_writes_the_wanted_pictures_alone(tmp_path: Path, form: str) -> None:
    gallery = Gallery(tmp_path, form, ["b"])
    for name in ("a", "b", "c"):
        gallery.picture(name, draw)
    assert gallery.picture("none", lambda: None) is None
    assert gallery.names == ["a", "b", "c"]
    assert [file.name for file in tmp_path.iterdir()] == [f"b.{form}"]


def test_labels_are_moved_apart() -> None:
    assert spread([0.0, 0.1, 0.2], 1.0, 0.0, 10.0) == pytest.approx([0.0, 1.0, 2.0])
    assert spread([9.9, 10.0], 1.0, 0.0, 10.0) == pytest.approx([9.0, 10.0])


def test_a_label_is_short_and_has_no_mathematics() -> None:
    assert label("$x$") == r"\$x\$"
    assert len(label("x" * 99)) == 30
