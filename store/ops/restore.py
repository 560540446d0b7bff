"""`kybern store snapshot restore`: the data directory of a member of a new group, out of a file.

Every member of the new group is given the same file and the same members, and makes the same state of them. The group's
identity is a checksum of all that decides that state, so members that were given something else, and members of the
group that the file is of, have no part in it.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from kybern.config.addresses import split_literal
from kybern.daemon import StartupError
from kybern.struct import Frozen
from store.ops.state import read_file, skip_revisions, write_state
from store.raft import failpoints
from store.raft.configuration import Configuration
from store.raft.datadir import DataDir, Identity, Vote, require_empty, sync_directory
from store.raft.interface import Member
from store.raft.journal import FIRST_BASE_INDEX
from store.raft.members import member_id
from store.raft.snapshots import Header

log = logging.getLogger(__name__)

# The new group's log begins after an entry that stands for the file.
_INDEX = FIRST_BASE_INDEX + 1
_TERM = 1


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be restored, and for whom. `members` and `clients` are names with peer and client addresses."""

    file: Path
    data_dir: Path
    name: str
    members: Mapping[str, str]
    clients: Mapping[str, str] = field(default_factory=dict)
    cluster: str = "kybern"
    check: bool = True
    # Revisions that are left out; see `skip_revisions`.
    bump: int = 0
    # Tells groups apart that are made of the same file for the same members.
    token: str = ""


@dataclass(frozen=True, slots=True)
class Restored:
    """What the directory holds now."""

    group: str
    revision: int
    keys: int
    leases: int


class _Seed(Frozen, array_like=True):
    """All that decides what a restored member starts with; two members are of one group when it is the same."""

    file: str
    cluster: str
    members: tuple[tuple[str, str], ...]
    bump: int
    token: str


def restore(order: Order) -> Restored:
    """Make the data directory; a member that is started with it is one of the new group.

    Keys, history, leases (with their whole time) and the outcomes of clients' numbered transactions are those of the
    file. Alarms are not: they are about members that there are no more.

    Raises:
        StartupError: when the file is damaged or the members contradict each other (nothing was changed), when the
            directory is not empty (nothing was changed), or when it cannot be written (it is emptied).
    """
    _check(order)
    require_empty(order.data_dir)
    machine, checksum = read_file(order.file, check=order.check)
    skip_revisions(machine, order.bump)
    machine.alarms.replace(())
    group = _group(order, checksum)
    configuration = Configuration(_members(order, group), group=group)
    header = Header(
        order.cluster,
        _INDEX,
        _TERM,
        machine.applied_index,
        machine.now_ms,
        configuration,
        level=machine.level,
    )
    directory = DataDir.begin(order.data_dir, Identity(order.cluster, order.name))
    try:
        try:
            own = configuration.named(order.name)
            directory.save_id(own.id if own is not None else 0)
            directory.save_vote(Vote(_TERM))
            folder = directory.path / "snapshot"
            folder.mkdir(mode=0o700)
            write_state(folder, header, machine)
            sync_directory(directory.path)
            failpoints.hit("restore.written")
            directory.complete()
        except OSError:
            directory.abandon()
            raise
    except OSError as error:
        raise StartupError(
            f"cannot write the data directory {order.data_dir}: {error.strerror or error}; nothing of it counts"
        ) from error
    finally:
        directory.close()
    return Restored(group, machine.keys.revision, len(machine.keys.live), len(machine.leases.leases))


def _check(order: Order) -> None:
    if order.name not in order.members:
        named = ", ".join(sorted(order.members)) or "nobody"
        raise StartupError(f"the members must name this one ({order.name!r}); they are {named}")
    if len(set(order.members.values())) != len(order.members):
        raise StartupError("two members have the same peer address")
    for name, address in order.members.items():
        try:
            split_literal(address)
        except ValueError as error:
            raise StartupError(f"the member {name}: {error}") from error
        if not name:
            raise StartupError(f"the member at {address} has no name")


def _group(order: Order, checksum: str) -> str:
    members = tuple(sorted(order.members.items()))
    seed = _Seed(checksum, order.cluster, members, order.bump, order.token)
    return hashlib.sha256(msgspec.msgpack.encode(seed)).hexdigest()[:32]


def _members(order: Order, group: str) -> tuple[Member, ...]:
    """The new group's members; none has an id that a member of another group has."""
    return tuple(
        Member(member_id(f"{order.cluster}/{group}", name), name, order.members[name], order.clients.get(name, ""))
        for name in sorted(order.members)
    )
