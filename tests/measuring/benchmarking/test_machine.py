"""What figures were measured with."""

import platform
import socket
from getpass import getuser

from cascade_rt.measuring.benchmarking.gpu_memory import gpu_memory_bytes, memory_of
from cascade_rt.measuring.benchmarking.machine import describe_machine, peak_memory_bytes


def test_the_machine_is_reported_with_its_versions() -> None:
    machine = describe_machine()
    assert machine["versions"]["Python"] == platform.python_version()
    assert machine["cpus"] >= 1


def test_neither_host_nor_user_is_reported() -> None:
    names = {str(value) for value in describe_machine().values()}
    assert not names & {socket.gethostname(), getuser()}


def test_the_peak_is_no_less_than_what_was_held() -> None:
    held = bytearray(64 << 20)
    held[:: 1 << 12] = b"1" * len(held[:: 1 << 12])
    assert peak_memory_bytes() > len(held)


def test_the_memory_of_a_process_is_added_up_over_gpus() -> None:
    assert memory_of(12, "12, 100\n34, 7\n12, 20\n") == 120 << 20


def test_a_driver_that_does_not_tell_is_none() -> None:
    assert memory_of(12, "12, [N/A]\n") is None


def test_without_a_gpu_there_is_no_gpu_memory(monkeypatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert gpu_memory_bytes(1) is None
