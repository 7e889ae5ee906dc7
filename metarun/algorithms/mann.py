"""MANN: a recurrent network with an external memory reads a sequence of examples, each with the label of the one before.

Adam Santoro, Sergey Bartunov, Matthew Botvinick, Daan Wierstra, Timothy Lillicrap. "Meta-Learning with Memory-Augmented Neural Networks",
ICML 2016. http://proceedings.mlr.press/v48/santoro16.html

    h_t = LSTM([f(x_t), y_{t-1}, r_{t-1}], h_{t-1}),  k_t = tanh(W_k h_t),  α_t = W_α h_t             (one k and α for each read head)
    w^w_t = σ(α_t) w^r_{t-1} + (1 - σ(α_t)) w^lu_{t-1}                                                (equation 7)
    M_t(i) = M_{t-1}(i) + w^w_t(i) a_t, its least used row set to zero before                         (equation 8, where a_t is k_t)
    w^r_t(i) = softmax over i of β cosine(k_t, M_t(i)),  r_t = Σ_i w^r_t(i) M_t(i)                    (equations 2 to 4)
    w^u_t = γ w^u_{t-1} + w^r_t + w^w_t                                                               (equation 5)
    p_t = softmax(W_o [h_t, r_t])

Adaptation fits no weights. The outer loop learns the weights once, and a task lives in the state of the recurrent network alone. That
state starts anew for each episode, and so do the labels of its classes. The network must therefore remember the label of a picture from
the picture's last presentation. A label arrives one step late, and y_{-1} is zero.

In training, support and query are one sequence in random order. The loss is the mean over all its steps, and includes the first
presentation of each class, where the network can only guess. `by_presentation` scores the same sequences by the number of presentations of
a class. `adapt` reads the support set, and `predict` shows each query as the next input, so the accuracy compares with other methods.

Differences from the paper, each an option unless noted:

- Head i writes to the i-th least used row by the usage before this step (no option). The paper's w^lu_{t-1} marks all these rows for
  every head, which fills them with the same vector. This and the start follow https://github.com/tristandeleu/ntm-one-shot: every
  entry of M is 1e-6, and w^r and w^u lie on the first row.
- f is the backbone with standardised features (no option). The paper reads pixels. Without the standardisation, the features that all
  pictures share make all keys alike.
- `write=own`: a head writes a vector of its own, a_t = tanh(W_a h_t), as in the neural Turing machine (Graves, Wayne and Danihelka 2014,
  https://arxiv.org/abs/1410.5401, equation 4) and in the code above. `write=key` is the paper's.
- `sharpness`: β, as in equation 5 of the neural Turing machine. The paper has none, which is β = 1.
- `slots=0`: no memory and no r. This is the paper's baseline, an LSTM (`algo=mann_lstm`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, ClassVar, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from metarun import draws
from metarun.algorithms.parts.members import check_least, check_positive
from metarun.algorithms.parts.orders import random_order
from metarun.algorithms.parts.recurrent import LstmState, lstm_cell, lstm_init
from metarun.errors import UserError, nearest
from metarun.functional import map_tasks
from metarun.layers.precision import full_precision
from metarun.network import Fitted, Network, hide_absent, joint_mask, present_classes
from metarun.objectives import Objective
from metarun.types import Aux, Episode, Examples, Params, State, Traits, part_of, prefixed
from metarun.values import Few, Positive, Range, Share, Size

CONTROLLER = "controller."
Write = Literal["key", "own"]
WRITES = get_args(Write)
LOGGED = (1, 2)
"""Training logs the accuracy at these presentations."""


class External(NamedTuple):
    """The external memory. rows: (S, W), M. reading: (R, S), w^r. usage: (S,), w^u."""

    rows: Tensor
    reading: Tensor
    usage: Tensor


class Carry(NamedTuple):
    """The state between two steps. controller: h and c, (H,). read: r, (R*W,). label: y_{t-1}, (N,). memory: M with its weights."""

    controller: LstmState
    read: Tensor
    label: Tensor
    memory: External


class Reader(NamedTuple):
    """A network that has read the support set.

    carry: its state. params: of the recurrent network. network: the backbone, ready for queries. classes: (N,) bool, the present ones, or
    None for all.
    """

    carry: Carry
    params: Params
    network: Fitted
    classes: Tensor | None


class Standardised(nn.Module):
    """A backbone with standardised features: each has mean 0 and variance 1."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.standard = nn.BatchNorm1d(int(body.out_features), affine=False)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.standard(self.body(x))
        return out


