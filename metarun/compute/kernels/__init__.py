"""C kernels for recorded programs, behind two functions. Without this folder torch's kernels compute everything.

Importing the package costs nothing. The first call of either function imports the rest and registers the operations with torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.fx import GraphModule


def missing() -> str | None:
    """Return why the C kernels cannot be used here, or None where they can. The first call compiles and tests them."""
    from metarun.compute.kernels import selftest

    return selftest.missing()


def rewrite(module: GraphModule) -> GraphModule:
    """Replace the operations of a recorded program that C kernels compute faster. `missing` must have returned None.

    The module is changed in place and returned. Shapes and memory layouts alone decide which operations are replaced. The results equal
    those of torch up to rounding.
    """
    from metarun.compute.kernels import rewriting

    return rewriting.rewrite(module)
