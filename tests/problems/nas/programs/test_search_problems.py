"""What the declarations of the searches say: optimizers, schedules, graphs, buffers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import mlo
from problems.lfm.validator import Validator
from problems.nas.architect import Architect
from problems.nas.architecture import Architecture
from problems.nas.programs.darts import darts_problems
from problems.nas.programs.lfm import lfm_problems, weigh
from problems.nas.settings import ArchitectSettings, ArchitectureSettings
from problems.nas.space import CellSpace
from problems.training import Training

from .by_hand import data, encoder, supernet

SPACE = CellSpace.darts(nodes=1)
DATA = data(4, 6, 8)


def lfm(encoder=None, **options):
    validator = Validator(encoder or nn.Flatten(), coefficients=30)
    networks = supernet(1, 0, 2), supernet(1, 1, 2)
    return lfm_problems(*networks, Architect(Architecture(SPACE), validator), ticks=8, **options)


def darts(**options):
    return darts_problems(supernet(1, 0, 2), Architecture(SPACE), ticks=8, **options)


def groups(problem, *keys):
    return [tuple(group[key] for key in keys) for group in problem.optimizer.param_groups]


def rates_at_the_end(problem):
    for _ in range(8):
        problem.optimizer.step()
        problem.scheduler.step()
    return [group["lr"] for group in problem.optimizer.param_groups]


def test_darts_trains_as_published():
    network, architecture = darts()
    assert groups(network, "lr", "momentum", "weight_decay") == [(0.025, 0.9, 3e-4)]
    assert network.clip_norm == 5
    assert rates_at_the_end(network) == pytest.approx([1e-3])
    assert groups(architecture, "lr", "betas", "weight_decay") == [(3e-4, (0.5, 0.999), 1e-3)]
    assert architecture.scheduler is None
    assert architecture.clip_norm is None


def test_lfm_trains_as_its_authors_do():
    learner, relearner, architect = lfm(encoder())
    for network in (learner, relearner):
        assert groups(network, "lr", "momentum", "weight_decay") == [(0.01, 0.9, 1e-4)]
        assert network.clip_norm == 5
        assert rates_at_the_end(network) == pytest.approx([2.5e-4])
    betas = (0.5, 0.999)
    assert groups(architect, "lr", "betas", "weight_decay") == [
        (1e-3, betas, 1e-5),
        (1e-2, betas, 1e-4),
        (1e-2, betas, 1e-4),
    ]
    module = architect.module
    held = [{id(p) for p in g["params"]} for g in architect.optimizer.param_groups]
    parts = (module.architecture, module.validator.encoder)
    assert held[:2] == [{id(p) for p in part.parameters()} for part in parts]
    assert held[2] == {id(module.validator.coefficients)}
    assert rates_at_the_end(architect) == pytest.approx([2.5e-4] * 3)
    assert architect.clip_norm == 5


def test_an_encoder_without_parameters_leaves_each_decay_where_it_belongs():
    *_, architect = lfm(settings=ArchitectSettings(weight_decay=0.5, validator_weight_decay=0.25))
    assert groups(architect, "lr", "weight_decay") == [(1e-3, 0.5), (1e-2, 0.25)]


def test_settings_that_are_given_are_used():
    training, upper = Training(learning_rate=0.3), ArchitectureSettings(rate=0.2, every=3)
    network, architecture = darts(training=training, upper=upper)
    assert groups(network, "lr") == [(0.3,)]
    assert groups(architecture, "lr") == [(0.2,)]
    assert architecture.every == 3
    learner, relearner, architect = lfm(
        training=training, settings=ArchitectSettings(rate=0.2, encoder_rate=0.1, floor=0)
    )
    assert groups(learner, "lr") == groups(relearner, "lr") == [(0.3,)]
    assert groups(architect, "lr")[0] == (0.2,)


def test_the_graphs_are_those_of_the_programs():
    engine = mlo.Engine(lfm(encoder()), DATA, lookahead=True)
    graph = engine.graph
    assert graph.order("architect") == ("learner", "relearner")
    assert not graph.scope("learner")
    assert not graph.scope("relearner")
    assert set(graph.nodes["learner"].reads) - {"learner"} == {"architect"}
    assert set(graph.nodes["relearner"].reads) - {"relearner"} == {"learner", "architect"}
    assert set(graph.nodes["architect"].reads) - {"architect"} == {"relearner"}
    assert [move.problem for move in engine.step().moves] == ["architect", "learner", "relearner"]


def test_the_architecture_answers_nobody_to_first_order():
    exact, first = (
        mlo.Engine(darts(hypergradient=method), DATA) for method in (mlo.OneStep(), mlo.Direct())
    )
    assert exact.graph.scope("architecture") == {"network"}
    assert not first.graph.scope("architecture")
    assert not first.step().moves[-1].responses


def test_only_real_moves_update_running_statistics():
    """Those of the networks once a tick, those of the encoder once for each of its batches."""
    problems = lfm(encoder())
    engine = mlo.Engine(problems, DATA, lookahead=True)
    engine.step()
    learner, relearner, architect = (problem.module for problem in problems)
    counts = {
        name: {int(b) for key, b in module.named_buffers() if key.endswith("num_batches_tracked")}
        for name, module in (("w1", learner), ("w2", relearner), ("V", architect))
    }
    assert counts == {"w1": {1}, "w2": {1}, "V": {2}}


def test_examples_without_a_like_in_the_validation_batch_weigh_one_half():
    _, _, architect = lfm(encoder())
    (x, _, index), (others, _, places) = DATA["train"][0], DATA["valid"][0]
    train, valid = (x, torch.tensor([3, 0, 1, 3]), index), (others, torch.arange(6) % 3, places)
    a = weigh(supernet(1, 0, 2), architect.module, train, valid)
    assert (a == 0.5).tolist() == [True, False, False, True]


@pytest.mark.parametrize("section", [ArchitectureSettings, ArchitectSettings])
def test_settings_that_cannot_be_are_refused(section):
    with pytest.raises(ValueError, match="rate"):
        section(rate=-1.0)
    with pytest.raises(ValueError, match="floor"):
        section(schedule="constant", floor=0.1)
