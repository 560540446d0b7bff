"""What the three daemons have in common: start, say that they are ready, stop in order, fail in one line.

A daemon's `main` parses its arguments, loads its configuration and hands its coroutine to `run`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from kybern import logs

log = logging.getLogger(__name__)

# gRPC writes to standard error by itself, in a format of its own, of each client whose handshake fails, and not even
# which client it was. It reads the variable when it is loaded, so each daemon's main module loads this one before.
# Whoever sets it (INFO) has those lines.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

# sysexits.h: EX_CONFIG. systemd units do not restart on it (RestartPreventExitStatus): nothing changes by trying again.
EXIT_CONFIG = 78
EXIT_FAILURE = 1
# Errors of files that pass when somebody makes room, or by themselves.
_PASSING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE})


class StartupError(Exception):
    """A daemon cannot start, for a reason that its operator can mend. Printed in one line, without a traceback.

    The text names what is wrong and what to do next. `retry` tells whether trying again by itself may help (a port
    that is taken now) or not (a certificate of another cluster).
    """

    def __init__(self, message: str, *, retry: bool = False) -> None:
        super().__init__(message)
        self.retry = retry


def notify(state: str) -> None:
    """Tell systemd a state such as `READY=1` (sd_notify(3)); nothing happens when systemd did not start us."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.sendto(state.encode(), address)


class Daemon:
    """Handed to a daemon's coroutine: when to stop, and how to say that it is ready."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.stopping = asyncio.Event()
        self._ready_file = os.environ.get("KYBERN_READY_FILE")

    def ready(self, status: str = "") -> None:
        """Say that the daemon serves: to systemd, and by a file for starters that have no systemd (the lab)."""
        notify(f"READY=1\nSTATUS={status}")
        if self._ready_file:
            Path(self._ready_file).write_text(status or "ready", encoding="utf-8")
        log.info("ready %s", status)

    def stop(self) -> None:
        """Ask the daemon to end in order."""
        self.stopping.set()

    async def run_until_stopped(self) -> None:
        """Wait for SIGTERM or `stop`, and feed systemd's watchdog from the loop meanwhile.

        The loop itself feeds it: a loop that hangs for the unit's WatchdogSec is a daemon that must be restarted.
        """
        interval = int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6 / 2 or None
        while not self.stopping.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(interval):
                    await self.stopping.wait()
            notify("WATCHDOG=1")
        notify("STOPPING=1")


def run(name: str, main: Callable[[Daemon], Awaitable[None]], *, log_level: str, log_format: logs.LogFormat) -> int:
    """Run a daemon's coroutine on uvloop until it returns; the result is the process's exit code."""
    journal = "JOURNAL_STREAM" in os.environ
    logs.setup(log_level, log_format, journal=journal)
    _allow_files()

    async def supervise() -> None:
        daemon = Daemon(name)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, daemon.stop)
        await main(daemon)

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(supervise())
    except StartupError as error:
        return fail(name, error)
    except BaseExceptionGroup as group:
        startup, rest = group.split(StartupError)
        if startup is not None and rest is None:
            return fail(name, _first(startup))
        log.critical("%s ends because of an error that it does not know how to survive", name, exc_info=group)
        return EXIT_FAILURE
    except Exception:
        log.critical("%s ends because of an error that it does not know how to survive", name, exc_info=True)
        return EXIT_FAILURE
    return 0


def _allow_files() -> None:
    """Have as many files and connections as the system lets this process have, instead of 1,024.

    The soft limit is that low for the sake of programs that use select(2), as Go's runtime knows too. A store whose
    clients have taken all would find none for the next segment of its log.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def fail(name: str, error: StartupError) -> int:
    """Print a start-up error in one line; returns the exit code that fits it."""
    print(f"{name}: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
    return EXIT_FAILURE if error.retry else EXIT_CONFIG


def require_root(what: str) -> None:
    """Refuse to go on without root.

    Raises:
        StartupError: when the effective user is not root.
    """
    if os.geteuid() != 0:
        raise StartupError(f"{what} needs root: run it with sudo, or as the systemd unit does")


def hold(folder: Path, name: str = "lock") -> int:
    """Lock a data directory, made when it is not there yet, for this process: until the descriptor is closed.

    The lock is on the file `name` in it.

    Raises:
        StartupError: when another process has it, or the directory cannot be used.
    """
    file = folder / name
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise unusable(folder, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        text = f"another process uses the data directory {folder}: stop it first (`fuser {file}` shows which)"
        raise StartupError(text, retry=True) from error
    except OSError as error:
        os.close(descriptor)
        raise unusable(folder, error) from error
    return descriptor


def unusable(folder: Path, error: OSError) -> StartupError:
    """Why a daemon cannot start with its data directory; to be tried again when the disk is only full."""
    text = f"cannot use the data directory {folder}: {error.strerror or error}"
    if error.filename is not None and Path(os.fsdecode(error.filename)) != folder:
        text += f" ({os.fsdecode(error.filename)})"
    if error.errno not in _PASSING:
        return StartupError(text)
    what = "room there" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "room for more open files (ulimit -n)"
    return StartupError(f"{text}; make {what}: nothing is lost, and the next start goes on", retry=True)


def _first(group: BaseExceptionGroup[StartupError]) -> StartupError:
    for error in group.exceptions:
        return _first(error) if isinstance(error, BaseExceptionGroup) else error
    raise AssertionError("an exception group is never empty")
