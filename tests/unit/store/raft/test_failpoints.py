"""Fail points: what their variable says, and that every name that is promised is a place in the source."""

from __future__ import annotations

import errno
import subprocess
import sys

import pytest

from kybern.daemon import StartupError
from store.raft import failpoints


def test_nothing_fails_unless_it_is_asked_for() -> None:
    with failpoints.enabled(""):
        for name in failpoints.NAMES:
            failpoints.hit(name)


def test_an_error_comes_at_the_time_that_was_named() -> None:
    with failpoints.enabled("append.synced=full@2; append.begin=raise"):
        failpoints.hit("append.synced")
        with pytest.raises(OSError, match=r"append\.synced") as full:
            failpoints.hit("append.synced")
        failpoints.hit("append.synced")
        with pytest.raises(OSError, match=r"append\.begin") as broken:
            failpoints.hit("append.begin")
    assert (full.value.errno, broken.value.errno) == (errno.ENOSPC, errno.EIO)
    failpoints.hit("append.begin")


def test_exit_ends_the_process_at_once() -> None:
    code = (
        "import os\nfrom store.raft import failpoints\nfailpoints.from_environment(os.environ)\n"
        "try:\n failpoints.hit('vote.done')\nfinally:\n print('still here')\n"
    )
    environment = {failpoints.VARIABLE: "vote.done=exit", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (failpoints.EXIT_STATUS, b"")
    assert b"fail point vote.done: exit\n" in done.stderr


@pytest.mark.parametrize("text", ["append.synced", "nothing.here=exit", "append.synced=explode", "vote.done=exit@x"])
def test_what_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(StartupError, match=failpoints.VARIABLE):
        failpoints.from_environment({failpoints.VARIABLE: text})
