"""A short run of the harness, as CI has it; `make fault-store ROUNDS=n SEED=s` is the long one."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest

# No round is begun after so many seconds.
_SECONDS = 25


@pytest.mark.timeout(600)
async def test_nothing_is_lost_and_all_answers_have_an_order() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.fault.store", "--rounds=8", f"--seconds={_SECONDS}", "--seed=7"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, said = await process.communicate()
    assert process.returncode == 0, said.decode()
    summary = json.loads(out)
    print(summary)
    assert summary["rounds"] >= 1
    # All members, once in every round.
    assert summary["kills"] >= 3 * summary["rounds"]
    assert summary["acknowledged_writes"] >= 50 * summary["rounds"]
    assert summary["watched_changes"] > 0
    found = ("lost", "linearizability_violations", "watch_violations", "members_differ", "other_violations")
    assert summary["broken_off"] == ""
    assert [summary[kind] for kind in found] == [0, 0, 0, 0, 0]
