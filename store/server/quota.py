"""The space quota: raises the NOSPACE alarm through the log before a write that would exceed it is proposed."""

from __future__ import annotations

import logging

from kybern.pb.etcd import maintenance_pb2
from kybern.pb.v1.store_pipe_pb2 import StoreCommand
from store.mvcc.alarms import NOSPACE, grows
from store.mvcc.machine import StoreMachine
from store.raft.interface import Raft

log = logging.getLogger(__name__)


class Quota:
    """At most so many bytes, by the state's own estimate (`KeySpace.footprint`).

    The member only raises the alarm: what is refused is decided by the state machine, command by command. So members
    with different quotas never disagree, and a batch's deletions are done while its puts are refused.
    """

    def __init__(self, raft: Raft, machine: StoreMachine, limit: int) -> None:
        self._raft = raft
        self._machine = machine
        self.limit = limit

    async def check(self, encoded: bytes) -> None:
        """Raise the alarm when a command, as the log would hold it, would exceed the quota.

        Raises:
            RaftUnavailable: when the alarm could not be committed; then the command could not be either.
        """
        used = self._machine.keys.footprint
        if used + len(encoded) <= self.limit or self._machine.alarms.no_space:
            return
        # Read only now: this is once per alarm, what is above is on every write's way.
        if not grows(StoreCommand.FromString(encoded)):
            return
        log.warning("the quota of %d bytes is exceeded (%d used): raising the alarm NOSPACE", self.limit, used)
        alarm = maintenance_pb2.AlarmRequest(
            action=maintenance_pb2.AlarmRequest.ACTIVATE, memberID=self._raft.status().member.id, alarm=NOSPACE
        )
        await self._raft.propose(StoreCommand(alarm=alarm).SerializeToString())
