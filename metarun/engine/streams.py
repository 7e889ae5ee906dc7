"""Scores of a learner on trajectories: one pass over a stream, and after each class a score on held-out examples of all classes so far.

An algorithm `WithStream` learns one step after the other. At each scored length, any other algorithm adapts anew to all examples seen so
far. Such an algorithm keeps all examples, so its score is only a reference for learners that see each example once. For an algorithm
`WithStream`, metarun computes the features of every example once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map, tree_map_only

from metarun import draws
from metarun.engine.averages import worst
from metarun.engine.outputs import baseline_of, figures_of_steps, path_of, scored_steps
from metarun.engine.report import Report, summarise
from metarun.engine.stream_figures import stream_figures
from metarun.episodes import deal, first_of
from metarun.network import network_of
from metarun.objectives import Objective
from metarun.processes.ranks import ONE, Ranks
from metarun.processes.shares import shares_of
from metarun.types import Adapted, Episode, Examples, Learner, Params, State, TaskSource, WithAdaptInPlace, WithStream, traits_of
from metarun.types.streams import Trajectory, WithTrajectories, scored_lengths

ROWS = 256
"""Examples whose features are computed at once."""


@dataclass(frozen=True)
class Model:
    """An algorithm with its learned tensors."""

    algorithm: Learner
    params: Params
    state: State


class Followed(NamedTuple):
    """The scores of one trajectory of N parts.

    matrix: (R, N), entry (r, j) is the score on the held-out examples of part j after the first `rows[r]` parts; NaN where part j has not
    come. seen: (L,), the score on all examples seen so far, after each of the lengths. scored: the figures after the last part.
    """

    matrix: Tensor
    seen: Tensor
    scored: dict[str, Tensor]


def evaluate_streams(
    model: Model,
    source: TaskSource,
    *,
    split: str,
    episodes: int,
    seed: int = 0,
    by_step: str = "last",
    inner_step: int | None = None,
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] | None = None,
    ranks: Ranks = ONE,
) -> Report:
    """Follow the first `episodes` trajectories of a split; the mean of the report is the score after the last part.

    by_step, inner_step: as in `metarun.engine.evaluation.evaluate`, for algorithms that adapt to all examples at once. ranks: the processes
    that divide the trajectories.
    """
    assert isinstance(source, WithTrajectories)
    sizes, followed = source.trajectory(split), list[Followed]()
    lengths = scored_lengths(source.lengths, sizes.parts)
    online = isinstance(model.algorithm, WithStream)
    shares = shares_of(episodes, 1, ranks.size)
    for index in shares[ranks.rank]:
        episode = first_of(deal(source, split, torch.tensor([index]), device))
        key = draws.key(seed, "evaluate", split, index).to(device)
        with torch.no_grad():
            if online:
                one = follow(model, episode, key, sizes, lengths, scored_steps(0, by_step, inner_step))
            else:
                one = adapt_at_lengths(model, episode, key, sizes, lengths, by_step=by_step, inner_step=inner_step)
        followed.append(tree_map_only(Tensor, Tensor.cpu, one))
        if progress is not None:
            progress(len(followed) * episodes // len(shares[ranks.rank]))
    objective = model.algorithm.objective
    own = tree_map(lambda *rows: torch.stack(rows), *followed) if followed else None
    matrices, seen, scored = ranks.gather(own, [len(share) for share in shares])
    matrices, seen = matrices.double(), seen.double()
    figures = stream_figures(objective, matrices, seen, lengths=lengths, sizes=sizes, one_pass=online)
    return replace(summarise(objective, scored), stream=figures, stream_matrix=matrices.mean(dim=0).tolist())


def follow(model: Model, episode: Episode, key: Tensor, sizes: Trajectory, lengths: list[int], steps: list[int]) -> Followed:
    """Learn a trajectory step by step; score after each part on the held-out examples of all parts so far."""
    algorithm, (support, query) = model.algorithm, episode
    assert isinstance(algorithm, WithStream)
    features, held = (features_of(model, part.x) for part in episode)
    adapted = algorithm.start(model.params, model.state, support.y.shape[-1], draws.fold(key, "start"))
    keys = draws.fold(draws.fold(key, "learn"), torch.arange(len(support.x), device=key.device))
    matrix = support.y.new_full((sizes.parts, sizes.parts), torch.nan)
    seen, outputs = [], query.y
    for part in range(1, sizes.parts + 1):
        first, end = (part - 1) * sizes.per_part, part * sizes.per_part
        for start in range(first, end, sizes.batch):
            rows = slice(start, min(start + sizes.batch, end))
            adapted = algorithm.learn(adapted, features[rows], support.y[rows], keys[start])
        outputs = _answers(algorithm, adapted, held[: part * sizes.held_out])
        matrix[part - 1, :part] = by_part(algorithm.objective, outputs, query.y[: len(outputs)], sizes.held_out)
        if part in lengths:
            seen.append(algorithm.objective.score(_answers(algorithm, adapted, features[:end]), support.y[:end]))
    return Followed(matrix, torch.stack(seen), _scored(algorithm.objective, [outputs], steps, episode))


def adapt_at_lengths(
    model: Model, episode: Episode, key: Tensor, sizes: Trajectory, lengths: list[int], *, by_step: str, inner_step: int | None
) -> Followed:
    """Adapt anew to all examples of the first parts, for each length.

    y then has no columns for later parts, except for an algorithm with a fixed number of outputs.
    """
    algorithm, seen, rows, scored = model.algorithm, [], [], dict[str, Tensor]()
    traits = traits_of(algorithm)
    fixed = traits.takes_sizes or (traits.head and network_of(algorithm) is not None)
    cuts = algorithm.objective.kind == "classification" and not fixed
    for length in lengths:
        support, query = first_parts(episode, sizes, length, cut=cuts)
        if isinstance(algorithm, WithAdaptInPlace):
            path = [algorithm.adapt_in_place(model.params, model.state, support, key)]
        else:
            path = path_of(algorithm, model.params, model.state, support, key)
        steps = scored_steps(len(path) - 1, by_step if length == sizes.parts else "last", inner_step)
        outputs = [algorithm.predict(path[step], query.x) for step in steps]
        row = by_part(algorithm.objective, outputs[-1], query.y, sizes.held_out)
        rows.append(torch.cat([row, row.new_full((sizes.parts - length,), torch.nan)]))
        seen.append(algorithm.objective.score(algorithm.predict(path[-1], support.x), support.y))
        scored = _scored(algorithm.objective, outputs, steps, Episode(support, query))
    return Followed(torch.stack(rows), torch.stack(seen), scored)


def first_parts(episode: Episode, sizes: Trajectory, length: int, *, cut: bool) -> Episode:
    """Return the examples of the first parts of a trajectory. `cut` keeps only the columns of y that belong to these parts."""

    def first(examples: Examples, count: int) -> Examples:
        columns = slice(length) if cut else slice(None)
        numbers = None if examples.classes is None else examples.classes[columns]
        return Examples(examples.x[: length * count], examples.y[: length * count, columns].contiguous(), None, numbers)

    return Episode(first(episode.support, sizes.per_part), first(episode.query, sizes.held_out))


def features_of(model: Model, x: Tensor) -> Tensor:
    """Return the features (B, F) of x (B, ...), computed in blocks of `ROWS` examples."""
    assert isinstance(model.algorithm, WithStream)
    return torch.cat([model.algorithm.features(model.params, model.state, block) for block in x.split(ROWS)])


def by_part(objective: Objective, outputs: Tensor, y: Tensor, per_part: int) -> Tensor:
    """Return the score of each part, (P,), from outputs and y (P * per_part, N or D) that stand part after part."""
    scores: Tensor = torch.vmap(objective.score)(outputs.unflatten(0, (-1, per_part)), y.unflatten(0, (-1, per_part)))
    return scores if objective.higher_is_better else worst(scores).to(y.dtype)


def _answers(algorithm: WithStream, adapted: Adapted, features: Tensor) -> Tensor:
    """Return the outputs for many features, computed in blocks: answers in N columns need much memory, and large grids slow a CPU down."""
    return torch.cat([algorithm.answer(adapted, block) for block in features.split(4 * ROWS)])


def _scored(objective: Objective, outputs: list[Tensor], steps: list[int], episode: Episode) -> dict[str, Tensor]:
    scored = figures_of_steps(objective, outputs, steps, episode.query)
    return scored if objective.kind == "classification" else scored | {"baseline": baseline_of(objective, *episode)}
