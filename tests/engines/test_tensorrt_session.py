"""How a TensorRT engine is run, on the emulated GPU, with an engine that doubles."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pytest

from cascade_rt.engines.tensorrt_session import TensorRtSession
from cascade_rt.errors import BackendUnavailableError, EngineError, EngineOutOfMemoryError, OutsideProfileError
from tests.cuda_emulator.driver import Emulator
from tests.emulated_networks import SMALL, doubling, plan_of

pytestmark = pytest.mark.gpu


@pytest.fixture
def told(emulator: Emulator) -> Any:
    """What the stand-in of TensorRT is told to do, and tells."""
    import tensorrt

    return tensorrt.behaviour


@pytest.fixture
def session(emulator: Emulator) -> Iterator[TensorRtSession]:
    session = TensorRtSession(plan_of(doubling(), SMALL), shapes_kept=2)
    yield session
    session.close()


def image(side: int = 4, value: float = 1.0) -> dict[str, np.ndarray]:
    return {"image": np.full((1, 1, side, side), value, np.float32)}


def run(session: TensorRtSession, *sides: int) -> None:
    for number, side in enumerate(sides):
        np.testing.assert_array_equal(session.run(image(side, number))["doubled"], 2 * image(side, number)["image"])


def test_every_run_sees_its_own_input_whether_recorded_or_not(session: TensorRtSession) -> None:
    run(session, 4, 4, 4, 4)


def test_a_shape_is_recorded_in_its_second_run_and_replayed_from_then_on(
    session: TensorRtSession, told: Any, emulator: Emulator
) -> None:
    run(session, 4, 4, 4)
    assert (told.enqueued, emulator.since("graph_launches")) == (1, 2)


def test_what_cannot_be_recorded_runs_all_the_same(session: TensorRtSession, told: Any, emulator: Emulator) -> None:
    told.refuses_capture = True
    run(session, 4, 4, 4)
    assert (told.enqueued, emulator.since("graph_launches"), emulator.since("graphs")) == (3, 0, 0)


def test_a_recording_that_an_allocation_voids_ends_no_run(
    session: TensorRtSession, told: Any, emulator: Emulator
) -> None:
    """The driver then refuses whatever else is put on the stream, and the end of the recording itself."""
    told.allocates_in_capture = True
    run(session, 4, 4, 4)
    assert (told.enqueued, emulator.since("graph_launches")) == (3, 0)


def test_without_cuda_bindings_nothing_is_recorded(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cascade_rt.engines.tensorrt_session.open_recorder", lambda *_: None)
    with closing(TensorRtSession(plan_of(doubling(), SMALL))) as session:
        run(session, 4, 4)
        assert (session.records_graphs, emulator.since("graph_launches")) == (False, 0)


def test_shapes_that_fall_out_of_use_give_their_memory_and_graphs_back(
    session: TensorRtSession, emulator: Emulator
) -> None:
    run(session, 4, 4, 6, 6)
    before = emulator.left_behind()
    run(session, 8, 8)
    assert emulator.left_behind() == before


def test_outputs_belong_to_the_caller(session: TensorRtSession) -> None:
    first = session.run(image())["doubled"]
    session.run(image(value=5.0))
    np.testing.assert_array_equal(first, 2 * image()["image"])


def test_the_thread_is_left_without_a_context(session: TensorRtSession, emulator: Emulator) -> None:
    run(session, 4)
    assert emulator.context_depth == 0


def test_closing_frees_everything_and_may_be_done_twice(session: TensorRtSession, emulator: Emulator) -> None:
    run(session, 4, 4, 16)
    session.close()
    session.close()
    assert emulator.left_behind() == {}


def test_a_closed_session_refuses_to_run(session: TensorRtSession) -> None:
    session.close()
    with pytest.raises(RuntimeError, match="is closed"):
        session.run(image())


def test_the_time_on_the_gpu_is_in_seconds(session: TensorRtSession) -> None:
    """On the emulated GPU, a millisecond passes from one event to the next."""
    run(session, 4)
    assert session.device_seconds == 0.001


@pytest.mark.parametrize(("side", "profile"), [(2, 0), (8, 0), (9, 1), (16, 1)])
def test_the_first_profile_that_takes_a_shape_runs_it(
    session: TensorRtSession, told: Any, side: int, profile: int
) -> None:
    run(session, side)
    assert told.profiles_run == [profile]


def test_a_profile_that_is_not_used_reserves_no_memory(session: TensorRtSession, emulator: Emulator) -> None:
    run(session, 4)
    usual = emulator.counters().blocks
    run(session, 16)
    image_and_result, working_memory = 2, 1
    assert emulator.counters().blocks == usual + image_and_result + working_memory


def test_a_shape_that_no_profile_takes_is_refused_with_the_ranges_of_all(session: TensorRtSession) -> None:
    ranges = r"'image' from \[1, 1, 2, 2\] to \[4, 1, 8, 8\], or 'image' from \[1, 1, 2, 2\] to \[1, 1, 16, 16\]"
    with pytest.raises(OutsideProfileError, match=rf"accepts {ranges}, got 'image' in shape \[1, 1, 17, 17\]; build"):
        session.run(image(17))


def test_a_profile_that_tensorrt_does_not_choose_is_an_error(session: TensorRtSession, told: Any) -> None:
    told.refuses_profiles = True
    with pytest.raises(EngineError, match="TensorRT cannot choose its shape profile 0"):
        session.run(image())


def test_a_refused_run_has_what_tensorrt_logged(session: TensorRtSession, told: Any) -> None:
    told.refuses_to_run = True
    with pytest.raises(EngineError, match=r"^TensorRT cannot run \(no kernel for this and more\)$"):
        session.run(image())


def test_full_memory_is_one_sentence_and_leaves_no_context(session: TensorRtSession, emulator: Emulator) -> None:
    emulator.limit_memory(0)
    with pytest.raises(EngineOutOfMemoryError, match=r"failed on the GPU \(.*out of memory\); free its memory"):
        session.run(image())
    assert emulator.context_depth == 0


def test_memory_that_tensorrt_itself_lacks_is_told_too(session: TensorRtSession, told: Any) -> None:
    told.has_no_memory = True
    with pytest.raises(EngineOutOfMemoryError, match="cannot create an execution context, its memory is full"):
        session.run(image())


@pytest.mark.usefixtures("emulator")
def test_a_plan_of_another_version_is_refused_with_the_reason() -> None:
    with pytest.raises(BackendUnavailableError, match=r"11\.4\S* rejects the engine \(version tag does not match\)"):
        TensorRtSession(b"another plan")
