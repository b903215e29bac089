"""Who moves when: the schedule against a simulation, and engine runs against both."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mlo
from mlo.graph import DependencyGraph, Node
from mlo.schedule import Schedule, Timing

FIXED = settings(max_examples=150, deadline=None, derandomize=True, database=None)
TICKS = 60
ONCE = Timing()


@dataclasses.dataclass(frozen=True)
class Turn:
    """A problem in a table: what it reads besides itself, its streams and its timing."""

    reads: tuple[str, ...] = ()
    streams: tuple[str, ...] = ()
    timing: Timing = ONCE


Table = dict[str, Turn]


def simulated(table: Table, ticks: int = TICKS) -> dict[str, list[int]]:
    """Problem -> its ticks, one problem at a time: every n-th of the ticks that count for it."""
    names, moved = list(table), {}
    for level, (name, turn) in enumerate(table.items()):
        below = [read for read in turn.reads if read in names[:level]]
        counting = [
            tick
            for tick in range(turn.timing.warmup, ticks)
            if not below or any(tick in moved[read] for read in below)
        ]
        moved[name] = counting[turn.timing.every - 1 :: turn.timing.every]
    return moved


def schedule(table: Table, *, lookahead: bool = False) -> Schedule:
    nodes = [Node(name, (name, *turn.reads), turn.streams) for name, turn in table.items()]
    timings = {name: turn.timing for name, turn in table.items()}
    return Schedule(DependencyGraph(nodes), timings, lookahead=lookahead)


def played(made: Schedule, ticks: int = TICKS) -> list:
    plans, counts = [], made.start()
    for tick in range(ticks):
        plans.append(made.plan(tick, counts))
        counts = plans[-1].counts
    return plans


@st.composite
def tables(draw):
    names = [f"p{i}" for i in range(draw(st.sampled_from([1, 2, 3, 4, 5, 5])))]
    whole = st.integers(1, 4)
    table = {}
    for i, name in enumerate(names):
        # The neighbour is always read, so that nobody is alone.
        reads = {*draw(st.lists(st.sampled_from(names), max_size=2)), names[max(i - 1, 0)]}
        streams = draw(st.lists(st.sampled_from("xyz"), unique=True))
        timing = Timing(draw(whole), draw(whole), draw(st.sampled_from([0, 0, 1, 5, 17])))
        table[name] = Turn(tuple(sorted(reads - {name})), tuple(streams), timing)
    return table


@FIXED
@given(tables(), st.booleans())
def test_random_schedules_move_whom_the_simulation_moves(table, lookahead):
    moved = simulated(table)
    for plan in played(schedule(table, lookahead=lookahead)):
        due = [name for name in table if plan.tick in moved[name]]
        assert sorted(plan.order) == sorted(due)
        if not lookahead:
            assert list(plan.order) == due
        draws = {}
        for name in due:
            for stream in table[name].streams:
                draws[stream] = max(draws.get(stream, 0), table[name].timing.repeat)
        assert plan.draws == draws


@FIXED
@given(tables())
def test_a_plan_depends_on_the_tick_and_the_counts_alone(table):
    plans = played(schedule(table))
    again = schedule(table)
    for before, plan in itertools.pairwise(plans[20:30]):
        assert again.plan(plan.tick, before.counts) == plan
    assert all(0 <= plan.counts[n] < table[n].timing.every for plan in plans for n in table)


@FIXED
@given(tables())
def test_who_is_always_due_moves_in_every_tick(table):
    made, moved = schedule(table), simulated(table)
    for name in table:
        if made.always_due(name):
            assert moved[name] == list(range(TICKS))
    steady = {name: Turn(turn.reads) for name, turn in table.items()}
    assert all(map(schedule(steady).always_due, table))


@FIXED
@given(tables())
def test_with_lookahead_uppers_move_first_and_the_highest_first(table):
    made = schedule(table, lookahead=True)
    level = {name: i for i, name in enumerate(table)}
    for plan in played(made, 12):
        uppers = [name for name in plan.order if made.graph.scope(name)]
        assert uppers == sorted(uppers, key=level.get, reverse=True)
        if not uppers:
            continue
        first, last = plan.order.index(uppers[0]), plan.order.index(uppers[-1])
        assert list(plan.order[first : last + 1]) == uppers
        rest = list(plan.order[last + 1 :])
        assert rest == sorted(rest, key=level.get)
        # Who moves at the very beginning reads nobody that is still to move.
        for i, name in enumerate(plan.order[:first]):
            assert not set(table[name].reads) & set(plan.order[i:])


DARTS = {"net": Turn(("arch",)), "arch": Turn(("net",))}
LFM = {
    "learner": Turn(("upper",)),
    "relearner": Turn(("learner", "upper")),
    "upper": Turn(("relearner",)),
}
STAGED = {"pre": Turn(), "net": Turn(("pre", "arch")), "arch": Turn(("net",))}
MIDDLE = {"low": Turn(("mid",)), "mid": Turn(("low", "top")), "top": Turn(("mid",))}


@pytest.mark.parametrize(
    ("table", "lowest_first", "lookahead"),
    [
        (DARTS, "net arch", "arch net"),
        (LFM, "learner relearner upper", "upper learner relearner"),
        (STAGED, "pre net arch", "pre arch net"),
        (MIDDLE, "low mid top", "top mid low"),
        ({"net": Turn()}, "net", "net"),
    ],
)
def test_order_of_one_tick(table, lowest_first, lookahead):
    assert schedule(table).plan(0, schedule(table).start()).order == tuple(lowest_first.split())
    ahead = schedule(table, lookahead=True)
    assert ahead.plan(0, ahead.start()).order == tuple(lookahead.split())


def with_timings(table: Table, **timings: Timing) -> Table:
    return {n: dataclasses.replace(t, timing=timings.get(n, t.timing)) for n, t in table.items()}


# By hand: the ticks in which each problem moves, of the first 12.
TICKS_BY_HAND = {
    "every": (with_timings(DARTS, arch=Timing(every=5)), {"net": [*range(12)], "arch": [4, 9]}),
    "every of the lowest": (
        with_timings(DARTS, net=Timing(every=3)),
        {"net": [2, 5, 8, 11], "arch": [2, 5, 8, 11]},
    ),
    "every counts moves of those below": (
        with_timings(DARTS, net=Timing(every=3), arch=Timing(every=2)),
        {"net": [2, 5, 8, 11], "arch": [5, 11]},
    ),
    "warmup": (
        with_timings(DARTS, arch=Timing(every=4, warmup=3)),
        {"net": [*range(12)], "arch": [6, 10]},
    ),
    "warmup of the lowest": (
        with_timings(DARTS, net=Timing(warmup=7)),
        {"net": [7, 8, 9, 10, 11], "arch": [7, 8, 9, 10, 11]},
    ),
    "three levels": (
        with_timings(LFM, relearner=Timing(every=2), upper=Timing(every=3)),
        {"learner": [*range(12)], "relearner": [1, 3, 5, 7, 9, 11], "upper": [5, 11]},
    ),
    "either of two that are read": (
        {
            "a": Turn(("top",), timing=Timing(every=2)),
            "b": Turn(("top",), timing=Timing(every=3)),
            "top": Turn(("a", "b"), timing=Timing(every=2)),
        },
        # Either moves in ticks 1 2 3 5 7 8 9 11.
        {"a": [1, 3, 5, 7, 9, 11], "b": [2, 5, 8, 11], "top": [2, 5, 8, 11]},
    ),
}


@pytest.mark.parametrize("case", TICKS_BY_HAND)
def test_ticks_by_hand(case):
    table, expected = TICKS_BY_HAND[case]
    assert simulated(table, 12) == expected
    plans = played(schedule(table), 12)
    assert {n: [p.tick for p in plans if n in p.order] for n in table} == expected


def engine(table: Table, log: list, **settings) -> mlo.Engine:
    """A program of one number a problem; its losses log themselves, their tick and their batches.

    `Direct` and no dry run, so that a loss is evaluated once for each update and never else.
    """

    def loss_of(name, turn):
        def loss(own, *others):
            tick, read, batches = others[0], others[1 : 1 + len(turn.reads)], others[1:]
            batches = batches[len(turn.reads) :]
            log.append((name, tick, dict(zip(turn.streams, batches, strict=True))))
            return own["w"] * sum(other["w"] for other in read) + own["w"].square()

        return loss

    problems = [
        mlo.Problem(
            name,
            params={"w": torch.tensor(1.0)},
            loss=loss_of(name, turn),
            reads=(name, "tick", *turn.reads, *turn.streams),
            optimizer=lambda params: torch.optim.SGD(params, 1e-3),
            hypergradient=mlo.Direct(),
            every=turn.timing.every,
            repeat=turn.timing.repeat,
            warmup=turn.timing.warmup,
        )
        for name, turn in table.items()
    ]
    streams = sorted({s for turn in table.values() for s in turn.streams})
    return mlo.Engine(problems, {s: range(10**6) for s in streams}, dry_run=False, **settings)


def staged(table: Table) -> bool:
    """Whether a program of this table can be built with `Direct` everywhere."""
    graph = schedule(table).graph
    return not any(graph.anticipates(name) for name in table)


@settings(FIXED, max_examples=40)
@given(tables().filter(staged))
def test_an_engine_moves_whom_the_simulation_moves_on_fresh_batches(table):
    log = []
    made = engine(table, log)
    records = [made.step() for _ in range(15)]
    moved = simulated(table, 15)
    drawn = dict.fromkeys("xyz", 0)
    at = 0
    for tick, record in enumerate(records):
        due = [name for name in table if tick in moved[name]]
        updates = [name for name in due for _ in range(table[name].timing.repeat)]
        assert record.tick == tick
        assert [move.problem for move in record.moves] == updates
        assert [move.tick for move in record.moves] == [tick] * len(updates)
        for stream in drawn:
            repeats = [table[n].timing.repeat for n in due if stream in table[n].streams]
            drawn[stream] += max(repeats, default=0)
        for name in due:
            repeat = table[name].timing.repeat
            for update in range(repeat):
                batches = {s: drawn[s] - repeat + update for s in table[name].streams}
                assert log[at] == (name, tick, batches)
                at += 1
    assert at == len(log)
    assert made.tick == 15


@pytest.mark.parametrize("lookahead", [False, True])
def test_engine_ticks_by_hand_with_repeats(lookahead):
    timings = {"learner": Timing(repeat=2), "relearner": Timing(every=2), "upper": Timing(every=2)}
    made = engine(with_timings(LFM, **timings), [], lookahead=lookahead)
    orders = [" ".join(move.problem for move in made.step().moves) for _ in range(4)]
    full = "learner learner relearner upper"
    if lookahead:
        full = "upper learner learner relearner"
    # Without the upper problem the learner reads nothing that is still to move: order unchanged.
    assert orders == ["learner learner", "learner learner relearner", "learner learner", full]


@pytest.mark.parametrize(
    ("every", "ticks", "moves"), [(1, 7, 7), (5, 24, 4), (5, 25, 5), (7, 6, 0)]
)
def test_n_ticks_of_every_give_the_whole_part_of_n_over_every_moves(every, ticks, moves):
    made = engine(with_timings(DARTS, arch=Timing(every=every)), [])
    result = made.run(ticks=ticks)
    names = [move.problem for record in result.records for move in record.moves]
    assert (names.count("net"), names.count("arch")) == (ticks, moves)


def test_the_schedule_is_printed_in_words():
    table = with_timings(DARTS, net=Timing(repeat=3), arch=Timing(every=5, warmup=100))
    lines = str(schedule(table)).splitlines()
    assert lines[0] == "order: lowest problem first"
    assert "every tick, 3 updates" in lines[1]
    assert all(word in lines[2] for word in ("arch", "every 5", "after 100"))
    assert str(schedule(table, lookahead=True)).startswith("order: lookahead")
