"""The lab's own exception."""

from __future__ import annotations


class LabError(Exception):
    """Something that whoever uses the lab can mend. `hint` says how; it is printed on a line of its own."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
