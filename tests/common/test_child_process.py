"""A child process answers, logs here, says how it ended, and ends with its parent."""

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from cascade_rt.common.child_process import ChildEndedError, ChildProcess, Receive, Send
from cascade_rt.common.worker_logs import Logged

ROOT = Path(__file__).parents[2]


def echo(receive: Receive, send: Send, suffix: str) -> None:
    logging.getLogger("cascade_rt.child").warning("begun with %s", suffix)
    while True:
        try:
            send(receive() + suffix)
        except EOFError:
            return


def exit_with(receive: Receive, _: Send, code: int) -> None:
    receive()
    os._exit(code)


def kill_itself(receive: Receive, _: Send) -> None:
    receive()
    os.kill(os.getpid(), signal.SIGKILL)


def test_messages_go_both_ways_and_records_are_logged_here(caplog: pytest.LogCaptureFixture) -> None:
    child = ChildProcess(echo, "!")
    child.send("hello")
    first, second = child.receive(), child.receive()
    child.end()
    assert isinstance(first, Logged)
    assert second == "hello!"
    assert [record.getMessage() for record in caplog.records] == ["begun with !"]


@pytest.mark.parametrize(
    ("main", "arguments", "how"),
    [(exit_with, (3,), "ended with exit code 3"), (kill_itself, (), "was killed, perhaps because memory ran out")],
)
def test_how_a_process_ended_is_described(main: object, arguments: tuple[int, ...], how: str) -> None:
    child = ChildProcess(main, *arguments)  # type: ignore[arg-type]
    child.send("now")
    with pytest.raises(ChildEndedError, match=how):
        child.receive()
    child.end()


def test_a_process_may_be_ended_twice() -> None:
    child = ChildProcess(echo, "")
    child.end()
    child.end()
    assert not psutil.pid_exists(child.pid) or psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE


def test_a_process_does_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import time\n"
        "from cascade_rt.common.child_process import ChildProcess\n"
        "from tests.common.test_child_process import echo\n"
        "if __name__ == '__main__':\n"
        "    print(ChildProcess(echo, '').pid, flush=True)\n"
        "    time.sleep(600)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
    with subprocess.Popen([sys.executable, script], env=environment, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    gone, _ = psutil.wait_procs([child], timeout=60)
    assert gone == [child]
