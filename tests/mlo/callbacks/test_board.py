from __future__ import annotations

import io
import re
import types

import pytest
from rich.cells import cell_len
from rich.console import Console

from mlo.callbacks import board as boards
from mlo.callbacks.board import LineBoard, LiveBoard, SilentBoard, new_board
from mlo.callbacks.numbers import Numbers, Row
from mlo.callbacks.pace import Pace
from mlo.errors import ConfigurationError

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"
ONE = Numbers((Row("p", 1.0, 2.0),))


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


def advance(board, clock, ticks, seconds=1.0, *, label="part", numbers=lambda: ONE):
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
    counts = [int(n) for n in re.findall(r"(\d+)/100 ticks", file.getvalue())]
    assert counts == list(range(10, 101, 10))
    assert lines[6:8] == [
        "job: part: 40/100 ticks, 2.0 ticks/s, 0:20 elapsed, 0:30 left; loss: p 1;",
        "    gradient norm: p 2",
    ]
    assert lines[-2] == "job: part: 100/100 ticks, 2.0 ticks/s, 0:50 elapsed; loss: p 1; gradient"


def test_a_line_comes_after_every_silent_minute(clock):
    board, file = made(LineBoard, clock, ticks=1000)
    with board:
        advance(board, clock, 10, 20.0)
    counts = re.findall(r"(\d+)/1000", file.getvalue())
    assert counts == ["3", "6", "9", "10"]


@pytest.mark.parametrize("width", [60, 80, 200])
@pytest.mark.parametrize("name", ["problem", "问题"])
def test_a_long_line_is_folded_to_80_columns_at_most_and_keeps_its_words(clock, width, name):
    board, file = made(LineBoard, clock, ticks=1, width=width)
    numbers = Numbers(tuple(Row(f"{name}_{i}", i + 0.5, i) for i in range(20)))
    with board:
        advance(board, clock, 1, numbers=lambda: numbers)
    lines = file.getvalue().splitlines()
    assert min(width, 80) - 16 < max(map(cell_len, lines)) <= min(width, 80)
    assert all(line.startswith("    ") for line in lines[1:])
    losses = ", ".join(f"{name}_{i} {i}.5" for i in range(20))
    norms = ", ".join(f"{name}_{i} {i}" for i in range(20))
    words = " ".join(file.getvalue().split())
    assert words.endswith(f"; loss: {losses}; gradient norm: {norms}")


@pytest.mark.parametrize("kind", [LineBoard, LiveBoard])
def test_brackets_and_colons_are_text(clock, kind):
    board, file = made(kind, clock, ticks=1, title="[bold]x[/]", terminal=kind is LiveBoard)
    numbers = Numbers((Row("[red]p[/red]", 1.0, 2.0),), {"[b]e[/b]": {":bee:": 1.0}})
    with board:
        advance(board, clock, 1, label=":smile:", numbers=lambda: numbers)
        board.note("[i]n[/i] :cat:")
    for text in ("[bold]x[/]", ":smile:", "[red]p[/red]", "[b]e[/b]: :bee: 1", "[i]n[/i] :cat:"):
        assert text in file.getvalue()


@pytest.mark.parametrize("kind", [LineBoard, LiveBoard])
def test_what_would_steer_the_terminal_is_taken_out_of_texts(clock, kind):
    bad = "\x1b[2J\r\x07"
    board, file = made(kind, clock, ticks=1, title=f"t{bad}t", terminal=kind is LiveBoard)
    with board:
        advance(board, clock, 1, numbers=lambda: Numbers(metrics={f"e{bad}e": {"m": 1.0}}))
        board.note(f"n{bad}n")
    drawn = file.getvalue()
    assert "\x1b[2J" not in drawn
    assert "\x07" not in drawn
    assert re.search(r"n \[2J", drawn)
    if kind is LineBoard:
        assert all(c == "\n" or c.isprintable() for c in drawn)


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
            board.note("nothing is read for a note")
            advance(board, clock, 100, 0.01, numbers=lambda: reads.append(0) or ONE)
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
    assert re.search(r"p +1 +2", last)
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
        return ONE

    def failing():
        with board:
            advance(board, clock, 2, numbers=numbers)
            clock.now += 1
            raise ZeroDivisionError

    with pytest.raises((ZeroDivisionError, ValueError)):
        failing()
    assert file.getvalue().rindex(SHOW) > file.getvalue().rindex(HIDE)


@pytest.mark.parametrize(("variable", "value"), [("TERM", "dumb")])
def test_a_terminal_that_cannot_redraw_or_must_not_be_coloured_gets_lines(
    monkeypatch, variable, value
):
    monkeypatch.setenv(variable, value)
    console = Console(file=io.StringIO(), force_terminal=True)
    board = new_board("job", 5, console=console)
    assert isinstance(board, LineBoard)
    with board:
        board.advance("part", lambda: ONE)
    assert "\x1b" not in console.file.getvalue()


def test_skipped_ticks_fill_the_bar_and_print_the_lines_they_pass(clock):
    board, file = made(LineBoard, clock)
    with board:
        advance(board, clock, 10, 0.5)
        board.skip(55)
        advance(board, clock, 5, 0.5)
        board.skip(30)
    counts = re.findall(
        r"(\d+)/100 ticks, (.*) ticks/s, (.*) elapsed(?:, (.*) left)?", file.getvalue()
    )
    # 35 ticks to go at half a second each, then 30.
    assert counts == [
        ("10", "2.0", "0:05", "0:45"),
        ("65", "2.0", "0:05", "0:18"),
        ("70", "2.0", "0:08", "0:15"),
        ("100", "2.0", "0:08", ""),
    ]


@pytest.mark.parametrize("kind", [LineBoard, LiveBoard, SilentBoard])
def test_fewer_than_no_ticks_cannot_be_skipped(clock, kind):
    board, _ = made(kind, clock)
    with board, pytest.raises(ConfigurationError, match="at least 0, got -1"):
        board.skip(-1)


def test_a_note_is_a_line_among_the_lines_and_nothing_where_all_is_silent(clock):
    board, file = made(LineBoard, clock, ticks=10)
    with board:
        advance(board, clock, 1)
        board.note("stage 1 is over\n" + "word " * 30)
        advance(board, clock, 1)
    lines = file.getvalue().splitlines()
    assert lines[2] == "stage 1 is over"
    assert lines[3:5] == [("word " * 15).strip(), "    " + ("word " * 15).strip()]
    assert lines[5].startswith("job: part: 2/10")
    board, file = made(SilentBoard, clock)
    with board:
        board.note("stage 1 is over")
    assert file.getvalue() == ""
