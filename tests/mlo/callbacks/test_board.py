from __future__ import annotations

import io
import re
import types

import pytest
from rich.console import Console

from mlo.callbacks import board as boards
from mlo.callbacks.board import LineBoard, LiveBoard, SilentBoard, new_board
from mlo.callbacks.pace import Pace

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves only where a test moves it."""
    time = types.SimpleNamespace(now=0.0)
    time.monotonic = lambda: time.now
    monkeypatch.setattr(boards, "time", time)
    return time


def made(kind, clock, ticks=100, *, title="job", width=80, terminal=False, **options):
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=width, **options)
    board = kind(title, ticks, console)
    board.pace = Pace(ticks, clock.monotonic)
    return board, file


def advance(board, clock, ticks, seconds=1.0, *, label="part", numbers=lambda: "loss 1"):
    for _ in range(ticks):
        clock.now += seconds
        board.advance(label, numbers)


@pytest.mark.parametrize(
    ("terminal", "quiet", "kind"),
    [(True, False, LiveBoard), (False, False, LineBoard), (True, True, SilentBoard)],
)
def test_the_board_fits_to_where_it_is_drawn(terminal, quiet, kind):
    console = Console(file=io.StringIO(), force_terminal=terminal)
    board = new_board("job", 5, console=console, quiet=quiet)
    assert type(board) is kind
    assert (board.title, board.pace.ticks) == ("job", 5)


def test_lines_come_at_every_tenth_and_at_the_end(clock):
    board, file = made(LineBoard, clock)
    with board:
        advance(board, clock, 100, 0.5)
    lines = file.getvalue().splitlines()
    counts = [int(re.search(r"(\d+)/100 ticks", line)[1]) for line in lines]
    assert counts == list(range(10, 101, 10))
    assert lines[3] == "job: part: 40/100 ticks, 2.0 ticks/s, 0:20 elapsed, 0:30 left; loss 1"
    assert lines[-1] == "job: part: 100/100 ticks, 2.0 ticks/s, 0:50 elapsed; loss 1"


def test_a_line_comes_after_every_silent_minute(clock):
    board, file = made(LineBoard, clock, ticks=1000)
    with board:
        advance(board, clock, 10, 20.0)
    counts = re.findall(r"(\d+)/1000", file.getvalue())
    assert counts == ["3", "6", "9", "10"]


def test_a_long_line_is_folded_and_keeps_its_words(clock):
    board, file = made(LineBoard, clock, ticks=1)
    numbers = ", ".join(f"loss of problem {i} {i}.5" for i in range(20))
    with board:
        advance(board, clock, 1, numbers=lambda: numbers)
    lines = file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert all(line.startswith("    ") for line in lines[1:])
    assert " ".join(file.getvalue().split()).endswith(numbers)


@pytest.mark.parametrize("kind", [LineBoard, LiveBoard])
def test_brackets_and_colons_are_text(clock, kind):
    board, file = made(kind, clock, ticks=1, title="[bold]x[/]", terminal=kind is LiveBoard)
    with board:
        advance(board, clock, 1, label=":smile:", numbers=lambda: "[red]1[/red]")
    for text in ("[bold]x[/]", ":smile:", "[red]1[/red]"):
        assert text in file.getvalue()


def test_numbers_are_read_only_when_they_are_drawn(clock):
    reads = []
    for kind, terminal, expected in (
        (LineBoard, False, 10),
        # Every quarter of a second at most, and once at the end.
        (LiveBoard, True, 5),
        (SilentBoard, True, 0),
    ):
        reads.clear()
        board, _ = made(kind, clock, terminal=terminal)
        with board:
            advance(board, clock, 100, 0.01, numbers=lambda: str(reads.append(0)))
        assert len(reads) == expected, kind


def test_a_live_board_draws_a_bar_with_rate_rest_and_numbers_and_gives_the_cursor_back(clock):
    board, file = made(LiveBoard, clock, terminal=True)
    with board:
        advance(board, clock, 50)
        drawn = file.getvalue()
        assert drawn.count(HIDE) == 1
        assert SHOW not in drawn
    last = file.getvalue().rpartition("job: part")[2]
    assert "━" * 30 in last
    assert "50/100 ticks, 1.0 ticks/s, 0:50 elapsed, 0:50 left" in last
    assert "loss 1" in last
    assert SHOW in last


@pytest.mark.parametrize("options", [{"legacy_windows": True}, {"no_color": True}])
@pytest.mark.parametrize("width", [80, 20, 5])
def test_a_live_board_survives_poor_terminals(clock, options, width):
    board, file = made(LiveBoard, clock, ticks=3, terminal=True, width=width, **options)
    with board:
        advance(board, clock, 3)
    assert "3/3" in file.getvalue()


@pytest.mark.parametrize("kind", [LineBoard, LiveBoard, SilentBoard])
@pytest.mark.parametrize("ticks", [0, 1, 7])
def test_a_job_of_any_length_can_be_drawn(clock, kind, ticks):
    board, file = made(kind, clock, ticks=ticks, terminal=kind is LiveBoard)
    with board:
        advance(board, clock, ticks)
    assert bool(file.getvalue()) is (kind is not SilentBoard)
    assert kind is SilentBoard or f"{ticks}/{ticks} ticks" in file.getvalue()


@pytest.mark.parametrize("broken", [False, True])
def test_the_terminal_is_restored_when_a_run_fails(clock, broken):
    board, file = made(LiveBoard, clock, terminal=True)

    def numbers():
        if broken and clock.now > 2:
            raise ValueError
        return "loss 1"

    def failing():
        with board:
            advance(board, clock, 2, numbers=numbers)
            clock.now += 1
            raise ZeroDivisionError

    with pytest.raises((ZeroDivisionError, ValueError)):
        failing()
    assert file.getvalue().rindex(SHOW) > file.getvalue().rindex(HIDE)


def test_a_dumb_terminal_gets_lines(monkeypatch):
    """It cannot redraw, so a live board would show nothing before the end."""
    monkeypatch.setenv("TERM", "dumb")
    console = Console(file=io.StringIO(), force_terminal=True)
    assert isinstance(new_board("job", 5, console=console), LineBoard)
