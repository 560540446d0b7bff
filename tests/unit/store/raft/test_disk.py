"""Writing in a thread: what is full is waited for, what is lost ends the member, what hangs is noticed."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from store.raft import disk
from store.raft.disk import DiskWriter
from store.raft.journal import Batch, Journal


class Bench:
    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(disk, "RETRY_SECONDS", 0.001)
        self.journal = Journal(directory)
        self.journal.open()
        self.errors: list[int] = []
        self.told: list[str] = []
        self.durable = asyncio.Event()
        # The disk comes back from a write when this is set.
        self.answers = threading.Event()
        self.answers.set()
        self._write = self.journal.write
        monkeypatch.setattr(self.journal, "write", self.write)
        self.writer = DiskWriter(
            self.journal,
            patience=2.5,
            on_durable=self.on_durable,
            on_unable=lambda: self.told.append(self.writer.trouble),
            on_lost=lambda error: self.told.append(f"lost {error.errno}"),
        )

    def write(self, batch: Batch) -> None:
        self.answers.wait()
        if self.errors:
            raise OSError(self.errors.pop(0), "no")
        self._write(batch)

    def on_durable(self) -> None:
        self.told.append(f"durable {self.journal.durable_index}")
        if self.journal.durable_index == self.journal.last_index:
            self.durable.set()

    async def end(self) -> None:
        await self.writer.stop()
        self.journal.close()


async def test_what_comes_during_a_write_is_written_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, monkeypatch)
    bench.journal.append(2, 1, b"a")
    bench.writer.pump()
    bench.journal.append(3, 1, b"b")
    bench.journal.append(4, 1, b"c")
    bench.writer.pump()
    await bench.durable.wait()
    assert bench.told == ["durable 2", "durable 4"]
    assert bench.writer.writes == 2
    await bench.end()


async def test_a_full_disk_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, monkeypatch)
    bench.errors = [28, 28, 122]
    bench.journal.append(2, 1, b"a")
    bench.writer.pump()
    await bench.durable.wait()
    assert bench.told == ["the disk takes no writes", "durable 2"]
    assert bench.writer.healthy
    assert bench.writer.failures == 3
    await bench.end()


async def test_descriptors_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, monkeypatch)
    bench.errors = [24, 23]
    bench.journal.append(2, 1, b"a")
    bench.writer.pump()
    await bench.durable.wait()
    assert bench.told == ["the disk takes no writes", "durable 2"]
    await bench.end()


async def test_any_other_error_is_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, monkeypatch)
    bench.errors = [5]
    bench.journal.append(2, 1, b"a")
    bench.writer.pump()
    await bench.end()
    assert bench.told == ["lost 5"]
    assert not bench.writer.healthy
    assert bench.journal.durable_index == 1


async def test_stopping_does_not_wait_for_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, monkeypatch)
    bench.errors = [28] * 1_000_000
    bench.journal.append(2, 1, b"a")
    bench.writer.pump()
    await bench.end()
    assert bench.told == ["the disk takes no writes"]


async def test_a_disk_that_hangs_is_noticed_once_and_goes_on_when_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(tmp_path, monkeypatch)
    bench.answers.clear()
    bench.journal.append(2, 1, b"a")
    bench.writer.pump()
    bench.writer.waited(2.5)
    assert not bench.writer.trouble
    for _ in range(3):
        bench.writer.waited(0.1)
    assert bench.told == ["the disk does not answer"]
    assert bench.writer.stalled
    assert "has not come back for 2.6 s" in caplog.text
    bench.answers.set()
    await bench.durable.wait()
    assert bench.told == ["the disk does not answer", "durable 2"]
    assert not bench.writer.trouble
    assert bench.writer.stalls == 1
    assert "the disk answers again" in caplog.text
    await bench.end()


async def test_only_the_write_that_runs_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, monkeypatch)
    for index in (2, 3):
        bench.writer.waited(2.4)
        bench.durable.clear()
        bench.journal.append(index, 1, b"a")
        bench.writer.pump()
        await bench.durable.wait()
    bench.writer.waited(2.4)
    assert bench.told == ["durable 2", "durable 3"]
    await bench.end()


async def test_a_disk_that_hung_may_be_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, monkeypatch)
    bench.answers.clear()
    bench.errors = [5]
    bench.journal.append(2, 1, b"a")
    bench.writer.pump()
    bench.writer.waited(3.0)
    bench.answers.set()
    await bench.end()
    assert bench.told == ["the disk does not answer", "lost 5"]
    assert bench.writer.trouble == "the disk takes no writes"
