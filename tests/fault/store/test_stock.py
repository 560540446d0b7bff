"""The harness can fail: it finds what the stock class of PySyncObj loses."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.fault.store.stock import StockGroup, lost_after_killing_in_compaction


async def attempt(folder: Path, *, compact: bool) -> tuple[int, int]:
    """Acknowledged writes, and those of them that are lost, of a new group."""
    await asyncio.to_thread(folder.mkdir)
    group = StockGroup(folder)
    try:
        await group.start()
        return await lost_after_killing_in_compaction(group, compact=compact)
    finally:
        await group.stop()


async def test_the_stock_class_loses_acknowledged_writes_when_all_are_killed_in_compaction(tmp_path: Path) -> None:
    # Whether the kill comes between rename and cut is up to the machine: it mostly does.
    for number in range(5):
        acknowledged, lost = await attempt(tmp_path / str(number), compact=True)
        print(f"{acknowledged} acknowledged, {lost} lost")
        if lost:
            return
    raise AssertionError("no write was lost in five attempts: the harness would not notice losses")


async def test_without_compaction_it_loses_none(tmp_path: Path) -> None:
    acknowledged, lost = await attempt(tmp_path / "group", compact=False)
    assert acknowledged >= 30
    assert lost == 0
