"""What users get wrong is told with the place where it went wrong."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

import mlo
from mlo.callbacks import KeepBest
from mlo.errors import (
    ConfigurationError,
    DeclarationError,
    LossError,
    MethodError,
    StreamError,
)

from .small import X, fit, judge, two


class OddError(Exception):
    """An error that only the user knows."""


def fails(*args, **kwargs):
    raise OddError("mine")


class FailingScheduler:
    step = staticmethod(fails)


def notes(call):
    with pytest.raises(OddError, match="mine") as caught:
        call()
    return getattr(caught.value, "__notes__", [])


def evaluated(net):
    fails()


PLACES = {
    "project": (
        lambda: two(low={"project": fails}).step(),
        "in project= of problem 'net'",
    ),
    "scheduler": (
        lambda: two(low={"scheduler": FailingScheduler()}).step(),
        "in the scheduler of problem 'net'",
    ),
    "evaluation": (
        lambda: two().run(ticks=1, evaluate={"test": (evaluated, 1)}),
        "in evaluation 'test'",
    ),
}


@pytest.mark.parametrize("place", PLACES)
def test_an_error_of_the_users_own_function_keeps_its_type_and_says_where_it_was(place):
    call, note = PLACES[place]
    assert notes(call) == [note]


BATCHES = {
    "a pair": ((X, torch.zeros(5).long()), "(float64[5, 3], int64[5])"),
    "a mapping": ({"x": X[0], "m": torch.ones(2, 1).bool()}, "{x: float64[3], m: bool[2, 1]}"),
    "more than four": ([X.sum()] * 6, f"({', '.join(['float64[]'] * 4)}, ...)"),
    "nested": (([X], None), "((float64[5, 3]), NoneType)"),
}


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize("case", BATCHES)
def test_an_error_in_a_loss_is_told_with_the_shapes_of_its_batches(case, dry_run):
    batch, shown = BATCHES[case]

    def loss(net, top, train):
        fails()

    data = {"train": [batch]}
    made = notes(lambda: two(low={"loss": loss}, data=data, dry_run=dry_run).step())
    assert made == [f"in the loss of problem 'net', with train: {shown}"]


@pytest.mark.parametrize("method", [mlo.Neumann(), mlo.FiniteDifference()])
def test_an_error_in_a_replay_names_the_problem_that_was_replayed(method):
    armed = []

    def loss(net, top):
        return fails() if armed else fit(net, top)

    def upper(net):
        armed.append(True)  # from here on only replays evaluate the lower loss
        return judge(net)

    engine = two(low={"loss": loss, "hypergradient": method}, high={"loss": upper}, dry_run=False)
    assert notes(engine.step) == ["in the loss of problem 'net'"]


class Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        raise RuntimeError("mine")


def test_an_error_in_a_backward_of_the_users_own_is_not_taken_for_another():
    engine = two(low={"loss": lambda net, top: Backward.apply(fit(net, top))})
    with pytest.raises(RuntimeError, match=r"^mine$"):
        engine.step()


def test_an_error_of_the_library_names_the_problem_itself_and_gets_no_note():
    plateau = {"scheduler": lr_scheduler.ReduceLROnPlateau, "scheduler_metric": "worst"}
    with pytest.raises(LossError, match=r"'net'.*'worst'") as caught:
        two(low=plateau).step()
    assert not hasattr(caught.value, "__notes__")


@pytest.mark.parametrize("batch", [X, {"x": X}, "digits"])
def test_one_batch_in_place_of_a_stream_is_refused(batch):
    def loss(net, top, train):
        return fit(net, top)

    message = rf"'train'.*iterable of batches.*{type(batch).__name__}.*put it in a list"
    with pytest.raises(StreamError, match=message):
        two(low={"loss": loss}, data={"train": batch})


class Misspelt(mlo.Callback):
    def on_evaluate(self, record):
        raise AssertionError("never called")


class Once:
    ticks = 0

    def on_tick(self, record):
        self.ticks += 1

    def reset(self):
        raise AssertionError("not a hook")


CALLBACKS = {
    "a class": ([mlo.Callback], r"objects.*class Callback.*write Callback\(\.\.\.\)"),
    "no list": (mlo.Callback(), r"must be a list, got Callback.*\[callback\]"),
    "a set": ({mlo.Callback()}, "must be a list, got set"),
    "misspelt": ([Misspelt()], "Misspelt.*'on_evaluate'.*never be called.*'on_evaluation'"),
    "misspelt beside a right one": (
        [type("Both", (Once,), {"on_moves": print})()],
        "Both.*'on_moves'.*'on_move'",
    ),
    "a function": ([print], "none of the methods 'on_start'.*derive it from mlo.Callback"),
    "without the prefix": (
        [type("Bare", (), {"evaluation": print})()],
        "Bare has none.*did you mean 'on_evaluation'",
    ),
}


@pytest.mark.parametrize("case", CALLBACKS)
def test_what_would_never_be_called_is_refused_before_the_first_tick(case):
    callbacks, message = CALLBACKS[case]
    engine = two()
    with pytest.raises(DeclarationError, match=rf"callbacks=\.\.\.\).*{message}"):
        engine.run(ticks=1, callbacks=callbacks)
    assert engine.tick == 0


@pytest.mark.parametrize("kind", [list, tuple])
def test_any_object_with_a_hook_is_a_callback(kind):
    once = Once()
    two().run(ticks=3, callbacks=kind([once]))
    assert once.ticks == 3


def step_lr(optimizer):
    return lr_scheduler.StepLR(optimizer, 1)


REFUSED = {
    "evaluate= as a list": (
        lambda: two().run(ticks=1, evaluate=[("test", judge)]),
        (DeclarationError, r"evaluate=\.\.\.\).*map names.*got list.*\{'test'"),
    ),
    "scheduler_every= as a number": (
        lambda: two(low={"scheduler": step_lr, "scheduler_every": 3}),
        (DeclarationError, r"'net'.*scheduler_every=.*name of a stream, got 3.*every="),
    ),
    "scheduler_every= without a scheduler": (
        lambda: two(
            low={"loss": lambda net, top, train: fit(net, top), "scheduler_every": "train"},
            data={"train": [X]},
        ),
        (DeclarationError, r"'net'.*scheduler_every=.*scheduler= is None.*leave"),
    ),
    "scheduler_metric= for a scheduler that takes none": (
        lambda: two(low={"scheduler": step_lr, "scheduler_metric": "worst"}),
        (DeclarationError, r"'net'.*scheduler_metric='worst'.*StepLR.*ReduceLROnPlateau"),
    ),
    "scheduler_metric= without a scheduler": (
        lambda: two(low={"scheduler_metric": "worst"}),
        (DeclarationError, r"'net'.*scheduler_metric='worst'.*NoneType.*leave"),
    ),
    "a method by its name": (
        lambda: two(low={"hypergradient": "neumann"}),
        (MethodError, r"'net'.*hypergradient=.*'neumann'; write Neumann\(\.\.\.\)"),
    ),
    "a method by its longer name": (
        lambda: two(low={"hypergradient": "conjugate-gradient"}),
        (MethodError, r"'net'.*write ConjugateGradient\(\.\.\.\)"),
    ),
    "a method by its class": (
        lambda: two(low={"hypergradient": mlo.Neumann}),
        (MethodError, r"'net'.*'Neumann'; write Neumann\(\.\.\.\)"),
    ),
    "a Hessian too large to write out": (
        lambda: two(low={"hypergradient": mlo.Dense(limit=7)}),
        (MethodError, r"'net'.*Dense.* 8 x 8 .*limit=7.*ConjugateGradient"),
    ),
    "a metric that is no number": (
        lambda: two(low={"loss": lambda net, top: (fit(net, top), {"name": "best"})}),
        (LossError, r"'net'.*metric 'name'.*got str 'best'.*convert"),
    ),
    "modules to keep as a list": (
        lambda: KeepBest("test", "test", modules=[nn.Linear(1, 1)]),
        (ConfigurationError, r"KeepBest\(modules=.*got list.*\{'classifier': net\}"),
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_slip_is_named_with_its_cure(case):
    call, (error, message) = REFUSED[case]
    with pytest.raises(error, match=message):
        call()


def test_a_hessian_of_just_the_limit_is_written_out_and_only_where_somebody_asks():
    ignoring = mlo.Guards(on_nonfinite="ignore")  # it is singular
    two(low={"hypergradient": mlo.Dense(limit=8)}, guards=ignoring).step()
    two(high={"hypergradient": mlo.Dense(limit=1), "params": {"a": torch.ones(3)}}, dry_run=False)
