"""Where the lab keeps its things."""

from __future__ import annotations

import os
from pathlib import Path


def project_root() -> Path:
    """The checkout that this package lies in; the current folder when it is installed elsewhere."""
    checkout = Path(__file__).resolve().parents[1]
    return checkout if (checkout / "pyproject.toml").exists() else Path.cwd()


def kybern_home() -> Path:
    """The folder of everything that the lab makes: `.kybern` in the checkout, or what KYBERN_HOME names."""
    named = os.environ.get("KYBERN_HOME")
    return Path(named).absolute() if named else project_root() / ".kybern"
