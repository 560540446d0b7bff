"""Who writes to a client is never cancelled in the middle of a message, unless the client is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from kybern.pb.etcd import watch_pb2
from kybern.pb.v1 import store_pipe_pb2 as pb
from store.mvcc.errors import NO_LEADER
from store.mvcc.machine import StoreMachine
from store.raft.interface import Member
from store.raft.local import LocalRaft
from store.server.core import Answers, Core, Refused
from store.server.pipe import PipeService
from store.server.watch import WatchService, WatchStream
from store.watch.hub import WatchHub


class SlowContext:
    """A client that takes no message before it is let."""

    def __init__(self) -> None:
        self.writing = asyncio.Event()
        self.take = asyncio.Event()
        self.written = 0
        self.broken = 0

    def invocation_metadata(self) -> Sequence[tuple[str, str]]:
        return (("hasleader", "true"),)

    async def write(self, _message: bytes) -> None:
        self.writing.set()
        try:
            await self.take.wait()
        except asyncio.CancelledError:
            self.broken += 1
            raise
        self.written += 1


async def _stream(kind: str, context: Any) -> None:
    """Serve one stream whose client ends it while the first message is written."""
    raft, machine = LocalRaft(Member(1, "s1", "127.0.0.1:1", "127.0.0.1:2")), StoreMachine()
    await raft.start(machine)
    core = Core(raft, machine, "test")

    async def watch_requests() -> AsyncIterator[watch_pb2.WatchRequest]:
        yield watch_pb2.WatchRequest(create_request=watch_pb2.WatchCreateRequest(key=b"a"))
        await context.writing.wait()

    async def pipe_requests() -> AsyncIterator[bytes]:
        yield pb.PipeRequest(client=5, calls=[pb.PipeCall(id=1)]).SerializeToString()
        await context.writing.wait()
        yield pb.PipeRequest(calls=[pb.PipeCall(id=2)]).SerializeToString()

    if kind == "watch":
        await WatchService(core, WatchHub(machine.keys)).watch(watch_requests(), context)
    else:
        with pytest.raises(Refused, match="client number"):
            await PipeService(core).pipe(pipe_requests(), context)


@pytest.mark.parametrize("kind", ["watch", "pipe"])
async def test_a_message_that_is_begun_is_finished(kind: str) -> None:
    context = SlowContext()
    serving = asyncio.create_task(_stream(kind, context))
    await asyncio.wait_for(context.writing.wait(), 10)
    done, _ = await asyncio.wait([serving], timeout=0.1)
    assert not done
    context.take.set()
    await asyncio.wait_for(serving, 10)
    assert (context.written, context.broken) == (1, 0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("kind", ["watch", "pipe"])
async def test_nothing_goes_on_when_the_client_is_gone_meanwhile(kind: str) -> None:
    context = SlowContext()
    serving = asyncio.create_task(_stream(kind, context))
    await asyncio.wait_for(context.writing.wait(), 10)
    await asyncio.wait([serving], timeout=0.1)
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert context.broken == 1
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_no_watch_is_left_that_was_made_while_the_stream_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    context: Any = SlowContext()
    machine = StoreMachine()
    hub = WatchHub(machine.keys)
    core = Core(LocalRaft(Member(1, "s1", "127.0.0.1:1", "127.0.0.1:2")), machine, "test")
    ending = asyncio.Event()

    async def no_leader(_stream: WatchStream) -> None:
        await context.writing.wait()
        ending.set()
        raise Refused(NO_LEADER)

    async def requests() -> AsyncIterator[watch_pb2.WatchRequest]:
        create = watch_pb2.WatchRequest(create_request=watch_pb2.WatchCreateRequest(key=b"a"))
        yield create
        await ending.wait()
        await asyncio.sleep(0.05)
        yield create
        context.take.set()
        await asyncio.sleep(30)

    monkeypatch.setattr(WatchStream, "require_leader", no_leader)
    with pytest.raises(Refused, match="no leader"):
        await asyncio.wait_for(WatchService(core, hub).watch(requests(), context), 10)
    assert len(hub) == 0


async def test_errors_of_those_who_write_are_looked_at() -> None:
    context: Any = SlowContext()
    answers = Answers(context)

    async def fail() -> None:
        raise OSError("gone")

    failing = asyncio.create_task(fail())
    await answers.end([failing])
    assert not getattr(failing, "_log_traceback")  # noqa: B009 - what asyncio would log when the task is freed
