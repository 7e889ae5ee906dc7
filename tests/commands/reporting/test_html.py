"""The HTML of a page: everything is escaped, and nothing is fetched."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from metarun.commands.reporting.drawing import Gallery, canvas, label
from metarun.commands.reporting.html import MARK, parts, rendered
from metarun.commands.reporting.page import Cell, Command, Listing, Page, Prose, Section, Table, Tile, TileRow, Tiles, code, section, shown

HOSTILE = "<script>alert(1)</script>\"'&`]]>\x1b[2J\u202e$\\frac{1}{0}$" + "x" * 400


def page() -> Page:
    """Return a page with every kind of block, each with a hostile name in each of its texts."""

    def draw():
        figure, axes = canvas(2.0)
        axes.plot([0, 1], [0, 1])
        axes.set_title(label(HOSTILE))
        axes.set_yticks([0.5], [label(HOSTILE)])
        return figure

    picture = Gallery().picture("hostile", draw, code(HOSTILE), alt=HOSTILE)
    assert picture is not None
    tile = Tile(base64.b64encode(b"png").decode(), "right", shown(HOSTILE))
    rows = [[Cell(code(HOSTILE)), Cell("1.0", 1.0)]] * 10
    blocks = (
        picture,
        Table([shown(HOSTILE), "score"], rows, code(HOSTILE)),
        Prose(code(HOSTILE)),
        Command(HOSTILE, code(HOSTILE)),
        Listing([code(HOSTILE)], "warning"),
        Tiles(code(HOSTILE), [TileRow(shown(HOSTILE), [tile], [tile])]),
    )
    return Page(HOSTILE, [code(HOSTILE)], [(HOSTILE, HOSTILE)], [Section("a", HOSTILE, blocks)] * 3, HOSTILE)


HTML = rendered(page())


class Reader(HTMLParser):
    """Collects the tags of a page with their attributes, and the text of the scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(HTML)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script":
            self.scripts.append(data)


READ = Reader()


def test_no_text_becomes_a_script() -> None:
    assert [tag for tag, _ in READ.tags].count("script") == 1
    assert "alert" not in READ.scripts[0]
    assert "&lt;script&gt;alert(1)" in HTML
    assert "<script>alert" not in HTML


def test_no_tag_has_an_attribute_that_runs_code() -> None:
    assert not [key for _, attributes in READ.tags for key in attributes if key.startswith("on")]


def test_the_page_refers_to_nothing_outside_of_it() -> None:
    fetching = ("src", "href", "xlink:href", "action", "poster", "srcset", "data", "background")
    named = {value for _, attributes in READ.tags for key, value in attributes.items() if key in fetching and value}
    assert named
    assert all(value.startswith(("data:image/png;base64,", "#")) for value in named)
    assert not re.search(r"@import|url\((?!#)|https?:|//cdn", HTML.replace("\\", ""))
    assert "link" not in {tag for tag, _ in READ.tags}


def test_the_policy_of_the_page_allows_its_own_script_alone() -> None:
    policy = next(attributes["content"] or "" for tag, attributes in READ.tags if attributes.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(READ.scripts[0].encode()).digest()).decode()
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy


def test_no_control_character_reaches_the_page() -> None:
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202a-\u202e]", HTML)


def test_a_long_name_is_shortened() -> None:
    assert len(shown("x" * 400)) == 160


@pytest.mark.parametrize("name", ["page.html", "blocks.html", "page.css", "page.js"])
def test_the_templates_ship_with_the_package(name: str) -> None:
    from metarun.commands.reporting.html import template

    assert template(name)


def test_a_report_is_known_by_its_mark() -> None:
    assert MARK in HTML[:1000]


def test_text_between_backticks_is_code() -> None:
    assert parts("a `b<i>` c") == [(False, "a "), (True, "b<i>"), (False, " c")]
    assert "a <code>b&lt;i&gt;</code> c" in rendered(Page("t", ["a `b<i>` c"], [], []))


def test_a_section_without_content_is_absent() -> None:
    assert section("a", "A", None, Prose("only words")) is None
    assert section("a", "A", Prose("words"), Listing(["one"])) is not None


def test_dark_and_print_have_colours_of_their_own() -> None:
    assert "prefers-color-scheme: dark" in HTML
    assert "@media print" in HTML
