"""etcdserverpb.Cluster: the members are listed; they cannot be changed while the group runs."""

from __future__ import annotations

from typing import Any, NoReturn

from google.protobuf.message import Message

from kybern.pb.etcd import cluster_pb2
from store.mvcc.errors import StoreError
from store.raft.interface import Member
from store.server.core import Context, Core, Guard, Refused, handlers

SERVICE = "etcdserverpb.Cluster"

_FIXED = StoreError(
    "UNIMPLEMENTED",
    "kybern-store: members cannot be changed while the group runs; change `members` in every member's store.yaml "
    "and restart them",
)


def cluster_handlers(core: Core, guard: Guard) -> Any:
    """The service, for adding to a server."""
    service = ClusterService(core)
    return handlers(
        SERVICE,
        {
            "MemberList": guard.unary(service.member_list, cluster_pb2.MemberListRequest),
            "MemberAdd": guard.unary(service.change, cluster_pb2.MemberAddRequest),
            "MemberRemove": guard.unary(service.change, cluster_pb2.MemberRemoveRequest),
            "MemberUpdate": guard.unary(service.change, cluster_pb2.MemberUpdateRequest),
            "MemberPromote": guard.unary(service.change, cluster_pb2.MemberPromoteRequest),
        },
    )


class ClusterService:
    """Who the members are."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def member_list(
        self, request: cluster_pb2.MemberListRequest, context: Context
    ) -> cluster_pb2.MemberListResponse:
        """All members."""
        if request.linearizable:
            await self._core.raft.read_barrier()
        members = sorted(self._core.raft.status().members, key=lambda m: m.id)
        return cluster_pb2.MemberListResponse(header=self._core.header(), members=[_message(m) for m in members])

    async def change(self, request: Message, context: Context) -> NoReturn:
        """Say how members are changed.

        Raises:
            Refused: always.
        """
        raise Refused(_FIXED)


def _message(member: Member) -> cluster_pb2.Member:
    return cluster_pb2.Member(
        ID=member.id,
        name=member.name,
        peerURLs=[f"https://{member.peer_address}"],
        clientURLs=[f"https://{member.client_address}"] if member.client_address else (),
    )
