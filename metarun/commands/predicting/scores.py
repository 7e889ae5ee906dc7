"""The labels of a prediction in numbers: how many queries each class got, and how many labels are right if the truth is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from metarun.engine.rejection import wilson
from metarun.errors import counted
from metarun.records.contact_sheet import Query

REJECTED = "none of these"
"""The label of a query that belongs to no support class."""

_NAMED = 12
"""Labels that the printed line counts."""


class Scored(NamedTuple):
    """lines: for a person. facts: for report.json. accuracy: None where no query has a label of the support set."""

    lines: list[str]
    facts: dict[str, Any]
    accuracy: float | None


def told(queries: Sequence[Query], counts: Mapping[str, int]) -> str:
    """Return how many queries each label got, as one line for a person. counts: class -> its known images."""
    labels = Counter(REJECTED if query.label is None else query.label for query in queries)
    common = labels.most_common(_NAMED)
    more = f" and {len(labels) - _NAMED} more labels" if len(labels) > _NAMED else ""
    listed = ", ".join(f"{label} {count:,}" for label, count in common)
    known = f"{counted(sum(counts.values()), 'known image')} of {len(counts):,} classes"
    return f"{counted(len(queries), 'image')} labelled from {known}: {listed}{more}"


def scored(queries: Sequence[Query], classes: Sequence[str], copies: Sequence[bool], abstains: bool) -> Scored:
    """Return the scores of the queries whose class is known.

    A query of a support class is right where it has the label of its class. A query of another class is right where it is rejected.
    copies: whether a query is one of the known images; these do not count. abstains: whether queries can be rejected.
    """
    judged = [query for query, copied in zip(queries, copies, strict=True) if query.truth is not None and not copied]
    true = [query for query in judged if query.truth in classes]
    foreign = [query for query in judged if query.truth not in classes]
    lines, facts = list[str](), dict[str, Any]()
    if any(copies):
        facts["copies"] = sum(copies)
        which = "1 query is a known image too; no score counts it"
        lines.append(which if sum(copies) == 1 else f"{sum(copies):,} queries are known images too; no score counts them")
    accuracy = None
    if true:
        accuracy, facts["accuracy"], said = _share([query.label == query.truth for query in true])
        covers = "the interval covers further images of these classes with these known images, and no other classes"
        lines.append(f"accuracy {said} of {counted(len(true), 'query image')} with a label of a known class; {covers}")
    if abstains and true:
        _, facts["true_rejected"], said = _share([query.label is None for query in true])
        lines.append(f"rejected: {said} of {counted(len(true), 'query image')} of known classes")
    if foreign:
        _, facts["foreign_rejected"], said = _share([query.label is None for query in foreign])
        others = len({query.truth for query in foreign})
        what = f"{counted(len(foreign), 'query image')} of {counted(others, 'other class')}"
        lines.append(f"rejected: {said} of {what}" if abstains else f"{what} cannot be right; abstain=0.05 looks for such images")
    return Scored(lines, facts, accuracy)


def _share(hits: Sequence[bool]) -> tuple[float, dict[str, Any], str]:
    """Return a share, with its 95 % interval over queries for report.json, and for a person."""
    count, total = sum(hits), len(hits)
    low, high = wilson(count, total)
    facts = {"share": count / total, "low": low, "high": high, "count": count, "of": total, "ci95_over": "queries"}
    return count / total, facts, f"{100 * count / total:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
