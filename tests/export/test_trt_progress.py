"""A build is watched and stopped without anything being raised through TensorRT's own code."""

import signal
import threading

import pytest

from cascade_rt_export.trt_progress import BuildProgress, BuildWatch


def test_a_step_is_passed_on_with_its_phase() -> None:
    seen: list[BuildProgress] = []
    watch = BuildWatch(lambda progress: seen.append(progress) is None)
    watch.start("Building", None, 2)
    watch.start("Timing", "Building", 9)
    assert watch.step("Timing", 0)
    watch.finish("Timing")
    assert watch.step("Building", 1)
    assert seen == [BuildProgress("Timing", 1, 9, "Building"), BuildProgress("Building", 2, 2, None)]


def test_after_a_step_that_cancels_the_callback_is_not_asked_again() -> None:
    seen: list[BuildProgress] = []
    watch = BuildWatch(seen.append)  # type: ignore[arg-type]
    assert not watch.step("Building", 0)
    assert not watch.step("Building", 1)
    assert len(seen) == 1
    assert watch.cancelled


def test_a_signal_stops_the_build_and_is_then_delivered() -> None:
    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    try:
        watch = BuildWatch(lambda _: True)
        with watch.holding_signals():
            signal.raise_signal(signal.SIGTERM)
            assert not watch.step("Building", 0)
            assert received == []
        assert received == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_signal_that_is_ignored_does_not_stop_the_build() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        watch = BuildWatch(lambda _: True)
        with watch.holding_signals():
            signal.raise_signal(signal.SIGINT)
            assert watch.step("Building", 0)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_build_in_another_thread_leaves_signals_alone() -> None:
    found: list[object] = []

    def build() -> None:
        with BuildWatch(lambda _: True).holding_signals():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=build)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGINT)]


def test_what_the_callback_raised_is_raised_only_when_asked_for() -> None:
    def fail(_: BuildProgress) -> bool:
        raise ValueError("no terminal")

    watch = BuildWatch(fail)
    assert not watch.step("Building", 0)
    with pytest.raises(ValueError, match="no terminal"):
        watch.reraise()
