"""Members and their ids: what etcd's protocol calls a member, from what the configuration's file says of it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from kybern.config.models import StoreConfig
from kybern.daemon import StartupError
from store.raft.datadir import DataDir
from store.raft.interface import Member


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


def newcomer(config: StoreConfig) -> Member:
    """What a member says of itself before the log names it."""
    own = member_id(config.cluster_name, config.name)
    return Member(own, config.name, config.peer_address, config.client_address, learner=True)


def find_id(config: StoreConfig, directory: DataDir) -> int:
    """This member's id: as kept, or as the file's members have it, which is kept then; 0 for a member that joins.

    Raises:
        OSError: when it cannot be read or kept.
    """
    own = directory.load_id()
    if not own and config.initial_state == "new":
        own = member_id(config.cluster_name, config.name)
        directory.save_id(own)
    return own


def check_members(config: StoreConfig) -> None:
    """Whether the members of the configuration's file can be a group with this member in it.

    Raises:
        StartupError: naming what is wrong.
    """
    if config.members.get(config.name) != config.peer_address:
        raise StartupError(
            f"store configuration: members must name this member: {config.name}: {config.peer_address} "
            f"(it says {config.members.get(config.name)})"
        )
    ids = {member_id(config.cluster_name, name) for name in config.members}
    if len(ids) != len(config.members):
        raise StartupError("store configuration: two members have the same id; rename one of them")
