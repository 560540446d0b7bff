"""Changes of members on their way: asked for here, passed to the leader, made one at a time, answered when committed.

A change that was not appended is taken to the next leader when there is another one. One that was appended and whose
fate is not known is not made again: its caller is told that nobody knows.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from store.raft.configuration import (
    Add,
    Change,
    Configuration,
    Configurations,
    Promote,
    Publish,
    Remove,
    added_id,
    changed,
    check_votes,
)
from store.raft.interface import Member, MembershipError, MembershipReason, RaftUnavailable
from store.raft.messages import ChangeReply, ChangeRequest

log = logging.getLogger(__name__)

_REASONS = {reason.value: reason for reason in MembershipReason}
_LOST = "leadership was lost; the change of members may have been made all the same"


class Leadership(Protocol):
    """What a change needs of Raft."""

    configurations: Configurations

    @property
    def leads(self) -> bool:
        """Whether this member leads."""
        ...

    @property
    def leader(self) -> str | None:
        """The leader's name."""
        ...

    @property
    def term(self) -> int:
        """The current term."""
        ...

    @property
    def commit_index(self) -> int:
        """How far the log is committed."""
        ...

    @property
    def may_change(self) -> bool:
        """Whether a change may be appended."""
        ...

    def next_index(self) -> int:
        """Index of the entry that is appended next."""
        ...

    def change(self, configuration: Configuration) -> int:
        """Append a configuration; the index of its entry."""
        ...

    def active(self) -> set[str]:
        """Who can be reached."""
        ...

    def caught_up(self, peer: str) -> bool:
        """Whether the peer has nearly everything."""
        ...

    def transfer(self, to: str | None = None) -> str | None:
        """Begin to hand over; to whom."""
        ...

    def end_transfer(self) -> None:
        """Go on leading."""
        ...


@dataclass(slots=True, eq=False)
class Wish:
    """A change that somebody waits for: a caller here (`future`), or a member (`peer` and the id of its request)."""

    change: Change
    deadline: float
    future: asyncio.Future[Member] | None = None
    peer: str = ""
    request: int = 0


@dataclass(slots=True)
class _Made:
    """The change that was appended last; `wish` is None for one that this leader made by itself."""

    wish: Wish | None
    member: Member | None
    index: int
    term: int


@dataclass(slots=True)
class Seen:
    """What a member that is connected says of itself."""

    id: int
    peer_address: str
    client_address: str
    directory_id: int = 0
    # The highest level of the state machine that it can apply.
    level: int = 1


