"""Several sources in one run: each episode comes from one source, and the weights determine how often each source is drawn.

The families have inputs, targets and sizes of the same shape, so that one network learns from all. The algorithm is not told the
family of an episode.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated

import torch
from torch import Tensor

from metarun import draws
from metarun.episodes import deal, first_of
from metarun.errors import UserError, nearest
from metarun.tasks.fingerprint import Fingerprint, fingerprint_of, joined
from metarun.tasks.noisy import Noisy
from metarun.tasks.points import PointSampling
from metarun.tasks.pool import SPLITS, check_split
from metarun.tasks.preparing.preparation import Preparation, preparation_by
from metarun.types import Episode, Examples, TaskSource, WithClassNumbers, WithOrigins
from metarun.values import Built, Count, NotNegative, Seed


@dataclass(frozen=True)
class Mixture:
    """Episode n is episode n of one of the sources.

    sources: family name -> source; at least one, all of the same objective and the same shapes in every split.
    weights: family name -> weight, in any unit; None for equal weights. A family of weight 0 is never drawn.
    seed: of the draw of families in the training stream. eval_seed: of the same draw in the "val" and "test" streams.
    """

    sources: Mapping[str, TaskSource]
    weights: Mapping[str, float] | None = None
    seed: int = 0
    eval_seed: int = 0
    objective: str = field(init=False)
    _masked: dict[tuple[str, str], bool] = field(init=False, repr=False)
    _limits: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.sources:
            raise UserError("task.sources is empty; a mixture needs at least one source.")
        kinds = {name: source.objective for name, source in self.sources.items()}
        if len(set(kinds.values())) > 1:
            raise UserError(
                f"the sources of a mixture must share one objective; here {', '.join(f'{n} is {k}' for n, k in kinds.items())}."
            )
        object.__setattr__(self, "objective", next(iter(kinds.values())))
        object.__setattr__(self, "_limits", _limits(list(self.sources), self.weights))
        object.__setattr__(self, "_masked", self._compare())

    def episode(self, split: str, index: int) -> Episode:
        """Deal episode `index`; the index determines the family."""
        return first_of(self.batch(split, torch.tensor([index])))

    def batch(self, split: str, indices: Tensor) -> Episode:
        """Deal the episodes `indices` (T,) at once, with a leading axis T, in the order of `indices`."""
        families = self.family(split, indices)
        places = [(families == number).nonzero()[:, 0] for number in range(len(self.sources))]
        parts = [deal(source, split, indices[at]) for source, at in zip(self.sources.values(), places, strict=True) if len(at)]
        order = torch.cat(places).argsort()

        def join(role: str) -> Examples:
            examples = [getattr(part, role) for part in parts]
            masks = [_mask(part, rows=part.x.shape[:2]) for part in examples] if self._masked[split, role] else None
            x, y = (torch.cat([getattr(part, name) for part in examples])[order] for name in ("x", "y"))
            numbers = [_numbers(part) for part in examples] if self._is_numbered else None
            return Examples(x, y, *(None if each is None else torch.cat(each)[order] for each in (masks, numbers)))

        return Episode(join("support"), join("query"))

    def numbered(self) -> Mixture:
        """Return the same mixture with class numbers in the episodes of the sources that know their classes; -1 in those of the others."""
        sources = {name: each.numbered() if isinstance(each, WithClassNumbers) else each for name, each in self.sources.items()}
        return dataclasses.replace(self, sources=sources)

    @cached_property
    def _is_numbered(self) -> bool:
        return any(source.episode("train", 0).support.classes is not None for source in self.sources.values())

    def family(self, split: str, indices: Tensor) -> Tensor:
        """Return the family of the episodes `indices` (T,), as positions (T,) in `sources`."""
        check_split(split)
        key = draws.key(self.seed if split == "train" else self.eval_seed, split, indices)
        return torch.searchsorted(self._limits, draws.uniform(draws.fold(key, "family"), dtype=torch.float64), right=True)

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
        return joined({name: fingerprint_of(source) for name, source in self.sources.items()})

    def preparation(self) -> Preparation | None:
        """Return the preparation of the sources; None where they differ."""
        first, *others = (preparation_by(source) for source in self.sources.values())
        return first if all(each == first for each in others) else None

    def population(self, split: str) -> int | None:
        """Return the number of classes or tasks of all sources together; None where a source has no data set."""
        counts = [source.population(split) if isinstance(source, WithOrigins) else None for source in self.sources.values()]
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(counts) else None

    def _compare(self) -> dict[tuple[str, str], bool]:
        """Check that all sources deal the same shapes; return, by split and role, whether any source pads."""
        masked = {}
        for split in SPLITS:
            probes = {name: source.episode(split, 0) for name, source in self.sources.items()}
            for role in ("support", "query"):
                parts = {name: getattr(probe, role) for name, probe in probes.items()}
                for field_ in ("x", "y"):
                    shapes = {name: tuple(getattr(part, field_).shape) for name, part in parts.items()}
                    if len(set(shapes.values())) > 1:
                        listing = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
                        raise UserError(
                            f"the sources of a mixture must deal the same shapes; the {split} {role} {field_} are {listing}. "
                            "Set the same shots, queries and sizes for all."
                        )
                masked[split, role] = any(part.mask is not None for part in parts.values())
        return masked


Source = Annotated[TaskSource, Built("a task of its own: a mapping with a _target_")]


def mixture(
    *,
    sources: Mapping[str, Source | None],
    weights: Mapping[str, NotNegative] | None = None,
    shots: Count | None = None,
    queries: Count | None = None,
    train_shots: Count | None = None,
    train_queries: Count | None = None,
    min_shots: Count | None = None,
    noise: NotNegative = 0.0,
    seed: Seed = 0,
    eval_seed: Seed = 0,
) -> Mixture | Noisy:
    """Return the source that mixes `sources`. A source that is None (null in an override) is left out.

    shots, queries, train_shots, train_queries, min_shots: a value that is not None replaces the value of every source. The two seeds
    replace the sources' seeds too. noise: standard deviation of the noise on every target (see `Noisy`); 0 for none.
    """
    shared = {"shots": shots, "queries": queries, "train_shots": train_shots, "train_queries": train_queries, "min_shots": min_shots}
    changes = {name: value for name, value in shared.items() if value is not None} | {"seed": seed, "eval_seed": eval_seed}
    adjusted = {name: _adjust(name, source, changes) for name, source in sources.items() if source is not None}
    mixed = Mixture(adjusted, weights, seed, eval_seed)
    return Noisy(mixed, noise, seed, eval_seed, stream="noise of the mixture") if noise else mixed


def _adjust(name: str, source: TaskSource, values: Mapping[str, int]) -> TaskSource:
    """Return the source with these fields replaced. A user's own source may lack the seeds, but not the sizes in `values`."""
    seed, eval_seed = values["seed"], values["eval_seed"]
    if isinstance(source, Noisy):
        return dataclasses.replace(source, source=_adjust(name, source.source, values), seed=seed, eval_seed=eval_seed)
    if isinstance(source, Mixture):
        sources = {part: _adjust(part, each, values) for part, each in source.sources.items()}
        return dataclasses.replace(source, sources=sources, seed=seed, eval_seed=eval_seed)
    holder = getattr(source, "sampling", None)
    if isinstance(holder, PointSampling):
        return dataclasses.replace(source, sampling=dataclasses.replace(holder, **values))  # type: ignore[type-var]
    fields: list[str] = [entry.name for entry in dataclasses.fields(source) if entry.init] if dataclasses.is_dataclass(source) else []
    for key in values:
        if key not in fields and key not in ("seed", "eval_seed"):
            raise UserError(
                f"the source '{name}' of the mixture has no field '{key}' to set; give task.{key}=null and set it in the source."
            )
    changes = {key: value for key, value in values.items() if key in fields}
    return dataclasses.replace(source, **changes) if changes else source  # type: ignore[type-var]


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


def _numbers(examples: Examples) -> Tensor:
    return torch.full(examples.y[:, 0].shape, -1) if examples.classes is None else examples.classes


def _mask(examples: Examples, rows: torch.Size) -> Tensor:
    return torch.ones(rows, dtype=torch.bool) if examples.mask is None else examples.mask
