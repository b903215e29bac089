"""The recipe on small networks: settings, runs, and what is read from them."""

from __future__ import annotations

import pytest
import torch

from mlo.recipe import Carry
from mlo.recipe_run import Job, run_recipe
from problems.lfm import recipe as recipes
from problems.lfm.config import ReweightingConfig
from problems.lfm.evaluation import training_weights
from problems.lfm.programs import lfm_engine, plain_engine
from problems.lfm.recipe import recipe
from problems.lfm.report import NETWORKS
from problems.lfm.task import make_task

SMALL = {"seeds": 2, "ticks": 8, "width": 4, "features": 8, "evaluations": 4}


@pytest.fixture(autouse=True)
def float32(float64):
    torch.set_default_dtype(torch.float32)  # the precision of the images


def config(**settings) -> ReweightingConfig:
    return ReweightingConfig(**{**SMALL, **settings})


def metrics(**settings):
    return run_recipe(recipe, config(**settings), Job(quiet=True))


def table(settings, found):
    (drawn,) = recipe.tables(config(**settings), found)
    columns = {column.header: list(column.cells) for column in drawn.columns}
    assert len(set(map(len, columns.values()))) == 1
    return columns


def repeat(settings, seed=0, *, looking=True, leaving_out=()):
    """The stages of one seed: name -> (engine, result)."""
    done = {}
    for stage in recipe.stages(settings):
        if stage.name in leaving_out:
            continue
        with stage.seeded(seed):
            made = stage.build(settings, seed, Carry())
            evaluate = made.evaluate if looking else {}
            done[stage.name] = made.engine, made.engine.run(stage.ticks, evaluate=evaluate)
    return done


def accuracies(done):
    """Network -> its accuracies along the run."""
    curves = {}
    for network, (stage, evaluation, metric) in NETWORKS.items():
        if stage not in done:
            continue
        of = [e for e in done[stage][1].evaluations if e.name == evaluation]
        curves[network] = [(e.tick + 1, e.metrics[metric]) for e in of]
    return curves


def final_weights(done, settings, seed=0):
    """Weights of all training examples by the networks as they are in the end."""
    modules = {name: p.module for name, p in done["LFM"][0].problems.items()}
    data = make_task(settings, seed)
    return data, training_weights(modules["validator"], modules["learner"], data.train, data.valid)


@pytest.fixture
def engines(monkeypatch):
    """The engines of the repetitions that the test makes."""
    made = []

    def keeping(make):
        def kept(*args):
            made.append(make(*args))
            return made[-1]

        return kept

    for make in (plain_engine, lfm_engine):
        monkeypatch.setattr(recipes, make.__name__, keeping(make))
    return made


def states(engines):
    """Copies of all parameters and buffers."""
    return {
        (run, name, key): value.clone()
        for run, engine in enumerate(engines)
        for name, problem in engine.problems.items()
        for key, value in problem.module.state_dict().items()
    }


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
