"""Progress of real runs, as a person sees it."""

from __future__ import annotations

import io
import math
import re

import pytest
import rich.console
import torch

import mlo
from mlo.callbacks import Console
from mlo.callbacks.board import new_board

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


def lower_loss(lower, upper):
    return 0.5 * (lower["w"] - upper["c"]).square().sum()


def upper_loss(lower):
    return 0.5 * (lower["w"] - 3.0).square().sum()


def engine(lower=lower_loss):
    def problem(name, key, loss):
        return mlo.Problem(
            name,
            params={key: torch.zeros(2)},
            loss=loss,
            optimizer=lambda params: torch.optim.SGD(params, 0.1),
        )

    problems = [problem("lower", "w", lower), problem("upper", "c", upper_loss)]
    return mlo.Engine(problems, guards=mlo.Guards(on_nonfinite="ignore"))


def screen(terminal=False, width=80):
    return rich.console.Console(file=io.StringIO(), force_terminal=terminal, width=width)


def size(lower, upper):
    return {"far": (lower["w"] - 3.0).norm()}


def test_plain_lines_show_count_rate_rest_losses_of_all_levels_and_the_end():
    console = screen()
    made = engine()
    result = made.run(
        20, callbacks=[Console("walk", console=console)], evaluate={"size": (size, 5)}
    )
    lines = console.file.getvalue().splitlines()
    text = "\n".join(lines)
    assert re.search(
        r"walk: 2/20 ticks, [\d.]+ ticks/s, \d:\d\d elapsed, \d:\d\d left; loss:", text
    )
    assert len(re.findall(r"/20 ticks", text)) == 10
    losses = result.records[-1].losses
    last = " ".join(text.rpartition("walk: 20/20")[2].split())
    assert f"loss: upper {losses['upper']:.4g}, lower {losses['lower']:.4g}; " in last
    assert f"size: far {result.last('size')['far']:.4g}" in last
    assert lines[-1] == "walk: all 20 ticks were made"
    assert "\x1b" not in text
    assert max(map(len, lines)) <= 80


def test_a_terminal_shows_a_bar_that_grows_and_the_cursor_comes_back():
    console = screen(terminal=True)
    engine().run(20, callbacks=[Console("walk", console=console)])
    drawn = console.file.getvalue()
    assert re.search(r"━{20}", drawn)
    assert "20/20 ticks" in drawn
    assert re.search(r"upper +[\d.e-]+ +hyper [\d.e-]+ +lower", drawn)
    assert drawn.count(HIDE) == drawn.count(SHOW) == 1
    assert drawn.rstrip().endswith("walk: all 20 ticks were made")


@pytest.mark.parametrize("terminal", [False, True])
def test_quiet_draws_nothing(terminal):
    console = screen(terminal)
    engine().run(3, callbacks=[Console(console=console, quiet=True)])
    assert console.file.getvalue() == ""


@pytest.mark.parametrize("terminal", [False, True])
def test_a_run_that_fails_says_why_and_leaves_the_terminal_as_it_was(terminal):
    def failing(lower, upper, tick):
        if tick == 3:
            raise RuntimeError("out of [memory]")
        return lower_loss(lower, upper)

    console = screen(terminal)
    made = engine(failing)
    with pytest.raises(RuntimeError, match="memory"):
        made.run(9, callbacks=[Console("walk", console=console)])
    drawn = console.file.getvalue()
    assert "3/9 ticks" in drawn
    assert "out of [memory]" in drawn.splitlines()[-1]
    assert drawn.count(HIDE) == drawn.count(SHOW) == int(terminal)


@pytest.mark.parametrize("terminal", [False, True])
def test_a_loss_that_is_no_number_is_shown_as_it_is(terminal):
    def exploding(lower, upper):
        return lower_loss(lower, upper) + math.nan * lower["w"].sum()

    console = screen(terminal)
    engine(exploding).run(2, callbacks=[Console(console=console)])
    assert re.search("lower +nan", console.file.getvalue())


def test_a_stopped_run_gives_the_reason_of_the_stop():
    class Enough(mlo.Callback):
        def on_tick(self, record):
            return mlo.Stop("it is enough") if record.tick == 1 else None

    console = screen()
    engine().run(9, callbacks=[Console("walk", console=console), Enough()])
    assert console.file.getvalue().endswith("walk: it is enough\n")
    assert "walk: 2/9 ticks" in console.file.getvalue()


def test_runs_of_a_job_count_on_one_board_and_name_their_part():
    console = screen()
    with new_board("job", 20, console=console) as board:
        for part in ("first", "second"):
            engine().run(10, callbacks=[Console(part, board=board)])
        before = console.file.getvalue()
    drawn = console.file.getvalue()
    assert re.findall(r"^job: (\w+): (\d+)/20", drawn, re.MULTILINE) == [
        *(("first", str(n)) for n in range(2, 11, 2)),
        *(("second", str(n)) for n in range(12, 21, 2)),
    ]
    # Only the board's owner ends it.
    assert "20/20" not in before
    assert "ticks were made" not in drawn


def test_a_console_can_watch_several_runs_of_one_engine():
    console = screen()
    watch = Console("walk", console=console)
    made = engine()
    for _ in range(2):
        made.run(2, callbacks=[watch])
    assert console.file.getvalue().count("walk: 2/2 ticks") == 2


def test_without_a_console_it_draws_on_the_standard_output(capsys):
    engine().run(1, callbacks=[Console("walk")])
    assert "walk: 1/1 ticks" in capsys.readouterr().out