@dataclass(frozen=True)
class Mann:
    """The memory-augmented network.

    units: H, of the controller. slots: S, rows of the memory; 0 for none. width: W, of a row. heads: R, read heads. decay: γ, of the usage.
    sharpness: β, of reading. write: the vector that a head adds to the memory: its "key", or a vector of its "own".
    label_scale: the weights of the label start uniform within ± label_scale / √H, and those of the other inputs within ± 1 / √H.
    orthogonal: the controller's weights of h start as orthogonal matrices (`metarun.algorithms.parts.recurrent.lstm_init`).
    """

    network: Network
    objective: Objective
    units: Size = 200
    slots: Annotated[int, Range(least=0, most=1_000_000)] = 128
    width: Size = 40
    heads: Few = 4
    decay: Share = 0.95
    sharpness: Positive = 1.0
    write: Write = "key"
    label_scale: Positive = 0.5
    orthogonal: bool = False
    traits: ClassVar[Traits] = Traits(sequential=True, objectives=("classification",))

    def __post_init__(self) -> None:
        check_least(self, 1, "units", "width", "heads")
        check_least(self, 0, "slots")
        if 0 < self.slots < self.heads:
            raise UserError(
                f"algo.slots={self.slots} leaves no row to write to for some of algo.heads={self.heads}; use at least {self.heads}."
            )
        if not 0 <= self.decay <= 1:
            raise UserError(f"algo.decay={self.decay} must lie between 0 and 1.")
        check_positive(self, "sharpness", "label_scale")
        if self.write not in WRITES:
            raise UserError(f"algo.write is {' or '.join(WRITES)}, not '{self.write}'.{nearest(str(self.write), WRITES)}")

    @cached_property
    def embedding(self) -> Network:
        """The backbone with standardised features. Of the head of `network`, only its size is used."""
        return Network(Standardised(self.network.module.body), self.network.norm)  # type: ignore[arg-type]

    @property
    def reads(self) -> int:
        """The size of r."""
        return self.heads * self.width if self.slots else 0

    def init(self, key: Tensor) -> tuple[Params, State]:
        """Return the parameters of backbone and recurrent network, and running statistics. `head.*` has a row for each way."""
        params, state = self.embedding.init()
        head = self.network.module.head
        assert isinstance(head, nn.Linear)
        ways, features, seen = head.out_features, head.in_features, self.units + self.reads

        def weights(name: str, rows: int, columns: int, limit: float | None = None) -> Tensor:
            limit = columns**-0.5 if limit is None else limit
            return draws.uniform(draws.fold(key, name), rows, columns, low=-limit, high=limit)

        cell = lstm_init(draws.fold(key, CONTROLLER), features + self.reads, self.units, orthogonal=self.orthogonal)
        params |= prefixed(CONTROLLER, cell)
        params |= {"head.label": weights("label", ways, 4 * self.units, self.label_scale * self.units**-0.5)}
        params |= {"head.weight": weights("head", ways, seen), "head.bias": torch.zeros(ways)}
        if self.slots:
            sizes = {"key": self.heads * self.width, "gate": self.heads}
            if self.write == "own":
                sizes["write"] = sizes["key"]
            for name, size in sizes.items():
                params |= {f"{name}.weight": weights(name, size, self.units), f"{name}.bias": torch.zeros(size)}
        return params, state

    def adapt(self, params: Params, state: State, support: Examples, key: Tensor, *, training: bool = False) -> Reader:
        """Return the state of the recurrent network after it has read the support set in random order."""
        z = self.embedding.on_support(params, state, support, training=training)
        carry = self._read(params, *shuffled(z, support.y, support.mask, key))[1]
        return Reader(carry, params, self.embedding.fit(params, state, support, training=training), present_classes(support))

    def predict(self, adapted: Reader, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return logits (B, N); each input is the next one after the support set."""
        z = self.embedding.on_query(adapted.network, x, mask)[0]
        logits: Tensor = map_tasks(lambda row: self._step(adapted.params, adapted.carry, row)[0], z)
        return hide_absent(logits, adapted.classes)

    def loss(self, params: Params, state: State, episode: Episode, key: Tensor, step: Tensor) -> tuple[Tensor, Aux]:
        """Return the cross entropy over the whole sequence."""
        known, asked, statistics = self.embedding.on_episode(params, state, episode)
        logits, y, real = self._sequence(params, known, asked, episode, key)
        loss = self.objective.loss(logits, y, real)
        metrics = {"loss": loss, self.objective.metric: self.objective.score(logits, y, real)}
        right, presented = by_presentation(logits, y, real)
        metrics |= {f"presentation_{n}": right[n - 1] / presented[n - 1].clamp(min=1) for n in LOGGED if n <= len(right)}
        return loss, Aux.of(metrics, statistics)

    def update_state(self, state: State, aux: dict[str, Tensor]) -> State:
        """Track the running statistics of the training passes."""
        return self.embedding.update_running(state, aux)

    def by_presentation(self, params: Params, state: State, episode: Episode, key: Tensor) -> tuple[Tensor, Tensor]:
        """Return the number of right answers (P,) and of all answers (P,) at the n-th presentation of a class.

        Support and query are one sequence, as in training. P is its length divided by the number of ways.
        """
        support, query = episode
        known = self.embedding.on_support(params, state, support, training=False)
        asked = self.embedding.on_query(self.embedding.fit(params, state, support, training=False), query.x, query.mask)[0]
        return by_presentation(*self._sequence(params, known, asked, episode, key))

    def _sequence(
        self, params: Params, known: Tensor, asked: Tensor, episode: Episode, key: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return logits (L, N), labels (L, N) and real rows (L,) of support and query in random order."""
        support, query = episode
        y, real = torch.cat([support.y, query.y]), joint_mask(support, query)
        classes = None if real is None else (y * real[:, None]).sum(dim=0) > 0
        z, y, real = shuffled(torch.cat([known, asked]), y, real, key)
        return hide_absent(self._read(params, z, y, real)[0], classes), y, real

    def _read(self, params: Params, z: Tensor, y: Tensor, real: Tensor | None) -> tuple[Tensor, Carry]:
        """Return the logits (L, N) of a sequence of embeddings z (L, D) with labels y (L, N), and the state after its real rows."""
        carry, logits = self._start(z, y), []
        for t in range(len(z)):
            output, after = self._step(params, carry, z[t])
            after = after._replace(label=y[t])  # the network sees a label one step late
            carry = after if real is None else tree_map(lambda new, old, t=t: torch.where(real[t], new, old), after, carry)
            logits.append(output)
        return torch.stack(logits), carry

    def _start(self, z: Tensor, y: Tensor) -> Carry:
        zeros, first = z.new_zeros(self.units), (torch.arange(self.slots, device=z.device) == 0).to(z.dtype)
        memory = External(z.new_full((self.slots, self.width), 1e-6), first.expand(self.heads, -1), first)
        return Carry(LstmState(zeros, zeros), z.new_zeros(self.reads), torch.zeros_like(y[0]), memory)

    def _step(self, params: Params, carry: Carry, z: Tensor) -> tuple[Tensor, Carry]:
        """Return the logits (N,) of one embedding z (D,), and the next state."""
        cell = part_of(params, CONTROLLER)
        # The label is a one-hot input of the controller; its weights times the label add to the bias.
        cell["bias"] = cell["bias"] + carry.label @ params["head.label"]
        controller = lstm_cell(cell, torch.cat([z, carry.read]), carry.controller)
        h, read, memory = controller.hidden, carry.read, carry.memory
        if self.slots:
            keys = self._vectors(params, "key", h)
            written = self._vectors(params, "write", h) if self.write == "own" else keys
            gate = (params["gate.weight"] @ h + params["gate.bias"]).sigmoid()
            memory = access(memory, keys, written, gate, self.decay, self.sharpness)
            read = (memory.reading @ memory.rows).flatten()
        logits = params["head.weight"] @ torch.cat([h, read]) + params["head.bias"]
        return logits, Carry(controller, read, carry.label, memory)

    def _vectors(self, params: Params, name: str, h: Tensor) -> Tensor:
        """Return a vector for each head (R, W), from the controller's output h (H,)."""
        return (params[f"{name}.weight"] @ h + params[f"{name}.bias"]).tanh().reshape(self.heads, self.width)


def access(memory: External, keys: Tensor, written: Tensor, gate: Tensor, decay: float, sharpness: float = 1.0) -> External:
    """Write and then read by least recently used access. keys, written: k and a, (R, W), for each head. gate: σ(α), (R,)."""
    heads, slots = memory.reading.shape
    # The sort is stable, since at the start nearly all rows have the same usage.
    least_used = memory.usage.detach().argsort(stable=True)[:heads, None] == torch.arange(slots, device=keys.device)
    writing = gate[:, None] * memory.reading + (1 - gate[:, None]) * least_used
    rows = torch.where(least_used[0, :, None], 0.0, memory.rows) + writing.T @ written
    reading = (sharpness * cosine(keys, rows)).softmax(dim=1)
    usage = decay * memory.usage + (reading + writing).sum(dim=0)
    return External(rows, reading, usage)


def cosine(keys: Tensor, rows: Tensor) -> Tensor:
    """Return the cosines (R, S) of keys (R, W) and rows (S, W); for a row of zeros the cosine and its derivative are 0."""
    lengths = (keys.square().sum(dim=1) + 1e-24).sqrt()[:, None] * (rows.square().sum(dim=1) + 1e-24).sqrt()
    return keys @ rows.T / (lengths + 1e-6)


def shuffled(z: Tensor, y: Tensor, real: Tensor | None, key: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return z (L, D), y (L, N) and real (L,) in a random order, padding last."""
    order = random_order(z, real, draws.fold(key, "order"))
    return z[order], y[order], None if real is None else real[order]


def by_presentation(logits: Tensor, y: Tensor, real: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the number of right steps (P,) and of all steps (P,) of a sequence at the n-th presentation of a class, n = 1 … P = L/N.

    A step with a logit that is not finite is wrong.
    """
    length, ways = y.shape
    shown = y if real is None else y * real[:, None]
    number = (shown.cumsum(dim=0) * shown).sum(dim=1)  # 0 on padding
    counted = (number == torch.arange(1, length // ways + 1, device=y.device)[:, None]).to(y.dtype)
    right = ((logits.argmax(dim=1) == y.argmax(dim=1)) & logits.isfinite().all(dim=1)).to(y.dtype)
    with full_precision(counted):  # bfloat16 has no 257
        return counted @ right, counted.sum(dim=1)
