"""What requests on a stream of watches are answered; what it sends of changes is the hub's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from kybern.pb.etcd.watch_pb2 import WatchCreateRequest, WatchRequest, WatchResponse
from store.mvcc.machine import StoreMachine
from store.raft.interface import Member
from store.raft.local import LocalRaft
from store.server import watch as watch_module
from store.server.core import Core
from store.server.watch import WatchService
from store.watch.hub import WatchHub


class Context:
    """A client that takes what it gets."""

    def __init__(self) -> None:
        self.answers: list[WatchResponse] = []
        self.more = asyncio.Event()
        self.reads = asyncio.Event()

    def invocation_metadata(self) -> Sequence[tuple[str, str]]:
        return ()

    async def write(self, message: bytes) -> None:
        await self.reads.wait()
        self.answers.append(WatchResponse.FromString(message))
        self.more.set()


async def created(*creates: WatchCreateRequest) -> list[tuple[int, str]]:
    """The numbers that watches on one stream get, and why they are not made."""
    raft, machine = LocalRaft(Member(1, "s1", "127.0.0.1:1", "127.0.0.1:2")), StoreMachine()
    await raft.start(machine)
    context: Any = Context()
    context.reads.set()

    async def requests() -> AsyncIterator[WatchRequest]:
        for create in creates:
            context.more.clear()
            yield WatchRequest(create_request=create)
            await context.more.wait()

    async with asyncio.timeout(10):
        await WatchService(Core(raft, machine, "test"), WatchHub(machine.keys)).watch(requests(), context)
    assert all(answer.created and answer.canceled == (answer.watch_id == -1) for answer in context.answers)
    return [(answer.watch_id, answer.cancel_reason) for answer in context.answers]


async def test_a_watch_that_is_not_made_takes_no_number() -> None:
    empty = "mvcc: watcher range is empty"
    key = WatchCreateRequest(key=b"a")
    answers = await created(
        key,
        WatchCreateRequest(key=b"b", range_end=b"a"),
        WatchCreateRequest(key=b"b", range_end=b"a", watch_id=7),
        WatchCreateRequest(range_end=b"\0\0"),
        key,
        WatchCreateRequest(key=b"a", watch_id=7),
    )
    assert answers == [(0, ""), (-1, empty), (-1, empty), (1, ""), (2, ""), (7, "")]


async def test_a_number_is_given_out_once() -> None:
    taken = "mvcc: duplicate watch ID provided on the WatchStream"
    numbers = [1, 0, 0, 1, 2]
    answers = await created(*(WatchCreateRequest(key=b"a", watch_id=number) for number in numbers))
    assert answers == [(1, ""), (0, ""), (2, ""), (-1, taken), (-1, taken)]


async def test_requests_of_a_client_that_does_not_read_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "_ANSWERS", 8)
    monkeypatch.setattr(watch_module, "PROGRESS_INTERVAL", 0.001)
    raft, machine = LocalRaft(Member(1, "s1", "127.0.0.1:1", "127.0.0.1:2")), StoreMachine()
    await raft.start(machine)
    context: Any = Context()
    taken = 0

    async def requests() -> AsyncIterator[WatchRequest]:
        nonlocal taken
        for _ in range(100):
            taken += 1
            yield WatchRequest(create_request=WatchCreateRequest(key=b"a", progress_notify=True))
        while len(context.answers) < 100:
            context.more.clear()
            await context.more.wait()

    service = WatchService(Core(raft, machine, "test"), WatchHub(machine.keys))
    serving = asyncio.create_task(service.watch(requests(), context))
    done, _ = await asyncio.wait([serving], timeout=0.1)
    assert not done
    # Those whose answers wait, and one that is held back.
    assert taken == 9
    context.reads.set()
    async with asyncio.timeout(10):
        await serving
    assert [answer.watch_id for answer in context.answers if answer.created] == list(range(100))
