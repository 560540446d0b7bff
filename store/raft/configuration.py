"""Who belongs to the group: configurations, the changes that lead from one to the next, and which of them holds where.

A configuration is an entry of the log, and holds from its entry on, committed or not: when the log is cut, the one
before holds again. What the file says (`members`) holds only until the log has one. A change adds or takes away at most
one vote, so that any majority before it and any majority after it have a member in common.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import msgspec

from kybern.config.models import StoreConfig
from kybern.struct import Frozen
from store.raft.entries import CONFIGURATION, InvalidEntry
from store.raft.interface import Member, MembershipError, MembershipReason
from store.raft.members import members_of

# Each learner is sent the whole log by the leader.
MAX_LEARNERS = 2
# Removed members that are told so when they come back; of those removed earlier, none is let in either.
_MAX_REMOVED = 256
# The group that a cluster begins with, of members that the file names.
FIRST_GROUP = "first"


class Configuration(Frozen, array_like=True):
    """Members, in the order in which they were added."""

    members: tuple[Member, ...] = ()
    # Ids of learners that the leader promotes by itself as soon as they have caught up.
    rising: tuple[int, ...] = ()
    # Ids of members that were removed.
    removed: tuple[int, ...] = ()
    # Which group of this cluster's name it is: another one after it was restored from a file or recovered from a lost
    # quorum, so that members of the one before have no part in it. Empty: not known yet.
    group: str = FIRST_GROUP

    def named(self, name: str) -> Member | None:
        """The member of that name."""
        return next((member for member in self.members if name and member.name == name), None)

    def with_id(self, member_id: int) -> Member | None:
        """The member with that id."""
        return next((member for member in self.members if member.id == member_id), None)

    @property
    def voters(self) -> frozenset[str]:
        """Names of the members that vote."""
        return frozenset(member.name for member in self.members if not member.learner)

    @property
    def learners(self) -> frozenset[str]:
        """Names of the learners that have been heard of."""
        return frozenset(member.name for member in self.members if member.learner and member.name)


class Add(Frozen, array_like=True, tag="add"):
    """A new member, as a learner; `learner`: it stays one until somebody promotes it."""

    name: str
    peer_address: str
    client_address: str
    learner: bool


class Promote(Frozen, array_like=True, tag="promote"):
    """A learner becomes a voting member."""

    id: int


class Remove(Frozen, array_like=True, tag="remove"):
    """A member leaves."""

    id: int


class Update(Frozen, array_like=True, tag="update"):
    """A member is reached elsewhere."""

    id: int
    peer_address: str


class Publish(Frozen, array_like=True, tag="publish"):
    """What a member says of itself when it comes: its certificate's name, where its clients connect to, its directory.

    The directory is that of the first time: who comes with another one has lost what it had acknowledged.
    """

    id: int
    name: str
    client_address: str
    directory_id: int = 0


Change = Add | Promote | Remove | Update | Publish


def changed(before: Configuration, change: Change, new_id: int) -> tuple[Configuration, Member]:
    """The configuration after a change, and the member that it is about; `new_id` is for a member that is added.

    Raises:
        MembershipError: the change is not possible.
    """
    match change:
        case Add():
            return _added(before, change, new_id)
        case Promote():
            member = _member(before, change.id)
            if not member.learner:
                raise MembershipError(MembershipReason.NOT_LEARNER)
            if not member.name:
                raise MembershipError(MembershipReason.LEARNER_NOT_READY)
            return _with(before, replace(member, learner=False))
        case Remove():
            return _removed(before, _member(before, change.id))
        case Update():
            member = _member(before, change.id)
            _check_address(before, change.peer_address, but=member)
            return _with(before, replace(member, peer_address=change.peer_address))
        case Publish():
            member = _member(before, change.id)
            other = before.named(change.name)
            if other is not None and other.id != member.id:
                raise MembershipError(MembershipReason.ID_EXISTS)
            directory_id = member.directory_id or change.directory_id
            said = replace(member, name=change.name, client_address=change.client_address, directory_id=directory_id)
            return _with(before, said)


def check_votes(before: Configuration, after: Configuration, active: Iterable[str]) -> None:
    """Refuse a change of the voting members after which those that can be reached would be no quorum.

    Raises:
        MembershipError: NOT_ENOUGH_STARTED when nobody would be left, UNHEALTHY when too few could be reached.
    """
    if before.voters == after.voters:
        return
    if not after.voters:
        raise MembershipError(MembershipReason.NOT_ENOUGH_STARTED)
    if 2 * len(after.voters & set(active)) <= len(after.voters):
        raise MembershipError(MembershipReason.UNHEALTHY)


def added_id(cluster_name: str, peer_address: str, index: int) -> int:
    """The id of a member that the entry `index` adds: no other member has it, now or later."""
    digest = hashlib.sha256(f"{cluster_name}/{peer_address}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") or 1


def initial(config: StoreConfig) -> Configuration:
    """What holds before the log has a configuration: the file's members, or nobody for a member that joins."""
    if config.initial_state == "new":
        return Configuration(tuple(members_of(config)))
    return Configuration(group="")


