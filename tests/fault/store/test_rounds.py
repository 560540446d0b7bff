"""Short runs of the harness, as CI has them; `make fault-store ROUNDS=n SEED=s` is the long one."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import pytest

from store.raft import failpoints

# No second round is begun after so many seconds.
_SECONDS = 15
_FOUND = (
    "lost",
    "linearizability_violations",
    "watch_violations",
    "lease_violations",
    "members_differ",
    "other_violations",
)


async def rounds(*arguments: str) -> dict[str, Any]:
    """What a run says that found nothing."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.fault.store", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, said = await process.communicate()
    assert process.returncode == 0, said.decode()
    summary: dict[str, Any] = json.loads(out)
    print(summary)
    assert summary["broken_off"] == ""
    assert [summary[kind] for kind in _FOUND] == [0] * len(_FOUND)
    return summary


@pytest.mark.timeout(600)
async def test_nothing_is_lost_and_all_answers_have_an_order() -> None:
    summary = await rounds("--rounds=8", f"--seconds={_SECONDS}", "--seed=7")
    assert summary["left_out"] == {}
    assert summary["rounds"] >= 1
    # All members, at least twice in every round: in a compaction and in a snapshot.
    assert summary["kills"] >= 6 * summary["rounds"]
    assert summary["killed_all"] >= 2 * summary["rounds"]
    assert summary["killed_all_in_snapshot"] == summary["rounds"]
    assert sum(summary["snapshot_steps"].values()) == 3 * summary["rounds"]
    assert summary["acknowledged_writes"] >= 50 * summary["rounds"]
    assert summary["watched_changes"] > 0
    assert summary["leases"] > 0
    points = [*summary["fail_points_hit"], *summary["fail_points_missed"]]
    assert sorted(points) == sorted(failpoints.NAMES)


@pytest.mark.timeout(600)
async def test_a_leader_is_cut_off_clocks_jump_and_a_member_is_replaced() -> None:
    summary = await rounds("--single", "--rounds=3", "--seed=8", "--nemesis=isolate-leader,clock-jump,replace-member")
    assert summary["rounds"] == 3
    # The fault itself sees that it leads no more and that another does.
    assert summary["leaders_isolated"] == 1
    assert summary["isolated_reads"] > 5
    assert summary["isolated_reads_answered"] == 0
    assert summary["clock_jumps"] >= 2
    assert summary["members_replaced"] == 1
