"""Slips outside the declaration: said where they were made, and never silently wrong."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.optim import lr_scheduler

import mlo
from mlo.callbacks import KeepBest
from mlo.devices import find_device
from mlo.errors import (
    ConfigurationError,
    DeclarationError,
    DeviceError,
    EvaluationError,
    LossError,
    MethodError,
    ParameterError,
    StreamError,
)

X = torch.linspace(-1, 1, 15, dtype=torch.float64).reshape(5, 3)
LOOKAHEAD = pytest.mark.parametrize("lookahead", [False, True])


def sgd(params):
    return torch.optim.SGD(params, 0.1)


def fit(net, top):
    return (net(X).square().mean() * top["a"].exp()) + net(X).mean()


def judge(net):
    return (net(X) - 1.0).square().mean()


def two(net=None, low=None, high=None, **settings):
    """A network and one number above it, with what a case changes."""
    given = {"module": net or nn.Linear(3, 2), "loss": fit, "optimizer": sgd, **(low or {})}
    upper = {"params": {"a": torch.tensor(0.3)}, "loss": judge, "optimizer": sgd, **(high or {})}
    return mlo.Engine([mlo.Problem("net", **given), mlo.Problem("top", **upper)], **settings)


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
    two(low={"hypergradient": mlo.Dense(limit=8)}).step()
    two(high={"hypergradient": mlo.Dense(limit=1), "params": {"a": torch.ones(3)}}, dry_run=False)


def trained():
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


def assigned(net):
    state = {key: value.detach().clone() for key, value in net.state_dict().items()}
    net.load_state_dict(state, assign=True)


def replaced(net):
    net[1].bias = nn.Parameter(net[1].bias.detach().clone())


def exchanged(net):
    net[0] = nn.Linear(3, 4)


CHANGES = {
    "frozen": (lambda net: net[1].requires_grad_(False), "'1.weight' was frozen"),
    "replaced": (replaced, "'1.bias' was replaced"),
    "assigned": (assigned, "'0.weight' was replaced"),
    "exchanged": (exchanged, "'0.weight' was replaced"),
    "parametrized": (
        lambda net: parametrize.register_parametrization(net[1], "bias", nn.Tanh()),
        "'1.bias' was replaced",
    ),
}
CALLS = {
    "run": lambda engine: engine.run(ticks=1),
    "hypergradient": lambda engine: engine.hypergradient("top"),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("change", CHANGES)
def test_variables_changed_behind_the_engine_are_refused(change, call):
    net = trained()
    engine = two(net)
    engine.run(ticks=1)
    make, message = CHANGES[change]
    make(net)
    with pytest.raises(ParameterError, match=rf"'net'.*variable {message}.*build a new engine"):
        CALLS[call](engine)
    assert engine.tick == 1


@LOOKAHEAD
def test_values_loaded_in_place_are_seen(lookahead):
    net, other = trained(), trained()
    engine = two(net, lookahead=lookahead)
    net.load_state_dict(other.state_dict())
    found = engine.hypergradient("top")["a"]
    assert torch.equal(found, two(other, lookahead=lookahead).hypergradient("top")["a"])


def test_frozen_parameters_replaced_behind_the_engine_are_seen_or_refused():
    net = trained()
    net[0].requires_grad_(False)
    engine = two(net)
    net[0].load_state_dict({k: 3 * v + 1 for k, v in net[0].state_dict().items()}, assign=True)
    try:
        found = engine.hypergradient("top")["a"]
    except ParameterError:
        return
    assert torch.equal(found, two(net).hypergradient("top")["a"])


def unfrozen(net, optimizer):
    optimizer.add_param_group({"params": list(net[0].requires_grad_().parameters())})


def hooked(net, optimizer):
    net[1].bias.register_hook(lambda g: 2 * g)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("change", [unfrozen, hooked])
def test_what_an_engine_would_pass_over_is_refused_after_it_was_built_as_well(change, call):
    net = trained()
    net[0].requires_grad_(False)
    engine = two(net)
    change(net, engine.problems["net"].optimizer)
    with pytest.raises(ParameterError, match="'net'"):
        CALLS[call](engine)


@pytest.mark.parametrize("call", CALLS)
def test_inference_mode_around_the_engine_is_refused(call):
    engine = two()
    with torch.inference_mode(), pytest.raises(EvaluationError, match=r"inference_mode.*outside"):
        CALLS[call](engine)


@LOOKAHEAD
def test_gradients_switched_off_around_a_run_change_nothing(lookahead):
    ends = []
    for off in (False, True):
        torch.manual_seed(3)
        net = trained()
        engine = two(net, lookahead=lookahead)
        with torch.set_grad_enabled(not off):
            engine.run(ticks=3)
        ends.append([*net.parameters(), engine.problems["top"].module["a"]])
    assert all(torch.equal(p, q) for p, q in zip(*ends, strict=True))


HOOKS = {
    "hook": lambda p: p.register_hook(lambda g: 2 * g),
    "hook after accumulation": lambda p: p.register_post_accumulate_grad_hook(lambda p: None),
}


@pytest.mark.parametrize("hook", HOOKS)
def test_a_parameter_with_a_hook_that_would_not_run_is_refused(hook):
    net = trained()
    handle = HOOKS[hook](net[1].bias)
    with pytest.raises(ParameterError, match=r"'net'.*'1\.bias'.*hooks.*remove.*clip_norm="):
        two(net)
    handle.remove()
    two(net).step()


@pytest.mark.parametrize("given", [False, True])
def test_a_lazy_module_is_refused_until_it_has_seen_a_batch(given):
    net = nn.Sequential(nn.LazyLinear(4), nn.Linear(4, 2))
    low = {"optimizer": sgd(net.parameters())} if given else {}
    with pytest.raises(ParameterError, match=r"'net'.*'0\.weight'.*lazy.*once on a batch"):
        two(net, low=low)
    net(X)
    before = net[0].weight.detach().clone()
    two(net, low=low).step()
    assert not torch.equal(net[0].weight, before)


WORDS = torch.tensor([0, 2, 2, 1])
SPARSE = [
    mlo.OneStep(),
    mlo.FiniteDifference(),
    mlo.FiniteDifference(scheme="forward"),
    mlo.Neumann(),
    mlo.ConjugateGradient(),
    mlo.Dense(damping=0.1),  # rows that are not looked up have no curvature
]


def embedding(sparse):
    torch.manual_seed(5)
    return nn.Embedding(5, 3, sparse=sparse)


def look(net, top):
    return (net(WORDS) * top["a"].exp()).square().sum() + net(WORDS).sum()


def compare(net, top):
    return (net(WORDS) - 1).square().sum() + top["a"].square()


@pytest.mark.parametrize("method", SPARSE, ids=lambda m: str(m)[:40])
@LOOKAHEAD
def test_sparse_gradients_give_the_answer_of_dense_ones(method, lookahead):
    answers = [
        two(
            embedding(sparse),
            {"loss": look, "hypergradient": method},
            {"loss": compare},
            lookahead=lookahead,
        ).hypergradient("top")["a"]
        for sparse in (False, True)
    ]
    # The order of additions differs; a finite difference of radius 0.01 magnifies it.
    torch.testing.assert_close(*answers, rtol=1e-11, atol=0)


OPTIMIZERS = {
    "SGD": sgd,
    "momentum": lambda params: torch.optim.SGD(params, 0.1, momentum=0.9),
    "SparseAdam": lambda params: torch.optim.SparseAdam(params, 0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_sparse_moves_are_those_of_plain_torch_and_the_record_has_their_norm(name):
    net, plain = embedding(True), embedding(True)

    def loss(net):
        return net(WORDS).square().sum() + net(WORDS).sum()

    engine = mlo.Engine([mlo.Problem("net", module=net, loss=loss, optimizer=OPTIMIZERS[name])])
    optimizer = OPTIMIZERS[name](list(plain.parameters()))
    for _ in range(3):
        optimizer.zero_grad()
        loss(plain).backward()
        length = plain.weight.grad.to_dense().norm()
        found = engine.step().moves[0].gradient_norm
        # A word that is looked up twice has two entries, which have to be added first.
        torch.testing.assert_close(found, length, rtol=1e-14, atol=0)
        optimizer.step()
        assert torch.equal(net.weight, plain.weight)


def clamped(given):
    for tensor in given.values():
        tensor.clamp_(min=0.0)
    return given


PROJECTS = {
    "nothing": (lambda given: None, "must return name -> tensor, got NoneType"),
    "a tensor": (lambda given: given["bias"], "must return name -> tensor, got Tensor"),
    "numbers": (lambda given: {"bias": 0.0}, r"got dict.*'bias': 'float'"),
    "an unknown name": (lambda given: {"bais": given["bias"]}, r"'bais'.*none of.*'bias'"),
    "another shape": (lambda given: {"bias": given["bias"][:1]}, r"'bias'.*\(1,\).*\(2,\)"),
}


@LOOKAHEAD
@pytest.mark.parametrize("case", PROJECTS)
def test_a_projection_that_returns_something_else_is_named(case, lookahead):
    function, message = PROJECTS[case]
    engine = two(low={"project": function}, lookahead=lookahead)
    with pytest.raises(EvaluationError, match=rf"'net'.*project=.*{message}"):
        engine.step()


@LOOKAHEAD
def test_a_projection_in_place_is_applied_and_differentiated(lookahead):
    """f = |w - x|^2 / 2, F = <w', c> with w' = max(w - 0.1 (w - x), 0): dF/dx = 0.1 c where > 0."""
    w, x, c = (torch.tensor(t) for t in ([1.0, -1.0, 2.0], [3.0, 2.0, -1.0], [0.5, 7.0, 2.0]))
    low = mlo.Problem(
        "low",
        params={"w": w},
        loss=lambda low, top: (low["w"] - top["x"]).square().sum() / 2,
        optimizer=sgd,
        project=clamped,
    )
    top = mlo.Problem("top", params={"x": x}, loss=lambda low: low["w"] @ c, optimizer=sgd)
    engine = mlo.Engine([low, top], lookahead=lookahead)
    unprojected = w - 0.1 * (w - x)
    expected = torch.where(unprojected > 0, 0.1 * c, 0.0)
    assert expected.count_nonzero() == 2
    torch.testing.assert_close(engine.hypergradient("top")["x"], expected, rtol=1e-14, atol=0)
    engine.step()
    if lookahead:  # the upper problem moved before the real move
        unprojected = w - 0.1 * (w - (x - 0.1 * expected))
    torch.testing.assert_close(
        low.module["w"].detach(), unprojected.clamp(min=0.0), rtol=1e-14, atol=0
    )


@pytest.mark.parametrize("name", ["cpu", torch.device("cpu"), "meta"])
def test_a_device_that_is_there_is_found(name):
    assert find_device(name) == torch.device(name)


@pytest.mark.parametrize("name", ["gpu", "cuda:977", 3.5, "cpu:x"])
@pytest.mark.parametrize(
    "find", [find_device, lambda name: two(device=name)], ids=["find", "engine"]
)
def test_a_device_that_is_not_there_is_named_in_a_line_with_the_cure(find, name):
    with pytest.raises(DeviceError, match=r"cannot be used here.*'cpu'.*'cuda'") as caught:
        find(name)
    assert repr(str(name)) in str(caught.value)
    assert "\n" not in str(caught.value)


SETUP = pathlib.Path(__file__).parents[2] / "scripts/setup"


def set_up(folder, monkeypatch, python):
    """Run a copy of the set-up script where `python3` is the given shell script."""
    for part in ("scripts", "bin"):
        (folder / part).mkdir(exist_ok=True)
    shutil.copy(SETUP, folder / "scripts/setup")
    for name in ("pyproject.toml", "constraints.txt"):
        (folder / name).touch()
    fake = folder / "bin/python3"
    fake.write_text(f"#!/bin/sh\n{python}\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}{os.pathsep}{os.environ['PATH']}")
    return subprocess.run(
        [folder / "scripts/setup"], capture_output=True, text=True, check=False, timeout=60
    )


OLD = 'case "$1" in -c) exit 1;; --version) echo Python 3.10.4;; *) exit 7;; esac'
# Makes an environment whose programs note how they are called.
NEW = """case "$1" in
  -c) exit 0;;
  -m) mkdir -p "$3/bin"
      printf '#!/bin/sh\\necho "$@" >> calls\\n' > "$3/bin/python"
      cp "$3/bin/python" "$3/bin/pip"; chmod +x "$3/bin/python" "$3/bin/pip"; touch "$3/fresh";;
esac"""


def test_the_set_up_refuses_an_old_python_and_leaves_nothing(tmp_path, monkeypatch):
    done = set_up(tmp_path, monkeypatch, OLD)
    assert done.returncode == 1
    assert "3.11" in done.stderr
    assert "3.10.4" in done.stderr
    assert "PATH" in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / ".venv").exists()


def test_the_set_up_installs_once_and_again_where_the_folder_was_moved(tmp_path, monkeypatch):
    old, new = tmp_path / "old place", tmp_path / "new place"
    old.mkdir()
    assert set_up(old, monkeypatch, NEW).returncode == 0
    installs = (old / "calls").read_text().count("install")
    assert installs == 1
    stamp = old / ".venv/.installed"
    os.utime(stamp, (stamp.stat().st_mtime + 60,) * 2)  # newer than the files copied anew
    assert set_up(old, monkeypatch, OLD).stdout == ""
    old.rename(new)
    (new / ".venv/fresh").unlink()
    assert set_up(new, monkeypatch, NEW).returncode == 0
    assert (new / ".venv/fresh").exists()
    assert (new / ".venv/.installed").read_text().strip() == str(new)
