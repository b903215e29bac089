"""What a person sees: runs on an emulated terminal, and the same runs in a plain log."""

from __future__ import annotations

import io
import re
import types

import pyte
import pytest
import rich.console
import torch

import mlo
from mlo.callbacks import Console
from mlo.callbacks import board as boards
from mlo.callbacks.board import LiveBoard
from mlo.callbacks.numbers import Answer, Numbers, Row

LONG = "a_problem_whose_name_is_longer_than_any_column"
CURVED = "negative curvature: the Hessian is not positive definite; add damping"


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves only where a test moves it."""
    time = types.SimpleNamespace(now=0.0)
    time.monotonic = lambda: time.now
    monkeypatch.setattr(boards, "time", time)
    return time


def terminal(width, height=24, **options):
    return rich.console.Console(
        file=io.StringIO(), force_terminal=True, width=width, height=height, **options
    )


def log():
    return rich.console.Console(file=io.StringIO(), width=80)


def screen(console):
    """What the terminal shows after all that was written to it."""
    emulated = pyte.Screen(*console.size)
    pyte.Stream(emulated).feed(console.file.getvalue().replace("\n", "\r\n"))
    return emulated


def shown(console):
    """The lines on the screen, without the empty ones at its end."""
    return "\n".join(line.rstrip() for line in screen(console).display).rstrip().splitlines()


def small(loss_of, name, key, **options):
    return mlo.Problem(
        name,
        params={key: torch.zeros(2)},
        loss=loss_of,
        optimizer=lambda params: torch.optim.SGD(params, 0.1),
        **options,
    )


def levels(curvature=1.0, every=10):
    """A lower problem, one between, and one that reads both and moves every tenth tick."""

    def low(low, top):
        pull = (low["w"] * (1 + top["c"])).sum()
        return 0.5 * curvature * (torch.tensor([1.0, 2.0]) * low["w"].square()).sum() - pull

    def middle(a_problem_whose_name_is_longer_than_any_column, low):
        own = a_problem_whose_name_is_longer_than_any_column["m"]
        return (own - low["w"]).square().sum() + own.square().sum()

    def top(low, a_problem_whose_name_is_longer_than_any_column):
        own = a_problem_whose_name_is_longer_than_any_column["m"]
        return (low["w"] - 1).square().sum() + (own - 2).square().sum()

    solve = mlo.ConjugateGradient()
    return mlo.Engine(
        [
            small(low, "low", "w", hypergradient=solve),
            small(middle, LONG, "m", hypergradient=solve),
            small(top, "top", "c", every=every),
        ]
    )


def distance(low):
    return {"far": low["w"].norm(), "near": 0.25}


def watched(console, ticks=25, **options):
    """A run, and problem -> its last move."""
    result = levels(**options).run(
        ticks, callbacks=[Console("walk", console=console)], evaluate={"size": (distance, 7)}
    )
    last = {move.problem: move for record in result.records for move in record.moves}
    return result, last


@pytest.mark.parametrize("width", [80, 60])
def test_a_terminal_shows_every_problem_from_the_top_with_its_last_move(width):
    console = terminal(width)
    result, last = watched(console)
    heading, bar, pace, titles, *rows, metrics, end = shown(console)
    assert heading == "walk"
    assert bar == "━" * width
    assert re.fullmatch(r"25/25 ticks, [\d.]+ ticks/s, 0:\d\d elapsed", pace)
    wide = ["products"] if width == 80 else []
    expected = ["problem", "loss", "gradient norm", "through", "residual", *wide]
    assert re.split(r"\s\s+", titles) == expected
    assert last["top"].tick == 19  # not in the last ticks
    words = [re.split(r"\s\s+", row) for row in rows]
    own = [f"{last['top'].loss:.4g}", f"hyper {last['top'].gradient_norm:.4g}"]
    first, second = last["top"].responses
    answers = [
        [f"{r.info.residual:.1e}", *([str(int(r.info.products))] if wide else [])]
        for r in (first, second)
    ]
    assert {first.problem, second.problem} == {"low", LONG}
    assert [words[0][:3], words[0][4:]] == [["top", *own], answers[0]]
    assert [words[1][0], words[1][2:]] == ["", answers[1]]
    for word, name in ((words[0][3], first.problem), (words[1][1], second.problem)):
        assert word == name or (word.endswith("…") and name.startswith(word[:-1]))
    for row, name in ((words[2], LONG), (words[3], "low")):
        assert row[1:] == [f"{last[name].loss:.4g}", f"{last[name].gradient_norm:.4g}"]
    assert words[2][0].endswith("…")
    assert LONG.startswith(words[2][0][:-1])
    assert len(words[2][0]) > 8
    assert words[3][0] == "low"
    assert metrics == f"size: far {result.last('size')['far']:.4g}, near 0.25"
    assert end == "walk: all 25 ticks were made"


@pytest.mark.parametrize("width", [80, 60])
def test_the_columns_of_the_table_are_aligned(width):
    console = terminal(width)
    watched(console)
    titles, *rows = shown(console)[3:8]
    starts = [titles.index(title) for title in ("problem", "through")]
    ends = [titles.index(t) + len(t) for t in ("loss", "gradient norm", "residual")]
    assert len(rows) == 4
    for row in rows:
        cells = row.ljust(width)
        assert all(cells[start - 1] == " " for start in starts if start)
        assert all(cells[end] == " " for end in ends if end < width)
        assert all(cells[end - 1] != " " for end in ends[:2] if not row.startswith(" "))
    assert all(row[ends[2] - 1] != " " and row[starts[1]] != " " for row in rows[:2])


def test_before_its_first_move_a_problem_is_there_without_numbers():
    console = terminal(80)
    levels().run(5, callbacks=[Console("walk", console=console)])
    assert re.fullmatch(r"top +- +-", shown(console)[4])


@pytest.mark.parametrize("width", [80, 60])
def test_a_failed_solve_is_named_with_its_sentence_and_a_word_of_warning(width):
    console = terminal(width)
    watched(console, curvature=-1.0)
    lines = shown(console)
    text = " ".join(" ".join(lines).split())
    assert f"FAILED: hypergradient of top through low: {CURVED} size: far" in text
    first = next(i for i, line in enumerate(lines) if line.startswith("FAILED"))
    assert lines[first + 1].startswith("    ")
    assert screen(console).buffer[first][0].fg == "red"
    # Also that of another move, until the problem moves again.
    assert text.count("FAILED") == 1


def test_a_log_has_the_same_facts_in_lines_of_80_columns():
    console = log()
    result, last = watched(console, curvature=-1.0)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert all(c == "\n" or c.isprintable() for c in text)
    words = " ".join(text.rpartition("walk: 25/25")[2].split())
    names = ("top", LONG, "low")
    losses = ", ".join(f"{name} {last[name].loss:.4g}" for name in names)
    norms = ", ".join(f"{name} {last[name].gradient_norm:.4g}" for name in names[1:])
    worst = max(last["top"].responses, key=lambda r: float(r.info.residual))
    assert worst.problem == "low"
    told = "".join(f"walk: {note} " for h in result.health.values() for note in h.notes)
    assert "it diverges" in told
    assert words.partition("; ")[2] == (
        f"loss: {losses}; gradient norm: {norms}; "
        f"hypergradient norm: top {last['top'].gradient_norm:.4g}; "
        f"worst residual {worst.info.residual:.1e} "
        f"(top through low, products {int(worst.info.products)}); "
        f"size: far {result.last('size')['far']:.4g}, near 0.25; "
        f"FAILED: hypergradient of top through low: {CURVED} {told}walk: all 25 ticks were made"
    )


def test_a_log_says_nothing_of_problems_that_have_not_moved():
    console = log()
    levels().run(5, callbacks=[Console("walk", console=console)])
    assert "top" not in console.file.getvalue()
    assert "residual" not in console.file.getvalue()


def test_the_values_of_a_problem_that_moves_rarely_stay_until_it_moves_again():
    console = terminal(80)
    seen = []

    class Look(mlo.Callback):
        def on_tick(self, record):
            seen.append((watch._moves["top"], record))

    watch = Console("walk", console=console)
    levels(every=4).run(12, callbacks=[watch, Look()])
    moved = [next((m for m in r.moves if m.problem == "top"), None) for _, r in seen]
    assert [move is not None for move in moved] == [False, False, False, True] * 3
    for tick, (kept, _) in enumerate(seen):
        assert kept is (moved[tick - (tick + 1) % 4] if tick > 2 else None)


def many(problems, answers, failed=0, evaluations=0):
    rows = []
    for i in range(problems):
        below = range(i + 1, min(problems, i + 1 + answers))
        bad = "the Hessian is singular" if i < failed else ""
        through = tuple(Answer(f"p{j}", 7, j / 1000, bad) for j in below)
        rows.append(Row(f"p{i}", i + 0.5, 1.0, through))
    return Numbers(tuple(rows), {f"e{k}": {"accuracy": 0.5} for k in range(evaluations)})


def drawn(numbers, console):
    """The screen after two drawings, so that the second goes over the first."""
    with LiveBoard("job", 4, console) as board:
        for _ in range(2):
            board._due = 0.0
            board.advance("part", lambda: numbers)
    return shown(console)


@pytest.mark.parametrize("width", [80, 60])
@pytest.mark.parametrize(("failed", "evaluations"), [(0, 0), (3, 2), (30, 30)])
@pytest.mark.parametrize(("problems", "answers"), [(30, 1), (30, 29), (6, 5), (3, 1), (17, 1)])
def test_a_drawing_never_exceeds_the_screen_and_counts_what_it_leaves_out(
    width, failed, evaluations, problems, answers
):
    lines = drawn(many(problems, answers, failed, evaluations), terminal(width))
    text = "\n".join(lines)
    assert lines[0] == "job: part"  # nothing was scrolled away
    assert lines[2].startswith("2/4 ticks")
    assert len(lines) <= 22
    seen = len(re.findall(r"^p\d+ ", text, re.MULTILINE))
    more = re.search(r"^\.\.\. (\d+) more problems$", text, re.MULTILINE)
    assert seen + (int(more[1]) if more else 0) == problems
    cut = bool(more)
    assert cut is (problems == 30) or failed or evaluations
    told = len(re.findall("FAILED", text))
    more = re.search(r"\.\.\. (\d+) more failures?$", text, re.MULTILINE)
    broken = sum(min(problems - 1 - i, answers) for i in range(min(failed, problems)))
    assert told + (int(more[1]) if more else 0) == broken
    measured = len(re.findall(r"^e\d+: accuracy 0.5$", text, re.MULTILINE))
    more = re.search(r"\.\.\. (\d+) more metric lines?$", text, re.MULTILINE)
    assert measured + (int(more[1]) if more else 0) == evaluations
    assert not failed or told > 0
    assert not evaluations or measured > 0
    if cut or more:  # hardly a line is given away: a failure of two may not fit into one
        assert len(lines) >= 21


def test_where_not_all_responses_fit_the_worst_of_each_problem_is_shown():
    answers = tuple(Answer(f"q{j}", j, 0.1 / (1 + abs(j - 20))) for j in range(40))
    failed = tuple(Answer(f"q{j}", j, 0.5, "broken" if j == 30 else "") for j in range(40))
    lines = drawn(Numbers((Row("a", 1, 1, answers), Row("b", 1, 1, failed))), terminal(80))
    assert re.split(r"\s\s+", lines[4])[3:] == ["+39 q20", "1.0e-01", "20"]
    assert re.split(r"\s\s+", lines[5])[3:] == ["+39 q30", "5.0e-01", "30"]
    assert "FAILED: hypergradient of b through q30: broken" in lines[6]


@pytest.mark.parametrize(("width", "height"), [(80, 6), (80, 3), (20, 10), (40, 24), (5, 24)])
def test_a_tiny_terminal_shows_what_it_can(width, height):
    lines = drawn(many(30, 2, 3, 3), terminal(width, height))
    assert len(lines) <= height
    assert "2/4" in "\n".join(lines) or height < 6


def test_a_job_without_hypergradients_has_no_columns_for_them():
    lines = drawn(Numbers((Row("only", 1.0, 2.0),)), terminal(80))
    assert lines[3:] == ["problem  loss  gradient norm", "only        1              2"]


def test_a_note_stands_above_the_bar_which_goes_on_below_it(clock):
    console = terminal(60)
    board = LiveBoard("job", 10, console)
    with board:
        board.advance("part", lambda: many(3, 1))
        board.note("stage 1 is over: " + "word " * 12)
        clock.now += 1
        board.advance("part", lambda: many(2, 1))
        board.note("stage 2 is over")
        during = shown(console)
    folded = ["stage 1 is over: " + ("word " * 8).rstrip(), ("word " * 4).rstrip()]
    notes = [*folded, "stage 2 is over"]
    for lines in (during, shown(console)):
        assert lines[:4] == [*notes, "job: part"]
        assert lines[5].startswith("2/10 ticks")
        assert [line.split()[0] for line in lines[6:]] == ["problem", "p0", "p1"]


def test_what_is_skipped_counts_on_the_bar(clock):
    console = terminal(60)
    with LiveBoard("job", 10, console) as board:
        board.advance("part", lambda: many(1, 0))
        board.skip(4)
    lines = shown(console)
    assert lines[2].startswith("5/10 ticks")
    bar = screen(console).buffer[1]
    done = [x for x in range(60) if bar[x].data == "━" and bar[x].fg == bar[0].fg]
    assert len(done) == 30


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt()])
def test_a_run_that_breaks_leaves_its_last_state_and_gives_the_cursor_back(error):
    class Break(mlo.Callback):
        def on_tick(self, record):
            assert screen(console).cursor.hidden
            if record.tick == 12:
                raise error

    console = terminal(80)
    with pytest.raises(type(error)):
        levels().run(25, callbacks=[Console("walk", console=console), Break()])
    lines = shown(console)
    assert lines[0] == "walk"
    assert lines[2].startswith("13/25 ticks")
    assert re.match(r"top +[\d.]+ +hyper", lines[4])
    assert lines[-1].startswith(f"walk: {type(error).__name__}")
    emulated = screen(console)
    assert not emulated.cursor.hidden
    assert (emulated.cursor.y, emulated.cursor.x) == (len(lines), 0)
