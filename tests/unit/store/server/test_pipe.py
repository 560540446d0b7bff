"""What a message of the pipe becomes: one command as it came, or several, and answers in few bytes of work."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest

from kybern.pb.v1 import store_pipe_pb2 as pb
from store.mvcc.machine import StoreMachine
from store.mvcc.outcomes import RangeOutcome
from store.raft.interface import Applied, Member
from store.raft.local import LocalRaft
from store.server.convert import range_response
from store.server.core import Core
from store.server.pipe import PipeService, varint
from tests.unit.store.driver import put, read, txn


class Recorder(LocalRaft):
    def __init__(self) -> None:
        super().__init__(Member(1, "s1", "127.0.0.1:1", "127.0.0.1:2"))
        self.commands: list[bytes] = []

    async def propose(self, command: bytes) -> object:
        self.commands.append(command)
        return await super().propose(command)


class Served:
    """A service on a log of one member."""

    def __init__(self) -> None:
        self.raft = Recorder()
        self.machine = StoreMachine()
        # Of the last answer: the numbers and the first revision of each run of swaps.
        self.runs: list[tuple[list[int], int]] = []
        self.service = PipeService(Core(self.raft, self.machine, "test"))

    async def ask(self, *calls: pb.PipeCall) -> dict[int, pb.PipeReply]:
        await self.raft.start(self.machine)
        request = pb.PipeRequest(client=5, answered_below=1, calls=calls)
        work = self.service.work(request.SerializeToString(), request)
        parts = [pb.PipeResponse.FromString(part) for part in await asyncio.gather(*work)]
        self.runs = [(list(run.ids), run.revision) for part in parts for run in part.swaps]
        replies = {reply.id: reply for part in parts for reply in part.replies}
        for ids, first in self.runs:
            for revision, number in enumerate(ids, first):
                assert number not in replies
                replies[number] = pb.PipeReply(id=number, swap=pb.SwapReply(revision=revision, succeeded=True))
        return replies


def call(number: int, size: int = 1) -> pb.PipeCall:
    return pb.PipeCall(id=number, txn=txn(put(b"k%d" % number, bytes(size))))


async def test_a_message_of_transactions_is_the_command() -> None:
    served = Served()
    replies = await served.ask(call(1), call(2))
    command = pb.StoreCommand.FromString(served.raft.commands[0])
    assert len(served.raft.commands) == 1
    assert command.calls == pb.PipeRequest(client=5, answered_below=1, calls=[call(1), call(2)])
    assert [replies[number].txn.header.revision for number in (1, 2)] == [2, 3]
    assert all(reply.txn.succeeded for reply in replies.values())
    assert [reply.txn.responses[0].response_put.header.revision for reply in replies.values()] == [2, 3]


async def test_reads_do_not_reach_the_log() -> None:
    served = Served()
    replies = await served.ask(call(1), pb.PipeCall(id=2, range=read(b"none")))
    command = pb.StoreCommand.FromString(served.raft.commands[0])
    assert [one.id for one in command.calls.calls] == [1]
    assert replies[2].HasField("range")


async def test_reads_are_answered_as_in_etcds_messages() -> None:
    served = Served()
    await served.ask(call(1, 300), call(2), call(3))
    machine = served.machine
    for request in (
        read(b"k", b"l", limit=2),
        read(b"k1"),
        read(b"k", b"l", keys_only=True),
        read(b"k", count_only=True),
    ):
        replies = await served.ask(pb.PipeCall(id=200, range=request))
        outcome = machine.range(request)
        assert isinstance(outcome, RangeOutcome)
        assert replies[200].range == range_response(outcome)
    refused = await served.ask(pb.PipeCall(id=201, range=read(b"k", revision=99)))
    assert "future revision" in refused[201].error.message


async def test_what_is_long_becomes_several_commands_in_order() -> None:
    served = Served()
    replies = await served.ask(*(call(number, 1000) for number in range(1, 701)))
    commands = [pb.StoreCommand.FromString(one).calls for one in served.raft.commands]
    assert [one.id for command in commands for one in command.calls] == list(range(1, 701))
    assert max(len(command.calls) for command in commands) <= 256
    assert [replies[number].txn.header.revision for number in range(1, 701)] == list(range(2, 702))


async def test_other_outcomes_are_answered_whole() -> None:
    served = Served()
    replies = await served.ask(
        pb.PipeCall(id=1, txn=txn(put(b"a", b"1"))),
        pb.PipeCall(id=2, txn=txn(put(b"a", b"2", prev_kv=True))),
        pb.PipeCall(id=3, txn=txn(put(b""))),
        pb.PipeCall(id=4, txn=txn(put(b"a", b"3"), read(b"a"))),
    )
    assert replies[2].txn.responses[0].response_put.prev_kv.value == b"1"
    assert "key is not provided" in replies[3].error.message
    assert replies[4].txn.responses[1].response_range.kvs[0].value == b"3"


async def test_a_swap_sets_a_key_that_is_as_it_was_and_shows_one_that_is_not() -> None:
    served = Served()
    replies = await served.ask(
        pb.PipeCall(id=1, swap=pb.Swap(key=b"a", value=b"1")),
        pb.PipeCall(id=2, swap=pb.Swap(key=b"a", mod_revision=2, value=b"2")),
        pb.PipeCall(id=3, swap=pb.Swap(key=b"a", mod_revision=2, value=b"3", read=True)),
        pb.PipeCall(id=4, swap=pb.Swap(key=b"a", value=b"3")),
        pb.PipeCall(id=5, swap=pb.Swap(value=b"3")),
        pb.PipeCall(id=6, swap=pb.Swap(key=b"b", value=b"1", lease=9)),
        call(7),
    )
    assert len(served.raft.commands) == 1
    assert replies[1].swap == pb.SwapReply(revision=2, succeeded=True)
    assert replies[2].swap == pb.SwapReply(revision=3, succeeded=True)
    assert not replies[3].swap.succeeded
    assert (replies[3].swap.revision, replies[3].swap.current.value, replies[3].swap.current.version) == (3, b"2", 2)
    assert replies[4].swap == pb.SwapReply(revision=3)
    assert "key is not provided" in replies[5].error.message
    assert "lease not found" in replies[6].error.message
    assert replies[7].txn.header.revision == 4
    # Sent again, it is answered as before and not done again.
    again = await served.ask(pb.PipeCall(id=2, swap=pb.Swap(key=b"a", mod_revision=2, value=b"2")))
    assert again[2] == replies[2]
    assert served.machine.keys.revision == 4


async def test_swaps_that_follow_each_other_are_answered_together() -> None:
    served = Served()
    swaps = [pb.PipeCall(id=n, swap=pb.Swap(key=b"k%d" % n, value=b"1")) for n in range(1, 9)]
    await served.ask(*swaps[:2], pb.PipeCall(id=20, swap=pb.Swap(key=b"k1", value=b"2")), *swaps[2:4])
    # One that sets nothing makes no revision.
    assert served.runs == [([1, 2, 3, 4], 2)]
    await served.ask(*swaps[4:6], call(21), *swaps[6:])
    assert served.runs == [([5, 6], 6), ([7, 8], 9)]
    # Answers of before are of their own revisions.
    await served.ask(swaps[7], swaps[0], swaps[1])
    assert served.runs == [([8], 10), ([1, 2], 2)]


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, 2**21, 2**40 + 5])
def test_numbers_are_as_protobuf_writes_them(number: int) -> None:
    message = pb.PipeReply(id=number).SerializeToString()
    assert message == (b"\x08" + varint(number) if number else b"")


def test_the_machine_survives_a_command_that_holds_a_read() -> None:
    machine = StoreMachine()
    command = pb.StoreCommand(calls=pb.PipeRequest(client=1, calls=[pb.PipeCall(id=1, range=read(b"a"))]))
    machine.apply(command.SerializeToString(), Applied(1, 1, 1))
    assert machine.keys.revision == 1


class BrokenContext:
    """A client to which nothing can be written."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def write(self, _message: bytes) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (grpc.aio.InternalError('Failed "execute_batch": (...)'), logging.DEBUG),
        (grpc.aio.InternalError("Failed grpc_call_start_batch: 8"), logging.ERROR),
        (KeyError("mistake"), logging.ERROR),
    ],
)
async def test_only_mistakes_are_logged_with_a_traceback(
    error: Exception, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    served = Served()
    await served.raft.start(served.machine)
    caplog.set_level(logging.DEBUG)

    async def requests() -> AsyncIterator[bytes]:
        yield pb.PipeRequest(client=5, answered_below=1, calls=[call(1)]).SerializeToString()

    context: Any = BrokenContext(error)
    await served.service.pipe(requests(), context)
    records = [record for record in caplog.records if record.name == "store.server.pipe"]
    assert [(record.levelno, bool(record.exc_info)) for record in records] == [(level, level == logging.ERROR)]
