"""Member ids and lists: what etcd's protocol calls a member, from what the configuration says of it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from kybern.config.models import StoreConfig
from store.raft.interface import Member
from store.raft.snapshots import SnapshotMember


def member_id(cluster_name: str, name: str) -> int:
    """The id of a member: stable over restarts, the same on every member, never zero (etcd's 'no such member')."""
    digest = hashlib.sha256(f"{cluster_name}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") or 1


def members_of(config: StoreConfig) -> Sequence[Member]:
    """All members that the configuration names, in the order of their names."""
    return [
        Member(member_id(config.cluster_name, name), name, config.members[name], config.clients.get(name, ""))
        for name in sorted(config.members)
    ]


def describe(config: StoreConfig) -> Sequence[SnapshotMember]:
    """The members as a snapshot's header names them."""
    return [SnapshotMember(m.name, m.peer_address, m.client_address) for m in members_of(config)]


def differences(config: StoreConfig, members: Sequence[SnapshotMember]) -> Sequence[str]:
    """What a snapshot's header says otherwise than the configuration, which is what counts."""
    ours = {member.name: member for member in describe(config)}
    theirs = {member.name: member for member in members}
    return [
        f"{name} is {theirs.get(name, 'unknown')} there and {ours.get(name, 'unknown')} here"
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name)
    ]
