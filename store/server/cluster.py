"""etcdserverpb.Cluster: who the members are, and changes of that.

A member is added by the address where the others reach it. Its name is that of its certificate, learnt when it comes;
until then the list shows it without one, which clients take for a member that has not started. A member that is added
to vote is a learner first and becomes a voting member by itself once it has caught up.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

from kybern.pb.etcd import cluster_pb2 as pb
from store.mvcc.errors import StoreError
from store.raft.interface import Member, MembershipError, MembershipReason
from store.server.core import Context, Core, Guard, Refused, handlers

SERVICE = "etcdserverpb.Cluster"

T = TypeVar("T")

BAD_URLS = StoreError("INVALID_ARGUMENT", "etcdserver: given member URLs are invalid")
# A member listens on one address, over TLS.
_ONE_URL = StoreError(
    "INVALID_ARGUMENT", "etcdserver: given member URLs are invalid (one of the form https://HOST:PORT)"
)

_ERRORS = {
    MembershipReason.NOT_FOUND: StoreError("NOT_FOUND", "etcdserver: member not found"),
    MembershipReason.ID_EXISTS: StoreError("FAILED_PRECONDITION", "etcdserver: member ID already exist"),
    MembershipReason.ADDRESS_EXISTS: StoreError("FAILED_PRECONDITION", "etcdserver: Peer URLs already exists"),
    MembershipReason.NOT_LEARNER: StoreError("FAILED_PRECONDITION", "etcdserver: can only promote a learner member"),
    MembershipReason.LEARNER_NOT_READY: StoreError(
        "FAILED_PRECONDITION", "etcdserver: can only promote a learner member which is in sync with leader"
    ),
    MembershipReason.TOO_MANY_LEARNERS: StoreError(
        "FAILED_PRECONDITION", "etcdserver: too many learner members in cluster"
    ),
    MembershipReason.NOT_ENOUGH_STARTED: StoreError(
        "FAILED_PRECONDITION", "etcdserver: re-configuration failed due to not enough started members"
    ),
    MembershipReason.UNHEALTHY: StoreError("UNAVAILABLE", "etcdserver: unhealthy cluster"),
    MembershipReason.IN_PROGRESS: StoreError(
        "UNAVAILABLE", "kybern-store: the change of members before this one is not committed yet"
    ),
    MembershipReason.NOT_LEADER: StoreError("FAILED_PRECONDITION", "etcdserver: not leader"),
    MembershipReason.BAD_TRANSFEREE: StoreError("FAILED_PRECONDITION", "etcdserver: bad leader transferee"),
    MembershipReason.TRANSFER_TIMEOUT: StoreError(
        "UNAVAILABLE", "etcdserver: request timed out, leader transfer took too long"
    ),
}


def cluster_handlers(core: Core, guard: Guard) -> Any:
    """The service, for adding to a server."""
    service = ClusterService(core)
    return handlers(
        SERVICE,
        {
            "MemberList": guard.unary(service.member_list, pb.MemberListRequest),
            "MemberAdd": guard.unary(service.member_add, pb.MemberAddRequest),
            "MemberRemove": guard.unary(service.member_remove, pb.MemberRemoveRequest),
            "MemberUpdate": guard.unary(service.member_update, pb.MemberUpdateRequest),
            "MemberPromote": guard.unary(service.member_promote, pb.MemberPromoteRequest),
        },
    )


async def etcds_errors(change: Awaitable[T]) -> T:
    """Wait for a change of members.

    Raises:
        Refused: with etcd's error, when it was refused.
    """
    try:
        return await change
    except MembershipError as error:
        raise Refused(_ERRORS[error.reason]) from error


class ClusterService:
    """Who the members are."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def member_list(self, request: pb.MemberListRequest, context: Context) -> pb.MemberListResponse:
        """All members."""
        if request.linearizable:
            await self._core.raft.read_barrier()
        return pb.MemberListResponse(header=self._core.header(), members=self._members())

    async def member_add(self, request: pb.MemberAddRequest, context: Context) -> pb.MemberAddResponse:
        """Let a member join."""
        address = peer_address(request.peerURLs)
        raft = self._core.raft
        member = await etcds_errors(raft.add_member("", address, "", learner=request.isLearner))
        # The list in the answer is the one after the change, whichever member made it.
        await raft.read_barrier()
        return pb.MemberAddResponse(header=self._core.header(), member=_message(member), members=self._members())

    async def member_remove(self, request: pb.MemberRemoveRequest, context: Context) -> pb.MemberRemoveResponse:
        """Let a member leave."""
        await etcds_errors(self._core.raft.remove_member(request.ID))
        members = [member for member in self._members() if request.ID != member.ID]
        return pb.MemberRemoveResponse(header=self._core.header(), members=members)

    async def member_update(self, request: pb.MemberUpdateRequest, context: Context) -> pb.MemberUpdateResponse:
        """Change a member's peer address."""
        address = peer_address(request.peerURLs)
        await etcds_errors(self._core.raft.update_member(request.ID, address))
        await self._core.raft.read_barrier()
        return pb.MemberUpdateResponse(header=self._core.header(), members=self._members())

    async def member_promote(self, request: pb.MemberPromoteRequest, context: Context) -> pb.MemberPromoteResponse:
        """Make a learner a voting member."""
        await etcds_errors(self._core.raft.promote_member(request.ID))
        await self._core.raft.read_barrier()
        return pb.MemberPromoteResponse(header=self._core.header(), members=self._members())

    def _members(self) -> list[pb.Member]:
        return [_message(member) for member in sorted(self._core.raft.status().members, key=lambda member: member.id)]


def peer_address(urls: Sequence[str]) -> str:
    """The address in a member's peer URLs.

    Raises:
        Refused: when there is not one URL, or it is none of a member.
    """
    if not urls:
        raise Refused(BAD_URLS)
    parts = urlsplit(urls[0])
    try:
        port = parts.port
    except ValueError:
        port = None
    if len(urls) > 1 or parts.scheme != "https" or not parts.hostname or not port or parts.path not in ("", "/"):
        raise Refused(_ONE_URL)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{host}:{port}"


def _message(member: Member) -> pb.Member:
    return pb.Member(
        ID=member.id,
        name=member.name,
        peerURLs=[f"https://{member.peer_address}"],
        clientURLs=[f"https://{member.client_address}"] if member.client_address else (),
        isLearner=member.learner,
    )
