"""Calls of etcd v3 that `kybern store` makes: to our store, and to a real etcd alike."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import grpc
import grpc.aio
import msgspec

from kybern.cli.errors import CliError
from kybern.config.models import Tls
from kybern.pb.etcd import cluster_pb2, cluster_pb2_grpc, kv_pb2, kv_pb2_grpc, maintenance_pb2, maintenance_pb2_grpc
from kybern.rpc.credentials import open_channel

T = TypeVar("T")

# Seconds that a member may take to say how it is, and to do something.
PATIENCE = 3.0
LONG_PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Access:
    """Where the members are, and what to show them."""

    addresses: Sequence[str]
    tls: Tls


class MemberRow(msgspec.Struct, frozen=True):
    """A member as the group lists it. `id` is hexadecimal, as etcdctl shows it."""

    id: str
    name: str
    peer_address: str
    client_address: str
    learner: bool


class StatusRow(msgspec.Struct, frozen=True):
    """A member as it describes itself. Sizes in bytes; `problems` is empty when all is well."""

    address: str
    id: str = ""
    name: str = ""
    leader: bool = False
    learner: bool = False
    knows_leader: bool = False
    version: str = ""
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


async def statuses(access: Access) -> list[StatusRow]:
    """How every member is; those that do not answer are in the list too."""
    rows = await asyncio.gather(*(_status(address, access.tls) for address in access.addresses))
    names = {m.id: m.name for m in await _names(access, rows)}
    return [msgspec.structs.replace(row, name=names.get(row.id, "")) for row in rows]


async def members(access: Access, *, by_quorum: bool = False) -> list[MemberRow]:
    """The members; `by_quorum`: as a majority has them now, so that there is one.

    Raises:
        CliError: when no member that knows a leader answers, or there is no majority that was asked for.
    """
    return await _members(await _best(access), access.tls, by_quorum=by_quorum)


async def add_member(access: Access, peer_address: str, *, learner: bool) -> MemberRow:
    """Let a member join.

    Raises:
        CliError: when the group refuses it or does not answer.
    """
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
    async with open_channel(address, access.tls) as channel:
        stub = maintenance_pb2_grpc.MaintenanceStub(channel)
        await _explained(address, stub.Defragment(maintenance_pb2.DefragmentRequest(), timeout=LONG_PATIENCE))


async def alarms(access: Access, action: maintenance_pb2.AlarmRequest.AlarmAction.ValueType) -> list[AlarmRow]:
    """List (GET) or clear (DEACTIVATE) alarms of all members; those that were found.

    Raises:
        CliError: when the store refuses it or does not answer.
    """

    async def ask(request: maintenance_pb2.AlarmRequest) -> list[maintenance_pb2.AlarmMember]:
        answer = await _call(
            access, lambda c: maintenance_pb2_grpc.MaintenanceStub(c).Alarm(request, timeout=LONG_PATIENCE)
        )
        return list(answer.alarms)

    found = await ask(maintenance_pb2.AlarmRequest(action=maintenance_pb2.AlarmRequest.GET))
    if action == maintenance_pb2.AlarmRequest.DEACTIVATE:
        # One by one: etcd has no word for all.
        for one in found:
            await ask(maintenance_pb2.AlarmRequest(action=action, memberID=one.memberID, alarm=one.alarm))
    return [AlarmRow(_hex(a.memberID), maintenance_pb2.AlarmType.Name(a.alarm)) for a in found]


async def save_snapshot(access: Access, write: Callable[[bytes], object]) -> str:
    """Stream a copy of the state from one member into `write`; the member's address.

    Raises:
        CliError: when no member answers, or one ends in the middle.
    """
    address = await _best(access)
    async with open_channel(address, access.tls) as channel:
        stream = maintenance_pb2_grpc.MaintenanceStub(channel).Snapshot(maintenance_pb2.SnapshotRequest())
        try:
            async for piece in stream:
                write(piece.blob)
        except grpc.aio.AioRpcError as error:
            raise _cli_error(address, error) from error
    return address


# --- within


async def _status(address: str, tls: Tls) -> StatusRow:
    async with open_channel(address, tls) as channel:
        try:
            stub = maintenance_pb2_grpc.MaintenanceStub(channel)
            answer = await stub.Status(maintenance_pb2.StatusRequest(), timeout=PATIENCE)
        except grpc.aio.AioRpcError as error:
            return StatusRow(address, problems=[str(_cli_error(address, error))])
    return StatusRow(
        address,
        id=_hex(answer.header.member_id),
        leader=answer.leader != 0 and answer.leader == answer.header.member_id,
        learner=answer.isLearner,
        knows_leader=answer.leader != 0,
        version=answer.version,
        revision=answer.header.revision,
        term=answer.raftTerm,
        applied=answer.raftAppliedIndex,
        size=answer.dbSize,
        size_in_use=answer.dbSizeInUse,
        quota=answer.dbSizeQuota,
        problems=[error.strip() for error in answer.errors],
    )


async def _names(access: Access, rows: Sequence[StatusRow]) -> list[MemberRow]:
    """The members as the first says that answers: not linearizable, so that it is known without a quorum too."""
    for row in rows:
        if row.answers:
            try:
                return await _members(row.address, access.tls)
            except CliError:
                continue
    return []


async def _members(address: str, tls: Tls, *, by_quorum: bool = False) -> list[MemberRow]:
    request = cluster_pb2.MemberListRequest(linearizable=by_quorum)
    async with open_channel(address, tls) as channel:
        stub = cluster_pb2_grpc.ClusterStub(channel)
        answer = await _explained(address, stub.MemberList(request, timeout=LONG_PATIENCE if by_quorum else PATIENCE))
    return [_member(m) for m in answer.members]


async def _best(access: Access) -> str:
    """The address of the leader, or of a member that knows one: the first thing to ask before anything is done once."""
    rows = await asyncio.gather(*(_status(address, access.tls) for address in access.addresses))
    able = [row for row in rows if row.knows_leader]
    if not able:
        problems = "; ".join(dict.fromkeys(p for row in rows for p in row.problems)) or "none of them knows a leader"
        raise CliError(f"no member of the store can do this now: {problems}", "`kybern store status` shows them")
    return max(able, key=lambda row: (row.leader, row.term)).address


async def _call(access: Access, call: Callable[[grpc.aio.Channel], Awaitable[T]]) -> T:
    """Make a call once, on the best member: it may not be harmless to make it again elsewhere."""
    address = await _best(access)
    async with open_channel(address, access.tls) as channel:
        return await _explained(address, call(channel))


async def _explained(address: str, call: Awaitable[T]) -> T:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise _cli_error(address, error) from error


def _cli_error(address: str, error: grpc.aio.AioRpcError) -> CliError:
    text = " ".join((error.details() or "").split())
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        text = "no answer in time"
    elif "Connection refused" in text:
        text = "connection refused: the daemon does not run"
    elif "failed to connect" in text:
        text = "no connection (another authority's certificate, or no way there): " + text[-80:]
    return CliError(f"{address}: {text[:300] or error.code().name}")


def _member(member: cluster_pb2.Member) -> MemberRow:
    peers = ",".join(url.removeprefix("https://") for url in member.peerURLs)
    clients = ",".join(url.removeprefix("https://") for url in member.clientURLs)
    return MemberRow(_hex(member.ID), member.name, peers, clients, member.isLearner)


def _hex(number: int) -> str:
    return f"{number:x}"
