"""The two public functions: importing the package registers nothing, and each of them works when it is called first."""

from __future__ import annotations

import subprocess
import sys

import pytest

from metarun.compute import kernels
from metarun.compute.kernels import operations
from metarun.compute.plan import KERNEL_CHANNELS


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_the_package_has_two_public_functions():
    public = {name for name, value in vars(kernels).items() if callable(value) and not name.startswith("_")}
    assert public == {"missing", "rewrite"}


def test_no_operation_is_registered_before_one_of_the_two_is_called():
    code = """
import sys, torch
from metarun import commands, testing
from metarun.commands import evaluate, train
from metarun.compute import device, plan, running
from metarun.engine import evaluation, training
from metarun.wiring import build
print([name for name in sys.modules if name.startswith("metarun.compute.kernels")], hasattr(torch.ops.metarun, "conv"))
import metarun.compute.kernels
print(hasattr(torch.ops.metarun, "conv"))
"""
    assert python(code).split("\n") == ["[] False", "False"]


@pytest.mark.skipif(kernels.missing() is not None, reason=f"no C kernels here: {kernels.missing()}")
@pytest.mark.parametrize("first", ["missing", "rewrite"])
def test_both_functions_can_be_called_more_than_once_in_any_order(first: str):
    """A submodule with the name of a function would replace the function in the package at its first import."""
    code = f"""
import torch
from torch.fx import symbolic_trace
from metarun.compute import kernels
from metarun.compute.kernels import operations
from metarun.compute.plan import KERNEL_CHANNELS
calls = {{"missing": lambda: kernels.missing(), "rewrite": lambda: kernels.rewrite(symbolic_trace(torch.nn.ReLU()))}}
for name in ["{first}", *calls, *calls]:
    calls[name]()
print(kernels.missing(), callable(kernels.rewrite))
"""
    assert python(code) == "None True"


def test_the_plan_counts_the_channels_that_the_kernels_can_compute():
    """The plan must not import the kernels, so that it has a constant of its own."""
    assert KERNEL_CHANNELS == operations.VECTOR
