"""Supervised pre-training: one classifier of all training classes, whose backbone later tasks or streams use."""

from __future__ import annotations

import torch
from torch import Tensor

from metarun.algorithms.parts.online import HEAD, Outputs, head_outputs
from metarun.network import Network, joint_mask, query_loss
from metarun.objectives import Objective
from metarun.types import Aux, Episode, Examples, Params, State, part_of


def supervised_loss(
    network: Network, objective: Objective, params: Params, state: State, episode: Episode, outputs: Outputs = head_outputs
) -> tuple[Tensor, Aux]:
    """Return the loss of the classifier, or of the regression, on all examples of an episode, support and query alike, and a report.

    outputs: of the classifier, from its parameters and the embeddings.
    """
    *embeddings, statistics = network.on_episode(params, state, episode)
    support, query = episode
    batch = Examples(torch.cat(embeddings), torch.cat([support.y, query.y]), joint_mask(support, query))
    return query_loss(objective, outputs(part_of(params, HEAD), batch.x), statistics, batch)
