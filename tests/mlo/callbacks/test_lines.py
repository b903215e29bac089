"""What callbacks have to say, in the progress of runs and recipes."""

from __future__ import annotations

import io

import pytest
import rich.console
import torch

import mlo
from mlo.callbacks import Console
from mlo.callbacks.numbers import Answer, Numbers, Row
from mlo.callbacks.tables import drawn
from mlo.recipe import Recipe, RecipeConfig, Setup, Stage
from mlo.recipe_run import Job, run_recipe


def engine():
    return mlo.Engine(
        [
            mlo.Problem(
                "walk",
                params={"w": torch.ones(1)},
                loss=lambda walk: walk["w"].square().sum(),
                optimizer=lambda p: torch.optim.SGD(p, 0.1),
            )
        ]
    )


class Says(mlo.Callback):
    """Says another thing from every n-th tick on."""

    def __init__(self, every=100, first="found 0"):
        self.every = every
        self.text = first
        self.asked = 0

    def on_tick(self, record):
        if (record.tick + 1) % self.every == 0:
            self.text = f"found {record.tick + 1}"

    def line(self):
        self.asked += 1
        return self.text


def screen(terminal=False, **options):
    return rich.console.Console(
        file=io.StringIO(), force_terminal=terminal, width=80, height=30, **options
    )


def said(console):
    return [line for line in console.file.getvalue().splitlines() if "found" in line]


def run(console, *callbacks, beside, ticks=100, **options):
    progress = Console("run", console=console, beside=beside, **options)
    engine().run(ticks, callbacks=[progress, *callbacks])


def test_plain_lines_say_it_once_and_again_where_it_has_changed():
    console = screen()
    says = Says(every=33)
    run(console, says, beside=[says])
    found = said(console)
    assert found == ["run: found 0", "run: found 33", "run: found 66", "run: found 99"]
    lines = console.file.getvalue().splitlines()
    assert "30/100" in "".join(lines[: lines.index("run: found 33")])
    assert says.asked <= 11, "only when lines are printed"


@pytest.mark.parametrize("text", [None, ""])
def test_nothing_is_said_where_there_is_nothing_to_say(text):
    console = screen()
    says = Says(first=text)
    run(console, says, beside=[says, mlo.Callback(), object()], ticks=10)
    plain = screen()
    run(plain, beside=[], ticks=10)
    assert len(console.file.getvalue().splitlines()) == len(plain.file.getvalue().splitlines())
    assert "None" not in console.file.getvalue()


def test_what_callbacks_say_follows_in_their_order():
    console = screen()
    both = [Says(first="found b"), Says(first="found a")]
    run(console, *both, beside=both, ticks=3)
    assert said(console) == ["run: found b", "run: found a"]


def test_a_terminal_shows_it_below_the_losses_to_the_last():
    console = screen(terminal=True)
    says = Says(every=3)
    run(console, says, beside=[says], ticks=10)
    last = console.file.getvalue().rpartition("10/10 ticks")[2]
    assert "found 9" in last
    assert last.index("walk") < last.index("found 9")


def test_nothing_is_asked_or_drawn_where_all_is_silent():
    console = screen()
    says = Says()
    run(console, says, beside=[says], quiet=True)
    assert console.file.getvalue() == ""
    assert says.asked == 0


def test_what_would_steer_the_terminal_is_taken_out_and_brackets_are_text():
    for terminal in (False, True):
        console = screen(terminal)
        says = Says(first="found \x1b[2J [bold]x[/] :bee:")
        run(console, says, beside=[says], ticks=2)
        assert "\x1b[2J" not in console.file.getvalue()
        assert "[bold]x[/] :bee:" in console.file.getvalue()


@pytest.mark.parametrize("room", range(16))
def test_a_small_terminal_shows_as_much_as_it_has_room_for(room):
    console = screen()
    metrics = {f"evaluation {i}": {"accuracy": 0.5} for i in range(5)}
    said = tuple(f"saying {i}" for i in range(4))
    numbers = Numbers((Row("walk", 1.0, 2.0),), metrics, said)
    with console.capture() as capture:
        for part in drawn(numbers, 80, room, console):
            console.print(part)
    lines = capture.get().splitlines()
    assert len(lines) <= room
    if room >= 11:
        assert lines[-4:] == list(said)
        assert lines[2:7] == [f"evaluation {i}: accuracy 0.5" for i in range(5)]
    elif room >= 6:
        assert any("saying" in line or "more line" in line for line in lines)
        assert any("evaluation" in line for line in lines)


def test_failures_leave_a_third_of_the_lines_to_what_callbacks_say():
    console = screen()
    answers = tuple(Answer(f"lower {i}", 3, 1.0, "diverged") for i in range(30))
    with console.capture() as capture:
        for part in drawn(
            Numbers((Row("walk", 1.0, 2.0, answers),), {}, ("found",)), 80, 12, console
        ):
            console.print(part)
    assert capture.get().splitlines()[-1] == "found"


class Walk(Recipe[RecipeConfig]):
    name = "walk"
    summary = "Walks, and says so."
    config = RecipeConfig

    def stages(self, config):
        return [Stage(name, 10, self.build) for name in ("first", "second")]

    def build(self, config, seed, carry):
        return Setup(engine(), callbacks=[Says(every=5)])


def test_the_progress_of_a_recipe_says_what_the_callbacks_of_each_stage_say():
    console = screen()
    run_recipe(Walk(), RecipeConfig(), Job(console=console))
    # Each tenth of the job is two ticks. The progress is drawn before other callbacks see a tick.
    assert said(console) == [
        "walk: seed 0, first: found 0",
        "walk: seed 0, first: found 5",
        "walk: seed 0, second: found 0",
        "walk: seed 0, second: found 5",
        "walk: seed 0, second: found 10",
    ]
