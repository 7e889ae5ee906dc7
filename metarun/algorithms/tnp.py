"""TNP-D: a transformer reads the support set as context and predicts a distribution for each query.

Tung Nguyen, Aditya Grover. "Transformer Neural Processes: Uncertainty-Aware Meta Learning Via Sequence Modeling", ICML 2022.
https://arxiv.org/abs/2207.04179

    tokens:     embed(x_i, y_i) of each support example, and embed(x, 0) of each query
    attention:  a support token attends to all support tokens; a query token attends to them and to itself
    p(y | x, support) = Σ_k w_k N(y; m_k, v_k),   with w, m and v from the query's last token
    outer:      minimise -log p(y | x, support) over all weights

The learner is in-context: adaptation is one pass of the support tokens, whose keys and values are then kept for the queries. There are no
positions, so the order of the support examples does not matter. A CNP averages codes that do not see one another; here support examples
and queries are compared by attention. Given the support set, the queries are independent. This is TNP-D; the paper's TNP-A and TNP-ND
model the dependence among queries.

Differences from the paper, each an option unless noted:

- `components`: K. The paper has one Gaussian for each target, which is K = 1.
- A query token attends to itself too (no option). In the released code (https://github.com/tung-nd/TNP-pytorch) it does not. In both
  versions the residual path carries the query token to the next layer.
- All weights start uniform within ±1/√inputs (no option). The released code has Glorot's range for the projections of the attention.
- Standard deviations are at least `min_std`, in the form of `cnp`. The released code has exp, or this form with 0.05.
- `task.min_shots` draws a number of support examples for each task; by default all tasks have `task.shots`. The paper draws a number
  for each step.

The network is the algorithm's own, so the group `backbone` has no effect.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple

from torch import Tensor

from metarun import draws
from metarun.algorithms.parts.attention import Attended, encode_context, encode_targets, layer_init
from metarun.algorithms.parts.densities import densities, density_size, distribution_loss, mean_of_distribution, points
from metarun.algorithms.parts.embedding import embedded, inputs_init
from metarun.algorithms.parts.members import check_least, check_std, same_state
from metarun.algorithms.parts.perceptrons import perceptron, perceptron_init
from metarun.errors import UserError
from metarun.network import Network
from metarun.objectives import Objective
from metarun.predictive import Predictive
from metarun.types import Aux, Episode, Examples, Params, State, Traits, part_of, prefixed
from metarun.values import Few, Layers, Range, Size

EMBED, HEAD = "embed.", "head."


class Context(NamedTuple):
    """A support set as each layer's keys and values, and the parameters."""

    layers: list[Attended]
    params: Params


@dataclass(frozen=True)
class Tnp:
    """A transformer neural process with a diagonal distribution.

    inputs, outputs: the numbers of inputs and targets of an example; metarun passes both. embed: embeds inputs first, where they hold
    categories; metarun passes the network with `inputs` vectors. width: W, of a token, a multiple of `heads`.
    embed_layers: linear layers that make a token. layers, heads: of the transformer. hidden: units of the perceptron in each layer, and of
    the head. components: K. min_std: the least standard deviation.
    """

    objective: Objective
    inputs: int
    outputs: int
    width: Size = 64
    embed_layers: Layers = 4
    layers: Layers = 6
    heads: Few = 4
    hidden: Size = 128
    components: Few = 1
    min_std: Annotated[float, Range(above=0, below=1)] = 0.05
    embed: Network | None = None
    traits: ClassVar[Traits] = Traits(head=False, adapts_backbone=False, takes_sizes=True, objectives=("regression",))

    def __post_init__(self) -> None:
        check_least(self, 1, "width", "embed_layers", "layers", "heads", "hidden", "components")
        check_std(self)
        if self.width % self.heads:
            raise UserError(f"algo.width={self.width} must be a multiple of algo.heads={self.heads}.")

    def init(self, key: Tensor) -> tuple[Params, State]:
        """Return the parameters of the embedding, the layers and the head, and no state."""
        embed = (self.inputs + self.outputs, *[self.width] * self.embed_layers)
        head = (self.width, self.hidden, density_size(self.components, self.outputs))
        params = inputs_init(self.embed) | prefixed(EMBED, perceptron_init(draws.fold(key, EMBED), embed))
        for number in range(self.layers):
            params |= prefixed(_layer(number), layer_init(draws.fold(key, _layer(number)), self.width, self.hidden))
        return params | prefixed(HEAD, perceptron_init(draws.fold(key, HEAD), head)), {}

    def adapt(self, params: Params, state: State, support: Examples, key: Tensor, *, training: bool = False) -> Context:
        """Return the keys and values of the support tokens in each layer."""
        x = embedded(self.embed, params, support.x, support.mask)
        tokens = perceptron(part_of(params, EMBED), points(x, support.y, self.outputs, support.mask))
        layers = []
        for number in range(self.layers):
            tokens, attended = encode_context(part_of(params, _layer(number)), tokens, self.heads, support.mask)
            layers.append(attended)
        return Context(layers, params)

    def distribution(self, adapted: Context, x: Tensor, mask: Tensor | None = None) -> Predictive:
        """Return the mixture for each query x (B, ...)."""
        params = adapted.params
        tokens = perceptron(part_of(params, EMBED), points(embedded(self.embed, params, x, mask), None, self.outputs, mask))
        for number, attended in enumerate(adapted.layers):
            tokens = encode_targets(part_of(params, _layer(number)), tokens, self.heads, attended)
        return densities(perceptron(part_of(params, HEAD), tokens), self.components, self.min_std)

    def loss(self, params: Params, state: State, episode: Episode, key: Tensor, step: Tensor) -> tuple[Tensor, Aux]:
        """Return the mean negative log-likelihood of the queries, in nats."""
        return distribution_loss(self, self.adapt(params, state, episode.support, key, training=True), episode.query)

    predict = mean_of_distribution
    update_state = same_state


def _layer(number: int) -> str:
    """Return the prefix of the names of a layer's parameters."""
    return f"layer{number}."
