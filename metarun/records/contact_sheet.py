"""The contact sheet of a prediction: one self-contained HTML file with the known images, and below them the labelled queries.

Every text of the user's goes through `html.escape`. The page states a policy under which a browser runs no script and fetches nothing.
"""

from __future__ import annotations

import base64
import html
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MOST_QUERIES, MOST_SUPPORT, MOST_SHOTS = 600, 300, 10
"""Images of the page: queries, known ones, and known ones of each class. The page says how many it leaves out."""


@dataclass(frozen=True)
class Query:
    """A query image. label: the predicted class; None where it was rejected. truth: its class, None where it is unknown."""

    name: str
    label: str | None
    probability: float
    truth: str | None = None

    @property
    def wrong(self) -> bool:
        """Whether the truth is known and the label is another one."""
        return self.truth is not None and self.label is not None and self.truth != self.label


@dataclass(frozen=True)
class Shown:
    """The images of a page by their places: label -> queries, the least certain ones first, and class -> known images."""

    queries: Mapping[str | None, Sequence[int]]
    support: Mapping[str, Sequence[int]]


def choose(queries: Sequence[Query], labels: Sequence[str], classes: Sequence[str]) -> Shown:
    """Choose the images of the page. labels: the class of each known image. classes: in the order of the page.

    Each label gets an equal share of the page; a label that needs less leaves the rest to the others.
    """
    by_label: dict[str | None, list[int]] = {label: [] for label in (*classes, None)}
    for place in sorted(range(len(queries)), key=lambda each: queries[each].probability):
        by_label[queries[place].label].append(place)
    found = {label: places for label, places in by_label.items() if places}
    rest, shares = MOST_QUERIES, dict[str | None, int]()
    for number, (label, places) in enumerate(sorted(found.items(), key=lambda pair: len(pair[1]))):
        shares[label] = min(len(places), rest // (len(found) - number))
        rest -= shares[label]
    shots = min(MOST_SHOTS, max(1, MOST_SUPPORT // len(classes)))
    known: dict[str, list[int]] = {name: [] for name in classes[:MOST_SUPPORT]}
    for place, name in enumerate(labels):
        if name in known and len(known[name]) < shots:
            known[name].append(place)
    return Shown({label: places[: shares[label]] for label, places in found.items()}, known)


@dataclass(frozen=True)
class Sheet:
    """The content of a page.

    lines: what the command prints. labels: the class of each known image. *_jpegs: the image at each place of `shown`.
    rejected: the label of rejected queries.
    """

    title: str
    lines: Sequence[str]
    queries: Sequence[Query]
    labels: Sequence[str]
    shown: Shown
    query_jpegs: Mapping[int, bytes]
    support_jpegs: Mapping[int, bytes]
    rejected: str

    def html(self) -> str:
        """Return the page."""
        total, drawn = len(self.queries), sum(map(len, self.shown.queries.values()))
        left = f" The page shows {drawn:,} of {total:,} images; the CSV file has all." if drawn < total else ""
        paragraphs = "".join(f'<p dir="auto">{_text(line)}</p>' for line in self.lines)
        body = (
            f'<h1 dir="auto">{_text(self.title)}</h1>{paragraphs}<h2>Known images</h2>{self._known()}<h2>Predictions</h2>'
            f"<p>Below each image: its label and the probability of the label, least certain first.{left}</p>{self._predictions()}"
        )
        return f"{_HEAD}<title>{_text(self.title)}</title><style>{_STYLE}</style></head><body><main>{body}</main></body></html>\n"

    def _known(self) -> str:
        counts, parts = Counter(self.labels), list[str]()
        for name, places in self.shown.support.items():
            images = "".join(f'<img alt="" src="{_data(self.support_jpegs[place])}">' for place in places)
            parts.append(f'<section>{_heading(name, len(places), counts[name])}<div class="row">{images}</div></section>')
        if more := len(counts) - len(parts):
            parts.append(f"<p>{more:,} more classes are not shown.</p>")
        return "".join(parts)

    def _predictions(self) -> str:
        counts, parts = Counter(query.label for query in self.queries), list[str]()
        for label, places in self.shown.queries.items():
            figures = "".join(self._figure(self.queries[place], self.query_jpegs[place]) for place in places)
            heading = _heading(self.rejected if label is None else label, len(places), counts[label])
            parts.append(f'<section>{heading}<div class="grid">{figures}</div></section>')
        return "".join(parts)

    def _figure(self, query: Query, jpeg: bytes) -> str:
        kind = ' class="none"' if query.label is None else ' class="wrong"' if query.wrong else ""
        label = self.rejected if query.label is None else query.label
        caption = f'<b dir="auto">{"✗ " if query.wrong else ""}{_text(label)}</b> {100 * query.probability:.0f}\u00a0%'
        if query.truth is not None and query.truth != query.label:
            caption += f'<br>is <b dir="auto">{_text(query.truth)}</b>'
        name = _text(query.name)
        return f'<figure{kind}><img alt="{name}" title="{name}" src="{_data(jpeg)}"><figcaption>{caption}</figcaption></figure>'


def _heading(name: str, shown: int, count: int) -> str:
    counted = f"{count:,}" if shown == count else f"{shown:,} of {count:,}"
    return f'<h3 dir="auto">{_text(name)} <small>{counted}</small></h3>'


def _text(text: str) -> str:
    """Return text for HTML; half a surrogate pair, as in a file name that is not UTF-8, becomes an escape."""
    return html.escape(text.encode("utf-8", "backslashreplace").decode(), quote=True)


def _data(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


_HEAD = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
)

_STYLE = """
:root { color-scheme: light dark; --back: #fff; --text: #1b1b1b; --soft: #5d5d5d; --line: #d9d9d9; --wrong: #c0410c; --none: #6a5acd }
@media (prefers-color-scheme: dark) {
  :root { --back: #161616; --text: #ececec; --soft: #a8a8a8; --line: #3a3a3a; --wrong: #ff8a5c; --none: #a99cff }
}
body { margin: 0; background: var(--back); color: var(--text); font: 1rem/1.45 system-ui, sans-serif }
main { max-width: 76rem; margin: 0 auto; padding: 1rem }
h1 { font-size: 1.35rem } h2 { font-size: 1.15rem; border-top: 1px solid var(--line); padding-top: .8rem; margin-top: 1.6rem }
h1, h3, p, figcaption { overflow-wrap: anywhere }
h3 { font-size: 1rem; margin: .8rem 0 .3rem } small { color: var(--soft); font-weight: normal }
.row { display: flex; gap: .3rem; flex-wrap: wrap } .row img { width: 4.1rem; height: 4.1rem }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(6.4rem, 1fr)); gap: .6rem }
img { border-radius: .3rem; background: var(--line); object-fit: cover }
figure { margin: 0; padding: .25rem; border: 2px solid transparent; border-radius: .5rem }
figure img { width: 100%; aspect-ratio: 1; display: block }
figcaption { font-size: .8rem; line-height: 1.3; margin-top: .2rem }
.wrong { border-color: var(--wrong) } .none { border: 2px dashed var(--none) }
"""
