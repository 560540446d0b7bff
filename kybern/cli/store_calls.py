"""Calls of etcd v3 that `kybern store` makes: to our store, and to a real etcd alike."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import grpc
import grpc.aio
import msgspec

from kybern.cli.asking import PATIENCE, alarm, channel, reason
from kybern.cli.errors import CliError
from kybern.config.addresses import split
from kybern.config.models import Tls
from kybern.pb.etcd import cluster_pb2, cluster_pb2_grpc, kv_pb2, kv_pb2_grpc, maintenance_pb2, maintenance_pb2_grpc

T = TypeVar("T")

# Seconds that a member may take to do something.
LONG_PATIENCE = 30.0
# What to do about errors that do not say it; the first that fits.
_HINTS = {
    "Peer URLs already exists": "`kybern store member list` shows whose it is",
    "in sync with leader": "it has not caught up yet: try again soon",
    "only promote a learner": "`kybern store member list` shows who votes",
    "too many learner": "promote or remove one of those that there are",
    "unhealthy cluster": "too few of the members that vote answer: `kybern store status` shows which do not",
    "future revision": "`kybern store status` shows the present one",
}
_STATUS = "`kybern store status` shows them"


@dataclass(frozen=True, slots=True)
class Access:
    """Where members are, and what to show them. `partial`: members that these know of are asked as well."""

    addresses: Sequence[str]
    tls: Tls
    partial: bool = False


class MemberRow(msgspec.Struct, frozen=True):
    """A member as the group lists it. `id` is hexadecimal, as etcdctl shows it."""

    id: str
    name: str
    peer_address: str
    client_address: str
    learner: bool


class StatusRow(msgspec.Struct, frozen=True):
    """A member as it describes itself. Sizes in bytes; `problems` is empty when all is well.

    `version` is of its software; `level` the group's, and `highest_level` what the member can apply (etcd: the version
    of its storage, and 0).
    """

    address: str
    id: str = ""
    name: str = ""
    leader: bool = False
    learner: bool = False
    knows_leader: bool = False
    version: str = ""
    level: str = ""
    highest_level: int = 0
    revision: int = 0
    term: int = 0
    applied: int = 0
    size: int = 0
    size_in_use: int = 0
    quota: int = 0
    problems: list[str] = []

    @property
    def answers(self) -> bool:
        """Whether the member could be asked."""
        return self.id != ""


class AlarmRow(msgspec.Struct, frozen=True):
    """An alarm that is on."""

    member: str
    alarm: str


def address_of(text: str, what: str) -> str:
    """An address out of `HOST:PORT` or a URL, as etcdctl's users write it.

    Raises:
        CliError: when it is none; `what` is what it was given for.
    """
    address = text.removeprefix("https://").removesuffix("/")
    try:
        split(address)
    except ValueError as error:
        raise CliError(f"{what}: {error}") from error
    return address


async def statuses(access: Access) -> list[StatusRow]:
    """How every member is; those that do not answer are in the list too."""
    rows = await _ask(access, access.addresses)
    known = await _known(access, rows)
    clients = {address: m.name for m in known for address in m.client_address.split(",") if address}
    if access.partial:
        rows += await _ask(access, sorted(set(clients) - set(access.addresses)))
        if any(row.knows_leader for row in rows):
            # A configuration goes on naming members that left.
            rows = [row for row in rows if row.answers or row.address in clients or not clients]
    names = {m.id: m.name for m in known}
    return [_named(row, names.get(row.id) or clients.get(row.address, ""), names) for row in rows]


async def members(access: Access, *, by_quorum: bool = False) -> list[MemberRow]:
    """The members; `by_quorum`: as a majority has them now, so that there is one.

    Raises:
        CliError: when no member answers, or there is no majority that was asked for.
    """
    return await _members(await _best(access, leaderless=not by_quorum), access.tls, by_quorum=by_quorum)


async def add_member(access: Access, peer_address: str, *, learner: bool) -> MemberRow:
    """Let a member join.

    Raises:
        CliError: when the address is none, or the group refuses it or does not answer.
    """
    peer_address = address_of(peer_address, "HOST:PORT")
    request = cluster_pb2.MemberAddRequest(peerURLs=[f"https://{peer_address}"], isLearner=learner)
    answer = await _call(access, lambda c: cluster_pb2_grpc.ClusterStub(c).MemberAdd(request, timeout=LONG_PATIENCE))
    return _member(answer.member)


async def remove_member(access: Access, number: int) -> None:
    """Let a member leave for good; errors as `add_member`."""
    request = cluster_pb2.MemberRemoveRequest(ID=number)
    await _call(access, lambda c: cluster_pb2_grpc.ClusterStub(c).MemberRemove(request, timeout=LONG_PATIENCE))


async def promote_member(access: Access, number: int) -> None:
    """Give a learner a vote; errors as `add_member`."""
    request = cluster_pb2.MemberPromoteRequest(ID=number)
    await _call(access, lambda c: cluster_pb2_grpc.ClusterStub(c).MemberPromote(request, timeout=LONG_PATIENCE))


async def find_member(access: Access, wanted: str) -> MemberRow:
    """The member of a name or a hexadecimal number.

    Raises:
        CliError: when there is none.
    """
    known = await members(access)
    found = [m for m in known if wanted in (m.name, m.id)]
    if len(found) != 1:
        names = ", ".join(sorted(m.name or m.id for m in known))
        raise CliError(f"there is no member {wanted}", f"there are {names}")
    return found[0]


async def move_leader(access: Access, number: int) -> None:
    """Hand leadership to a member.

    Raises:
        CliError: when the leader refuses or no member knows one.
    """
    request = maintenance_pb2.MoveLeaderRequest(targetID=number)
    await _call(access, lambda c: maintenance_pb2_grpc.MaintenanceStub(c).MoveLeader(request, timeout=LONG_PATIENCE))


async def compact(access: Access, revision: int | None) -> int:
    """Forget history before a revision (None: the present one); the revision.

    Raises:
        CliError: when the store refuses it or does not answer.
    """
    if revision is None:
        revision = max(row.revision for row in await statuses(access))
    request = kv_pb2.CompactionRequest(revision=revision, physical=True)
    await _call(access, lambda c: kv_pb2_grpc.KVStub(c).Compact(request, timeout=LONG_PATIENCE))
    return revision


async def defragment(access: Access, address: str) -> None:
    """Let one member give back unused space.

    Raises:
        CliError: when it does not.
    """
    async with channel(address, access.tls) as connection:
        stub = maintenance_pb2_grpc.MaintenanceStub(connection)
        await _explained(address, stub.Defragment(maintenance_pb2.DefragmentRequest(), timeout=LONG_PATIENCE))


async def alarms(access: Access, action: maintenance_pb2.AlarmRequest.AlarmAction.ValueType) -> list[AlarmRow]:
    """List (GET) or clear (DEACTIVATE) alarms of all members; those that were found.

    Raises:
        CliError: when the store refuses it or does not answer.
    """

    async def ask(request: maintenance_pb2.AlarmRequest) -> list[maintenance_pb2.AlarmMember]:
        answer = await _call(
            access,
            lambda c: maintenance_pb2_grpc.MaintenanceStub(c).Alarm(request, timeout=LONG_PATIENCE),
            leaderless=action == maintenance_pb2.AlarmRequest.GET,
        )
        return list(answer.alarms)

    found = await ask(maintenance_pb2.AlarmRequest(action=maintenance_pb2.AlarmRequest.GET))
    if action == maintenance_pb2.AlarmRequest.DEACTIVATE:
        # One by one: etcd has no word for all.
        for one in found:
            await ask(maintenance_pb2.AlarmRequest(action=action, memberID=one.memberID, alarm=one.alarm))
    return [AlarmRow(_hex(a.memberID), maintenance_pb2.AlarmType.Name(a.alarm)) for a in found]


async def save_snapshot(access: Access, write: Callable[[bytes], object], *, leaderless: bool = False) -> str:
    """Stream a copy of the state from one member into `write`; the member's address.

    Raises:
        CliError: when no member answers, none knows a leader (which `leaderless` allows), or one ends in the middle.
    """
    hint = f"{_STATUS}; --without-leader saves what one of them has, which others may have gone on from"
    address = await _best(access, leaderless=leaderless, hint=hint)
    async with channel(address, access.tls) as connection:
        stream = maintenance_pb2_grpc.MaintenanceStub(connection).Snapshot(maintenance_pb2.SnapshotRequest())
        try:
            async for piece in stream:
                write(piece.blob)
        except grpc.aio.AioRpcError as error:
            raise _cli_error(address, error) from error
    return address


# --- within


async def _ask(access: Access, addresses: Sequence[str]) -> list[StatusRow]:
    return list(await asyncio.gather(*(_status(address, access.tls) for address in addresses)))


async def _status(address: str, tls: Tls) -> StatusRow:
    async with channel(address, tls) as connection:
        try:
            stub = maintenance_pb2_grpc.MaintenanceStub(connection)
            answer = await stub.Status(maintenance_pb2.StatusRequest(), timeout=PATIENCE)
        except grpc.aio.AioRpcError as error:
            return StatusRow(address, problems=[str(_cli_error(address, error))])
    return StatusRow(
        address,
        id=_hex(answer.header.member_id),
        leader=answer.leader != 0 and answer.leader == answer.header.member_id,
        learner=answer.isLearner,
        knows_leader=answer.leader != 0,
        version=answer.softwareVersion or answer.version,
        level=answer.storageVersion,
        highest_level=answer.highestLevel,
        revision=answer.header.revision,
        term=answer.raftTerm,
        applied=answer.raftAppliedIndex,
        size=answer.dbSize,
        size_in_use=answer.dbSizeInUse,
        quota=answer.dbSizeQuota,
        problems=[error.strip() for error in answer.errors],
    )


async def _known(access: Access, rows: Sequence[StatusRow]) -> list[MemberRow]:
    """The members as the best one says that answers: not linearizable, so that they are known without a quorum too."""
    for row in sorted(rows, key=_rank, reverse=True):
        if row.answers:
            try:
                return await _members(row.address, access.tls)
            except CliError:
                continue
    return []


def _named(row: StatusRow, name: str, names: Mapping[str, str]) -> StatusRow:
    """The row with its member's name, and its problems in words for people."""
    problems = [_problem(row.address, problem, names) for problem in row.problems]
    return msgspec.structs.replace(row, name=name, problems=problems)


