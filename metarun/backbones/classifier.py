"""A backbone with a linear head: what gradient-based algorithms train."""

from __future__ import annotations

import inspect
from typing import Literal, get_args

from torch import Tensor, nn

from metarun.errors import UserError, nearest

HeadInit = Literal["glorot", "normal", "torch"]
HEAD_INITS = get_args(HeadInit)


class Classifier(nn.Module):
    """Map inputs (B, ...) to outputs (B, outputs): `head(body(x))`.

    backbone: an embedding network with `out_features`; becomes the submodule `body`.
    outputs: ways in classification, targets in regression.
    head_init: the head's initial weights, drawn from torch's global generator.
        None: the backbone's own rule where it has a method `init_weights(module)`, else "torch". A method of this name with other
        arguments is something else, such as timm's, which initialises the backbone.
        "glorot": uniform with bound sqrt(6 / (out_features + outputs)), biases zero.
        "normal": standard normal, biases zero: the head of MAML's released code on Omniglot (`cbfinn/maml` maml.py, `random_normal`).
        "torch": the default of `nn.Linear`, weights and biases uniform with bound 1 / sqrt(out_features).

    Raises UserError for a backbone without `out_features` and for an unknown head_init.
    """

    def __init__(self, backbone: nn.Module, outputs: int, head_init: HeadInit | None = None) -> None:
        super().__init__()
        width = getattr(backbone, "out_features", None)
        if not isinstance(width, int):
            name = type(backbone).__name__
            raise UserError(
                f"the backbone {name} has no integer `out_features`; set it in its __init__ to the width of the vectors it returns."
            )
        if head_init is not None and head_init not in HEAD_INITS:
            raise UserError(
                f"backbone.head_init={head_init} is unknown; it must be null or one of {', '.join(HEAD_INITS)}."
                f"{nearest(str(head_init), HEAD_INITS)}"
            )
        self.body = backbone
        self.head = nn.Linear(width, outputs)
        init_weights = getattr(backbone, "init_weights", None)
        if head_init is not None:
            _init(self.head, head_init)
        elif callable(init_weights) and list(inspect.signature(init_weights).parameters) == ["module"]:
            init_weights(self.head)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.body(x))
        return outputs


def _init(head: nn.Linear, rule: str) -> None:
    """Draw the weights of the head by a rule of `HEAD_INITS`; a new `nn.Linear` already follows "torch"."""
    if rule == "torch":
        return
    if rule == "glorot":
        nn.init.xavier_uniform_(head.weight)
    else:
        nn.init.normal_(head.weight)
    nn.init.zeros_(head.bias)
