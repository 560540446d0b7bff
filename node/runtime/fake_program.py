"""What a command does in the fake runtime: a few words of a shell are understood, everything else runs for ever.

`echo TEXT` writes a line, `sleep SECONDS` waits, `exit CODE`, `true` and `false` end, `cat` gives back what it reads
until its input ends, `trap` makes the process deaf to its stop signal. A command that only waits and writes ends with
0; one that holds any other word is a server and does not end by itself.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

_SHELLS = frozenset({"sh", "/bin/sh", "bash", "/bin/bash", "ash", "/bin/ash", "-c", "-ec"})
_SEPARATORS = re.compile(r";|&&|\n")


@dataclass(frozen=True, slots=True)
class Program:
    """How a process goes. `seconds` is how long it runs (infinite for a server)."""

    seconds: float
    exit_code: int = 0
    output: tuple[str, ...] = ()
    # Gives back what it reads, and ends with its input.
    echoes: bool = False
    # Only SIGKILL ends it.
    deaf: bool = False


def program(command: Sequence[str]) -> Program:
    """The meaning of a command and its arguments; no command at all is a server."""
    words = [word for word in command if word not in _SHELLS]
    if not words:
        return Program(math.inf)
    shell = len(words) < len(command)
    statements = [part.split() for part in _SEPARATORS.split(" ".join(words))] if shell else [list(words)]
    return _run([statement for statement in statements if statement])


def _run(statements: list[list[str]]) -> Program:
    seconds, output, deaf = 0.0, [], False
    for verb, *rest in statements:
        argument = rest[0] if rest else ""
        if verb == "echo":
            output.append(" ".join(rest))
        elif verb == "sleep":
            seconds += _number(argument)
        elif verb == "trap":
            deaf = True
        elif verb == "exit":
            return Program(seconds, int(_number(argument)) if argument else 0, tuple(output), deaf=deaf)
        elif verb == "false":
            return Program(seconds, 1, tuple(output), deaf=deaf)
        elif verb == "cat":
            return Program(seconds, 0, tuple(output), echoes=True, deaf=deaf)
        elif verb != "true":
            return Program(math.inf, 0, tuple(output), deaf=deaf)
    return Program(seconds, 0, tuple(output), deaf=deaf)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.inf
