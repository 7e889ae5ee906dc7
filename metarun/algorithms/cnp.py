"""CNP: a conditional neural process reads a support set as the mean of codes, and predicts a distribution for each query.

Marta Garnelo, Dan Rosenbaum, Chris Maddison, Tiago Ramalho, David Saxton, Murray Shanahan, Yee Whye Teh, Danilo Rezende, S. M. Ali Eslami.
"Conditional Neural Processes", ICML 2018. https://arxiv.org/abs/1807.01613

    r = mean over the support examples of e(x_i, y_i)                                                (equations 1 and 2)
    p(y | x, support) = Σ_k w_k N(y; m_k, v_k),   with w, m and v = d(x, r)                            (equation 3, with K = 1)
    outer: minimise -log p(y | x, support) over the weights of e and d                               (equation 4)

e and d are perceptrons. Adaptation fits no weights: one pass over the support set gives r, which does not depend on the order of the
examples. MAML moves weights by gradients on the support loss; here the outer loop learns the whole map from support sets to predictions.
Given r, the queries are independent, so the joint likelihood of several queries is the product of theirs. A CNP cannot draw functions.

Differences from the paper, each an option unless noted:

- `components`: K. The paper has one Gaussian, which is K = 1. A mixture can say "either of these two functions".
- The loss is over the queries alone (no option). The paper's includes the support examples.
- `task.min_shots` draws a number of support examples for each task; by default all tasks have `task.shots`. The paper draws a number
  for each step.
- Standard deviations are at least `min_std`, in the form of the released code (https://github.com/google-deepmind/neural-processes), which
  has 0.1.

The networks are the algorithm's own, so the group `backbone` has no effect.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple

import torch
from torch import Tensor

from metarun import draws
from metarun.algorithms.parts.densities import densities, density_size, distribution_loss, mean_of_distribution, points
from metarun.algorithms.parts.embedding import embedded, embedding_params, inputs_init
from metarun.algorithms.parts.members import check_least, check_std, check_widths, same_state
from metarun.algorithms.parts.perceptrons import perceptron, perceptron_init
from metarun.network import Network
from metarun.objectives import Objective
from metarun.predictive import Predictive
from metarun.types import Aux, Episode, Examples, Params, State, Traits, part_of, prefixed
from metarun.values import Few, Range, Sizes

ENCODER, DECODER = "encoder.", "decoder."


class Coded(NamedTuple):
    """A support set. code: r, (R,). decoder: the parameters of d. inputs: those of `embed`, with the prefix of `inputs_init`."""

    code: Tensor
    decoder: Params
    inputs: Params


@dataclass(frozen=True)
class Cnp:
    """A conditional neural process.

    inputs, outputs: the numbers of inputs and targets of an example; metarun passes both. embed: embeds inputs first, where they hold
        categories; metarun passes the network with `inputs` vectors. encoder_widths: units of the layers of e; the
        last is the size of r. decoder_widths: units of the hidden layers of d. components: K. min_std: the least standard deviation.
    """

    objective: Objective
    inputs: int
    outputs: int
    encoder_widths: Sizes = (128, 128, 128)
    decoder_widths: Sizes = (128, 128, 128, 128)
    components: Few = 1
    min_std: Annotated[float, Range(above=0, below=1)] = 0.1
    embed: Network | None = None
    traits: ClassVar[Traits] = Traits(head=False, adapts_backbone=False, takes_sizes=True, objectives=("regression",))

    def __post_init__(self) -> None:
        check_widths(self, "encoder_widths", "decoder_widths")
        check_least(self, 1, "components")
        check_std(self)

    def init(self, key: Tensor) -> tuple[Params, State]:
        """Return the parameters of both perceptrons, and no state."""
        encoder = (self.inputs + self.outputs, *self.encoder_widths)
        decoder = (self.inputs + self.encoder_widths[-1], *self.decoder_widths, density_size(self.components, self.outputs))
        params = inputs_init(self.embed)
        for name, sizes in ((ENCODER, encoder), (DECODER, decoder)):
            params |= prefixed(name, perceptron_init(draws.fold(key, name), sizes))
        return params, {}

    def adapt(self, params: Params, state: State, support: Examples, key: Tensor, *, training: bool = False) -> Coded:
        """Return the mean code of the support examples."""
        x = embedded(self.embed, params, support.x, support.mask)
        codes = perceptron(part_of(params, ENCODER), points(x, support.y, self.outputs, support.mask))
        rest = part_of(params, DECODER), embedding_params(self.embed, params)
        if support.mask is None:
            return Coded(codes.mean(dim=0), *rest)
        return Coded(torch.where(support.mask[:, None], codes, 0.0).sum(dim=0) / support.mask.sum().clamp(min=1), *rest)

    def distribution(self, adapted: Coded, x: Tensor, mask: Tensor | None = None) -> Predictive:
        """Return the mixture for each query x (B, ...)."""
        asked = points(embedded(self.embed, adapted.inputs, x, mask), None, 0, mask)
        rows = torch.cat([asked, adapted.code.expand(len(asked), -1)], dim=1)
        return densities(perceptron(adapted.decoder, rows), self.components, self.min_std)

    def loss(self, params: Params, state: State, episode: Episode, key: Tensor, step: Tensor) -> tuple[Tensor, Aux]:
        """Return the mean negative log-likelihood of the queries, in nats."""
        return distribution_loss(self, self.adapt(params, state, episode.support, key, training=True), episode.query)

    predict = mean_of_distribution
    update_state = same_state
