"""Training from scratch: the loss, the ramp of drop path, a loop by hand, and going on exactly."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mlo
from mlo.errors import ConfigurationError
from problems.nas.genotype import MacroGenotype
from problems.nas.losses import evaluation_loss
from problems.nas.networks import CifarNetwork, MacroNetwork
from problems.nas.programs.evaluation import EVALUATION_TRAINING, evaluation_problems
from problems.nas.published import DARTS_V2
from problems.training import Training

TICKS = 6
TRAINING = Training(learning_rate=0.1, momentum=0.8, weight_decay=1e-2, clip_norm=0.7)


def batches() -> list[tuple[Tensor, Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(3, 5, 1, 29, generator=generator)
    labels = torch.randint(3, (3, 5), generator=generator)
    return list(zip(x, labels, torch.arange(15).view(3, 5), strict=True))


def make_network() -> CifarNetwork:
    torch.manual_seed(1)
    return CifarNetwork(DARTS_V2, 3, channels=2, layers=3, inputs=1, dimensions=1)


def make_engine(network: nn.Module, **options) -> mlo.Engine:
    options = {"training": TRAINING, "drop_path": 0.5, "label_smoothing": 0.1, **options}
    problems = evaluation_problems(network, ticks=TICKS, **options)
    return mlo.Engine(problems, {"train": batches()})


def by_definition(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    classes = logits.shape[1]
    target = (1 - smoothing) * torch.eye(classes)[labels] + smoothing / classes
    log_p = logits - logits.exp().sum(1, keepdim=True).log()
    return -(target * log_p).sum(1).mean()


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.6])
def test_the_loss_is_that_of_its_formula(smoothing):
    logits, auxiliary = torch.randn(2, 7, 4, requires_grad=True).unbind()
    labels = torch.randint(4, (7,))
    options = {"auxiliary_weight": 0.3, "label_smoothing": smoothing}
    loss, metrics = evaluation_loss((logits, auxiliary), labels, **options)
    first, second = (by_definition(z, labels, smoothing) for z in (logits, auxiliary))
    close = {"rtol": 1e-13, "atol": 1e-13}
    torch.testing.assert_close(loss, first + 0.3 * second, **close)
    torch.testing.assert_close(metrics["cross_entropy"], first.detach(), **close)
    torch.testing.assert_close(metrics["auxiliary"], second.detach(), **close)
    assert metrics["accuracy"].item() == (logits.argmax(1) == labels).sum().item() / 7
    assert not any(metric.requires_grad for metric in metrics.values())
    alone, metrics = evaluation_loss((logits, None), labels, **options)
    torch.testing.assert_close(alone, first, **close)
    assert [*metrics] == ["cross_entropy", "accuracy"]


def test_a_run_is_the_loop_that_one_would_write_by_hand():
    network = make_network()
    engine = make_engine(network)
    torch.manual_seed(7)
    losses = [record.moves[0].loss for record in engine.run(TICKS).records]

    other = make_network()
    momenta = [torch.zeros_like(p) for p in other.parameters()]
    data = batches()
    torch.manual_seed(7)
    for tick in range(TICKS):
        x, labels, _ = data[tick % 3]
        logits, auxiliary = other.with_auxiliary(x, 0.5 * tick / TICKS)
        loss = F.cross_entropy(logits, labels, label_smoothing=0.1)
        loss = loss + 0.4 * F.cross_entropy(auxiliary, labels, label_smoothing=0.1)
        assert abs(loss.item() - losses[tick]) < 1e-12
        gradients = torch.autograd.grad(loss, [*other.parameters()])
        norm = torch.cat([g.flatten() for g in gradients]).norm()
        assert norm > 0.7
        rate = 0.05 * (1 + math.cos(math.pi * tick / TICKS))
        with torch.no_grad():
            for p, g, m in zip(other.parameters(), gradients, momenta, strict=True):
                m.mul_(0.8).add_(g * 0.7 / (norm + 1e-6) + 1e-2 * p)
                p.sub_(rate * m)
    expected = other.state_dict()
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-12, atol=1e-12)


def test_drop_path_counts():
    results = []
    for p in (0.0, 0.5):
        network = make_network()
        torch.manual_seed(7)
        make_engine(network, drop_path=p).run(2)
        results.append(network.linear.weight.detach())
    assert (results[0] - results[1]).abs().max() > 1e-3


def test_a_saved_run_goes_on_as_if_it_had_not_stopped(tmp_path):
    whole = make_network()
    engine = make_engine(whole)
    torch.manual_seed(7)
    engine.run(TICKS)

    first = make_engine(make_network())
    torch.manual_seed(7)
    first.run(3)
    first.save(tmp_path / "state.pt")
    network = make_network()
    second = make_engine(network)
    torch.manual_seed(99)
    second.load(tmp_path / "state.pt")
    second.run(TICKS - 3)
    expected = whole.state_dict()
    for name, value in network.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_the_probability_grows_linearly_and_stays_behind_the_last_tick(monkeypatch):
    network, seen = make_network(), []
    original = CifarNetwork.with_auxiliary

    def with_auxiliary(self, x, drop_path=0.0):
        seen.append(drop_path)
        return original(self, x, drop_path)

    monkeypatch.setattr(CifarNetwork, "with_auxiliary", with_auxiliary)
    engine = make_engine(network, drop_path=0.3)
    seen.clear()  # the engine tries a loss once
    engine.run(TICKS + 2)
    expected = [0.3 * t / 6 for t in range(6)] + [0.3, 0.3]
    assert seen == pytest.approx(expected, rel=1e-15)


def test_chains_are_trained_without_drop_path_and_head():
    network = MacroNetwork(MacroGenotype(layers=("conv_3x3", "skip_connect")), 3, dimensions=1)
    before = network.linear.weight.detach().clone()
    run = make_engine(network, drop_path=0.0).run(2)
    assert "auxiliary" not in run.records[0].moves[0].metrics
    assert not torch.equal(network.linear.weight, before)
    with pytest.raises(ConfigurationError, match="drop_path: expected 0 for a chain"):
        make_engine(network)


def test_the_training_of_darts_is_the_default():
    (problem,) = evaluation_problems(make_network(), ticks=4)
    assert problem.name == "network"
    assert problem.clip_norm == EVALUATION_TRAINING.clip_norm == 5.0
    group = problem.optimizer.param_groups[0]
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.025, 0.9, 3e-4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"auxiliary_weight": -0.1}, "auxiliary_weight: expected at least 0, found -0.1"),
        ({"auxiliary_weight": math.nan}, "auxiliary_weight: expected at least 0, found nan"),
        ({"label_smoothing": 1.0}, r"label_smoothing: expected a share in \[0, 1\), found 1.0"),
        ({"label_smoothing": -0.1}, "label_smoothing: expected"),
        ({"drop_path": 1.0}, "drop_path: expected a probability"),
        ({"ticks": 0}, "ticks: expected at least one"),
    ],
)
def test_settings_outside_their_range_are_refused(options, words):
    with pytest.raises(ConfigurationError, match=words):
        evaluation_problems(make_network(), **{"ticks": 3, **options})
