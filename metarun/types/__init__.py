"""The central types: a task, an algorithm, a source of tasks, and the legend of axes.

Axes, in every docstring of the project:

    T  tasks (episodes) of a batch          N  ways: classes of an episode
    K  shots: support examples per class    Q  queries: query examples per class
    D  features or targets per example      B  any number of examples

An algorithm is written for ONE task: no tensor in its code has an axis T. The engine maps the algorithm over a batch of tasks.
"""

from metarun.types.algorithms import (
    OPTIONAL_MEMBERS,
    Algorithm,
    Learner,
    Traits,
    WithAdaptInPlace,
    WithChoice,
    WithDistribution,
    WithInnerSteps,
    WithPresentations,
    WithSamples,
    WithStream,
    WithTrajectory,
    adapts_backbone,
    traits_of,
)
from metarun.types.data import Adapted, Aux, Episode, Examples, Metrics, Params, State, constant, part_of, prefixed
from metarun.types.ratings import Column, Rated, RatingList, WithColumns, WithRatings
from metarun.types.sources import TaskSource, WithBatches, WithClassNumbers, WithCurve, WithDevice, WithOrigins, WithTrainLabels, WithUnits

__all__ = [
    "OPTIONAL_MEMBERS",
    "Adapted",
    "Algorithm",
    "Aux",
    "Column",
    "Episode",
    "Examples",
    "Learner",
    "Metrics",
    "Params",
    "Rated",
    "RatingList",
    "State",
    "TaskSource",
    "Traits",
    "WithAdaptInPlace",
    "WithBatches",
    "WithChoice",
    "WithClassNumbers",
    "WithColumns",
    "WithCurve",
    "WithDevice",
    "WithDistribution",
    "WithInnerSteps",
    "WithOrigins",
    "WithPresentations",
    "WithRatings",
    "WithSamples",
    "WithStream",
    "WithTrainLabels",
    "WithTrajectory",
    "WithUnits",
    "adapts_backbone",
    "constant",
    "part_of",
    "prefixed",
    "traits_of",
]
