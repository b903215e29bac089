from __future__ import annotations

import pytest

from mlo.callbacks.pace import Pace, duration
from mlo.errors import ConfigurationError


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


def advance(pace: Pace, clock: Clock, ticks: int, seconds: float) -> None:
    for _ in range(ticks):
        clock.now += seconds
        pace.tick()


def test_nothing_is_claimed_before_the_first_tick(clock):
    pace = Pace(10, clock)
    assert (pace.done, pace.rate, pace.remaining) == (0, 0.0, None)
    assert str(pace) == "0/10 ticks, 0:00 elapsed"


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.1, "10.0 ticks/s"), (1.0, "1.0 ticks/s"), (4.0, "4.0 s/tick")]
)
def test_a_steady_pace_is_shown_with_the_time_that_is_left(clock, seconds, shown):
    pace = Pace(100, clock)
    advance(pace, clock, 40, seconds)
    assert pace.rate == pytest.approx(1 / seconds)
    assert pace.remaining == pytest.approx(60 * seconds)
    elapsed, left = duration(40 * seconds), duration(60 * seconds)
    assert str(pace) == f"40/100 ticks, {shown}, {elapsed} elapsed, {left} left"


def test_the_rate_is_that_of_late_and_the_rest_is_reckoned_from_the_whole(clock):
    pace = Pace(200, clock)
    advance(pace, clock, 10, 3.0)
    advance(pace, clock, 100, 0.1)
    # Two windows of at least two seconds hold none of the slow ticks.
    assert pace.rate == pytest.approx(10.0)
    assert pace.remaining == pytest.approx(40 / 110 * 90)


def test_skipped_ticks_are_done_but_tell_nothing_of_the_speed(clock):
    pace = Pace(100, clock)
    pace.skip(20)  # an earlier process made them
    assert (pace.done, pace.rate, pace.remaining) == (20, 0.0, None)
    assert str(pace) == "20/100 ticks, 0:00 elapsed"
    advance(pace, clock, 10, 2.0)
    assert (pace.done, pace.rate) == (30, pytest.approx(0.5))
    assert pace.remaining == pytest.approx(20 / 10 * 70)
    pace.skip(40)  # a stage stopped early
    assert (pace.done, pace.rate) == (70, pytest.approx(0.5))
    assert pace.remaining == pytest.approx(20 / 10 * 30)
    advance(pace, clock, 5, 2.0)  # the windows in which the rate is measured go on
    assert pace.rate == pytest.approx(0.5)
    pace.skip(25)
    assert pace.remaining == 0
    assert str(pace) == "100/100 ticks, 2.0 s/tick, 0:30 elapsed"


def test_fewer_than_no_ticks_cannot_be_skipped(clock):
    pace = Pace(3, clock)
    with pytest.raises(ConfigurationError, match="at least 0, got -2"):
        pace.skip(-2)
    pace.skip(0)
    assert pace.done == 0


def test_the_rate_falls_while_nothing_happens(clock):
    pace = Pace(100, clock)
    advance(pace, clock, 50, 0.1)
    before = pace.rate
    clock.now += 30
    assert 0 < pace.rate < before / 5


def test_a_finished_job_has_nothing_left(clock):
    pace = Pace(3, clock)
    advance(pace, clock, 3, 1.0)
    assert pace.remaining == 0
    assert str(pace) == "3/3 ticks, 1.0 ticks/s, 0:03 elapsed"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"),
        (0.4, "0:00"),
        (59.6, "1:00"),
        (61, "1:01"),
        (3599.6, "1:00:00"),
        (7265, "2:01:05"),
    ],
)
def test_durations_are_written_as_on_a_clock(seconds, text):
    assert duration(seconds) == text