def _problem(address: str, problem: str, names: Mapping[str, str]) -> str:
    found = alarm(problem)
    if found is None:
        # What no member said tells its address already.
        return problem if problem.startswith(address) else f"{address}: {problem}"
    member = _hex(int(found[1]))
    text = f"the alarm {found[2]} of member {names.get(member) or member} is on"
    if found[2] == "NOSPACE":
        text += (
            ": nothing that grows the store is written. Delete what is not needed and `kybern store compact` (a real "
            "etcd: and defrag), or give all members a larger quota_bytes; then `kybern store alarm disarm`"
        )
    return text


async def _members(address: str, tls: Tls, *, by_quorum: bool = False) -> list[MemberRow]:
    request = cluster_pb2.MemberListRequest(linearizable=by_quorum)
    async with channel(address, tls) as connection:
        stub = cluster_pb2_grpc.ClusterStub(connection)
        answer = await _explained(address, stub.MemberList(request, timeout=LONG_PATIENCE if by_quorum else PATIENCE))
    return [_member(m) for m in answer.members]


async def _best(access: Access, *, leaderless: bool = False, hint: str = _STATUS) -> str:
    """The address of the leader, or of a member that knows one: the first thing to ask before anything is done once.

    `leaderless`: when there is no such member, one that answers will do.
    """
    rows = await statuses(access)
    able = [row for row in rows if row.knows_leader or (leaderless and row.answers)]
    if not able:
        problems = "; ".join(dict.fromkeys(p for row in rows for p in row.problems)) or "none of them knows a leader"
        raise CliError(f"no member of the store can do this now: {problems}", hint)
    return max(able, key=_rank).address


def _rank(row: StatusRow) -> tuple[bool, bool, int, int]:
    return row.leader, row.knows_leader, row.term, row.applied


async def _call(access: Access, call: Callable[[grpc.aio.Channel], Awaitable[T]], *, leaderless: bool = False) -> T:
    """Make a call once, on the best member: it may not be harmless to make it again elsewhere."""
    address = await _best(access, leaderless=leaderless)
    async with channel(address, access.tls) as connection:
        return await _explained(address, call(connection))


async def _explained(address: str, call: Awaitable[T]) -> T:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise _cli_error(address, error) from error


def _cli_error(address: str, error: grpc.aio.AioRpcError) -> CliError:
    text = reason(error)
    return CliError(f"{address}: {text}", next((hint for sign, hint in _HINTS.items() if sign in text), ""))


def _member(member: cluster_pb2.Member) -> MemberRow:
    peers = ",".join(url.removeprefix("https://") for url in member.peerURLs)
    clients = ",".join(url.removeprefix("https://") for url in member.clientURLs)
    return MemberRow(_hex(member.ID), member.name, peers, clients, member.isLearner)


def _hex(number: int) -> str:
    return f"{number:x}"
