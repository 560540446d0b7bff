"""Errors of commands, and how a command ends."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from kybern.daemon import StartupError


class CliError(Exception):
    """Something that whoever typed the command can mend. `hint` says how; it is printed on a line of its own."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def invoke(app: typer.Typer, name: str, arguments: Sequence[str]) -> int:
    """Run a command line; returns the exit code: 1 for errors, 2 for wrong usage."""
    try:
        app(args=list(arguments), prog_name=name)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    # The last: such as a full disk below the output.
    except (CliError, StartupError, OSError) as error:
        print(f"{name}: {str(error) or type(error).__name__}", file=sys.stderr)
        if hint := getattr(error, "hint", "") or _hint(error):
            print(f"  {hint}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _hint(error: Exception) -> str:
    """What may be said to an error that says nothing itself."""
    refused = isinstance(error, PermissionError) or isinstance(error.__cause__, PermissionError)
    return "does it need root?" if refused and "root" not in str(error) else ""
