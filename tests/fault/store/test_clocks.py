"""A process whose time of day is set while it runs: what the fault `clock-jump` rests on."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path

from tests.fault.store import clocks

# Tells the time of day, and how long it has run by the monotonic clock, whenever it is asked; on uvloop, as the store.
_CHILD = """
import asyncio, json, sys, time
import uvloop

async def main():
    begun = time.monotonic()
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        end = loop.time() + SETTLES
        while loop.time() < end:
            await asyncio.sleep(0.05)
            time.time()
        print(json.dumps([time.time(), time.monotonic() - begun]), flush=True)

uvloop.run(main())
"""


async def test_the_time_of_day_jumps_and_the_monotonic_clock_does_not(tmp_path: Path) -> None:
    assert clocks.library() is not None, "Debian's package faketime is not installed: python3 lab/system.py test"
    file = tmp_path / "clock"
    clocks.jump(file, 0)
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _CHILD.replace("SETTLES", str(clocks.SETTLES))),
        env={**os.environ, **clocks.environment(file)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        for offset in (3600, -3600, 0):
            clocks.jump(file, offset)
            child.stdin.write(b"\n")
            day, monotonic = json.loads(await child.stdout.readline())
            # Read one after the other, on a machine that may be slow.
            assert abs(day - time.time() - offset) < 60
            assert 0 < monotonic < 600
    finally:
        child.stdin.close()
        await child.wait()
