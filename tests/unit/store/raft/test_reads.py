"""ReadIndex rounds: an answer is never older than its question, and those who ask together share it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from store.raft.interface import NoLeader, RaftUnavailable
from store.raft.messages import ReadReply, ReadRequest
from store.raft.reads import Reader, Reads


@dataclass
class FakeRaft:
    """Leadership as a round sees it."""

    leader: str | None = "a"
    term: int = 1
    commit_index: int = 10
    may_read: bool = True
    append_sequence: int = 100
    confirmed: int = 0
    heartbeats: int = 0

    def confirmed_since(self, sequence: int) -> bool:
        return self.confirmed > sequence

    def heartbeat(self) -> None:
        self.heartbeats += 1
        self.append_sequence += 2


class Bench:
    def __init__(self, raft: FakeRaft) -> None:
        self.raft = raft
        self.sent: list[tuple[str, ReadRequest | ReadReply]] = []
        self.takes = True
        self.applied = 10
        self.reads = Reads("a", self._send, patience=1.0, next_id=1)
        self.now = 0.0

    def ask(self, deadline: float = 100.0) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.reads.add(Reader(deadline, future))
        return future

    def advance(self) -> None:
        self.reads.advance(self.raft, self.applied, self.now)

    def _send(self, peer: str, message: ReadRequest | ReadReply) -> bool:
        if self.takes:
            self.sent.append((peer, message))
        return self.takes


async def test_a_leader_answers_after_a_quorum_answered_appends_sent_later() -> None:
    bench = Bench(FakeRaft(confirmed=100))
    future = bench.ask()
    bench.advance()
    assert bench.raft.heartbeats == 1
    # Answers to appends that were sent before the question prove nothing.
    bench.advance()
    assert not future.done()
    bench.raft.confirmed = 101
    bench.advance()
    assert future.done()
    assert bench.reads.rounds == 1


async def test_an_answer_waits_until_the_index_is_applied() -> None:
    bench = Bench(FakeRaft())
    bench.applied = 8
    future = bench.ask()
    bench.advance()
    bench.raft.confirmed = 101
    bench.advance()
    assert not future.done()
    bench.applied = 10
    bench.advance()
    assert future.done()


async def test_who_asks_during_a_round_waits_for_the_next() -> None:
    bench = Bench(FakeRaft())
    first = bench.ask()
    bench.advance()
    later = [bench.ask() for _ in range(5)]
    bench.raft.commit_index = 12
    bench.advance()
    bench.raft.confirmed = 101
    bench.advance()
    assert first.done()
    assert not any(future.done() for future in later)
    assert bench.raft.heartbeats == 2
    bench.raft.confirmed = 103
    bench.advance()
    assert not any(future.done() for future in later)
    bench.applied = 12
    bench.advance()
    assert all(future.done() for future in later)
    assert bench.reads.rounds == 2


async def test_a_new_leader_answers_nothing_before_its_first_entry_is_committed() -> None:
    bench = Bench(FakeRaft(may_read=False, confirmed=1000))
    future = bench.ask()
    bench.advance()
    assert not future.done()
    bench.raft.may_read = True
    bench.advance()
    assert future.done()


async def test_a_leader_that_is_deposed_does_not_answer() -> None:
    bench = Bench(FakeRaft())
    future = bench.ask()
    bench.advance()
    bench.raft.leader, bench.raft.term, bench.raft.confirmed = None, 2, 1000
    bench.advance()
    assert not future.done()
    # As the leader of a later term it starts over.
    bench.raft.leader, bench.raft.term = "a", 3
    bench.raft.append_sequence = 2000
    bench.advance()
    assert not future.done()
    bench.raft.confirmed = 2001
    bench.advance()
    assert future.done()


async def test_a_follower_asks_the_leader_once_for_all() -> None:
    bench = Bench(FakeRaft(leader="b"))
    futures = [bench.ask() for _ in range(9)]
    bench.advance()
    bench.advance()
    assert bench.sent == [("b", ReadRequest(1))]
    bench.reads.answered("b", ReadReply(1, 12))
    bench.advance()
    assert not futures[0].done()
    bench.applied = 12
    bench.advance()
    assert all(future.done() for future in futures)


async def test_a_follower_takes_no_answer_that_it_did_not_ask_for() -> None:
    bench = Bench(FakeRaft(leader="b"))
    future = bench.ask()
    bench.advance()
    bench.reads.answered("c", ReadReply(1, 1))
    bench.reads.answered("b", ReadReply(7, 1))
    bench.advance()
    assert not future.done()


@pytest.mark.parametrize("change", ["leader", "silence", "full"])
async def test_a_follower_asks_again(change: str) -> None:
    bench = Bench(FakeRaft(leader="b"))
    bench.takes = change != "full"
    future = bench.ask()
    bench.advance()
    bench.takes = True
    if change == "leader":
        bench.raft.leader, bench.raft.term = "c", 2
    bench.now += 1.5
    bench.advance()
    bench.advance()
    peer, request = bench.sent[-1]
    assert peer == bench.raft.leader
    assert isinstance(request, ReadRequest)
    bench.reads.answered(peer, ReadReply(request.id, 10))
    bench.advance()
    assert future.done()


async def test_a_leader_answers_followers_in_the_same_round() -> None:
    bench = Bench(FakeRaft())
    bench.reads.add(Reader(100.0, None, "b", 33))
    future = bench.ask()
    bench.advance()
    assert bench.sent == []
    bench.raft.confirmed = 101
    bench.advance()
    assert bench.sent == [("b", ReadReply(33, 10))]
    assert future.done()


async def test_a_request_that_reaches_a_follower_is_not_passed_on() -> None:
    bench = Bench(FakeRaft(leader="c"))
    bench.reads.add(Reader(100.0, None, "b", 33))
    bench.advance()
    assert bench.sent == []
    assert bench.reads.waiting == []


async def test_waiting_has_an_end() -> None:
    bench = Bench(FakeRaft(leader=None))
    early, late = bench.ask(deadline=5), bench.ask(deadline=9)
    bench.advance()
    bench.reads.expire(5)
    with pytest.raises(NoLeader):
        await early
    assert not late.done()
    bench.reads.fail("this member stops")
    with pytest.raises(NoLeader, match="stops"):
        await late


async def test_a_leader_that_does_not_answer_is_no_missing_one() -> None:
    bench = Bench(FakeRaft(leader="b"))
    future = bench.ask(deadline=5)
    bench.advance()
    bench.reads.expire(5)
    with pytest.raises(RaftUnavailable, match="in time") as unknown:
        await future
    assert not isinstance(unknown.value, NoLeader)


async def test_the_answer_to_a_question_of_an_earlier_life_is_not_taken() -> None:
    before, after = Bench(FakeRaft(leader="b")), Bench(FakeRaft(leader="b"))
    for bench in (before, after):
        bench.reads = Reads("a", bench._send, patience=1.0)
    before.ask()
    before.advance()
    [(_, question)] = before.sent
    assert isinstance(question, ReadRequest)
    # Killed and started again; the leader's answer to the first question comes over the new connection.
    future = after.ask()
    after.advance()
    after.reads.answered("b", ReadReply(question.id, 3))
    after.advance()
    assert not future.done()
    [(_, asked)] = after.sent
    assert isinstance(asked, ReadRequest)
    after.reads.answered("b", ReadReply(asked.id, 9))
    after.advance()
    assert future.done()
