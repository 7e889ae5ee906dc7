"""A look at a few numbered episodes: the predictions of a checkpoint, which an evaluation does not store.

The episodes, the noise and the checkpoint are those of the stored evaluation. Predictions can differ from it by rounding alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metarun import draws
from metarun.commands.changed import build_again
from metarun.commands.class_names import names_by_number
from metarun.commands.trained import Trained, assemble, load_members
from metarun.compute.device import place
from metarun.engine.bounds import WithPosterior
from metarun.engine.likelihood import has_fitted_variance, predictive_of, samples_of
from metarun.errors import UserError
from metarun.functional import without_map
from metarun.layers.precision import at_least_float32
from metarun.predictive import Predictive, mean, quantile
from metarun.records.checkpoint import Checkpoint
from metarun.types import Episode, Examples, WithRatings, WithTrajectory
from metarun.types.sources import WithClassNumbers
from metarun.types.streams import WithTrajectories
from metarun.wiring.build import Parts

POINTS, LEVEL, FUNCTIONS = 160, 0.9, 6
"""Points of a curve, the level of its interval, and the number of sampled functions."""
MOST_PAIRS = 1500
"""Pairs of a true and a predicted target that a look keeps."""


class Shown(NamedTuple):
    """An episode of images with its predictions. The tensors are on the CPU. names: of the classes of the columns of y."""

    support: Examples
    query: Examples
    probabilities: Tensor
    names: Sequence[str]


class Curve(NamedTuple):
    """Predictions for a task of one input and one output, at growing x (B,).

    before: the output before adaptation, or None. truth: or None. samples: (S, B), functions whose mixture is the prediction. low, high:
    the ends of the 90 % interval; None where there is no distribution. support: pairs (K, 2).
    """

    x: Tensor
    truth: Tensor | None
    before: Tensor | None
    samples: Tensor
    low: Tensor | None
    high: Tensor | None
    support: Tensor


@dataclass
class Look:
    """What a look at the first episodes of a split has found.

    confused: (true class, predicted class) -> number of queries. confidence: pairs of the confidence of a prediction, and whether it is
    right. pairs: of the true and the predicted target of a query, with the position of the target. shown, curves, bayes: by episode.
    """

    episodes: int = 0
    confused: Counter[tuple[str, str]] = field(default_factory=Counter)
    met: Counter[tuple[str, str]] = field(default_factory=Counter)
    confidence: list[tuple[float, bool]] = field(default_factory=list)
    pairs: list[tuple[float, float, int]] = field(default_factory=list)
    shown: dict[int, Shown] = field(default_factory=dict)
    curves: dict[int, Curve] = field(default_factory=dict)
    bayes: dict[int, Curve] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


class Looker:
    """Looks at the episodes of one stored evaluation. Raises UserError where its checkpoint cannot be used as it was scored."""

    def __init__(self, report: Mapping[str, Any], trust: Sequence[str] = ()) -> None:
        self.split, self.seed = str(report.get("split")), report.get("seed", 0)
        paths, members = load_members(report.get("checkpoint"), _count(report.get("best")), trust)
        if members[0].step != report.get("step"):
            raise UserError(f"{paths[0]} is now of step {members[0].step}, but it was scored at step {report.get('step')}")
        self.member: Checkpoint = members[0]
        self.parts: Parts = build_again(_stored_config(report, members[0], trust), members[0], scored=self.split)
        trained = assemble(self.parts, members)
        device = self.parts.device.name
        self.trained = Trained(trained.algorithm, place(trained.params, device), place(trained.state, device))
        variance = report.get("variance")
        self.variance = torch.tensor(float(variance)) if isinstance(variance, (int, float)) else None
        self.names = names_by_number(self.parts.source, self.split)

    def look(self, episodes: int, samples: Sequence[int]) -> Look:
        """Return the predictions of the first `episodes` episodes, with curves and images of the episodes `samples`."""
        found = Look(facts=facts_of(self.member))
        if isinstance(self.parts.source, WithTrajectories):
            return found
        with torch.no_grad(), without_map(self.parts.device.loop):
            for index in sorted({*range(episodes), *samples}):
                self._episode(found, index, counted=index < episodes, drawn=index in samples)
        found.episodes = episodes
        return found

    def _episode(self, found: Look, index: int, counted: bool, drawn: bool) -> None:
        episode, numbers = self._deal(index)
        algorithm, params, state = self.trained
        key = draws.key(self.seed, "evaluate", self.split, index).to(self.parts.device.name)
        support, query = Episode(*(place_examples(each, self.parts.device.name) for each in episode))
        adapted = algorithm.adapt(params, state, support, key)
        output = at_least_float32(algorithm.predict(adapted, query.x, query.mask)).cpu()
        if self.parts.source.objective == "classification":
            probabilities, names = output.softmax(dim=-1), self._named(numbers, output.shape[-1])
            if counted:
                _count_classes(found, probabilities, episode.query, names if numbers is not None else ())
            if drawn and episode.query.x.dim() == 4 and episode.query.x.shape[1] in (1, 3):
                found.shown[index] = Shown(*episode, probabilities, names)
            return
        if counted and len(found.pairs) < MOST_PAIRS:
            found.pairs += _pairs(output, episode.query)
        if drawn and not isinstance(self.parts.source, WithRatings):
            self._draw(found, index, episode, adapted, key)

    def _deal(self, index: int) -> tuple[Episode, Tensor | None]:
        """Return an episode, and the numbers of its classes where the source knows them."""
        source = self.parts.source
        episode = source.episode(self.split, index)
        if not isinstance(source, WithClassNumbers):
            return episode, None
        return episode, source.numbered().episode(self.split, index).support.classes

    def _named(self, numbers: Tensor | None, count: int) -> list[str]:
        if numbers is None:
            return [str(place) for place in range(count)]
        return [self.names.get(int(number), "–" if number < 0 else f"class {place}") for place, number in enumerate(numbers.tolist())]

    def _draw(self, found: Look, index: int, episode: Episode, adapted: Any, key: Tensor) -> None:
        """Add the curve of an episode of one input and one output, and that of the exact Bayes predictor where the task has one."""
        support, query = episode
        if support.x.shape[1:] != (1,) or support.y.shape[1:] != (1,):
            return
        seen = torch.cat([support.x, query.x])
        x = torch.linspace(float(seen.min()), float(seen.max()), POINTS, dtype=seen.dtype)[:, None]
        device, algorithm = self.parts.device.name, self.trained.algorithm
        asked = Examples(x.to(device), torch.zeros_like(x, device=device))
        predicted = predictive_of(algorithm, adapted, asked, self.variance)
        if predicted is not None and not has_fitted_variance(algorithm):
            samples = mean(predicted)[None]
        else:
            samples = samples_of(algorithm, adapted, asked)
        before = None
        if isinstance(algorithm, WithTrajectory):
            path = list(algorithm.trajectory(self.trained.params, self.trained.state, place_examples(support, device), key))
            before = at_least_float32(algorithm.predict(path[0], asked.x)).flatten().cpu() if len(path) > 1 else None
        truth = self._truth(index, x)
        found.curves[index] = _curve(x, truth, before, samples, predicted, support)
        if isinstance(self.parts.source, WithPosterior):
            found.bayes[index] = self._bayes(index, episode.support, x, truth)

    def _truth(self, index: int, x: Tensor) -> Tensor | None:
        try:
            return self.parts.source.curve(self.split, index, x).flatten()  # type: ignore[attr-defined]
        except AttributeError:  # a source, or a family of a mixture, may have no curve
            return None

    def _bayes(self, index: int, support: Examples, x: Tensor, truth: Tensor | None) -> Curve:
        """Return the predictions of the exact Bayes predictor, with functions drawn from its posterior."""
        predicted = self.parts.source.posterior(support, x)  # type: ignore[attr-defined]
        chance = draws.uniform(draws.key(self.seed, "posterior", self.split, index), FUNCTIONS, dtype=torch.float64)
        samples = mean(predicted)[None]
        if predicted.log_priors is not None:
            chosen = torch.searchsorted(predicted.log_priors.double().exp().cumsum(0), chance).clamp(max=len(predicted.means) - 1)
            samples = predicted.means[chosen, 0]
        return _curve(x, truth, None, samples, predicted, support)


def _curve(
    x: Tensor, truth: Tensor | None, before: Tensor | None, samples: Tensor, predicted: Predictive | None, support: Examples
) -> Curve:
    ends = (
        [None, None] if predicted is None else [quantile(predicted, level).flatten().cpu() for level in ((1 - LEVEL) / 2, (1 + LEVEL) / 2)]
    )
    known = slice(None) if support.mask is None else support.mask
    points = torch.cat([support.x[known], support.y[known]], dim=1)
    return Curve(x.flatten(), truth, before, samples[:FUNCTIONS].flatten(1).cpu(), ends[0], ends[1], points)


def _count_classes(found: Look, probabilities: Tensor, query: Examples, names: Sequence[str]) -> None:
    confidence, guess = probabilities.max(dim=-1)
    truth = query.y.argmax(dim=-1)
    rows = range(len(truth)) if query.mask is None else query.mask.nonzero()[:, 0].tolist()
    for row in rows:
        right = bool(guess[row] == truth[row]) and bool(probabilities[row].isfinite().all())
        found.confidence.append((float(confidence[row].nan_to_num(1.0)), right))
        if names:
            found.confused[names[int(truth[row])], names[int(guess[row])]] += 1
            for name in names:
                found.met[names[int(truth[row])], name] += 1


def _pairs(output: Tensor, query: Examples) -> list[tuple[float, float, int]]:
    rows = range(len(output)) if query.mask is None else query.mask.nonzero()[:, 0].tolist()
    every = max(1, len(rows) // 20)
    each = [(row, target) for row in list(rows)[::every] for target in range(output.shape[-1])]
    found = [(float(query.y[row, target]), float(output[row, target]), target) for row, target in each]
    return [pair for pair in found if torch.tensor(pair[:2]).isfinite().all()]


def place_examples(examples: Examples, device: str) -> Examples:
    """Return examples on a device."""
    return Examples(*(None if part is None else part.to(device) for part in examples))  # type: ignore[arg-type]


def facts_of(member: Checkpoint) -> dict[str, Any]:
    """Return the versions that a checkpoint names, and how it was computed."""
    execution = member.execution
    return {
        "metarun": member.version,
        "torch": execution.get("torch"),
        "device": execution.get("device"),
        "threads": execution.get("threads"),
        "kernels": execution.get("kernels"),
        "step": member.step,
    }


def _count(best: Any) -> int:
    return best if isinstance(best, int) and not isinstance(best, bool) else 1


def _stored_config(report: Mapping[str, Any], member: Checkpoint, trust: Sequence[str]) -> Mapping[str, Any]:
    from metarun.wiring.stored import accepted

    config = report.get("config")
    return accepted(config if isinstance(config, Mapping) else member.config, trust)
