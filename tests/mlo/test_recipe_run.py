"""Stages: what they hand on, what their draws depend on, and what is refused before a run."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch

import mlo
from mlo.carry import Carry
from mlo.errors import CarryError, ConfigurationError, DeclarationError, RunFolderError
from mlo.metrics import Metric
from mlo.recipe import Recipe, RecipeConfig, Setup, Stage
from mlo.recipe_run import Job, run_recipe
from mlo.recipes import load_recipe

from .offered import CHAIN, install
from .staged import Config, Staged

QUIET = Job(quiet=True)


@pytest.fixture
def chain(tmp_path, monkeypatch):
    entries = "[mlo.recipes]\nchain = mlo_test_chain:recipe"
    install(tmp_path, monkeypatch, "mlo_test_chain", CHAIN, entries)
    return load_recipe("chain")


def drawn():
    return random.random(), np.random.rand(), torch.rand(1).item()


def parabola(log=None, x=1.0):
    def loss(point):
        if log is not None:
            log.append(drawn())
        return point["x"].square().sum()

    return mlo.Engine(
        [
            mlo.Problem(
                "point",
                params={"x": torch.tensor(x)},
                loss=loss,
                optimizer=lambda params: torch.optim.SGD(params, 0.1),
            )
        ]
    )


class Made(Recipe[RecipeConfig]):
    """A recipe of the given stages: name -> build."""

    name, summary, config = "made", "Made for a test.", RecipeConfig

    def __init__(self, ticks=2, **builds):
        self.builds, self.ticks = builds, ticks

    def stages(self, config):
        return [Stage(name, self.ticks, build) for name, build in self.builds.items()]


class Drawing(Made):
    """Logs what is drawn while a stage is built, moves, is looked at and ends."""

    def __init__(self, *names):
        self.log = {}
        super().__init__(**{name: self._building(name) for name in names})

    def _building(self, name):
        def build(config, seed, carry):
            log = self.log[seed, name] = [drawn()]
            engine = parabola(log)

            def finish():
                log.append(drawn())
                return {}

            return Setup(engine, {}, finish)

        return build


def logged(names, **settings):
    recipe = Drawing(*names)
    run_recipe(recipe, RecipeConfig(**settings), QUIET)
    return recipe.log


def test_what_a_stage_draws_depends_on_the_seed_and_its_name_alone():
    all_of_them = logged(["a", "b", "c"], seeds=2)
    # Building, two ticks and the end; and the engine has a look at the loss, which draws nothing.
    assert {len(set(log)) for log in all_of_them.values()} == {4}
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    for names, settings in ((["c", "a"], {"seeds": 2}), (["b"], {"first_seed": 1})):
        for key, log in logged(names, **settings).items():
            assert log == all_of_them[key]
    for kind in range(3):
        numbers = [row[kind] for log in all_of_them.values() for row in set(log)]
        assert len(set(numbers)) == len(numbers), "stages and seeds draw something of their own"


def states():
    return random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()


class Broken(mlo.Callback):
    def __init__(self, hook):
        def fail(*args):
            drawn()
            raise ZeroDivisionError

        setattr(self, hook, fail)


@pytest.mark.parametrize("where", ["nowhere", "build", "on_start", "on_tick", "finish", "on_end"])
def test_the_random_states_of_the_caller_are_untouched_however_a_stage_ends(where):
    def build(config, seed, carry):
        drawn()
        if where == "build":
            raise ZeroDivisionError
        callbacks = [Broken(where)] if where.startswith("on_") else []
        return Setup(
            parabola([]), {}, Broken("finish").finish if where == "finish" else None, callbacks
        )

    before = states()
    recipe = Made(a=build)
    if where == "nowhere":
        run_recipe(recipe, RecipeConfig(), QUIET)
        recipe.check(RecipeConfig())
        recipe.engine(RecipeConfig(), 3)
    else:
        with pytest.raises(ZeroDivisionError):
            run_recipe(recipe, RecipeConfig(), QUIET)
    assert states() == before


def test_metrics_come_seed_by_seed_and_stage_by_stage(chain):
    config = chain.config(steps=2, seeds=2, first_seed=3)
    found = run_recipe(chain, config, QUIET)
    # x <- (1 - 0.25) x, from 1 + seed; the second stage goes on where the first one ended.
    expected = [
        Metric(seed, stage, "x", "x", (1 + seed) * 0.75**ticks)
        for seed in (3, 4)
        for stage, ticks in (("walk", 2), ("go on", 4))
    ]
    assert [m.key for m in found] == [m.key for m in expected]
    assert [m.value for m in found] == pytest.approx([m.value for m in expected], rel=1e-15)
    assert [m.seed for m in found] == [3, 3, 4, 4]


def test_stages_hand_on_to_all_that_follow_within_their_seed():
    seen = {}

    def build(name, handed):
        def made(config, seed, carry):
            seen[seed, name] = {key: carry[key] for key in carry}
            return Setup(parabola(), finish=None if handed is None else lambda: handed(seed))

        return made

    recipe = Made(
        a=build("a", lambda seed: {"x": seed, "y": "a"}),
        b=build("b", None),
        c=build("c", lambda seed: {"y": "c"}),
        d=build("d", None),
    )
    run_recipe(recipe, RecipeConfig(seeds=2), QUIET)
    for seed in (0, 1):
        found = [seen[seed, name] for name in "abcd"]
        old, new = {"x": seed, "y": "a"}, {"x": seed, "y": "c"}
        assert found == [{}, old, old, new]


def test_what_a_later_stage_does_to_a_value_is_not_handed_on():
    ends = []

    def first(config, seed, carry):
        return Setup(parabola(), finish=lambda: {"x": torch.tensor(7.0)})

    def second(config, seed, carry):
        x = carry["x"]
        return Setup(parabola(x=3.0), finish=lambda: (x.zero_(), {})[1])

    def third(config, seed, carry):
        ends.append(carry["x"].item())
        return Setup(parabola())

    run_recipe(Made(a=first, b=second, c=third), RecipeConfig(), QUIET)
    assert ends == [7.0]


@pytest.mark.parametrize("handed", [None, {"net": torch.nn.Linear(1, 1)}, [1]])
def test_what_no_file_can_hold_is_refused_without_a_folder_too(handed):
    recipe = Made(a=lambda config, seed, carry: Setup(parabola(), finish=lambda: handed))
    with pytest.raises(CarryError, match="carry"):
        run_recipe(recipe, RecipeConfig(), QUIET)


def test_a_stage_that_stops_early_hands_on_and_the_next_one_runs():
    class Enough(mlo.Callback):
        def on_tick(self, record):
            return mlo.Stop("enough")

    seen = []

    def first(config, seed, carry):
        made = parabola()
        x = made.problems["point"].module["x"]
        return Setup(made, {"x": (lambda point: point["x"], 1)}, lambda: {"x": x}, [Enough()])

    def second(config, seed, carry):
        seen.append(carry["x"].item())
        return Setup(parabola())

    (metric,) = run_recipe(Made(ticks=9, a=first, b=second), RecipeConfig(), QUIET)
    assert (metric.value, seen) == (pytest.approx(0.8), [pytest.approx(0.8)])


# Before anything is run ---------------------------------------------------------------------------


def test_check_builds_what_needs_nothing_and_skips_what_needs_the_carry():
    recipe = Staged()
    recipe.check(Config())
    assert recipe.built == ["first"]
    asked = []

    def build(needs):
        def made(config, seed, carry):
            if needs:
                carry["x"]
            asked.append((needs, seed))
            return Setup(parabola())

        return made

    recipe = Made(a=build(False), b=build(True), c=build(False))
    recipe.check(RecipeConfig(first_seed=4, seeds=3))
    assert asked == [(False, 4), (False, 4)]


def test_check_refuses_a_first_stage_that_needs_what_nobody_can_hand_on():
    recipe = Made(a=lambda config, seed, carry: Setup(parabola(x=carry["x"])))
    with pytest.raises(CarryError, match="'x'"):
        recipe.check(RecipeConfig())


@pytest.mark.parametrize("place", range(3))
def test_check_lets_errors_of_every_stage_through(place):
    def good(config, seed, carry):
        return Setup(parabola())

    def bad(config, seed, carry):
        return Setup(mlo.Engine([]))

    recipe = Made(**{"abc"[i]: bad if i == place else good for i in range(3)})
    with pytest.raises(DeclarationError):
        recipe.check(RecipeConfig())


class Named(Made):
    def __init__(self, *names):
        self.names = names

    def stages(self, config):
        return [Stage(n, 1, lambda config, seed, carry: Setup(parabola())) for n in self.names]


@pytest.mark.parametrize(
    "names", [("a", "a"), ("a b", "a-b"), ("A", "a"), ("x/y", "x.y"), ("a", "b", "a ")]
)
def test_stages_that_would_share_a_folder_are_refused_by_all_that_use_them(names):
    recipe = Named(*names)
    for use in (
        lambda: recipe.check(RecipeConfig()),
        lambda: recipe.engine(RecipeConfig(), 0),
        lambda: run_recipe(recipe, RecipeConfig(), QUIET),
    ):
        with pytest.raises(RunFolderError, match="names that differ"):
            use()


def test_a_recipe_without_stages_is_refused():
    for use in (lambda: Named().check(None), lambda: Named().engine(None, 0)):
        with pytest.raises(ConfigurationError, match="at least one stage"):
            use()


@pytest.mark.parametrize("name", ["", "..", "/", " ", "++", "a" * 201])
def test_a_stage_whose_name_makes_no_folder_is_refused(name):
    with pytest.raises(ConfigurationError, match="expected one with letters or digits"):
        Stage(name, 1, lambda config, seed, carry: Setup(parabola()))


@pytest.mark.parametrize("ticks", [0, -1, 2.0])
def test_a_stage_without_ticks_is_refused(ticks):
    with pytest.raises(ConfigurationError, match=rf"Stage\('a'\): expected ticks.*got {ticks}"):
        Stage("a", ticks, lambda config, seed, carry: Setup(parabola()))


def test_the_engine_of_a_stage_is_that_of_its_name_or_the_one_that_is_shown(chain):
    def at(engine):
        return engine.problems["point"].module["x"].item()

    recipe = Made(
        **{
            name: lambda config, seed, carry, x=x: Setup(parabola(x=x + seed))
            for name, x in (("walk", 1.0), ("run", 10.0))
        }
    )
    config = RecipeConfig()
    assert at(recipe.engine(config, 2)) == 3.0
    assert at(recipe.engine(config, 2, "run")) == 12.0
    recipe.shown = "run"
    assert at(recipe.engine(config, 2)) == 12.0
    assert at(recipe.engine(config, 2, stage="walk")) == 3.0
    for wrong, expected in (("wlak", "did you mean 'walk'"), ("", "got ''")):
        with pytest.raises(ConfigurationError, match=r"'walk', 'run'.*" + expected):
            recipe.engine(config, 0, wrong)
    with pytest.raises(CarryError, match=r"carry\['x'\]"):
        chain.engine(chain.config(), 0, "go on")


def test_the_engine_is_the_one_that_the_run_begins_with():
    recipe, starts = Staged(), []

    class Look(mlo.Callback):
        def on_start(self, record):
            starts.append({k: v.clone() for k, v in self.net.state_dict().items()})

    stage = recipe.stages(Config())[0]
    for _ in itertools.repeat(None, 2):
        made = stage.setup(Config(), 3, Carry())
        look = Look()
        look.net = made.engine.problems["net"].module
        with stage.seeded(3):
            made.engine.run(1, callbacks=[look])
        torch.rand(1)
    engine = recipe.engine(Config(), 3)
    for key, value in engine.problems["net"].module.state_dict().items():
        assert torch.equal(value, starts[0][key])
        assert torch.equal(value, starts[1][key])


@pytest.mark.parametrize("fails", [False, True])
def test_a_run_has_the_threads_that_are_asked_for_and_gives_them_back(fails):
    seen, before = [], torch.get_num_threads()

    def build(config, seed, carry):
        seen.append(torch.get_num_threads())
        if fails:
            raise KeyboardInterrupt
        return Setup(parabola())

    for number in (2, None, 3):
        try:
            run_recipe(Made(a=build), RecipeConfig(threads=number), QUIET)
        except KeyboardInterrupt:
            assert fails
        assert torch.get_num_threads() == before
    assert seen == [2, before, 3]
