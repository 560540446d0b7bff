"""The lab's own exception."""

from __future__ import annotations

from kybern.cli.errors import CliError


class LabError(CliError):
    """Something that whoever uses the lab can mend. `hint` says how; it is printed on a line of its own."""
