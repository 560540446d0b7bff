"""Processes of the host, told apart from others that got the same number later."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path


def kill_member(pid: int, container_id: str) -> bool:
    """SIGKILL to a process of this container; False when the number is not one of its processes (any more)."""
    try:
        # The descriptor means this very process, whatever happens to its number after the look at its group.
        descriptor = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if container_id not in Path(f"/proc/{pid}/cgroup").read_text():
            return False
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except OSError:
        return False
    finally:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    return True
