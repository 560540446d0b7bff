"""Masters that a node's configuration does not name."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from kybern.api import resources
from kybern.client.fake import FakeClient
from kybern.clock import LoopClock, run_virtual
from node.masters import FILE, Masters, further

CONFIGURED = ["10.0.0.1:6444", "10.0.0.2:6444"]


@pytest.mark.parametrize(
    ("configured", "hosts", "found"),
    [
        (CONFIGURED, ["10.0.0.2", "10.0.0.1"], []),
        (CONFIGURED, ["10.0.0.4", "10.0.0.1", "10.0.0.3", "10.0.0.4"], ["10.0.0.3:6444", "10.0.0.4:6444"]),
        (["[fd00::1]:6444"], ["fd00::1", "fd00::2"], ["[fd00::2]:6444"]),
        # As tests have them: nobody can tell the third one's.
        (["127.0.0.1:1000", "127.0.0.1:1001"], ["127.0.0.3"], []),
    ],
)
def test_they_serve_where_the_others_do(configured: list[str], hosts: list[str], found: list[str]) -> None:
    assert further(configured, hosts) == found


def test_they_are_looked_for_kept_and_forgotten(tmp_path: Path) -> None:
    told: list[list[str]] = []

    async def learn(addresses: Sequence[str]) -> None:
        told.append(list(addresses))

    async def live(client: FakeClient, *hosts: str) -> None:
        document = {"metadata": {"name": "kubernetes"}, "subsets": [{"addresses": [{"ip": h} for h in hosts]}]}
        with contextlib.suppress(Exception):
            await client.delete(resources.ENDPOINTS, "kubernetes", "default")
        await client.create(resources.ENDPOINTS, document, "default")

    async def scenario() -> None:
        client = FakeClient()
        (tmp_path / FILE).write_bytes(b'["10.0.0.9:6444"]')
        running = asyncio.create_task(Masters(CONFIGURED, tmp_path, client, learn, LoopClock()).run())
        # There is no such object yet: what was known stays.
        await asyncio.sleep(30)
        assert told == [["10.0.0.9:6444"]]
        await live(client, "10.0.0.1", "10.0.0.3")
        await asyncio.sleep(60)
        assert told[-1] == ["10.0.0.3:6444", "10.0.0.9:6444"]
        assert msgspec.json.decode((tmp_path / FILE).read_bytes()) == told[-1]
        # One that is down for a while is tried all the same.
        await live(client, "10.0.0.1")
        await asyncio.sleep(1800)
        assert "10.0.0.3:6444" in told[-1]
        await asyncio.sleep(3600)
        assert told[-1] == []
        assert msgspec.json.decode((tmp_path / FILE).read_bytes()) == []
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    run_virtual(scenario())


def test_a_file_that_makes_no_sense_is_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    told: list[list[str]] = []

    async def learn(addresses: Sequence[str]) -> None:
        told.append(list(addresses))

    async def scenario() -> None:
        for content in (b"{", b'["nobody"]', b'["master.example:6444"]'):
            (tmp_path / FILE).write_bytes(content)
            running = asyncio.create_task(Masters(CONFIGURED, tmp_path, FakeClient(), learn, LoopClock()).run())
            await asyncio.sleep(1)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    run_virtual(scenario())
    assert told == [[], [], []]
    assert caplog.text.count("cannot be read and will be written anew") == 3
