"""Which statistics normalise which pass, read off what each output depends on; and a network as a function of its parameters."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from small import SmallConv, conv_network, few_shot
from torch import Tensor, nn

from metarun import testing
from metarun.backbones.classifier import Classifier
from metarun.errors import UserError
from metarun.layers.norm import MODES, Norm
from metarun.network import Fitted, Network, hide_absent, network_of, present_classes, query_loss
from metarun.objectives import CLASSIFICATION, REGRESSION
from metarun.types import Episode, Examples, State

# The table at the top of metarun/network.py, as dependencies of the first row's output: the other rows of its own set, the support
# set (for queries), the running statistics.
OWN = {"rows"}
TABLE: dict[str, dict[tuple[bool, str], set[str]]] = {
    "batch": {(True, "support"): OWN, (True, "query"): OWN, (False, "support"): OWN, (False, "query"): OWN},
    "support": {(True, "support"): OWN, (True, "query"): {"support"}, (False, "support"): OWN, (False, "query"): {"support"}},
    "reptile": {(True, "support"): OWN, (True, "query"): {"support"}, (False, "support"): OWN, (False, "query"): {"support"}},
    "running": {(True, "support"): OWN, (True, "query"): OWN, (False, "support"): {"state"}, (False, "query"): {"state"}},
    "layer": {},
    "instance": {},
    "none": {},
}


def outputs_of(network: Network, support: Examples, query: Examples, state: State, training: bool, moment: str) -> Tensor:
    params = testing.double(network.init()[0])
    if moment == "support":
        return network.on_support(params, state, support, training=training)[0]
    return network.on_query(network.fit(params, state, support, training=training), query.x)[0][0]


@pytest.mark.parametrize("norm", MODES)
@pytest.mark.parametrize("training", [True, False], ids=["train", "test"])
@pytest.mark.parametrize("moment", ["support", "query"])
def test_a_pass_depends_on_what_the_table_says(norm: str, training: bool, moment: str):
    network = conv_network(norm)
    support, query = testing.double(few_shot().episode("train", 0))
    state = testing.double(network.init()[1])
    here = outputs_of(network, support, query, state, training, moment)
    other_rows = [part._replace(x=torch.cat([part.x[:1], 1.0 - part.x[1:]])) for part in (support, query)]
    changed = {
        "rows": (other_rows[0], query, state) if moment == "support" else (support, other_rows[1], state),
        "state": (support, query, {name: value + 0.7 for name, value in state.items()}),
    }
    if moment == "query":
        changed["support"] = (other_rows[0], query, state)
    found = {name for name, (s, q, held) in changed.items() if not torch.equal(outputs_of(network, s, q, held, training, moment), here)}
    assert found == TABLE[norm].get((training, moment), set())


def test_the_table_has_every_mode():
    assert set(TABLE) == set(MODES)


def test_the_reptile_mode_is_one_pass_for_each_query_with_the_whole_support_set():
    network = conv_network("reptile")
    params, state = testing.double(network.init())
    support, query = testing.double(few_shot().episode("train", 0))
    module = nn.Module.train(Classifier(SmallConv(), 3).double())
    looped = [torch.func.functional_call(module, params, (torch.cat([support.x, x[None]]),))[-1] for x in query.x]
    found, _ = network.on_query(network.fit(params, state, support, training=False), query.x)
    torch.testing.assert_close(found, torch.stack(looped), rtol=1e-10, atol=1e-12)


def test_the_support_mode_takes_the_statistics_of_the_adapted_parameters():
    network = conv_network("support")
    params, state = testing.double(network.init())
    support, query = testing.double(few_shot().episode("train", 0))
    outputs, _ = network.on_query(network.fit(params, state, support, training=True), torch.cat([support.x, query.x]))
    torch.testing.assert_close(outputs[: len(support.x)], network.on_support(params, state, support, training=True), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("norm", MODES)
def test_every_mode_tracks_running_statistics_of_its_query_passes(norm: str):
    """So that `eval norm=running` works on any checkpoint."""
    network = conv_network(norm)
    params, state = testing.double(network.init())
    support, query = testing.double(few_shot().episode("train", 0))
    _, seen = network.on_query(network.fit(params, state, support, training=True), query.x, collect=True)
    assert set(seen) == {f"body.{layer}.{kind}" for layer in ("first_norm", "second_norm") for kind in ("mean", "var")}
    after = network.update_running(state, {name: torch.stack([value, 3.0 * value]) for name, value in seen.items()})
    for name, value in seen.items():
        torch.testing.assert_close(after[f"running.{name}"], 0.9 * state[f"running.{name}"] + 0.1 * 2.0 * value)


def test_the_running_statistics_are_torchs_but_for_the_biased_variance():
    """torch tracks the variance over n - 1; the factor between the two is n / (n - 1)."""
    network = conv_network("batch", outputs=None)
    params, state = testing.double(network.init())
    x = testing.double(few_shot().episode("train", 0)).query.x
    _, seen = network.on_query(Fitted(params, {}, None, None), x, collect=True)
    after = network.update_running(state, {name: value[None] for name, value in seen.items()})
    module = SmallConv().double()
    module.load_state_dict(params, strict=False)
    module(x)
    n = len(x) * 16
    torch.testing.assert_close(after["running.first_norm.mean"], module.first_norm.running_mean, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(
        0.9 + (after["running.first_norm.var"] - 0.9) * n / (n - 1), module.first_norm.running_var, rtol=1e-8, atol=1e-10
    )


def test_the_module_is_only_a_description():
    network = conv_network()
    params, state = network.init()
    support = few_shot().episode("train", 0).support
    before = network.on_support(params, state, support, training=True)
    for value in params.values():
        value.add_(1.0)
    assert not torch.equal(network.on_support(params, state, support, training=True), before)
    assert not any(torch.equal(value, params[name]) for name, value in network.init()[0].items())


def test_plain_batch_norms_are_adopted_and_named():
    network = conv_network()
    assert [layer.norm_name for layer in network.norms] == ["body.first_norm", "body.second_norm"]
    assert all(isinstance(layer, Norm) for layer in network.norms)
    assert network.norm_params == {f"body.{layer}.{name}" for layer in ("first_norm", "second_norm") for name in ("weight", "bias")}


def test_absent_classes_are_those_without_a_real_support_row():
    support = Examples(torch.zeros(3, 1), torch.eye(3), torch.tensor([True, False, True]))
    classes = present_classes(support)
    assert classes is not None
    assert classes.tolist() == [True, False, True]
    assert hide_absent(torch.zeros(1, 3), classes).softmax(dim=1).tolist() == [[0.5, 0.0, 0.5]]
    assert present_classes(support._replace(mask=None)) is None


def test_dropout_in_a_backbone_is_refused_with_a_remedy():
    class WithDropout(nn.Sequential):
        out_features = 2

    with pytest.raises(UserError, match=r"the backbone's layer '1' is a dropout.*set its p to 0"):
        Network(WithDropout(nn.Linear(2, 2), nn.Dropout(0.5)))
    Network(WithDropout(nn.Linear(2, 2), nn.Dropout(0.0)))


def test_a_masked_query_leaves_the_others_as_they_are():
    network = conv_network("batch")
    params, state = testing.double(network.init())
    episode: Episode = testing.double(few_shot().episode("train", 0))
    fitted = network.fit(params, state, episode.support, training=False)
    plain, _ = network.on_query(fitted, episode.query.x[:5])
    x = torch.cat([episode.query.x[:5], torch.full_like(episode.query.x[:2], 50.0)])
    masked, _ = network.on_query(fitted, x, torch.arange(7) < 5)
    torch.testing.assert_close(masked[:5], plain, rtol=1e-10, atol=1e-12)


def test_a_regression_has_no_absent_classes():
    mask = torch.tensor([True, False])
    assert present_classes(Examples(torch.zeros(2, 1), torch.eye(2), mask), REGRESSION) is None
    present = present_classes(Examples(torch.zeros(2, 1), torch.eye(2), mask), CLASSIFICATION)
    assert present is not None
    assert present.tolist() == [True, False]


def test_the_query_loss_comes_with_loss_score_and_statistics_and_alone_has_a_gradient():
    """Outputs 1 and 3 against targets 0 and 0: the mean squared error is (1 + 9) / 2."""
    outputs = torch.tensor([[1.0], [3.0]], requires_grad=True)
    loss, aux = query_loss(REGRESSION, outputs, {"norm.mean": torch.ones(2)}, Examples(torch.zeros(2, 1), torch.zeros(2, 1)))
    assert loss.item() == 5.0
    assert loss.requires_grad
    assert {name: float(value) for name, value in aux.metrics.items()} == {"loss": 5.0, "mse": 5.0}
    assert not aux.metrics["loss"].requires_grad
    assert list(aux.state) == ["norm.mean"]


def test_the_network_of_an_algorithm_is_its_field_or_none():
    network = conv_network()
    assert network_of(SimpleNamespace(network=network)) is network
    assert network_of(SimpleNamespace(network="of roads")) is None
    assert network_of(object()) is None


@pytest.mark.parametrize(("training", "entries"), [(True, 1), (False, 3)])
def test_a_path_is_fitted_whole_at_test_and_its_end_alone_in_training(training: bool, entries: int):
    network = conv_network()
    params, state = network.init()
    path = [{name: value + number for name, value in params.items()} for number in range(3)]
    support = Examples(torch.rand(3, 1, 8, 8), torch.eye(3))
    fitted = network.fit_path(path, state, support, training=training)
    assert len(fitted) == entries
    assert fitted[-1].params is path[-1]
