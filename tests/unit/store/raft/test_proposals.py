"""Commands on their way to a leader and back: who appends them, and what becomes of those that were lost."""

from __future__ import annotations

import asyncio

import pytest

from store.raft import proposals
from store.raft.entries import Run, decode_group
from store.raft.interface import NoLeader, RaftUnavailable
from store.raft.proposals import Proposals, Taken

ME = 77


class Bench:
    """Proposals of one member, with futures to look at."""

    def __init__(self) -> None:
        self.refused: list[Taken] = []
        self.proposals = Proposals(ME, self.refused.append)

    def submit(self, *commands: bytes, deadline: float = 10.0) -> list[asyncio.Future[object]]:
        futures: list[asyncio.Future[object]] = []
        for command in commands:
            futures.append(asyncio.get_running_loop().create_future())
            self.proposals.submit(command, deadline, futures[-1])
        return futures

    def group(self, term: int) -> list[Run]:
        entry = self.proposals.next_group(term, 5)
        assert entry is not None
        decoded = decode_group(entry)
        assert decoded is not None
        assert decoded[0] == 5
        return decoded[1]


async def test_what_waits_becomes_one_group() -> None:
    bench = Bench()
    futures = bench.submit(b"a", b"b", b"c")
    (run,) = bench.group(1)
    assert (run.origin, run.first_sequence, list(run.commands)) == (ME, 1, [b"a", b"b", b"c"])
    assert bench.proposals.next_group(1, 5) is None
    claimed = bench.proposals.claim(run)
    assert [proposal.future for proposal in claimed if proposal] == futures


async def test_a_group_is_bounded_in_commands_and_bytes() -> None:
    bench = Bench()
    bench.submit(*[b"x"] * (proposals.MAX_GROUP_COMMANDS + 1))
    assert len(bench.group(1)[0].commands) == proposals.MAX_GROUP_COMMANDS
    assert len(bench.group(1)[0].commands) == 1
    bench.submit(*[bytes(proposals.MAX_GROUP_BYTES // 2)] * 3)
    assert [len(bench.group(1)[0].commands) for _ in range(2)] == [2, 1]


async def test_forwarded_commands_go_first_and_others_own_commands_are_not_ours() -> None:
    bench = Bench()
    bench.submit(b"mine")
    theirs = Run(99, 4, [b"theirs"])
    bench.proposals.accept(Taken("b", 1, theirs))
    assert bench.group(1) == [theirs, Run(ME, 1, [b"mine"])]
    assert bench.proposals.claim(theirs) == [None]


@pytest.mark.parametrize("size", [1, proposals.MAX_GROUP_BYTES])
async def test_neither_own_nor_forwarded_commands_wait_for_the_others_to_end(size: int) -> None:
    bench = Bench()
    count = proposals.MAX_GROUP_COMMANDS if size == 1 else 1
    bench.submit(*[bytes(size)] * (3 * count))
    for number in range(3):
        bench.proposals.accept(Taken("b", 1, Run(99, 1 + number * count, [bytes(size)] * count)))
    groups = [bench.group(1) for _ in range(6)]
    assert [[run.origin for run in runs] for runs in groups] == [[99], [ME]] * 3
    assert bench.proposals.to_append == 0


async def test_forwarded_commands_of_another_term_are_refused() -> None:
    bench = Bench()
    taken = Taken("b", 1, Run(99, 4, [b"theirs"]))
    bench.proposals.accept(taken)
    assert bench.proposals.next_group(3, 5) is None
    assert bench.refused == [taken]


async def test_who_ceases_to_lead_refuses_what_was_not_appended() -> None:
    bench = Bench()
    taken = Taken("b", 1, Run(99, 4, [b"theirs"]))
    bench.proposals.accept(taken)
    bench.proposals.drop_forwarded()
    assert bench.refused == [taken]


async def test_refused_commands_are_sent_again_in_order() -> None:
    bench = Bench()
    bench.submit(b"a", b"b")
    run = bench.proposals.run_for(1)
    assert run is not None
    bench.submit(b"c")
    bench.proposals.take_back(run.first_sequence, 2)
    again = bench.proposals.run_for(2)
    assert again is not None
    assert list(again.commands) == [b"a", b"b", b"c"]
    assert again.first_sequence > run.first_sequence


async def test_a_command_is_proposed_again_once_a_later_term_shows_that_it_was_lost() -> None:
    bench = Bench()
    bench.submit(b"a")
    lost = bench.proposals.run_for(3)
    assert lost is not None
    bench.proposals.entry_applied(3)
    assert bench.proposals.run_for(3) is None
    bench.proposals.entry_applied(4)
    again = bench.proposals.run_for(4)
    assert again is not None
    assert list(again.commands) == [b"a"]
    # The lost run cannot come any more; if it did, it would not be taken for ours.
    assert bench.proposals.claim(lost) == [None]


async def test_an_applied_command_is_not_proposed_again() -> None:
    bench = Bench()
    bench.submit(b"a")
    run = bench.proposals.run_for(3)
    assert run is not None
    bench.proposals.entry_applied(3)
    assert bench.proposals.claim(run) != [None]
    bench.proposals.entry_applied(4)
    assert bench.proposals.run_for(4) is None


async def test_waiting_has_an_end() -> None:
    bench = Bench()
    (sent,) = bench.submit(b"a", deadline=5)
    run = bench.proposals.run_for(1)
    assert run is not None
    (waiting,) = bench.submit(b"b", deadline=5)
    (later,) = bench.submit(b"c", deadline=9)
    bench.proposals.expire(4.9)
    assert not sent.done()
    bench.proposals.expire(5)
    with pytest.raises(RaftUnavailable, match="may be yet") as unknown:
        await sent
    assert not isinstance(unknown.value, NoLeader)
    with pytest.raises(NoLeader, match="found no leader"):
        await waiting
    assert not later.done()
    # Its fate is still of interest: it must not be taken for lost and proposed again.
    bench.proposals.entry_applied(2)
    (left,) = bench.group(2)
    assert list(left.commands) == [b"c"]


async def test_a_command_whose_caller_went_away_is_not_sent() -> None:
    bench = Bench()
    gone, kept = bench.submit(b"a", b"b")
    gone.cancel()
    (run,) = bench.group(1)
    assert list(run.commands) == [b"b"]
    assert not kept.done()


async def test_too_much_waiting_is_refused_at_once() -> None:
    bench = Bench()
    bench.submit(*[bytes(8 << 20)] * 9)
    with pytest.raises(NoLeader, match="too many"):
        bench.submit(b"more")
    while bench.proposals.run_for(1) is not None:
        pass
    bench.submit(b"more")


async def test_the_end_is_told_to_all() -> None:
    bench = Bench()
    (sent,) = bench.submit(b"a")
    bench.proposals.run_for(1)
    (waiting,) = bench.submit(b"b")
    bench.proposals.fail("this member stops")
    with pytest.raises(RaftUnavailable, match="this member stops") as unknown:
        await sent
    # A leader has it: who takes it for undone and does it again may do it twice.
    assert not isinstance(unknown.value, NoLeader)
    with pytest.raises(NoLeader, match="this member stops"):
        await waiting


async def test_what_is_too_little_for_an_entry_of_its_own_waits() -> None:
    bench = Bench()
    bench.submit(b"four")
    assert bench.proposals.next_group(1, 5, least_bytes=10) is None
    bench.proposals.accept(Taken("b", 1, Run(99, 4, [b"theirs"])))
    assert bench.proposals.to_append == 10
    assert bench.proposals.next_group(1, 5, least_bytes=10) is not None
    assert bench.proposals.to_append == 0
