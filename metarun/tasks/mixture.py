"""Several sources in one run: each episode comes from one source, its family, and the weights determine how often each is drawn.

The families have inputs of one shape, so that one network learns from all. They may differ in ways, shots and queries. The algorithm is not
told the family of an episode.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Literal, TypeVar

import torch
from torch import Tensor

from metarun import draws
from metarun.episodes import deal, first_of
from metarun.errors import UserError, nearest, printable
from metarun.tasks.adjusting import adjusted, with_images
from metarun.tasks.fingerprint import Fingerprint, fingerprint_of
from metarun.tasks.fingerprint import joined as joined_fingerprints
from metarun.tasks.joining import Layout, joined, layout_of
from metarun.tasks.noisy import Noisy
from metarun.tasks.pool import SPLITS, check_split
from metarun.tasks.preparing.preparation import Preparation, preparation_by
from metarun.tasks.sampling import Labels, Ways
from metarun.types import Episode, TaskSource, WithClassNumbers, WithOrigins, WithTrainLabels
from metarun.values import Built, Count, Names, NotNegative, Pixels, Seed


@dataclass(frozen=True)
class Mixture:
    """Episode n is episode n of one of the sources.

    sources: family name -> source; at least one, all of the same objective, with inputs of the same shape. A family with fewer ways, shots
        or queries than the largest one is padded (`metarun.tasks.joining`).
    weights: family name -> weight in training, in any unit; None for equal weights. A family of weight 0 is never dealt.
    seed: of the draw of families in the training stream. eval_seed: of the same draw in the "val" and "test" streams, unless `even`.
    even: whether the "val" and "test" streams deal the families in turn, so that each family has the same number of episodes there,
        whatever its weight. False: these streams draw the families by weight too.
    used: the splits whose episodes must fit together. Another split raises UserError only when it is dealt.

    With training labels among all classes (`train_labels` of the sources is "global"), the classes of the families follow one another.
    """

    sources: Mapping[str, TaskSource]
    weights: Mapping[str, float] | None = None
    seed: int = 0
    eval_seed: int = 0
    even: bool = True
    used: Sequence[str] = SPLITS
    objective: str = field(init=False)
    train_labels: str = field(init=False, repr=False, compare=False)  # not set where no source has training labels
    _layouts: dict[str, Layout] = field(init=False, repr=False, compare=False)
    _limits: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        _check_names(self.sources)
        kinds = {name: source.objective for name, source in self.sources.items()}
        if len(set(kinds.values())) > 1:
            raise UserError(
                f"the sources of a mixture must share one objective; here {', '.join(f'{n} is {k}' for n, k in kinds.items())}. "
                f"Leave one kind out, such as task.sources.{list(kinds)[-1]}=null."
            )
        object.__setattr__(self, "objective", next(iter(kinds.values())))
        if (labels := _train_labels(self.sources)) is not None:
            object.__setattr__(self, "train_labels", labels)
        object.__setattr__(self, "_limits", _limits(list(self.sources), self.weights))
        object.__setattr__(self, "_layouts", {})
        for split in self.used:
            self._layout(split)

    def episode(self, split: str, index: int) -> Episode:
        """Deal episode `index`; the index determines the family."""
        return first_of(self.batch(split, torch.tensor([index])))

    def batch(self, split: str, indices: Tensor) -> Episode:
        """Deal the episodes `indices` (T,) at once, with a leading axis T, in the order of `indices`."""
        families, layout = self.family(split, indices), self._layout(split)
        places = [(families == number).nonzero()[:, 0] for number in range(len(self.sources))]
        dealt = {
            number: deal(source, split, indices[at])
            for number, (source, at) in enumerate(zip(self.sources.values(), places, strict=True))
            if len(at)
        }
        order = torch.cat(places).argsort()
        roles = ((role, [(number, getattr(episode, role)) for number, episode in dealt.items()]) for role in Episode._fields)
        return Episode(*(joined(parts, order, layout, role, numbered=self._is_numbered) for role, parts in roles))

    def numbered(self) -> Mixture:
        """Return the same mixture with class numbers in the episodes of the sources that know their classes; -1 in those of the others."""
        sources = {name: each.numbered() if isinstance(each, WithClassNumbers) else each for name, each in self.sources.items()}
        return dataclasses.replace(self, sources=sources)

    @cached_property
    def _is_numbered(self) -> bool:
        return any(source.episode(self.used[0], 0).support.classes is not None for source in self.sources.values())

    def families(self) -> Mapping[str, TaskSource]:
        """Return the sources by their names, in the order of the positions that `family` returns."""
        return self.sources

    def family(self, split: str, indices: Tensor) -> Tensor:
        """Return the family of the episodes `indices` (T,), as positions (T,) in `sources`."""
        check_split(split)
        if self.even and split != "train":
            return self._dealt[indices % len(self._dealt)]
        key = draws.key(self.seed if split == "train" else self.eval_seed, split, indices)
        return torch.searchsorted(self._limits, draws.uniform(draws.fold(key, "family"), dtype=torch.float64), right=True)

    @cached_property
    def _dealt(self) -> Tensor:
        """The positions of the families whose weight is not 0."""
        weighted = [self.weights is None or self.weights[name] > 0 for name in self.sources]
        return torch.tensor([place for place, is_dealt in enumerate(weighted) if is_dealt])

    def curve(self, split: str, index: int, x: Tensor) -> Tensor:
        """Return the true function of episode `index` at x (B, D); raises AttributeError if its family has no `curve`."""
        name = list(self.sources)[int(self.family(split, torch.tensor(index)))]
        values: Tensor = self.sources[name].curve(split, index, x)  # type: ignore[attr-defined]
        return values

    def origins(self, split: str) -> tuple[str, ...]:
        """Return the names of the classes or tasks of all sources that have a data set."""
        sources = [source for source in self.sources.values() if isinstance(source, WithOrigins)]
        return tuple(dict.fromkeys(name for source in sources for name in source.origins(split)))

    def fingerprint(self) -> Fingerprint:
        """Return the fingerprints of the sources that read files."""
        return joined_fingerprints({name: fingerprint_of(source) for name, source in self.sources.items()})

    def preparation(self) -> Preparation | None:
        """Return the preparation of the sources; None where they differ."""
        first, *others = (preparation_by(source) for source in self.sources.values())
        return first if all(each == first for each in others) else None

    def population(self, split: str) -> int | None:
        """Return the number of classes or tasks of all sources together; None where a source has no data set."""
        counts = [source.population(split) if isinstance(source, WithOrigins) else None for source in self.sources.values()]
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(counts) else None

    def _layout(self, split: str) -> Layout:
        """Return the sizes of the joint episodes of a split; UserError where the sources do not fit together."""
        check_split(split)
        if split not in self._layouts:
            shown = {name: source.episode(split, 0) for name, source in self.sources.items()}
            among_all = split == "train" and getattr(self, "train_labels", None) == "global"
            self._layouts[split] = layout_of(shown, split, self.objective, all_classes=among_all)
        return self._layouts[split]


T = TypeVar("T")
Source = Annotated[TaskSource, Built("a task of its own: a mapping with a _target_")]


def mixture(
    *,
    sources: Mapping[str, Source | None],
    only: Names | None = None,
    weights: Mapping[str, NotNegative] | None = None,
    ways: Ways | None = None,
    shots: Count | None = None,
    queries: Count | None = None,
    train_ways: Ways | None = None,
    train_shots: Count | None = None,
    train_queries: Count | None = None,
    train_labels: Labels | None = None,
    min_ways: Ways | None = None,
    min_shots: Count | None = None,
    image_size: Pixels | None = None,
    channels: Literal[1, 3] | None = None,
    noise: NotNegative = 0.0,
    seed: Seed = 0,
    eval_seed: Seed = 0,
    used: Sequence[str] = SPLITS,
) -> Mixture | Noisy:
    """Return the source that mixes `sources`. A source that is None (null in an override) is left out.

    only: the names of the sources to take; None for all. image_size, channels: convert the images of every source to this shape; None for
    the sources' own. ways … min_shots: a value that is not None replaces the value of every source. The two seeds replace the sources'
    seeds too. noise: standard deviation of the noise on every target (see `Noisy`); 0 for none. weights, used: see `Mixture`.
    """
    sizes = {"ways": ways, "shots": shots, "queries": queries, "min_ways": min_ways, "min_shots": min_shots}
    sizes |= {"train_ways": train_ways, "train_shots": train_shots, "train_queries": train_queries}
    shared = {**sizes, "train_labels": train_labels}
    changes = {name: value for name, value in shared.items() if value is not None} | {"seed": seed, "eval_seed": eval_seed}
    taken = {name: source for name, source in chosen(sources, only).items() if source is not None}
    made = {name: with_images(name, adjusted(name, source, changes), image_size, channels) for name, source in taken.items()}
    mixed = Mixture(made, weights, seed, eval_seed, used=used)
    return Noisy(mixed, noise, seed, eval_seed, stream="noise of the mixture") if noise else mixed


def chosen(sources: Mapping[str, T], only: Sequence[str] | None) -> dict[str, T]:
    """Return the sources that `only` names, in its order; all where it is None. UserError for a name that is no source, or stands twice."""
    for name in only or ():
        if sources.get(name) is None:
            known = [each for each, source in sources.items() if source is not None]
            more = nearest(name, known) or " For a source that it lacks, give task=mixture too."
            raise UserError(f"the mixture has no source '{printable(name)}'; it has {', '.join(known)}.{more}")
        if list(only or ()).count(name) > 1:
            raise UserError(f"the sources of the mixture name '{name}' twice; give the second one a name, such as other:{name}.")
    return dict(sources) if only is None else {name: sources[name] for name in only}


def _check_names(sources: Mapping[str, TaskSource]) -> None:
    if not sources:
        raise UserError("task.sources is empty; a mixture needs at least one source.")
    for name in sources:
        if not re.fullmatch(r"\w[\w.+-]*", str(name)):
            raise UserError(f"a source of the mixture has the name '{printable(name)}'; a name has letters, digits, '_' and '-'.")


def _train_labels(sources: Mapping[str, TaskSource]) -> str | None:
    """Return the training labels of the sources; None where no source has any. UserError where they differ."""
    labels = {name: source.train_labels for name, source in sources.items() if isinstance(source, WithTrainLabels)}
    if len(set(labels.values())) > 1:
        listing = ", ".join(f"{name} has {value}" for name, value in labels.items())
        raise UserError(f"the sources of a mixture must have the same train_labels; here {listing}. Set task.train_labels for all.")
    return next(iter(labels.values()), None)


def _limits(names: list[str], weights: Mapping[str, float] | None) -> Tensor:
    """Divide [0, 1) among the families by weight; return the upper ends (F - 1,) of all shares but the last."""
    values = dict.fromkeys(names, 1.0) if weights is None else dict(weights)
    for name in values:
        if name not in names:
            raise UserError(f"task.weights names '{name}', which is not among the sources {', '.join(names)}.{nearest(name, names)}")
    for name in names:
        if name not in values:
            raise UserError(f"task.weights has no weight for the source '{name}'; give all of them or none.")
        if not isinstance(values[name], int | float) or not 0 <= values[name] < float("inf"):
            raise UserError(f"task.weights.{name}={values[name]} must be a number of at least 0.")
    shares = torch.tensor([float(values[name]) for name in names], dtype=torch.float64)
    if shares.sum() <= 0:
        raise UserError("task.weights are all 0; at least one must be positive.")
    return (shares.cumsum(0) / shares.sum())[:-1]
