"""Running programs of the system."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from lab.errors import LabError


def run(*command: str, check: bool = True, stdin: str = "", timeout: float = 60.0) -> str:
    """A command's standard output.

    Raises:
        LabError: when it cannot be run, takes longer than `timeout` seconds, or fails and `check` is on.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, input=stdin, timeout=timeout)
    except FileNotFoundError as error:
        raise LabError(f"the program {command[0]} is not installed", "`make up` installs what is missing") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"`{_shown(command)}` did not end within {timeout:.0f} s") from error
    if check and done.returncode != 0:
        raise LabError(f"`{_shown(command)}` failed: {' '.join(done.stderr.split()) or done.returncode}")
    return done.stdout


def _shown(command: Sequence[str]) -> str:
    text = " ".join(command)
    return text if len(text) < 120 else text[:117] + "..."
