from __future__ import annotations

from metarun.records.ranking_page import MOST_KNOWN, page


def test_the_page_has_the_items_in_order_and_escapes_their_titles():
    text = page("For <me>", [("A & B", "5")], [("<script>x</script>", "4.5"), ("Second", "4")])
    assert "<script" not in text
    assert "For &lt;me&gt;" in text
    assert "A &amp; B" in text
    assert text.index('1.</td><td dir="auto">&lt;script&gt;') < text.index('2.</td><td dir="auto">Second')
    assert "default-src 'none'" in text


def test_the_page_says_how_many_ratings_it_leaves_out():
    known = [(f"film {number}", "3") for number in range(MOST_KNOWN + 7)]
    assert "7 more ratings are not shown" in page("x", known, [])
    assert "more ratings" not in page("x", known[:MOST_KNOWN], [])