def encode(configuration: Configuration) -> bytes:
    """The bytes of an entry that holds a configuration."""
    return bytes([CONFIGURATION]) + msgspec.msgpack.encode(configuration)


def decode(entry: bytes) -> Configuration:
    """The configuration in an entry.

    Raises:
        InvalidEntry: when it holds none.
    """
    if entry[:1] != bytes([CONFIGURATION]):
        raise InvalidEntry(f"an entry of type {entry[:1].hex()} holds no configuration")
    try:
        return msgspec.msgpack.decode(memoryview(entry)[1:], type=Configuration)
    except (msgspec.MsgspecError, ValueError) as error:
        raise InvalidEntry(f"a configuration cannot be decoded: {error}") from error


class Configurations:
    """The configurations of a log, by the index of their entries."""

    def __init__(self, base: Configuration, index: int = 0, entries: Mapping[int, bytes] | None = None) -> None:
        """`base` holds up to the first entry that is a configuration; its `index` is 0 when no entry holds it.

        `entries` up to `index`, which a snapshot has, are not looked at.

        Raises:
            InvalidEntry: when one of the entries, found in the log, holds no configuration.
        """
        self._known = [(index, base)]
        for at, entry in sorted((entries or {}).items()):
            if at > index:
                self.append(at, decode(entry))

    @property
    def current(self) -> Configuration:
        """The newest: the one that this member goes by."""
        return self._known[-1][1]

    @property
    def index(self) -> int:
        """Index of the newest one's entry; 0 while the log has none."""
        return self._known[-1][0]

    def as_of(self, index: int) -> Configuration:
        """What held at an entry: for a snapshot up to there."""
        return next(known for at, known in reversed(self._known) if at <= index or at == self._known[0][0])

    def append(self, index: int, configuration: Configuration) -> None:
        """The log has one more."""
        self._known.append((index, configuration))

    def truncate_from(self, index: int) -> bool:
        """The log was cut before `index`; whether that took away the newest."""
        newest = len(self._known)
        self._known = [self._known[0], *(pair for pair in self._known[1:] if pair[0] < index)]
        return len(self._known) < newest

    def trim(self, index: int) -> None:
        """The log no longer holds the entries up to `index`, which a snapshot has."""
        while len(self._known) > 1 and self._known[1][0] <= index:
            del self._known[0]

    def rebase(self, index: int, configuration: Configuration, last: int) -> None:
        """A snapshot up to `index` has this one; of the log after it, entries up to `last` are still there."""
        self._known = [(index, configuration), *(pair for pair in self._known if index < pair[0] <= last)]


def _member(before: Configuration, member_id: int) -> Member:
    member = before.with_id(member_id)
    if member is None:
        raise MembershipError(MembershipReason.NOT_FOUND)
    return member


def _check_address(before: Configuration, address: str, but: Member | None = None) -> None:
    if any(member.peer_address == address for member in before.members if member is not but):
        raise MembershipError(MembershipReason.ADDRESS_EXISTS)


def _added(before: Configuration, change: Add, new_id: int) -> tuple[Configuration, Member]:
    if before.named(change.name) is not None:
        raise MembershipError(MembershipReason.ID_EXISTS)
    _check_address(before, change.peer_address)
    if sum(member.learner for member in before.members) >= MAX_LEARNERS:
        raise MembershipError(MembershipReason.TOO_MANY_LEARNERS)
    member = Member(new_id, change.name, change.peer_address, change.client_address, learner=True)
    rising = before.rising if change.learner else (*before.rising, new_id)
    return Configuration((*before.members, member), rising, before.removed, before.group), member


def _removed(before: Configuration, gone: Member) -> tuple[Configuration, Member]:
    members = tuple(member for member in before.members if member is not gone)
    removed = (*before.removed, gone.id)[-_MAX_REMOVED:]
    return Configuration(members, _without(before.rising, gone.id), removed, before.group), gone


def _with(before: Configuration, member: Member) -> tuple[Configuration, Member]:
    members = tuple(member if other.id == member.id else other for other in before.members)
    rising = before.rising if member.learner else _without(before.rising, member.id)
    return Configuration(members, rising, before.removed, before.group), member


def _without(ids: Sequence[int], gone: int) -> tuple[int, ...]:
    return tuple(member_id for member_id in ids if member_id != gone)
