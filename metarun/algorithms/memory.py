"""Memory: the weights of past tasks stay in a memory, and related entries are the prior of a new task's weights.

metarun's own. Near relatives: the memory module of Kaiser, Nachum, Roy and Bengio, "Learning to remember rare events", ICLR 2017
(https://arxiv.org/abs/1703.03129), whose values are labels; "Memory matching networks" of Cai et al., CVPR 2018
(https://arxiv.org/abs/1804.08281), whose memory is the support set. Here an entry is a past task: its key describes its few examples,
and its value holds the weights that its many examples led to.

    key of a task      q   = unit length of the mean over its support of h_L,   h₁ = tanh(W [f(x), y] + b),   h_l = tanh(W_l h_l₋₁ + b_l)
    retrieval          a_m = softmax over the k nearest entries of τ q·k_m,      r = Σ a_m v_m
    gate               g   = sigmoid(G [q, Σ a_m q·k_m] + b), per weight; 0 where the task may read no entry
    fusion             regression:      w₀ = w̄ + g (r - w̄),  w = w₀ + Zᵀ (Z Zᵀ + λ I)⁻¹ (y - Z w₀)
                       classification:  c_n = p_n + g_n (r_n - p_n)
    storing            k = q and v = the same weights fitted to support and query, without the memory; once per outer step

f is the backbone, and Z has the rows [f(x), 1] of the support set. In regression the weights are those of a linear head. Their Gaussian
prior has the mean w₀, which retrieval changes; w̄ is the learned mean without retrieval. Ridge regression gives the posterior mean w. In
classification the weights are the prototypes p_n of `protonet`. The label of a class means nothing in another episode, so every class is
an entry of its own. If a prior counts as κ examples, the posterior mean of K examples is p_n + κ/(K + κ) (r_n - p_n). This is the fusion
above with the gate g_n = sigmoid(ln κ - ln K).

The memory lies in the state, and has a fixed size. Training and test read it, but only training writes it. So it holds training tasks
only, and evaluation leaves it as it is. Entries are constants for the gradient; the outer loop learns to embed, to retrieve and to trust.

The classes of a test task are new. A class of a training task often has an entry from an earlier step. A learner that may read such an
entry learns to look a class up, which is of no use in a test. So a task never reads an entry of any of its own classes. The source numbers
the classes for this rule (`Examples.classes`). The rule has no effect in a test, unless the test classes are training classes.

With `retrieval=off` or an empty memory this is ProtoNet, or plain ridge regression on learned features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from metarun import draws
from metarun.algorithms.parts.entries import CLASSES, KEYS, UNKNOWN, USAGE, VALUES, attend, available, empty_memory, faded, write
from metarun.algorithms.parts.members import check_least
from metarun.algorithms.parts.task_weights import KINDS, TaskWeights
from metarun.algorithms.parts.vectors import unit
from metarun.errors import UserError, nearest
from metarun.layers.precision import at_least_float32
from metarun.network import Fitted, Network, joint_mask
from metarun.objectives import Objective
from metarun.types import Aux, Episode, Examples, Params, State, Traits
from metarun.values import Finite, Layers, Range, Size

READS, USED = "memory.reads", "memory.used"
Retrieval = Literal["attention", "random", "off"]
Eviction = Literal["least_used", "oldest"]
RETRIEVALS, EVICTIONS = get_args(Retrieval), get_args(Eviction)


class Recalling(NamedTuple):
    """weights: (U, V), a prototype or a head for each column of y. network: for queries. classes: (U,), which are present; None for all."""

    weights: Tensor
    network: Fitted
    classes: Tensor | None


class Recalled(NamedTuple):
    """The result of retrieval for each column of y: r as `values` (U, V), g as `gate` (U, V), a of all M entries as `attention` (U, M)."""

    values: Tensor
    gate: Tensor
    attention: Tensor


@dataclass(frozen=True)
class Memory:
    """The memory of past tasks.

    capacity: M, entries. neighbours: k. key_size: the size of q. key_layers: L, the layers of the network that makes keys.
    retrieval: "attention"; "random" attends to k random entries instead of the nearest; "off" attends to none.
    eviction: the entry that makes room for a new one: "oldest", or "least_used". Usage starts at 1, grows by the attention that an entry
        gets, and fades by the factor `decay` each step.
    gate_bias: b of the gate before training; below 0 the learner starts with more trust in the examples than in the memory.
    """

    network: Network
    objective: Objective
    capacity: Size = 1000
    neighbours: Size = 8
    key_size: Size = 32
    key_layers: Layers = 1
    retrieval: Retrieval = "attention"
    eviction: Eviction = "least_used"
    decay: Annotated[float, Range(above=0, most=1)] = 0.99
    gate_bias: Finite = -1.0
    traits: ClassVar[Traits] = Traits(head=False, adapts_backbone=False, class_numbers=True)

    def __post_init__(self) -> None:
        for name, value, known in (("retrieval", self.retrieval, RETRIEVALS), ("eviction", self.eviction, EVICTIONS)):
            if value not in known:
                raise UserError(f"algo.{name}={value} is unknown; it must be one of {', '.join(known)}.{nearest(value, known)}")
        check_least(self, 1, "capacity", "neighbours", "key_size", "key_layers")
        if self.neighbours > self.capacity:
            raise UserError(f"algo.neighbours={self.neighbours} exceeds algo.capacity={self.capacity}; lower it.")
        if not 0 < self.decay <= 1:
            raise UserError(f"algo.decay={self.decay} must be above 0 and at most 1.")

    @property
    def kind(self) -> TaskWeights:
        """Prototypes in classification, linear heads in regression."""
        return KINDS[self.objective.kind]

    def init(self, key: Tensor) -> tuple[Params, State]:
        """Return the parameters of backbone, keys, gate and prior; the state has running statistics and an empty memory."""
        params, state = self.network.init()
        features = int(self.network.module.out_features)  # type: ignore[arg-type]
        size, limit = self.kind.size(features), (features + 1) ** -0.5
        params |= {
            "key.weight": draws.uniform(draws.fold(key, "key"), self.key_size, features + 1, low=-limit, high=limit),
            "key.bias": torch.zeros(self.key_size),
            "log_sharpness": torch.tensor(2.0),
            "gate.weight": torch.zeros(size, self.key_size + 1),
            "gate.bias": torch.full((size,), self.gate_bias),
        }
        memory = empty_memory(self.capacity, self.key_size, size, classes=self.objective.kind == "classification")
        return params | self._deeper_keys(key) | self.kind.init(features), state | memory

    def adapt(self, params: Params, state: State, support: Examples, key: Tensor, *, training: bool = False) -> Recalling:
        """Return the weights of a task, from its support set and the related entries of the memory."""
        z = self.network.on_support(params, state, support, training=training)
        recalled = self._recall(params, state, self._keys(params, z, support), support, key)
        network = self.network.fit(params, state, support, training=training)
        return Recalling(self._weights(params, z, support, recalled), network, self.kind.classes(support))

    def predict(self, adapted: Recalling, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return minus the squared distances to the prototypes (B, N), or the outputs of the heads (B, D)."""
        return self.kind.outputs(self.network.on_query(adapted.network, x, mask)[0], adapted.weights, adapted.classes)

    def loss(self, params: Params, state: State, episode: Episode, key: Tensor, step: Tensor) -> tuple[Tensor, Aux]:
        """Return the query loss. The aux carries the new entries of this task, and its attention to the old ones.

        The metric `gate` is the mean of g over the task, and `own_entries` the share of the entries that come from the task's own classes.
        """
        support, query = episode
        known, asked, statistics = self.network.on_episode(params, state, episode)
        keys, classes = self._keys(params, known, support), self.kind.classes(support)
        recalled = self._recall(params, state, keys, support, key)
        outputs = self.kind.outputs(asked, self._weights(params, known, support, recalled), classes)
        loss = self.objective.loss(outputs, query.y, query.mask)
        metrics = {"loss": loss, self.objective.metric: self.objective.score(outputs, query.y, query.mask)}
        used = torch.ones_like(keys[:, 0]) if classes is None else classes.to(keys.dtype)
        whole = Examples(torch.cat([known, asked]), torch.cat([support.y, query.y]), joint_mask(support, query))
        entries = {KEYS: keys, VALUES: self._weights(params, whole.x, whole, None), USED: used}
        if CLASSES in state:
            entries[CLASSES] = torch.full_like(keys[:, 0], UNKNOWN, dtype=torch.int64) if support.classes is None else support.classes
        if support.classes is not None:
            metrics["own_entries"] = self._share_barred(state, support)
        if recalled is not None:
            metrics["gate"] = at_least_float32(used @ recalled.gate.mean(dim=1)) / used.sum()
            entries[READS] = at_least_float32(used @ recalled.attention)
        return loss, Aux.of(metrics, statistics | entries)

    def update_state(self, state: State, aux: dict[str, Tensor]) -> State:
        """Fade the entries, write the new entries of all tasks over the least used ones, and track running statistics."""
        reads = aux[READS].sum(dim=0) if self.eviction == "least_used" and READS in aux else None
        new = {name: aux[name].flatten(0, 1) for name in (KEYS, VALUES, CLASSES) if name in aux}
        new[USAGE] = torch.ones_like(new[KEYS][:, 0])
        memory = write(faded(state, self.decay, reads), new, aux[USED].flatten() > 0)
        return self.network.update_running(state, aux) | memory

    def _keys(self, params: Params, z: Tensor, examples: Examples) -> Tensor:
        """Return q (U, key_size) of each column of y, from embeddings z (B, D)."""
        shares = self.kind.shares(examples.y)
        if examples.mask is not None:
            shares = shares * examples.mask[:, None]
        by_input, by_target = params["key.weight"][:, :-1], params["key.weight"][:, -1]
        codes = torch.tanh((z @ by_input.T)[:, None] + examples.y[:, :, None] * by_target + params["key.bias"])
        for layer in range(1, self.key_layers):
            codes = torch.tanh(codes @ params[f"key.{layer}.weight"].T + params[f"key.{layer}.bias"])
        return unit(at_least_float32(torch.einsum("bu,bus->us", shares, codes)))  # at unit length, the sum and the mean are the same

    def _deeper_keys(self, key: Tensor) -> Params:
        """Return the parameters of the network that makes keys, from its second layer on."""
        limit = self.key_size**-0.5
        params: Params = {}
        for layer in range(1, self.key_layers):
            weight = draws.uniform(draws.fold(key, f"key {layer}"), self.key_size, self.key_size, low=-limit, high=limit)
            params |= {f"key.{layer}.weight": weight, f"key.{layer}.bias": torch.zeros(self.key_size)}
        return params

    def _recall(self, params: Params, state: State, keys: Tensor, support: Examples, key: Tensor) -> Recalled | None:
        """Look up the entries that are related to these keys (U, key_size)."""
        if self.retrieval == "off":
            return None
        places = available(state, self._own_classes(support))
        random_key = draws.fold(key, "recall") if self.retrieval == "random" else None
        attention, similarity = attend(keys, state, places, params["log_sharpness"].exp(), self.neighbours, random_key)
        trust = torch.cat([keys, similarity], dim=1) @ params["gate.weight"].T + params["gate.bias"]
        evidence = self.kind.evidence(support)
        if evidence is not None:
            trust = trust - evidence
        return Recalled(attention @ state[VALUES], torch.where(places.any(), trust.sigmoid(), 0.0), attention * places)

    def _own_classes(self, support: Examples) -> Tensor | None:
        """Return the numbers of the classes that the support set shows, (N,), and `UNKNOWN` for the others; None without class numbers."""
        if support.classes is None:
            return None
        counts = (support.y if support.mask is None else support.y * support.mask[:, None]).sum(dim=0)
        return torch.where(counts > 0, support.classes, UNKNOWN)

    def _share_barred(self, state: State, support: Examples) -> Tensor:
        """Return the share of the entries that this task may not read."""
        filled, readable = available(state).sum(), available(state, self._own_classes(support)).sum()
        return (filled - readable) / filled.clamp(min=1)

    def _weights(self, params: Params, z: Tensor, examples: Examples, recalled: Recalled | None) -> Tensor:
        """Return the weights (U, V) fitted to embeddings z (B, D) and their labels, from the recalled prior."""
        prior = self.kind.prior(params, z, examples)
        if recalled is not None:
            prior = prior + recalled.gate * (recalled.values - prior)
        return self.kind.fit(params, z, examples, prior)
