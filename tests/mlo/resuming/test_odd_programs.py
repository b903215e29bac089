"""Programs that an outside reviewer thought of: odd states, odd batches, loads that fail."""

from __future__ import annotations

import collections
import functools
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, TensorDataset

import mlo
from mlo.errors import CheckpointError, NonfiniteError, ResumeWarning
from mlo.generators import generators_in, restore, state_of
from mlo.plain import copied, differences


def fit(net, data):
    (x,) = data
    return net(x).square().mean() + x.std() * net(x).mean()


def build(data, *, scheduler=None, module=None, optimizer=None, **settings):
    torch.manual_seed(0)
    module = module or nn.Linear(3, 2)
    optimizer = optimizer or (lambda p: torch.optim.SGD(p, 0.1, momentum=0.9))
    problem = mlo.Problem("net", module=module, loss=fit, optimizer=optimizer, scheduler=scheduler)
    return mlo.Engine([problem], {"data": data()}, **settings)


def goes_on(make, path, before, after=4):
    """Both engines make the same ticks after a state was saved by one and loaded by the other."""
    first = make()
    for _ in range(before):
        first.step()
    first.save(path)
    expected = [first.step().losses for _ in range(after)]
    second = make()
    second.load(path)
    assert [second.step().losses for _ in range(after)] == expected
    assert list(differences(first.state_dict(), second.state_dict())) == []


class Held:
    """A transform and a data set whose draws come from generators of their own, deep inside."""

    def __init__(self, kind):
        self.parts = {"inner": [kind]}

    def __len__(self):
        return 14

    def __getitem__(self, i):
        return (torch.full((3,), float(i)) + self.draw(),)

    def draw(self):
        kind = self.parts["inner"][0]
        if isinstance(kind, torch.Generator):
            return float(torch.rand((), generator=kind)) > 0.8
        return float(kind.random() if hasattr(kind, "random") else kind.rand()) > 0.8


GENERATORS = {
    "numpy, old": lambda: np.random.RandomState(3),
    "numpy": lambda: np.random.default_rng(3),
    "numpy, philox": lambda: np.random.Generator(np.random.Philox(3)),
    "python": lambda: random.Random(3),
    "torch": lambda: torch.Generator().manual_seed(3),
}


@pytest.mark.parametrize("before", [0, 1, 3, 6])
@pytest.mark.parametrize("kind", GENERATORS)
def test_generators_inside_data_go_on(kind, before, tmp_path):
    for number, wrap in enumerate(
        (
            lambda held: DataLoader(held, 4, shuffle=True),
            lambda held: DataLoader(
                TensorDataset(torch.arange(42.0).reshape(14, 3)),
                4,
                collate_fn=lambda rows: (torch.stack([r[0] for r in rows]) + held.draw(),),
            ),
            Sequence,
        )
    ):
        goes_on(
            lambda wrap=wrap: build(lambda: wrap(Held(GENERATORS[kind]()))),
            tmp_path / f"{number}.pt",
            before,
        )


class Sequence(collections.abc.Sequence):
    """Makes its batches when they are asked for."""

    def __init__(self, held):
        self.held = held

    def __len__(self):
        return 5

    def __getitem__(self, i):
        if i >= 5:
            raise IndexError
        return (torch.stack([self.held[j][0] for j in range(2 * i, 2 * i + 3)]),)


@pytest.mark.parametrize("kind", GENERATORS)
def test_the_state_of_a_generator_is_plain_and_complete(kind, tmp_path):
    generator = GENERATORS[kind]()
    if isinstance(generator, np.random.RandomState):
        generator.randn()  # which keeps a second number back
    path = tmp_path / "state.pt"
    torch.save(state_of(generator), path)

    def draws():
        if isinstance(generator, torch.Generator):
            return torch.randn(9, generator=generator).tolist()
        return (
            [float(generator.normal(0, 1)) for _ in range(9)]
            if kind != "python"
            else [generator.gauss(0, 1) for _ in range(9)]
        )

    first = draws()
    restore(generator, torch.load(path, weights_only=True))
    assert draws() == first


def test_the_generators_of_the_process_are_not_those_of_an_object():
    assert generators_in([random.random, np.random.rand, lambda: random, nn.Linear(2, 2)]) == []


class Guarded:
    """Runs code when it is asked for what it has not, and keeps its generator in a slot."""

    __slots__ = ("empty", "generator")

    def __init__(self):
        self.generator = random.Random(1)

    def __getattr__(self, name):
        raise RuntimeError(f"asked for {name}")

    @property
    def data(self):
        raise RuntimeError("asked for data")


def test_looking_for_generators_runs_no_code_and_ends():
    guarded = Guarded()
    deep = [[[[[i] * 64] * 64] * 64] for i in range(64)]
    own = [[[[j, i] for i in range(64)] for j in range(64)] for _ in range(64)]
    found = generators_in([guarded, deep, own, functools.partial(print, guarded)])
    assert found == [guarded.generator]
    assert generators_in(guarded.generator.gauss) == [guarded.generator]


@pytest.mark.parametrize("before", [0, 2])
def test_batches_with_gaps_between_their_entries_keep_them(before, tmp_path):
    def sliced():
        torch.manual_seed(5)
        big = torch.randn(700, 3, 6)
        thin = torch.randn(700, 1).expand(700, 3)
        return [*[(big[:, :, i],) for i in range(5)], (thin,), (big.permute(2, 0, 1)[1],)]

    goes_on(lambda: build(sliced), tmp_path / "state.pt", before, after=8)


def numpy_rate(epoch):
    return np.float64(0.5) * (1 + np.cos(epoch / 10))


