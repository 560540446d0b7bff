"""Changes of members on their way, on a Raft that does as it is told."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from store.raft.configuration import Add, Change, Configuration, Configurations, Promote, Remove
from store.raft.interface import Member, MembershipError, MembershipReason, RaftUnavailable
from store.raft.membership import Changes, Seen, Wish
from store.raft.messages import ChangeReply, ChangeRequest
from tests.unit.store.raft.rig import group


@dataclass
class FakeRaft:
    """Appends at once; commits when the test says so."""

    configurations: Configurations = field(default_factory=lambda: Configurations(group("a", "b", "c"), 2))
    leader: str | None = "a"
    term: int = 1
    commit_index: int = 2
    last: int = 2
    reached: set[str] = field(default_factory=lambda: {"a", "b", "c"})
    level: set[str] = field(default_factory=set)
    takers: list[str] = field(default_factory=lambda: ["b"])
    handing_over: bool = False

    @property
    def leads(self) -> bool:
        return self.leader == "a"

    @property
    def may_change(self) -> bool:
        return self.leads and not self.handing_over and self.configurations.index <= self.commit_index

    def next_index(self) -> int:
        return self.last + 1

    def change(self, configuration: Configuration) -> int:
        assert self.may_change
        self.last += 1
        self.configurations.append(self.last, configuration)
        return self.last

    def active(self) -> set[str]:
        return self.reached

    def caught_up(self, peer: str) -> bool:
        return peer in self.level

    def transfer(self, to: str | None = None) -> str | None:
        self.handing_over = bool(self.takers)
        return self.takers[0] if self.takers else None

    def end_transfer(self) -> None:
        self.handing_over = False


@dataclass
class Desk:
    """The changes of member a, and what it sends."""

    raft: FakeRaft = field(default_factory=FakeRaft)
    sent: list[tuple[str, ChangeRequest | ChangeReply]] = field(default_factory=list)
    now: float = 0.0

    def __post_init__(self) -> None:
        self.changes = Changes("a", "test", self.send, patience=1.0, next_id=1)

    def send(self, peer: str, message: ChangeRequest | ChangeReply) -> bool:
        self.sent.append((peer, message))
        return True

    def wish(self, change: Change, deadline: float = 10.0) -> asyncio.Future[Member]:
        future: asyncio.Future[Member] = asyncio.get_running_loop().create_future()
        self.changes.add(Wish(change, deadline, future))
        self.turn()
        return future

    def turn(self) -> None:
        self.changes.advance(self.raft, self.now)

    def commit(self) -> None:
        self.raft.commit_index = self.raft.last
        self.turn()

    def expire(self, now: float) -> None:
        self.now = now
        self.changes.expire(self.raft, now)
        self.turn()


@pytest.fixture
def desk() -> Desk:
    return Desk()


def add(name: str, *, learner: bool = True) -> Add:
    return Add(name, f"{name}:1", "", learner)


async def test_a_change_is_answered_when_it_is_committed(desk: Desk) -> None:
    wish = desk.wish(add("d"))
    assert desk.raft.configurations.current.learners == {"d"}
    assert not wish.done()
    desk.commit()
    assert wish.result().name == "d"


async def test_the_next_change_waits_for_the_one_before(desk: Desk) -> None:
    first, second, late = desk.wish(add("d")), desk.wish(add("e")), desk.wish(add("f"), deadline=1.0)
    assert desk.raft.configurations.current.learners == {"d"}
    desk.expire(2.0)
    with pytest.raises(MembershipError) as caught:
        late.result()
    assert caught.value.reason == MembershipReason.IN_PROGRESS
    desk.commit()
    assert first.done()
    assert not second.done()
    assert desk.raft.configurations.current.learners == {"d", "e"}
    desk.commit()
    assert second.done()


async def test_what_was_appended_and_lost_its_leader_is_unknown(desk: Desk) -> None:
    made, waiting = desk.wish(add("d")), desk.wish(add("e"))
    desk.raft.leader, desk.raft.term = "b", 2
    desk.turn()
    with pytest.raises(RaftUnavailable):
        made.result()
    # What was not appended goes to the next leader.
    assert not waiting.done()
    assert [(peer, type(message)) for peer, message in desk.sent] == [("b", ChangeRequest)]
    assert isinstance(desk.sent[0][1], ChangeRequest)
    assert desk.sent[0][1].change == add("e")


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (ChangeReply(1, member=Member(7, "d", "d:1", "")), "granted"),
        (ChangeReply(1, refused=MembershipReason.TOO_MANY_LEARNERS.value), "refused"),
        (ChangeReply(1), "unknown"),
    ],
)
async def test_the_leaders_answer_is_passed_on(desk: Desk, reply: ChangeReply, outcome: str) -> None:
    desk.raft.leader = "b"
    wish = desk.wish(add("d"))
    desk.changes.answered("c", reply)
    assert not wish.done()
    desk.changes.answered("b", reply)
    if outcome == "granted":
        assert wish.result() == reply.member
    else:
        error = wish.exception()
        assert isinstance(error, MembershipError if outcome == "refused" else RaftUnavailable)


async def test_who_does_not_lead_any_more_says_so_and_another_is_asked(desk: Desk) -> None:
    desk.raft.leader = "b"
    wish = desk.wish(add("d"))
    desk.changes.answered("b", ChangeReply(1, elsewhere=True))
    desk.turn()
    assert len(desk.sent) == 1
    desk.raft.leader = "c"
    desk.expire(0.5)
    assert [peer for peer, _ in desk.sent] == ["b", "c"]
    desk.changes.disconnected("c")
    assert isinstance(wish.exception(), RaftUnavailable)


async def test_a_member_asks_the_leader(desk: Desk) -> None:
    desk.changes.add(Wish(add("d"), 10.0, None, "b", 5))
    desk.changes.add(Wish(Promote(1), 10.0, None, "c", 6))
    desk.turn()
    desk.commit()
    (first, granted), (second, refused) = desk.sent
    assert (first, second) == ("b", "c")
    assert isinstance(granted, ChangeReply)
    assert granted.member is not None
    assert (granted.id, granted.member.name) == (5, "d")
    assert refused == ChangeReply(6, refused=MembershipReason.NOT_LEARNER.value)
    desk.raft.leader = None
    desk.changes.add(Wish(add("e"), 10.0, None, "b", 7))
    desk.turn()
    assert desk.sent[-1] == ("b", ChangeReply(7, elsewhere=True))


async def test_a_learner_is_promoted_when_it_has_caught_up_and_not_before(desk: Desk) -> None:
    rising = desk.wish(add("d", learner=False))
    staying = desk.wish(add("e"))
    desk.commit()
    desk.commit()
    early = desk.wish(Promote(rising.result().id))
    assert isinstance(early.exception(), MembershipError)
    desk.raft.level = {"d", "e"}
    desk.raft.reached = {"a", "b", "c", "d", "e"}
    desk.turn()
    desk.commit()
    assert desk.raft.configurations.current.voters == {"a", "b", "c", "d"}
    asked = desk.wish(Promote(staying.result().id))
    desk.commit()
    assert not asked.result().learner


async def test_a_promotion_that_would_endanger_the_quorum_is_refused(desk: Desk) -> None:
    wish = desk.wish(add("d"))
    desk.commit()
    desk.raft.level, desk.raft.reached = {"d"}, {"a", "d"}
    promotion = desk.wish(Promote(wish.result().id))
    error = promotion.exception()
    assert isinstance(error, MembershipError)
    assert error.reason == MembershipReason.UNHEALTHY


async def test_names_and_client_addresses_are_learnt_from_those_who_come(desk: Desk) -> None:
    nameless = desk.wish(Add("", "d:1", "", learner=True))
    desk.commit()
    desk.changes.heard("d", Seen(0, "d:1", "d:2"))
    # Somebody else at another address is nobody's business.
    desk.changes.heard("x", Seen(0, "x:1", "x:2"))
    desk.turn()
    member = desk.raft.configurations.current.with_id(nameless.result().id)
    assert member is not None
    assert (member.name, member.client_address) == ("d", "d:2")
    desk.commit()
    settled = desk.raft.last
    desk.turn()
    assert desk.raft.last == settled
    desk.changes.heard("b", Seen(2, "b", "elsewhere:2"))
    desk.turn()
    moved = desk.raft.configurations.current.named("b")
    assert moved is not None
    assert moved.client_address == "elsewhere:2"


async def test_the_first_leader_puts_the_files_members_into_the_log(desk: Desk) -> None:
    desk.raft.configurations = Configurations(group("a", "b", "c"))
    desk.turn()
    assert desk.raft.configurations.index == 3
    assert desk.raft.configurations.current == group("a", "b", "c")
    desk.commit()
    desk.turn()
    assert desk.raft.last == 3


async def test_a_leader_hands_over_before_it_is_removed(desk: Desk) -> None:
    wish = desk.wish(Remove(1))
    assert desk.raft.handing_over
    assert desk.raft.configurations.current == group("a", "b", "c")
    other = desk.wish(add("d"))
    desk.raft.leader, desk.raft.term = "b", 2
    desk.turn()
    assert [message.change for _, message in desk.sent if isinstance(message, ChangeRequest)] == [Remove(1), add("d")]
    desk.changes.removed(Member(1, "a", "a", "a"))
    assert wish.result().id == 1
    assert not other.done()


async def test_a_leader_that_nobody_takes_over_from_stays(desk: Desk) -> None:
    wish = desk.wish(Remove(1))
    desk.now = 1.5
    desk.turn()
    error = wish.exception()
    assert isinstance(error, MembershipError)
    assert error.reason == MembershipReason.UNHEALTHY
    assert not desk.raft.handing_over
    desk.raft.takers = []
    again = desk.wish(Remove(1))
    assert isinstance(again.exception(), MembershipError)


async def test_everybody_is_told_when_the_member_ends(desk: Desk) -> None:
    made, waiting = desk.wish(add("d")), desk.wish(add("e"))
    desk.changes.fail("over")
    assert all(isinstance(wish.exception(), RaftUnavailable) for wish in (made, waiting))
    handing = Desk()
    wish = handing.wish(Remove(1))
    handing.changes.fail("over")
    assert isinstance(wish.exception(), RaftUnavailable)


async def test_what_nobody_takes_in_time_is_given_up(desk: Desk) -> None:
    desk.raft.leader = None
    waiting = desk.wish(add("d"), deadline=1.0)
    desk.expire(2.0)
    assert isinstance(waiting.exception(), RaftUnavailable)
    desk.raft.leader = "a"
    made = desk.wish(add("d"), deadline=3.0)
    desk.expire(4.0)
    assert isinstance(made.exception(), RaftUnavailable)
    desk.commit()
    assert desk.raft.configurations.current.learners == {"d"}
