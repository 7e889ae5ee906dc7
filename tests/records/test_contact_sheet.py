"""The contact sheet: which images it shows, what stands below them, and that text of the user's stays text."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from metarun.records import contact_sheet
from metarun.records.contact_sheet import Query, Sheet, choose


class Reader(HTMLParser):
    """Notes the tags with their attributes, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def sheet(queries: list[Query], labels: list[str], lines: tuple[str, ...] = (), title: str = "t") -> str:
    shown = choose(queries, labels, list(dict.fromkeys(labels)))
    jpegs = {place: b"q%d" % place for places in shown.queries.values() for place in places}
    known = {place: b"s%d" % place for places in shown.support.values() for place in places}
    return Sheet(title, lines, queries, labels, shown, jpegs, known, "none of these").html()


def test_known_pictures_stand_above_the_queries_and_each_label_has_a_heading() -> None:
    page = sheet([Query("1.png", "cat", 0.875), Query("2.png", "dog", 0.5), Query("3.png", None, 0.25)], ["cat", "dog", "cat"])
    text = Reader(page).text
    headings = re.findall(r"<h[23][^>]*>(.*?)</h[23]>", page)
    plain = [re.sub(r"<[^>]*>", "", each) for each in headings]
    assert plain == ["Known images", "cat 2", "dog 1", "Predictions", "cat 1", "dog 1", "none of these 1"]
    assert "cat 88\u00a0%" in text
    assert page.index("czI=") < page.index("cTA=")  # "s2" before "q0"


def test_wrong_and_rejected_pictures_are_marked_in_words_too() -> None:
    page = sheet(
        [Query("1", "cat", 0.9, "dog"), Query("2", None, 0.3, "owl"), Query("3", "cat", 0.9, "cat"), Query("4", "dog", 0.9)], ["cat", "dog"]
    )
    kinds = [attributes.get("class") for tag, attributes in Reader(page).tags if tag == "figure"]
    assert sorted(map(str, kinds)) == ["None", "None", "none", "wrong"]
    text = Reader(page).text
    assert "✗ cat 90\u00a0%is dog" in text
    assert "none of these 30\u00a0%is owl" in text


NASTY = "<script>alert(1)</script>\"'><img src=x onerror=1>&amp;\n\ud800"


def test_text_of_the_user_never_becomes_markup() -> None:
    page = sheet([Query(NASTY, NASTY, 0.5, NASTY + "x"), Query("b", "dog", 0.5)], [NASTY, "dog"], (NASTY,), NASTY)
    tags = Reader(page).tags
    assert {tag for tag, _ in tags} <= set(
        "html head meta title style body main h1 h2 h3 p small section div figure img figcaption b br".split()
    )
    images = [attributes for tag, attributes in tags if tag == "img"]
    assert all(str(attributes["src"]).startswith("data:image/jpeg;base64,") for attributes in images)
    assert all("onerror" not in attributes for attributes in images)
    assert page.encode("utf-8")


def test_the_page_needs_no_other_file_and_runs_no_script() -> None:
    page = sheet([Query("1", "cat", 0.9)], ["cat", "dog"])
    assert "default-src 'none'" in page
    assert not re.search(r"https?:|<script|<link|url\(", page)
    assert "width=device-width" in page
    assert "prefers-color-scheme: dark" in page


def test_the_least_certain_of_each_label_are_shown_and_the_rest_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 6 places, the label with one image takes 1, and the other one takes the remaining 5."""
    monkeypatch.setattr(contact_sheet, "MOST_QUERIES", 6)
    queries = [Query(str(n), "cat", 0.9 - 0.01 * n) for n in range(10)] + [Query("d", "dog", 0.5)]
    shown = choose(queries, ["cat", "dog"], ["cat", "dog"])
    assert shown.queries == {"cat": [9, 8, 7, 6, 5], "dog": [10]}
    page = sheet(queries, ["cat", "dog"])
    assert "The page shows 6 of 11 images" in page
    assert "cat <small>5 of 10</small>" in page


def test_many_known_pictures_are_cut_by_class_and_many_classes_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contact_sheet, "MOST_SUPPORT", 4)
    labels = ["a"] * 5 + ["b"] * 3
    assert choose([], labels, ["a", "b"]).support == {"a": [0, 1], "b": [5, 6]}
    many = [str(n) for n in range(6)]
    assert "2 more classes are not shown." in sheet([], many)
