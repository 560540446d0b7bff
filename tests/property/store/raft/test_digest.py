"""A world is its seed's alone: what fails once fails again, in another process too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def _digest(folder: Path, hash_seed: int) -> str:
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "tests.property.store.raft.digest", str(folder), "1"],
        env=os.environ | {"PYTHONHASHSEED": str(hash_seed)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=60,
        check=True,
        text=True,
    )
    return done.stdout


def test_the_same_seed_is_the_same_world_whatever_the_hashes_of_names_are(tmp_path: Path) -> None:
    first = _digest(tmp_path / "first", 1)
    assert [int(line.split()[1]) > 1000 for line in first.splitlines()] == [True, True, True]
    assert _digest(tmp_path / "second", 2) == first
