"""Call a module with tensors of the caller's, each in every place where the module holds the tensor."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.func import functional_call


def places_of(module: nn.Module) -> dict[str, str]:
    """Return, for each place of a parameter or a buffer in the module, the name of its tensor: the tensor's first place.

    A layer that is registered twice has its places once, under its first name. A tensor that two layers share has two places.
    """
    first: dict[int, str] = {}
    places = {}
    for path, layer in module.named_modules():
        every = {"recurse": False, "remove_duplicate": False}
        for name, value in [*layer.named_parameters(**every), *layer.named_buffers(**every)]:
            place = f"{path}.{name}" if path else name
            places[place] = first.setdefault(id(value), place)
    return places


def call_with(module: nn.Module, places: Mapping[str, str], tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Return module(x) with these tensors, by name, in the places of the module's own. The module keeps its own tensors afterwards.

    places: of `places_of`. `torch.func.functional_call` alone leaves the caller's tensors behind in a layer that is registered twice.
    """
    given = {place: tensors[name] for place, name in places.items() if name in tensors}
    outputs: Tensor = functional_call(module, given, (x,), tie_weights=False)
    return outputs
