"""Episodes of several sources as one batch: padding to common sizes, and labels among the classes of one source or of all.

A smaller family gets padding rows, whose mask is False, and columns of y that are 0. A padded episode gives the same loss, gradient and
score as the episode of the family alone, since every algorithm honours masks and hides classes without a support example.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from metarun.errors import UserError
from metarun.types import Episode, Examples

ROLES = ("support", "query")


@dataclass(frozen=True)
class Layout:
    """The sizes of the joint episodes of one split.

    rows: role -> rows of the largest family. masked: role -> whether the examples have a mask. columns: of y.
    first: for each family, the column of y in which its own columns begin.
    """

    rows: Mapping[str, int]
    masked: Mapping[str, bool]
    columns: int
    first: Sequence[int]


def layout_of(shown: Mapping[str, Episode], split: str, objective: str, *, all_classes: bool) -> Layout:
    """Return the layout of a split; UserError where the families do not fit together.

    shown: family -> an episode of this split. all_classes: whether a label is an index among the classes of all families.
    """
    _check_inputs(shown, split)
    own = {name: episode.support.y.shape[-1] for name, episode in shown.items()}
    if objective == "regression" and len(set(own.values())) > 1:
        raise UserError(
            f"the sources of a mixture must have the same number of targets; here {_listed(own)}. "
            f"Leave one out, such as task.sources.{list(own)[-1]}=null."
        )
    sizes = list(own.values())
    first = [sum(sizes[:place]) if all_classes else 0 for place in range(len(sizes))]
    fewer = len(set(sizes)) > 1 and not all_classes
    rows, masked = {}, {}
    for role in ROLES:
        parts: list[Examples] = [getattr(episode, role) for episode in shown.values()]
        lengths = [len(part.x) for part in parts]
        rows[role] = max(lengths)
        # Only a mask tells an algorithm that a class is absent, so the support sets have one where a family has fewer classes.
        masked[role] = len(set(lengths)) > 1 or any(part.mask is not None for part in parts) or (fewer and role == "support")
    return Layout(rows, masked, sum(sizes) if all_classes else max(sizes), first)


def joined(parts: Sequence[tuple[int, Examples]], order: Tensor, layout: Layout, role: str, *, numbered: bool) -> Examples:
    """Return the examples of several families as one batch.

    parts: the position of a family, and a batch of its examples (T_f, B, ...). order: (T,), for each episode of the result, its place in
    the parts one after the other. numbered: whether the result has class numbers, -1 where a family has none.
    """
    rows = layout.rows[role]
    x = torch.cat([_repeated(part.x, rows) for _, part in parts])[order]
    y = torch.cat([_placed(part.y, layout, family, rows) for family, part in parts])[order]
    masks = torch.cat([_mask(part, rows) for _, part in parts])[order] if layout.masked[role] else None
    numbers = torch.cat([_numbers(part, layout, family) for family, part in parts])[order] if numbered else None
    return Examples(x, y, masks, numbers)


def _check_inputs(shown: Mapping[str, Episode], split: str) -> None:
    shapes = {name: tuple(episode.support.x.shape[1:]) for name, episode in shown.items()}
    if len(set(shapes.values())) == 1:
        return
    images = all(len(shape) == 3 and shape[0] in (1, 3) for shape in shapes.values())
    smallest = min(shapes.values(), key=lambda shape: shape[-1])
    remedy = (
        f"Convert the images with task.image_size={smallest[-1]} task.channels={min(shape[0] for shape in shapes.values())}"
        if images
        else f"Leave one out, such as task.sources.{list(shapes)[-1]}=null"
    )
    raise UserError(f"the sources of a mixture must have inputs of one shape; the {split} inputs are {_listed(shapes)}. {remedy}.")


def _listed(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _repeated(x: Tensor, rows: int) -> Tensor:
    """Return x (T, B, ...) with `rows` rows. Padding rows repeat real examples, on which every network is defined."""
    return x if x.shape[1] == rows else x[:, torch.arange(rows, device=x.device) % x.shape[1]]


def _placed(y: Tensor, layout: Layout, family: int, rows: int) -> Tensor:
    """Return y (T, B, N) in the columns of its family, (T, rows, columns); 0 elsewhere."""
    if tuple(y.shape[1:]) == (rows, layout.columns):
        return y
    first = layout.first[family]
    placed = y.new_zeros(len(y), rows, layout.columns)
    placed[:, : y.shape[1], first : first + y.shape[2]] = y
    return placed


def _mask(examples: Examples, rows: int) -> Tensor:
    known = examples.x.shape[:2]
    mask = torch.ones(known, dtype=torch.bool, device=examples.x.device) if examples.mask is None else examples.mask
    return torch.cat([mask, mask.new_zeros(len(mask), rows - known[1])], dim=1)


def _numbers(examples: Examples, layout: Layout, family: int) -> Tensor:
    numbers = torch.full((len(examples.y), layout.columns), -1, device=examples.y.device)
    if examples.classes is not None:
        first = layout.first[family]
        numbers[:, first : first + examples.classes.shape[1]] = examples.classes
    return numbers
