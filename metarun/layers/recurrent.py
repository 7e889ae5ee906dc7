"""Recurrent layers as plain operations, so that torch can map them over tasks and differentiate them twice.

torch's kernels for a whole sequence (oneDNN on a CPU, cuDNN on a GPU) have no second derivative and no rule for `vmap`. Each class below
has the parameters, the arguments and the results of torch's class. For a packed sequence, and with dropout between layers, torch computes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

State = tuple[Tensor, ...]
"""The hidden state h (B, H) of a layer in one direction; for an LSTM h and the cell state c."""


class _Recurrent(nn.RNNBase):
    """The walk through the sequence, which the three classes share.

    _step: the cell of each class. It returns the next state, from the products of the weights with the input and with h, (B, gates * H)
    each, and from the state.
    """

    _step: Callable[[Tensor, Tensor, State], State]

    def forward(self, input: Any, hx: Any = None) -> Any:
        """Return the outputs (L, B, D) of input (L, B, F) and the last states, in the forms of torch's class."""
        if not isinstance(input, Tensor) or (self.dropout > 0 and self.num_layers > 1 and self.training):
            return super().forward(input, hx)
        batched = input.dim() == 3
        x = input if batched else input.unsqueeze(1)
        x = x.transpose(0, 1) if batched and self.batch_first else x
        starts: list[State] = self._starts(x, hx)
        ends: list[State] = []
        for number in range(self.num_layers):
            ways = []
            for direction in ("", "_reverse")[: 1 + self.bidirectional]:
                outputs, end = self._through(x, starts[len(ends)], f"_l{number}{direction}")
                ways.append(outputs)
                ends.append(end)
            x = torch.cat(ways, dim=-1)
        last = tuple(torch.stack(parts) for parts in zip(*ends, strict=True))
        if not batched:
            x, last = x.squeeze(1), tuple(part.squeeze(1) for part in last)
        elif self.batch_first:
            x = x.transpose(0, 1)
        return x, last if len(last) > 1 else last[0]

    def _starts(self, x: Tensor, hx: Any) -> list[State]:
        """Return the first state of each layer and direction."""
        count = self.num_layers * (1 + self.bidirectional)
        if hx is None:
            sizes = (self.proj_size or self.hidden_size, self.hidden_size) if self.mode == "LSTM" else (self.hidden_size,)
            return [tuple(x.new_zeros(x.shape[1], size) for size in sizes)] * count
        parts = (hx,) if isinstance(hx, Tensor) else tuple(hx)
        parts = tuple(part if part.dim() == 3 else part.unsqueeze(1) for part in parts)
        return [tuple(part[place] for part in parts) for place in range(count)]

    def _through(self, x: Tensor, state: State, suffix: str) -> tuple[Tensor, State]:
        """Return the outputs (L, B, H) of one layer in one direction, and its last state."""
        inputs = F.linear(x, self._weight("weight_ih", suffix), self._weight("bias_ih", suffix))
        weight, bias = self._weight("weight_hh", suffix), self._weight("bias_hh", suffix)
        project = self._weight("weight_hr", suffix) if self.proj_size else None
        steps = inputs.unbind()
        outputs = []
        for step in reversed(steps) if suffix.endswith("_reverse") else steps:
            state = self._step(step, F.linear(state[0], weight, bias), state)
            if project is not None:
                state = (F.linear(state[0], project), *state[1:])
            outputs.append(state[0])
        return torch.stack(outputs[::-1] if suffix.endswith("_reverse") else outputs), state

    def _weight(self, name: str, suffix: str) -> Any:
        return getattr(self, name + suffix) if self.bias or not name.startswith("bias") else None


class RNN(_Recurrent, nn.RNN):
    """`nn.RNN`: h' = tanh(W x + U h), or relu."""

    def _step(self, of_input: Tensor, of_hidden: Tensor, state: State) -> State:
        total = of_input + of_hidden
        return (total.tanh() if self.mode == "RNN_TANH" else total.relu(),)


class GRU(_Recurrent, nn.GRU):
    """`nn.GRU`: r, z = σ(…), n = tanh(W x + r (U h)), h' = (1 - z) n + z h."""

    def _step(self, of_input: Tensor, of_hidden: Tensor, state: State) -> State:
        (reset, update, new), (by_reset, by_update, by_new) = of_input.chunk(3, dim=-1), of_hidden.chunk(3, dim=-1)
        keep = (update + by_update).sigmoid()
        candidate = (new + (reset + by_reset).sigmoid() * by_new).tanh()
        return (candidate + keep * (state[0] - candidate),)


class LSTM(_Recurrent, nn.LSTM):
    """`nn.LSTM`: i, f, o = σ(…), g = tanh(…), c' = f c + i g, h' = o tanh(c')."""

    def _step(self, of_input: Tensor, of_hidden: Tensor, state: State) -> State:
        enter, forget, new, leave = (of_input + of_hidden).chunk(4, dim=-1)
        cell = forget.sigmoid() * state[1] + enter.sigmoid() * new.tanh()
        return leave.sigmoid() * cell.tanh(), cell