def test_doubles_of_numpy_in_schedules_are_saved(tmp_path):
    data = [(torch.randn(5, 3, generator=torch.Generator().manual_seed(1)),)]
    goes_on(
        lambda: build(lambda: data, scheduler=lambda o: lr_scheduler.LambdaLR(o, numpy_rate)),
        tmp_path / "state.pt",
        3,
    )


class Counting(nn.Linear):
    """Keeps an array, and changes it in place."""

    def __init__(self):
        super().__init__(3, 2)
        self.count = np.zeros(1)

    def forward(self, x):
        self.count += 1
        return super().forward(x)

    def get_extra_state(self):
        return self.count

    def set_extra_state(self, state):
        self.count = state


def test_what_is_no_plain_value_is_copied_where_a_tick_is_taken_back():
    good = (torch.ones(2, 3) * torch.arange(2.0)[:, None],)
    bad = (torch.full((2, 3), torch.nan),)
    module = Counting()
    guards = mlo.Guards(on_nonfinite="skip")
    made = build(lambda: [good, bad], module=module, guards=guards)
    made.step()
    before = module.count.copy()
    assert made.step().taken_back
    assert module.count == before


def test_what_no_file_can_hold_is_known_before_the_first_tick(tmp_path):
    made = build(lambda: [(torch.randn(2, 3),)], module=Counting())
    states = mlo.Checkpoints(tmp_path)
    with pytest.raises(CheckpointError, match=r"extra.*ndarray"):
        made.run(3, checkpoints=states)
    assert made.tick == 0


class Forgetful(lr_scheduler.StepLR):
    def load_state_dict(self, state):
        raise ValueError("on purpose")


@pytest.mark.filterwarnings("ignore:data stream .* cannot be resumed:mlo.errors.ResumeWarning")
def test_a_scheduler_that_refuses_every_state_is_named(tmp_path):
    class Endless:
        def __iter__(self):
            return ((torch.full((2, 3), float(i)) * torch.arange(3.0),) for i in range(100))

    made = build(Endless, scheduler=lambda o: Forgetful(o, 2))
    for _ in range(3):
        made.step()
    made.save(tmp_path / "state.pt")
    problem = made.problems["net"]
    weight = problem.module.weight.detach().clone()
    # The way back needs the scheduler as well; what it cannot do is told.
    said = r"cannot be taken up .ValueError: on purpose.; nor could the way back be"
    with pytest.raises(CheckpointError, match=said):
        made.load(tmp_path / "state.pt")
    assert torch.equal(problem.module.weight, weight)


@pytest.mark.filterwarnings("ignore:data stream .* cannot be resumed:mlo.errors.ResumeWarning")
def test_a_state_that_lacks_a_part_inside_is_refused_and_nothing_changes(tmp_path):
    class Endless:
        def __iter__(self):
            return ((torch.full((2, 3), float(i)) * torch.arange(3.0),) for i in range(100))

    made = build(Endless)
    for _ in range(3):
        made.step()
    state = copied(made.state_dict())
    broken = {**state, "memory": {k: v for k, v in state["memory"].items() if k != "heard"}}
    with pytest.warns(ResumeWarning), pytest.raises(CheckpointError, match="nothing was changed"):
        made.load_state_dict(broken)
    assert list(differences(state, made.state_dict())) == []
    assert made._streams["data"].held[0][0][0, 1] == 2.0
    made.step()
    assert made._streams["data"].held[0][0][0, 1] == 3.0


class Plugged(mlo.OneStep):
    """A method with a part that is known by its address only."""

    part = object()

    def __repr__(self):
        return f"Plugged({object()!r})"


def test_methods_with_plain_objects_inside_are_the_same_in_a_new_engine(tmp_path):
    def make():
        sgd = lambda p: torch.optim.SGD(p, 0.1)  # noqa: E731
        low = mlo.Problem(
            "low",
            params={"w": torch.ones(2)},
            loss=lambda low, top: (low["w"] * top["x"]).square().sum(),
            optimizer=sgd,
            hypergradient=Plugged(),
        )
        top = mlo.Problem(
            "top",
            params={"x": torch.tensor(0.5)},
            loss=lambda low: low["w"].square().sum(),
            optimizer=sgd,
        )
        return mlo.Engine([low, top])

    goes_on(make, tmp_path / "state.pt", 2)


def test_an_incident_that_cannot_be_written_hides_nothing(tmp_path):
    bad = (torch.full((2, 3), torch.nan),)
    states = tmp_path / "states"

    class Spoil(mlo.Callback):
        def on_checkpoint(self, record):
            for file in states.iterdir():
                file.unlink()
            states.rmdir()
            states.write_text("a file")

    made = build(lambda: [(torch.randn(2, 3),), bad])
    with (
        pytest.warns(UserWarning, match="nothing was saved to replay tick 1"),
        pytest.raises(NonfiniteError, match="tick 1: the loss of problem 'net' is nan"),
    ):
        made.run(3, callbacks=[Spoil()], checkpoints=mlo.Checkpoints(states, every=1))


def test_of_many_incidents_the_last_are_kept(tmp_path):
    good = (torch.ones(2, 3) * torch.arange(2.0)[:, None],)
    bad = (torch.full((2, 3), torch.nan),)
    made = build(lambda: [good, bad], guards=mlo.Guards(on_nonfinite="skip"))
    made.run(20, checkpoints=mlo.Checkpoints(tmp_path, every=10))
    found = sorted(p.name for p in tmp_path.glob("nonfinite-*"))
    assert found == [f"nonfinite-tick-{tick}.pt" for tick in (15, 17, 19)]
