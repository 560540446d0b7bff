"""The harness's network: partitions cut, one way alone when that is asked for, and healing mends."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.fault.store.network import own_namespaces

BOTH = ["a>b", "b>a"]


def test_what_is_cut_does_not_arrive_and_the_rest_does() -> None:
    command = own_namespaces()
    assert command is not None, "the fault harness needs root (or namespaces of users), and iproute2"
    probe = subprocess.run(
        [*command, sys.executable, "-m", "tests.fault.store.network_probe"], capture_output=True, text=True, check=False
    )
    assert probe.returncode == 0, probe.stderr
    assert json.loads(probe.stdout) == {
        "open": BOTH,
        "held a>b": ["b>a"],
        "cut": [],
        "healed": BOTH,
        "all lost": [],
        "delayed": BOTH,
        "at once although delayed": [],
        "healed again": BOTH,
    }
