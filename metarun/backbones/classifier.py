"""A backbone with a linear head: what gradient-based algorithms train."""

from __future__ import annotations

from torch import Tensor, nn

from metarun.errors import UserError


class Classifier(nn.Module):
    """Map inputs (B, ...) to outputs (B, outputs): `head(body(x))`.

    backbone: an embedding network with `out_features`; becomes the submodule `body`. Where it has a method
        `init_weights(module)`, the head is initialised by it too.
    outputs: ways in classification, targets in regression.
    """

    def __init__(self, backbone: nn.Module, outputs: int) -> None:
        super().__init__()
        width = getattr(backbone, "out_features", None)
        if not isinstance(width, int):
            name = type(backbone).__name__
            raise UserError(
                f"the backbone {name} has no integer `out_features`; set it in its __init__ to the width of the vectors it returns."
            )
        self.body = backbone
        self.head = nn.Linear(width, outputs)
        init_weights = getattr(backbone, "init_weights", None)
        if callable(init_weights):
            init_weights(self.head)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.body(x))
        return outputs
