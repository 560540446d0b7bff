"""Cutting hosts off and killing daemons."""

from __future__ import annotations

import signal

from lab import daemons, network
from lab.errors import LabError
from lab.lifecycle import BALANCER, MACHINE
from lab.state import Lab


def cut(lab: Lab, host: str) -> None:
    """Pull a host's cable: it reaches nobody, and nobody reaches it.

    Raises:
        LabError: when there is no such host.
    """
    network.set_link(lab.names, lab.check_host(host), up=False)


def heal(lab: Lab, host: str) -> None:
    """Plug a host's cable in again.

    Raises:
        LabError: when there is no such host.
    """
    network.set_link(lab.names, lab.check_host(host), up=True)


def kill(lab: Lab, host: str, daemon: str, number: int) -> int:
    """Send a signal to a daemon, and wait for its end when the signal ends processes; returns its process's id.

    Raises:
        LabError: when there is no such daemon or it does not run.
    """
    check(lab, host, daemon)
    process = lab.process(host, daemon)
    if process is None or not process.signal(number):
        raise LabError(f"{daemon} on {host} does not run", f"`kybern-lab start {host} {daemon}` starts it")
    if number == signal.SIGKILL:
        # Others see its connections end only now: what is measured from here on is theirs.
        daemons.stop(lab, host, daemon, number, 5.0)
    return process.pid


def start(lab: Lab, host: str, daemon: str) -> None:
    """Start a daemon again, and wait until it serves.

    Raises:
        LabError: when it runs already, or does not start.
    """
    check(lab, host, daemon)
    daemons.start(lab, host, daemon)
    daemons.wait_ready(lab, host, daemon)


def check(lab: Lab, host: str, daemon: str) -> None:
    """Check that there is such a daemon; `machine` has the balancer.

    Raises:
        LabError: when there is none.
    """
    if host == MACHINE:
        if daemon != BALANCER:
            raise LabError(f"{MACHINE} has no {daemon}; it has {BALANCER}")
        return
    daemons.check(lab, host, daemon)


def parse_signal(text: str) -> int:
    """A signal's number, out of its number or name with or without `SIG`.

    Raises:
        LabError: when there is no such signal.
    """
    try:
        name = text.upper()
        number = int(text) if text.isdecimal() else signal.Signals[name if name.startswith("SIG") else f"SIG{name}"]
        return int(signal.Signals(number))
    except (KeyError, ValueError) as error:
        raise LabError(f"there is no signal {text!r}", "give a number such as 9, or a name such as KILL") from error
