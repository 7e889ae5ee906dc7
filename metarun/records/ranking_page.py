"""The page of recommendations: one self-contained HTML file with the user's ratings and the recommended items.

Every text goes through `html.escape`. The page states a policy under which a browser runs no script and fetches nothing.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

MOST_KNOWN = 50
"""Known ratings of the page. The page says how many it leaves out."""


def page(title: str, known: Sequence[tuple[str, str]], recommended: Sequence[tuple[str, str]]) -> str:
    """Return the page. known, recommended: titles and ratings of items, in order."""
    rows = _rows([(f"{place}.", name, rating) for place, (name, rating) in enumerate(recommended, 1)])
    left = f"<p>{len(known) - MOST_KNOWN:,} more ratings are not shown.</p>" if len(known) > MOST_KNOWN else ""
    rated = _rows([("", name, rating) for name, rating in known[:MOST_KNOWN]])
    body = (
        f"<h1>{_text(title)}</h1><h2>Recommended</h2><table><tr><th></th><th>item</th><th>predicted rating</th></tr>{rows}</table>"
        f"<h2>Known ratings</h2><table><tr><th></th><th>item</th><th>rating</th></tr>{rated}</table>{left}"
    )
    return f"{_HEAD}<title>{_text(title)}</title><style>{_STYLE}</style></head><body><main>{body}</main></body></html>\n"


def _rows(rows: Sequence[tuple[str, str, str]]) -> str:
    return "".join(
        f'<tr><td>{_text(place)}</td><td dir="auto">{_text(name)}</td><td>{_text(rating)}</td></tr>' for place, name, rating in rows
    )


def _text(text: str) -> str:
    """Return text for HTML; half a surrogate pair becomes an escape."""
    return html.escape(text.encode("utf-8", "backslashreplace").decode(), quote=True)


_HEAD = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
)

_STYLE = """
:root { color-scheme: light dark }
body { margin: 0; font: 1rem/1.45 system-ui, sans-serif }
main { max-width: 48rem; margin: 0 auto; padding: 1rem }
h1 { font-size: 1.35rem } h2 { font-size: 1.15rem; margin-top: 1.6rem }
table { border-collapse: collapse; width: 100% } th { text-align: left; font-weight: normal; opacity: .7 }
td, th { padding: .25rem .6rem; border-bottom: 1px solid rgb(128 128 128 / .4); overflow-wrap: anywhere }
td:last-child, th:last-child { text-align: right }
"""
