"""The space quota: raises the NOSPACE alarm through the log before a write that would exceed it is proposed."""

from __future__ import annotations

import logging
from collections.abc import Callable

from kybern.pb.etcd import maintenance_pb2
from kybern.pb.v1.store_pipe_pb2 import StoreCommand
from store.mvcc.alarms import NOSPACE
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

    async def check(self, size: int, grows: Callable[[], bool]) -> None:
        """Raise the alarm when a command of `size` bytes, if it `grows`, would exceed the quota.

        Raises:
            RaftUnavailable: when the alarm could not be committed; then the command could not be either.
        """
        used = self._machine.keys.footprint
        if used + size <= self.limit or self._machine.alarms.no_space or not grows():
            return
        log.warning("the quota of %d bytes is exceeded (%d used): raising the alarm NOSPACE", self.limit, used)
        alarm = maintenance_pb2.AlarmRequest(
            action=maintenance_pb2.AlarmRequest.ACTIVATE, memberID=self._raft.status().member.id, alarm=NOSPACE
        )
        await self._raft.propose(StoreCommand(alarm=alarm).SerializeToString())
