"""The Vagrantfile."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_vagrant_accepts_the_file(tmp_path: Path) -> None:
    # A copy: vagrant keeps its state beside the file.
    folder = tmp_path / "checkout" / "vagrant"
    folder.mkdir(parents=True)
    for name in ("Vagrantfile", "provision.sh"):
        shutil.copy(ROOT / "vagrant" / name, folder / name)
    environment = {**os.environ, "VAGRANT_HOME": str(tmp_path / "home"), "VAGRANT_CHECKPOINT_DISABLE": "1"}
    done = subprocess.run(
        ["vagrant", "validate"], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "validated successfully" in done.stdout
