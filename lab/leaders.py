"""Who leads."""

from __future__ import annotations

from lab.errors import LabError
from lab.state import Lab

LEADER = "leader:"


def leaders(lab: Lab) -> dict[str, str]:
    """Not yet."""
    return {}


def find_leader(lab: Lab, daemon: str) -> str:
    """Not yet."""
    raise LabError(f"{lab.folder} {daemon}")