@dataclass(slots=True)
class Changes:
    """All changes that this member's callers wait for, and on a leader those of the others too."""

    name: str
    cluster_name: str
    send: Callable[[str, ChangeRequest | ChangeReply], bool]
    # Seconds that a leader which is to be removed waits for another to take over.
    patience: float
    # Members that are connected, by the names in their certificates; this one too.
    seen: dict[str, Seen] = field(default_factory=dict)
    _waiting: deque[Wish] = field(default_factory=deque)
    _asked: dict[int, tuple[str, Wish]] = field(default_factory=dict)
    # Those that the asked one did not take: asked for again after a while, when the leader is known better.
    _put_back: list[Wish] = field(default_factory=list)
    _made: _Made | None = None
    # This leader's own removal, and until when another member may take over for it.
    _handing_over: tuple[Wish, float] | None = None
    # As in `Reads`: nobody takes the answer to a question of this member's earlier life for that to a later one.
    next_id: int = field(default_factory=lambda: secrets.randbits(48))
    # The configuration to which this leader had nothing to add by itself, as long as no other member is heard of.
    _settled: Configuration | None = None

    @property
    def pending(self) -> bool:
        """Whether a change waits for Raft's state to allow the next step."""
        return bool(self._waiting) or self._made is not None or self._handing_over is not None

    def heard(self, peer: str, said: Seen) -> None:
        """A member is connected."""
        self.seen[peer] = said
        self._settled = None

    def add(self, wish: Wish) -> None:
        """Take a wish; `advance` goes on with it."""
        self._waiting.append(wish)

    def answered(self, peer: str, reply: ChangeReply) -> None:
        """The leader's answer."""
        asked, wish = self._asked.get(reply.id, ("", None))
        if wish is None or asked != peer:
            return
        del self._asked[reply.id]
        if reply.elsewhere:
            self._put_back.append(wish)
        elif reply.member is not None:
            self._granted(wish, reply.member)
        elif reply.refused in _REASONS:
            self._refused(wish, _REASONS[reply.refused])
        else:
            self._lost(wish, _LOST)

    def removed(self, own: Member) -> None:
        """This member was removed: that is the answer for those who asked for it here."""
        for request in [request for request, (_, wish) in self._asked.items() if wish.change == Remove(own.id)]:
            self._granted(self._asked.pop(request)[1], own)

    def disconnected(self, peer: str) -> None:
        """What this peer was asked, or asked for, is not answered any more."""
        self.seen.pop(peer, None)
        for request in [request for request, (asked, _) in self._asked.items() if asked == peer]:
            self._lost(self._asked.pop(request)[1], _LOST)
        self._waiting = deque(wish for wish in self._waiting if wish.peer != peer)

    def advance(self, raft: Leadership, now: float) -> None:
        """Go on with changes as far as Raft's state allows."""
        self._finish(raft)
        if raft.leads:
            self._lead(raft, now)
        else:
            self._follow(raft)

    def expire(self, raft: Leadership, now: float) -> None:
        """Give up what has waited too long, and try again what another member did not take."""
        self._waiting.extend(self._put_back)
        self._put_back.clear()
        late = [wish for wish in self._waiting if wish.deadline <= now]
        self._waiting = deque(wish for wish in self._waiting if wish.deadline > now)
        blocked = raft.leads and raft.configurations.index > raft.commit_index
        for wish in late:
            if blocked:
                self._refused(wish, MembershipReason.IN_PROGRESS)
            else:
                self._lost(wish, "no leader made the change of members in time")
        made = self._made
        if made is not None and made.wish is not None and made.wish.deadline <= now:
            self._lost(made.wish, "the change of members was not committed in time; it may be yet")
            made.wish = None
        for request in [request for request, (_, wish) in self._asked.items() if wish.deadline <= now]:
            self._lost(self._asked.pop(request)[1], _LOST)

    def fail(self, reason: str) -> None:
        """Nothing will be heard here of any change; `reason` says why."""
        wishes = [*self._waiting, *self._put_back, *(wish for _, wish in self._asked.values())]
        if self._made is not None and self._made.wish is not None:
            wishes.append(self._made.wish)
        if self._handing_over is not None:
            wishes.append(self._handing_over[0])
        self._waiting.clear()
        self._put_back.clear()
        self._asked.clear()
        self._made = self._handing_over = None
        for wish in wishes:
            if wish.future is not None and not wish.future.done():
                wish.future.set_exception(RaftUnavailable(reason))

    def _finish(self, raft: Leadership) -> None:
        """Answer when what was appended is committed, or when that cannot be known any more."""
        made = self._made
        if made is None:
            return
        mine = raft.leads and raft.term == made.term
        if mine and raft.commit_index < made.index:
            return
        self._made = None
        if made.wish is not None:
            if mine and made.member is not None:
                self._granted(made.wish, made.member)
            else:
                self._lost(made.wish, _LOST)

    def _follow(self, raft: Leadership) -> None:
        if self._handing_over is not None:
            # Somebody has taken over: it can remove this member.
            self._waiting.appendleft(self._handing_over[0])
            self._handing_over = None
        leader = raft.leader
        for _ in range(len(self._waiting)):
            wish = self._waiting.popleft()
            if wish.future is None:
                self.send(wish.peer, ChangeReply(wish.request, elsewhere=True))
            elif leader is None or not self.send(leader, ChangeRequest(self.next_id, wish.change)):
                self._waiting.append(wish)
            else:
                self._asked[self.next_id] = (leader, wish)
                self.next_id += 1

    def _lead(self, raft: Leadership, now: float) -> None:
        if self._handing_over is not None and now >= self._handing_over[1]:
            # Nobody took over, so this leader stays, and its removal fails.
            wish = self._handing_over[0]
            self._handing_over = None
            raft.end_transfer()
            self._refused(wish, MembershipReason.UNHEALTHY)
        # A leader that hands over may not change anything.
        while self._waiting and raft.may_change:
            wish = self._waiting.popleft()
            try:
                self._make(raft, wish, now)
            except MembershipError as error:
                self._refused(wish, error.reason)
        if not self._waiting and raft.may_change:
            self._by_itself(raft)

    def _make(self, raft: Leadership, wish: Wish, now: float) -> None:
        before = raft.configurations.current
        index = raft.next_index()
        address = wish.change.peer_address if isinstance(wish.change, Add) else ""
        after, member = changed(before, wish.change, added_id(self.cluster_name, address, index))
        if isinstance(wish.change, Promote) and not raft.caught_up(member.name):
            raise MembershipError(MembershipReason.LEARNER_NOT_READY)
        check_votes(before, after, raft.active())
        if isinstance(wish.change, Remove) and member.name == self.name:
            if raft.transfer() is None:
                raise MembershipError(MembershipReason.UNHEALTHY)
            self._handing_over = (wish, now + self.patience)
            return
        self._append(raft, after, member, wish)

    def _by_itself(self, raft: Leadership) -> None:
        """What a leader changes without being asked: what members say of themselves, and learners that caught up."""
        before = raft.configurations.current
        if before is self._settled and raft.configurations.index:
            return
        if not raft.configurations.index:
            # From now on the log says who belongs to the group, and no file.
            self._append(raft, before, None, None)
            return
        # What members say of themselves is no vote more or less: all of it together.
        after, told = before, _published(before, self.seen)
        for said in told:
            with contextlib.suppress(MembershipError):
                after, _ = changed(after, said, 0)
        if after != before:
            self._append(raft, after, None, None)
            return
        risen = _risen(before, raft)
        for promotion in risen:
            try:
                after, member = changed(before, promotion, 0)
                check_votes(before, after, raft.active())
            except MembershipError as error:
                log.debug("%s: %s", promotion, error)
                continue
            self._append(raft, after, member, None)
            return
        if not told and not risen and not before.rising:
            self._settled = before

    def _append(self, raft: Leadership, after: Configuration, member: Member | None, wish: Wish | None) -> None:
        term = raft.term
        index = raft.change(after)
        self._made = _Made(wish, member, index, term)
        log.info("entry %d: members are %s", index, describe(after))

    def _granted(self, wish: Wish, member: Member) -> None:
        if wish.future is None:
            self.send(wish.peer, ChangeReply(wish.request, member=member))
        elif not wish.future.done():
            wish.future.set_result(member)

    def _refused(self, wish: Wish, reason: MembershipReason) -> None:
        if wish.future is None:
            self.send(wish.peer, ChangeReply(wish.request, refused=reason.value))
        elif not wish.future.done():
            wish.future.set_exception(MembershipError(reason))

    def _lost(self, wish: Wish, text: str) -> None:
        if wish.future is None:
            self.send(wish.peer, ChangeReply(wish.request))
        elif not wish.future.done():
            wish.future.set_exception(RaftUnavailable(text))


def describe(configuration: Configuration) -> str:
    """Members for people: names, or addresses of those not heard of yet; learners are marked."""
    return ", ".join(
        (member.name or member.peer_address) + (" (learner)" if member.learner else "")
        for member in configuration.members
    )


def _published(before: Configuration, seen: Mapping[str, Seen]) -> list[Publish]:
    """What members that are connected say of themselves and the configuration does not."""
    found = []
    for name, said in seen.items():
        member = before.named(name)
        if member is None:
            # Somebody who was added by address comes for the first time; its certificate has its name.
            nameless = [m for m in before.members if not m.name and m.peer_address == said.peer_address]
            found += [Publish(m.id, name, said.client_address, said.directory_id) for m in nameless]
        elif said.id in (0, member.id):
            client_address = said.client_address or member.client_address
            directory_id = member.directory_id or said.directory_id
            if (client_address, directory_id) != (member.client_address, member.directory_id):
                found.append(Publish(member.id, name, client_address, directory_id))
    return found


def _risen(before: Configuration, raft: Leadership) -> list[Promote]:
    found = []
    for member_id in before.rising:
        member = before.with_id(member_id)
        if member is not None and raft.caught_up(member.name):
            found.append(Promote(member_id))
    return found
