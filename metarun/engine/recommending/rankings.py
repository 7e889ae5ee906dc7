"""Scores of rankings in which equal scores stand in random order. Each is the expectation over this order, in closed form.

    DCG@k = Σ_{r ≤ k} g(r) / log2(1 + r),    nDCG@k = DCG@k / (DCG@k of the best order)

g(r) is the gain at rank r: the mean gain of the items that are tied with the item at this rank. The gain of a rating is 2^rating - 1
(`gains`), as in Burges et al. 2005, "Learning to rank using gradient descent", ICML. A list of fewer items than k has its length as k.

Among all candidates, let s be the number of candidates above an item and n the number of those with its score, itself included:

    Recall@k  the mean over the relevant items of P(in the first k) = min(1, max(0, k - s) / n)
    Hit@k     P(a relevant item is among the first k)
    MRR@k     E[1 / rank of the first relevant item], 0 where the rank is above k

Of n tied candidates with r relevant ones behind s others, the first relevant one is the j-th of the tied ones with probability
P_j = r / (n - j + 1) · Π_{i < j} (n - r - i + 1) / (n - i + 1).

A score that is not a number stands below all others.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

NDCG_CUTS = (1, 3, 5)
CUTS = (5, 10, 20)
"""The numbers k of the rankings of all candidates."""
STARS = 10.0
"""Ratings up to this height are exponents of gains as they are; those of other scales are brought into 0 … 5."""


def gains(ratings: Tensor, scale: tuple[float, float]) -> Tensor:
    """Return 2^rating - 1, as float64; ratings below 0 or above `STARS` are brought from their scale into 0 … 5 first."""
    low, high = scale
    stars = ratings.double() if low >= 0.0 and high <= STARS else 5.0 * (ratings.double() - low) / (high - low)
    return torch.exp2(stars) - 1.0


def ndcg(scores: Tensor, gain: Tensor, real: Tensor, cuts: Sequence[int] = NDCG_CUTS) -> dict[str, Tensor]:
    """Return "ndcg@k" of T lists, (T,) float64 each; NaN for a list without a gain.

    scores, gain: (T, Q). real: (T, Q) bool, False on padding.
    """
    gain = torch.where(real, gain.double(), 0.0)
    found, best = _by_rank(_sound(scores, real), gain), gain.sort(dim=1, descending=True).values
    discount = 1.0 / torch.log2(torch.arange(2.0, gain.shape[1] + 2.0, dtype=torch.float64))
    names = {f"ndcg@{k}": k for k in cuts}
    return {name: (found * discount)[:, :k].sum(dim=1) / (best * discount)[:, :k].sum(dim=1) for name, k in names.items()}


def retrieval(scores: Tensor, items: Tensor, relevant: Tensor, allowed: Tensor, cuts: Sequence[int] = CUTS) -> dict[str, Tensor]:
    """Return "recall@k", "hit@k" and "mrr@k" of T rankings of all candidates, (T,) float64 each; NaN without a relevant item.

    scores: (T, I) of all items. items: (T, Q) those of the query, -1 on padding. relevant: (T, Q) bool. allowed: (T, I) bool, the
    candidates, which include the items of the query.
    """
    by_user = [_retrieval(*each, cuts) for each in zip(_sound(scores, allowed), items, relevant, allowed, strict=True)]
    return {name: torch.tensor([found[name] for found in by_user], dtype=torch.float64) for name in by_user[0]}


def _retrieval(scores: Tensor, items: Tensor, relevant: Tensor, allowed: Tensor, cuts: Sequence[int]) -> dict[str, float]:
    chosen = scores[items[relevant & (items >= 0)]]
    names = [f"{kind}@{k}" for kind in ("recall", "hit", "mrr") for k in cuts]
    if not len(chosen):
        return dict.fromkeys(names, float("nan"))
    candidates = scores[allowed]
    above = (candidates > chosen[:, None]).sum(dim=1)
    tied = (candidates == chosen[:, None]).sum(dim=1)
    first = int(chosen.argmax())
    chance = _first_relevant(int(tied[first]), int((chosen == chosen[first]).sum()), max(cuts))
    rank = int(above[first]) + 1 + torch.arange(len(chance), dtype=torch.float64)
    found: dict[str, float] = {}
    for k in cuts:
        found[f"recall@{k}"] = float(((k - above).clamp(min=0) / tied).clamp(max=1.0).double().mean())
        found[f"hit@{k}"] = float(chance[rank <= k].sum())
        found[f"mrr@{k}"] = float((chance / rank)[rank <= k].sum())
    return found


def _first_relevant(tied: int, relevant: int, most: int) -> Tensor:
    """Return P_1, P_2, … at most `most` of them: the chance that the j-th of the tied candidates is the first relevant one."""
    chances, none_before = [], 1.0
    for j in range(min(most, tied - relevant + 1)):
        chances.append(none_before * relevant / (tied - j))
        none_before *= (tied - relevant - j) / (tied - j)
    return torch.tensor(chances, dtype=torch.float64)


def _by_rank(scores: Tensor, values: Tensor) -> Tensor:
    """Return the expected value at each rank, (T, Q), by the scores (T, Q); the last ranks are those of padding."""
    order = scores.argsort(dim=1, descending=True, stable=True)
    ordered, sorted_values = scores.gather(1, order), values.gather(1, order)
    begins = torch.ones_like(ordered, dtype=torch.bool)
    begins[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    group = begins.long().cumsum(dim=1) - 1
    sums = torch.zeros_like(values).scatter_add_(1, group, sorted_values)
    counts = torch.zeros_like(values).scatter_add_(1, group, torch.ones_like(values))
    return (sums / counts.clamp(min=1.0)).gather(1, group)


def _sound(scores: Tensor, real: Tensor) -> Tensor:
    """Return scores as float64, with the lowest finite number in place of NaN and -inf, and -inf on padding."""
    scores = scores.double().nan_to_num(nan=torch.finfo(torch.float64).min)
    return torch.where(real, scores, -torch.inf)
