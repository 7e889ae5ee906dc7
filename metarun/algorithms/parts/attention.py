"""A layer of a transformer whose tokens attend to one set of context tokens, and maybe to themselves.

Vaswani et al. "Attention is all you need", NeurIPS 2017, section 3, in the order of the paper: normalise after each of the two parts.

    q, k, v = W h + b          for each of H heads
    a = softmax over the context tokens (and the token itself) of q·k / √E,   the sum of a v over them
    h ← norm(h + W_o a),    h ← norm(h + W_2 ReLU(W_1 h))
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from metarun import draws
from metarun.algorithms.parts.perceptrons import linear_init, perceptron, perceptron_init
from metarun.types import Params, part_of, prefixed

HIDDEN = -1e9
"""The score of a padding token. It gives the attention 0, and no NaN where all tokens are padding."""


class Attended(NamedTuple):
    """The keys and values of context tokens, (M, H, E) each, and which tokens are real, (M,) bool; None where all are."""

    keys: Tensor
    values: Tensor
    mask: Tensor | None


def layer_init(key: Tensor, width: int, hidden: int) -> Params:
    """Return the parameters of a layer of tokens (…, width) with `hidden` units in its perceptron."""
    params: Params = {}
    for name, outputs in (("project.", 3 * width), ("join.", width)):
        params |= prefixed(name, linear_init(draws.fold(key, name), width, outputs))
    params |= prefixed("perceptron.", perceptron_init(draws.fold(key, "perceptron"), (width, hidden, width)))
    for name in ("norm_attention.", "norm_perceptron."):
        params |= {f"{name}weight": torch.ones(width), f"{name}bias": torch.zeros(width)}
    return params


def encode_context(params: Params, tokens: Tensor, heads: int, mask: Tensor | None) -> tuple[Tensor, Attended]:
    """Return the context tokens (M, W) after a layer in which they attend to one another, and the keys and values of this layer."""
    query, key, value = project(params, tokens, heads)
    context = Attended(key, value, mask)
    return finish(params, tokens, attend(query, context)), context


def encode_targets(params: Params, tokens: Tensor, heads: int, context: Attended) -> Tensor:
    """Return the target tokens (B, W) after a layer in which each attends to the context and to itself."""
    query, key, value = project(params, tokens, heads)
    return finish(params, tokens, attend(query, context, own=(key, value)))


def project(params: Params, tokens: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values (B, H, E) of tokens (B, W)."""
    projected = F.linear(tokens, params["project.weight"], params["project.bias"])
    query, key, value = projected.unflatten(1, (3, heads, -1)).unbind(1)
    return query, key, value


def attend(query: Tensor, context: Attended, own: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Return the attended values (B, H * E) of queries (B, H, E). own: keys and values (B, H, E), each for the query of its row alone."""
    query = query * query.shape[-1] ** -0.5
    scores = torch.einsum("bhe,mhe->bhm", query, context.keys)
    if context.mask is not None:
        scores = scores.masked_fill(~context.mask, HIDDEN)
    if own is None:
        return torch.einsum("bhm,mhe->bhe", scores.softmax(dim=-1), context.values).flatten(1)
    key, value = own
    shares = torch.cat([scores, (query * key).sum(dim=-1, keepdim=True)], dim=-1).softmax(dim=-1)
    return (torch.einsum("bhm,mhe->bhe", shares[..., :-1], context.values) + shares[..., -1:] * value).flatten(1)


def finish(params: Params, tokens: Tensor, attended: Tensor) -> Tensor:
    """Return the tokens (B, W) after the rest of the layer, from the attended values (B, W)."""
    tokens = _norm(params, "norm_attention", tokens + F.linear(attended, params["join.weight"], params["join.bias"]))
    return _norm(params, "norm_perceptron", tokens + perceptron(part_of(params, "perceptron."), tokens))


def _norm(params: Params, name: str, tokens: Tensor) -> Tensor:
    return F.layer_norm(tokens, tokens.shape[-1:], params[f"{name}.weight"], params[f"{name}.bias"])
