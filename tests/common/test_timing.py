"""Steps add up, by a clock that the tests turn themselves."""

import pytest

from cascade_rt.common.timing import Stopwatch


class Clock:
    """Stands in for `time`: it moves only when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("cascade_rt.common.timing.time", clock)
    return clock


def spend(clock: Clock, stopwatch: Stopwatch, step: str, seconds: float) -> None:
    with stopwatch.step(step):
        clock.now += seconds


def spend_and_fail(clock: Clock, stopwatch: Stopwatch) -> None:
    with stopwatch.step("stage1"):
        clock.now += 3.0
        raise RuntimeError("the engine broke")


def test_new_stopwatch_has_no_steps() -> None:
    assert Stopwatch().seconds == {}


def test_step_takes_the_time_between_its_ends(clock: Clock) -> None:
    stopwatch = Stopwatch()
    spend(clock, stopwatch, "load", 2.5)
    assert stopwatch.seconds == {"load": 2.5}


def test_step_entered_twice_adds_up(clock: Clock) -> None:
    stopwatch = Stopwatch()
    spend(clock, stopwatch, "crop", 1.0)
    spend(clock, stopwatch, "crop", 0.5)
    assert stopwatch.seconds == {"crop": 1.5}


def test_time_between_steps_belongs_to_none(clock: Clock) -> None:
    stopwatch = Stopwatch()
    spend(clock, stopwatch, "load", 1.0)
    clock.now += 100.0
    spend(clock, stopwatch, "save", 2.0)
    assert stopwatch.seconds == {"load": 1.0, "save": 2.0}


def test_step_that_fails_is_counted(clock: Clock) -> None:
    stopwatch = Stopwatch()
    with pytest.raises(RuntimeError, match="the engine broke"):
        spend_and_fail(clock, stopwatch)
    assert stopwatch.seconds == {"stage1": 3.0}


def test_steps_come_in_the_order_they_were_first_entered(clock: Clock) -> None:
    stopwatch = Stopwatch()
    for step in ("save", "load", "save", "crop"):
        spend(clock, stopwatch, step, 1.0)
    assert list(stopwatch.seconds) == ["save", "load", "crop"]


def test_step_around_another_comes_before_it(clock: Clock) -> None:
    stopwatch = Stopwatch()
    with stopwatch.step("run"):
        spend(clock, stopwatch, "stage1", 1.0)
    assert list(stopwatch.seconds) == ["run", "stage1"]


def test_step_around_another_takes_the_time_of_both(clock: Clock) -> None:
    stopwatch = Stopwatch()
    with stopwatch.step("run"):
        clock.now += 1.0
        spend(clock, stopwatch, "stage1", 2.0)
    assert stopwatch.seconds["run"] == 3.0


def test_seconds_read_out_earlier_stay_as_they_were(clock: Clock) -> None:
    stopwatch = Stopwatch()
    before = stopwatch.seconds
    spend(clock, stopwatch, "load", 1.0)
    assert before == {}


def test_changing_the_seconds_read_out_does_not_change_the_stopwatch(clock: Clock) -> None:
    stopwatch = Stopwatch()
    spend(clock, stopwatch, "load", 1.0)
    stopwatch.seconds["load"] = 9.0
    assert stopwatch.seconds == {"load": 1.0}
