"""etcdserverpb.Maintenance: how a member is, checksums, and a copy of its state."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from typing import Any, NoReturn

from google.protobuf.message import Message

from kybern import __version__
from kybern.pb.etcd import maintenance_pb2 as pb
from kybern.pb.v1.store_pipe_pb2 import StoreCommand
from kybern.snapshots import Seal
from store.mvcc.alarms import NOSPACE, Alarm
from store.mvcc.errors import StoreError
from store.mvcc.outcomes import AlarmOutcome
from store.mvcc.walks import Checksum, checksum
from store.raft.interface import RaftStatus
from store.server.cluster import etcds_errors
from store.server.copies import ClientDump
from store.server.core import API_VERSION, Context, Core, Guard, Refused, handlers

SERVICE = "etcdserverpb.Maintenance"

_NO_SUCH_ALARM = StoreError("INVALID_ARGUMENT", "kybern-store: the only alarm that can be raised is NOSPACE")
_NO_DOWNGRADE = StoreError("UNIMPLEMENTED", "kybern-store: there is no older version to go back to")


def maintenance_handlers(core: Core, guard: Guard) -> Any:
    """The service, for adding to a server."""
    service = MaintenanceService(core)
    return handlers(
        SERVICE,
        {
            "Alarm": guard.unary(service.alarm, pb.AlarmRequest),
            "Status": guard.unary(service.status, pb.StatusRequest),
            "Defragment": guard.unary(service.defragment, pb.DefragmentRequest),
            "Hash": guard.unary(service.hash, pb.HashRequest),
            "HashKV": guard.unary(service.hash_kv, pb.HashKVRequest),
            "Snapshot": guard.answers(service.snapshot, pb.SnapshotRequest),
            "MoveLeader": guard.unary(service.move_leader, pb.MoveLeaderRequest),
            "Downgrade": guard.unary(service.downgrade, pb.DowngradeRequest),
        },
    )


class MaintenanceService:
    """Answers about this member alone."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def alarm(self, request: pb.AlarmRequest, context: Context) -> pb.AlarmResponse:
        """List, raise or clear alarms of the whole group.

        Raises:
            Refused: when one is to be raised that there is not.
            RaftUnavailable: when it could not be committed.
        """
        if request.action == pb.AlarmRequest.GET:
            found: Sequence[Alarm] = self._core.machine.alarms.matching(request.memberID, request.alarm)
        elif request.action == pb.AlarmRequest.ACTIVATE and request.alarm != NOSPACE:
            raise Refused(_NO_SUCH_ALARM)
        else:
            found = (await self._core.propose(StoreCommand(alarm=request), AlarmOutcome)).alarms
        alarms = [pb.AlarmMember(memberID=member, alarm=pb.AlarmType.ValueType(kind)) for member, kind in found]
        return pb.AlarmResponse(header=self._core.header(), alarms=alarms)

    async def status(self, request: pb.StatusRequest, context: Context) -> pb.StatusResponse:
        """How the member is."""
        raft = self._core.raft.status()
        keys = self._core.machine.keys
        return pb.StatusResponse(
            header=self._core.header(),
            version=API_VERSION,
            dbSize=keys.footprint + raft.log_bytes,
            dbSizeInUse=keys.footprint,
            dbSizeQuota=self._core.quota.limit,
            leader=0 if raft.leader is None else raft.leader.id,
            raftIndex=raft.commit_index,
            raftAppliedIndex=raft.applied_index,
            raftTerm=raft.term,
            isLearner=raft.member.learner,
            storageVersion=str(self._core.machine.level),
            softwareVersion=__version__,
            highestLevel=self._core.machine.levels.highest,
            errors=self._problems(raft),
        )

    async def defragment(self, request: pb.DefragmentRequest, context: Context) -> pb.DefragmentResponse:
        """Nothing is fragmented: memory is given back as history is compacted."""
        return pb.DefragmentResponse(header=self._core.header())

    async def hash(self, request: pb.HashRequest, context: Context) -> pb.HashResponse:
        """Checksum of all that is kept."""
        found = await self._checksum(0)
        return pb.HashResponse(header=self._core.header(found.revision), hash=found.crc)

    async def hash_kv(self, request: pb.HashKVRequest, context: Context) -> pb.HashKVResponse:
        """Checksum of the keys up to a revision."""
        found = await self._checksum(request.revision)
        return pb.HashKVResponse(
            header=self._core.header(),
            hash=found.crc,
            compact_revision=found.compacted or -1,
            hash_revision=found.revision,
        )

    async def _checksum(self, revision: int) -> Checksum:
        core = self._core
        found = await core.turns.run(lambda: checksum(core.machine.keys, revision))
        if isinstance(found, StoreError):
            raise Refused(found)
        return found

    async def snapshot(self, request: pb.SnapshotRequest, context: Context) -> AsyncIterator[Message]:
        """A dump (`store.mvcc.dump`), filled up with zeros to whole blocks, and its SHA-256.

        Raises:
            Refused: when it is read too slowly, or the state was replaced (`store.server.copies`).
        """
        seal = Seal()
        remaining = self._core.machine.keys.bytes
        with closing(ClientDump(self._core.machine)) as portions:
            for portion in portions:
                seal.add(portion)
                remaining = max(1, remaining - len(portion))
                yield self._piece(portion, remaining)
                # Portions are made as they are sent; others have their turn in between.
                await asyncio.sleep(0)
        yield self._piece(seal.end(), 0)

    async def move_leader(self, request: pb.MoveLeaderRequest, context: Context) -> pb.MoveLeaderResponse:
        """Let another member lead; asked of the leader.

        Raises:
            Refused: this member does not lead, the other one cannot, or it did not take over in time.
        """
        await etcds_errors(self._core.raft.transfer_leadership(request.targetID))
        return pb.MoveLeaderResponse(header=self._core.header())

    async def downgrade(self, request: Message, context: Context) -> NoReturn:
        """Say that there is nothing to go back to.

        Raises:
            Refused: always.
        """
        raise Refused(_NO_DOWNGRADE)

    def _problems(self, raft: RaftStatus) -> list[str]:
        """What is wrong, in etcd's words where it has some."""
        found = [] if raft.leader is not None else ["etcdserver: no leader"]
        if raft.trouble:
            found.append(f"{raft.member.name}: {raft.trouble}")
        alarms = [
            f"memberID:{member} alarm:{pb.AlarmType.Name(pb.AlarmType.ValueType(kind))} "
            for member, kind in self._core.machine.alarms.matching()
        ]
        return found + alarms

    def _piece(self, blob: bytes, remaining: int) -> pb.SnapshotResponse:
        return pb.SnapshotResponse(
            header=self._core.header(), remaining_bytes=remaining, blob=blob, version=API_VERSION
        )
