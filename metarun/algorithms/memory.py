"""Memory: what past tasks have taught is kept, and related entries of it are the prior of a new task's weights.

metarun's own. Near relatives: the memory module of Kaiser, Nachum, Roy and Bengio, "Learning to remember rare events", ICLR 2017
(https://arxiv.org/abs/1703.03129), whose values are labels; "Memory matching networks" of Cai et al., CVPR 2018
(https://arxiv.org/abs/1804.08281), whose memory is the support set. Here an entry is a past task: what its few examples looked like, and
the weights that its many examples led to.

    key of a task      q   = unit length of the mean over its support of tanh(W [f(x), y] + b)
    retrieval          a_m = softmax over the k nearest entries of τ q·k_m,      r = Σ a_m v_m
    gate               g   = sigmoid(G [q, Σ a_m q·k_m] + b), per weight; 0 while the memory is empty
    fusion             regression:      w₀ = w̄ + g (r - w̄),  w = w₀ + Zᵀ (Z Zᵀ + λ I)⁻¹ (y - Z w₀)
                       classification:  c_n = p_n + g_n (r_n - p_n)
    storing            k = q and v = the same weights fitted to support and query, without the memory; once per outer step

f is the backbone and Z the rows [f(x), 1] of the support set. In regression the weights are those of a linear head, and retrieval gives the
mean of their Gaussian prior: ridge regression is the posterior mean, w̄ the learned mean where nothing is retrieved. In classification they
are the prototypes p_n of `protonet`, since a class's place among the labels means nothing in another episode: every class is an entry of its
own, and a mean of K examples with a prior that is worth κ of them is p_n + κ/(K + κ) (r_n - p_n), which is the gate's form with
ln κ - ln K inside the sigmoid. Both are closed forms of few examples with a prior from the past, so one file serves both; a head for each
target and a prototype for each class make the entries of a task a column of y each.

The memory has a fixed size and lies in the state: keys, values, and how much each entry was used. It is read in training and at test and
written in training alone, so it holds training tasks only and evaluation leaves it as it is. Entries are constants for the gradient; what
the outer loop learns is how to embed, to retrieve and to trust. With `retrieval=off` or an empty memory this is ProtoNet or plain ridge
regression on learned features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from metarun import draws
from metarun.errors import UserError, nearest
from metarun.functional import prototypes, squared_distances
from metarun.network import Fitted, Network, hide_absent, joint_mask, present_classes
from metarun.objectives import Objective
from metarun.types import Aux, Episode, Examples, Params, State

KEYS, VALUES, USAGE = "memory.keys", "memory.values", "memory.usage"
READS, USED = "memory.reads", "memory.used"
EMPTY = -1.0
"""Usage of a place that holds no entry; entries have 0 and more."""

RETRIEVALS, EVICTIONS = ("attention", "random", "off"), ("least_used", "oldest")


class Adapted(NamedTuple):
    """weights: (U, V), a prototype or a head for each column of y. network: the backbone, ready for queries. classes: (N,) bool or None."""

    weights: Tensor
    network: Fitted
    classes: Tensor | None


class Recalled(NamedTuple):
    """What retrieval brings back for each column of y: values (U, V), r; gate (U, V), g; attention (U, M), a over the whole memory."""

    values: Tensor
    gate: Tensor
    attention: Tensor


@dataclass(frozen=True)
class Memory:
    """The memory of past tasks.

    capacity: M, entries. neighbours: k. key_size: of q. retrieval: "attention"; "random" takes k entries at random in place of the nearest
        and attends to those; "off" takes none.
    eviction: which entry makes room for a new one: "least_used", by the attention that it was given, which fades by `decay` a step and
        begins at 1; or "oldest".
    gate_bias: b of the gate before training; below 0 the learner begins by trusting the examples.
    """

    network: Network
    objective: Objective
    capacity: int = 1000
    neighbours: int = 8
    key_size: int = 32
    retrieval: str = "attention"
    eviction: str = "least_used"
    decay: float = 0.99
    gate_bias: float = -1.0
    head: ClassVar[bool] = False
    adapts_backbone: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name, known in (("retrieval", RETRIEVALS), ("eviction", EVICTIONS)):
            if (value := getattr(self, name)) not in known:
                raise UserError(f"algo.{name}={value} is unknown; it must be one of {', '.join(known)}.{nearest(value, known)}")
        for name in ("capacity", "neighbours", "key_size"):
            if getattr(self, name) < 1:
                raise UserError(f"algo.{name}={getattr(self, name)} must be at least 1.")
        if self.neighbours > self.capacity:
            raise UserError(f"algo.neighbours={self.neighbours} exceeds algo.capacity={self.capacity}; lower it.")
        if not 0 < self.decay <= 1:
            raise UserError(f"algo.decay={self.decay} must be above 0 and at most 1.")

    @property
    def classifies(self) -> bool:
        """Whether the weights are prototypes, and not heads."""
        return self.objective.kind == "classification"

    def init(self, key: Tensor) -> tuple[Params, State]:
        """Return the backbone's parameters with those of keys, gate and prior, and an empty memory in the state."""
        params, state = self.network.init()
        features = int(self.network.module.out_features)  # type: ignore[arg-type]
        size = features if self.classifies else features + 1
        limit = (features + 1) ** -0.5
        params |= {
            "key.weight": draws.uniform(draws.fold(key, "key"), self.key_size, features + 1, low=-limit, high=limit),
            "key.bias": torch.zeros(self.key_size),
            "log_sharpness": torch.tensor(2.0),
            "gate.weight": torch.zeros(size, self.key_size + 1),
            "gate.bias": torch.full((size,), self.gate_bias),
        }
        if not self.classifies:
            params |= {"prior": torch.zeros(size), "log_strength": torch.zeros(())}
        memory = {
            KEYS: torch.zeros(self.capacity, self.key_size),
            VALUES: torch.zeros(self.capacity, size),
            USAGE: torch.full((self.capacity,), EMPTY),
        }
        return params, state | memory

    def adapt(self, params: Params, state: State, support: Examples, key: Tensor, *, training: bool = False) -> Adapted:
        """Return the weights of a task: what its support set says, and the memory of what is related to it."""
        z = self.network.on_support(params, state, support, training=training)
        recalled = self._recall(params, state, self._keys(params, z, support), support, key)
        network = self.network.fit(params, state, support, training=training)
        return Adapted(self._weights(params, z, support, recalled), network, present_classes(support) if self.classifies else None)

    def predict(self, adapted: Adapted, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return minus the squared distances to the prototypes (B, N), or the outputs of the heads (B, D)."""
        return self._outputs(self.network.on_query(adapted.network, x, mask)[0], adapted.weights, adapted.classes)

    def loss(self, params: Params, state: State, episode: Episode, key: Tensor, step: Tensor) -> tuple[Tensor, Aux]:
        """Return the query loss; the aux carries the entries that the task leaves behind, and which ones it read."""
        support, query = episode
        known, asked, statistics = self.network.on_episode(params, state, episode)
        keys = self._keys(params, known, support)
        recalled = self._recall(params, state, keys, support, key)
        classes = present_classes(support) if self.classifies else None
        outputs = self._outputs(asked, self._weights(params, known, support, recalled), classes)
        loss = self.objective.loss(outputs, query.y, query.mask)
        metrics = {"loss": loss, self.objective.metric: self.objective.score(outputs, query.y, query.mask)}
        used = torch.ones_like(keys[:, 0]) if classes is None else classes.to(keys.dtype)
        whole = Examples(torch.cat([known, asked]), torch.cat([support.y, query.y]), joint_mask(support, query))
        learned = {KEYS: keys, VALUES: self._weights(params, whole.x, whole, None), USED: used}
        if recalled is not None:
            metrics["gate"] = used @ recalled.gate.mean(dim=1) / used.sum()
            learned[READS] = used @ recalled.attention
        detached = {name: value.detach() for name, value in learned.items()}
        return loss, Aux({name: value.detach() for name, value in metrics.items()}, statistics | detached)

    def update_state(self, state: State, aux: dict[str, Tensor]) -> State:
        """Let the entries fade, write those of all tasks of the step over the least used ones, and track running statistics."""
        usage = state[USAGE] * self.decay
        if self.eviction == "least_used" and READS in aux:
            usage = usage + aux[READS].sum(dim=0)
        memory = {KEYS: state[KEYS], VALUES: state[VALUES], USAGE: torch.where(state[USAGE] < 0, EMPTY, usage)}
        new = {name: aux[name].flatten(0, 1) for name in (KEYS, VALUES)}
        used = aux[USED].flatten() > 0
        return self.network.update_running(state, aux) | write(memory, new | {USAGE: torch.ones_like(new[KEYS][:, 0])}, used)

    def _keys(self, params: Params, z: Tensor, examples: Examples) -> Tensor:
        """Return q (U, key_size) of each column of y, from embeddings z (B, D)."""
        y = examples.y
        weights = y if self.classifies else torch.ones_like(y)
        if examples.mask is not None:
            weights = weights * examples.mask[:, None]
        by_input, by_target = params["key.weight"][:, :-1], params["key.weight"][:, -1]
        codes = torch.tanh((z @ by_input.T)[:, None] + y[:, :, None] * by_target + params["key.bias"])
        keys = torch.einsum("bu,bus->us", weights, codes)  # the length that is divided out makes a mean of the sum
        return keys * (keys.square().sum(dim=1, keepdim=True) + 1e-12).rsqrt()

    def _recall(self, params: Params, state: State, keys: Tensor, support: Examples, key: Tensor) -> Recalled | None:
        """Look up the entries that are related to these keys (U, key_size)."""
        if self.retrieval == "off":
            return None
        filled = state[USAGE] >= 0
        cosine = keys @ state[KEYS].T
        rank = cosine.detach() if self.retrieval == "attention" else draws.uniform(draws.fold(key, "recall"), *cosine.shape)
        rank = rank.masked_fill(~filled, -torch.inf)
        chosen = filled & (rank >= rank.topk(self.neighbours, dim=1).values[:, -1:])
        # Finite, since an empty memory would otherwise divide 0 by 0; its gate is closed below.
        attention = (params["log_sharpness"].exp() * cosine).masked_fill(~chosen, -1e9).softmax(dim=1)
        similarity = (attention * cosine).sum(dim=1, keepdim=True)
        trust = torch.cat([keys, similarity], dim=1) @ params["gate.weight"].T + params["gate.bias"]
        if self.classifies:
            trust = trust - _count(support).log()[:, None]
        return Recalled(attention @ state[VALUES], torch.where(filled.any(), trust.sigmoid(), 0.0), attention * filled)

    def _weights(self, params: Params, z: Tensor, examples: Examples, recalled: Recalled | None) -> Tensor:
        """Return prototypes or heads (U, V) fitted to embeddings z (B, D) with their labels, from the prior that was recalled."""
        start = prototypes(z, examples.y, examples.mask) if self.classifies else params["prior"].expand(examples.y.shape[1], -1)
        if recalled is not None:
            start = start + recalled.gate * (recalled.values - start)
        return start if self.classifies else ridge(_with_one(z), examples.y, examples.mask, start, params["log_strength"].exp())

    def _outputs(self, z: Tensor, weights: Tensor, classes: Tensor | None) -> Tensor:
        return hide_absent(-squared_distances(z, weights), classes) if self.classifies else _with_one(z) @ weights.T


def ridge(z: Tensor, y: Tensor, mask: Tensor | None, prior: Tensor, strength: Tensor) -> Tensor:
    """Return the heads (U, V) that minimise |y - z wᵀ|² + strength |w - prior|², from z (B, V), y (B, U) and prior (U, V)."""
    if mask is not None:
        z, y = torch.where(mask[:, None], z, 0.0), torch.where(mask[:, None], y, 0.0)
    gram = z @ z.T + strength * torch.eye(len(z), dtype=z.dtype, device=z.device)
    return prior + torch.linalg.solve(gram, y - z @ prior.T).T @ z


def write(memory: State, new: State, used: Tensor) -> State:
    """Return the memory with new entries in the places of the lowest usage, empty ones first; of too many new ones the last are kept.

    memory: keys, values and usage, each with a leading axis M; new: the same with a leading axis E; used: (E,), which of those are entries.
    """
    capacity = len(memory[USAGE])
    behind = used.sum() - used.cumsum(dim=0)  # how many more entries come after this one
    kept = used & (behind < capacity)
    # What is not kept goes to one more place at the end, which is cut off again: shapes may not depend on how many entries there are.
    places = torch.where(kept, memory[USAGE].argsort(stable=True)[behind.clamp(max=capacity - 1)], capacity)
    return {name: torch.cat([old, old[:1]]).index_copy(0, places, new[name].to(old.dtype))[:-1] for name, old in memory.items()}


def _with_one(z: Tensor) -> Tensor:
    return torch.cat([z, torch.ones_like(z[:, :1])], dim=1)


def _count(support: Examples) -> Tensor:
    """Return the number of examples (N,) of each class, at least 1."""
    return (support.y if support.mask is None else support.y * support.mask[:, None]).sum(dim=0).clamp(min=1)
