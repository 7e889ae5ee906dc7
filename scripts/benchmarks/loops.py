"""The contenders without metarun: a Python loop over the tasks of a step, with stock torch or with `higher`. Each class is one contender.

`LOOPS` names the classes by algorithm. A row for another algorithm needs a loop in `LOOPS`.
"""

from __future__ import annotations

import importlib
import itertools
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from .outcome import PLAIN
from .problem import Task


class Loop(Protocol):
    """One task's share of a step."""

    def loss(self, task: Task) -> Tensor:
        """Return the query loss after adaptation, with an autograd graph to the network's parameters."""

    def score(self, task: Task) -> Tensor:
        """Return accuracy or mean squared error on the query set, as at test."""


class MamlLoop:
    """MAML, second or first order, on `functional_call` and `torch.autograd.grad`."""

    def __init__(self, config: dict[str, Any], network: nn.Module) -> None:
        algo = config["algo"]
        self.network, self.params = network, named(network)
        self.lr, self.steps, self.first_order = algo["inner_lr"], algo["inner_steps"], algo["first_order"]
        self.test_steps = self.steps if algo["test_inner_steps"] is None else algo["test_inner_steps"]
        self.adapted = adapted(network)

    def loss(self, task: Task) -> Tensor:
        fast = self._adapt(task, self.steps, create_graph=not self.first_order)
        return criterion(functional_call(self.network, fast, (task.query_x,)), task.query_y)

    def score(self, task: Task) -> Tensor:
        fast = self._adapt(task, self.test_steps, create_graph=False)
        with torch.no_grad():
            return metric(functional_call(self.network, fast, (task.query_x,)), task.query_y)

    def _adapt(self, task: Task, steps: int, *, create_graph: bool) -> dict[str, Tensor]:
        fast = dict(self.params)
        for _ in range(steps):
            loss = criterion(functional_call(self.network, fast, (task.support_x,)), task.support_y)
            gradients = torch.autograd.grad(loss, [fast[name] for name in self.adapted], create_graph=create_graph)
            fast |= {name: fast[name] - self.lr * gradient for name, gradient in zip(self.adapted, gradients, strict=True)}
        return fast


class HigherLoop:
    """MAML with `higher` (Grefenstette et al. 2019), as in the MAML example of `higher`."""

    def __init__(self, config: dict[str, Any], network: nn.Module) -> None:
        self.higher: Any = importlib.import_module("higher")
        algo = config["algo"]
        self.network, self.steps, self.first_order = network, algo["inner_steps"], algo["first_order"]
        self.test_steps = self.steps if algo["test_inner_steps"] is None else algo["test_inner_steps"]
        params = named(network)
        self.inner = torch.optim.SGD([params[name] for name in adapted(network)], lr=algo["inner_lr"])

    def loss(self, task: Task) -> Tensor:
        return criterion(self._adapted(task, self.steps, track=True)(task.query_x), task.query_y)

    def score(self, task: Task) -> Tensor:
        fast = self._adapted(task, self.test_steps, track=False)
        with torch.no_grad():
            return metric(fast(task.query_x), task.query_y)

    def _adapted(self, task: Task, steps: int, *, track: bool) -> Callable[[Tensor], Tensor]:
        constant = (lambda gradients: [gradient.detach() for gradient in gradients]) if self.first_order else None
        context = self.higher.innerloop_ctx(self.network, self.inner, copy_initial_weights=False, track_higher_grads=track)
        with context as (fast, optimizer):
            for _ in range(steps):
                optimizer.step(criterion(fast(task.support_x), task.support_y), grad_callback=constant)
        network: Callable[[Tensor], Tensor] = fast
        return network


class ProtoNetLoop:
    """Prototypical Networks. Training passes support and query through the network together; testing uses running statistics."""

    def __init__(self, config: dict[str, Any], network: nn.Module) -> None:
        self.network = network

    def loss(self, task: Task) -> Tensor:
        self.network.train()
        support, query = self.network(torch.cat([task.support_x, task.query_x])).split([len(task.support_x), len(task.query_x)])
        return criterion(self._logits(support, query, task), task.query_y)

    def score(self, task: Task) -> Tensor:
        self.network.eval()
        with torch.no_grad():
            return metric(self._logits(self.network(task.support_x), self.network(task.query_x), task), task.query_y)

    def _logits(self, support: Tensor, query: Tensor, task: Task) -> Tensor:
        ways = int(task.support_y[-1]) + 1  # class by class, as the sampler deals
        centres = support.reshape(ways, -1, support.shape[-1]).mean(dim=1)
        return -torch.cdist(query, centres).square()


Maker = Callable[[dict[str, Any], nn.Module], Loop]
"""Makes a loop from a config and a network."""

LOOPS: dict[str, dict[str, Maker]] = {
    "Maml": {PLAIN: MamlLoop, "higher": HigherLoop},
    "ProtoNet": {PLAIN: ProtoNetLoop},
}


class Training:
    """A loop with torch's Adam over batches of dealt tasks."""

    def __init__(self, loop: Loop, network: nn.Module, lr: float, batches: Sequence[Sequence[Task]]) -> None:
        self.loop, self.network = loop, network
        self.optimizer = torch.optim.Adam(network.parameters(), lr=lr)
        self.batches = itertools.cycle(batches)

    def step(self) -> None:
        """Take one outer step."""
        self.optimizer.zero_grad()
        accumulate(self.loop, next(self.batches))
        self.optimizer.step()


def accumulate(loop: Loop, tasks: Sequence[Task]) -> Tensor:
    """Add the gradient of the mean loss to the parameters' `grad`, with a backward pass for each task; return the mean loss."""
    total = torch.zeros(())
    for task in tasks:
        loss = loop.loss(task) / len(tasks)
        loss.backward()
        total = total + loss.detach()
    return total


def loops_for(config: dict[str, Any]) -> tuple[dict[str, Maker], list[str]]:
    """Return the contenders of a config's algorithm, and a sentence for each contender that cannot take part."""
    loops = dict(LOOPS[config["algo"]["_target_"].rsplit(".", 1)[-1]])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # higher is from 2020, and newer Pythons warn about its code
            importlib.import_module("higher")
    except Exception as error:  # an old package may fail in any way under a new torch
        if loops.pop("higher", None) is not None:
            return loops, [f"higher is absent: it cannot be imported here ({type(error).__name__}: {error})."]
    return loops, []


def named(network: nn.Module) -> dict[str, Tensor]:
    """Return the parameters by name."""
    return dict(network.named_parameters())


def adapted(network: nn.Module) -> list[str]:
    """Return the names of the parameters that the inner loop changes: all except the scales and shifts of normalisation."""
    fixed = {name for name, layer in network.named_modules() if isinstance(layer, nn.BatchNorm2d)}
    return [name for name, _ in network.named_parameters() if name.rpartition(".")[0] not in fixed]


def criterion(outputs: Tensor, y: Tensor) -> Tensor:
    """Return the mean cross entropy for class numbers y (B,), else the mean squared error."""
    return F.mse_loss(outputs, y) if y.is_floating_point() else F.cross_entropy(outputs, y)


def metric(outputs: Tensor, y: Tensor) -> Tensor:
    """Return the accuracy for class numbers y (B,), else the mean squared error."""
    return F.mse_loss(outputs, y) if y.is_floating_point() else (outputs.argmax(dim=-1) == y).float().mean()
