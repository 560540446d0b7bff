"""The group's level: which meaning its commands have, so that members of two versions never apply one differently.

A level is risen to by an entry of the log of its own type, which the leader appends once every member has told in its
hello that it can. What is below refuses, before it applies anything: versions that know of no levels do not know the
entry's type either.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from kybern import __version__
from kybern.config.models import StoreConfig
from kybern.daemon import StartupError
from store.raft.configuration import Configuration, Configurations
from store.raft.entries import InvalidEntry, decode_level
from store.raft.interface import Levels, UnknownCommand, UnknownLevel
from store.raft.membership import Seen

log = logging.getLogger(__name__)

_UPGRADE = "Install the version that the other members run (`kybern store status` shows it) and start it again"
_NO_WAY_BACK = (
    ". There is no way back to an earlier version but a snapshot that was taken before the rise "
    "(`kybern store snapshot restore`)"
)


class Leadership(Protocol):
    """What a rise needs of Raft."""

    configurations: Configurations

    @property
    def term(self) -> int:
        """The current term."""
        ...

    @property
    def may_change(self) -> bool:
        """Whether this member leads, and what it has of earlier terms and the newest configuration is committed."""
        ...

    def rise(self, level: int) -> int:
        """Append an entry by which the group rises; its index."""
        ...


def attainable(configuration: Configuration, seen: Mapping[str, Seen]) -> int:
    """The highest level that all members can apply, learners too; 0 while one is not there to tell.

    `seen`: what those say that are connected now, this member too.
    """
    told = []
    for member in configuration.members:
        said = seen.get(member.name)
        # Another one may come with the name of a member that was removed.
        told.append(said.level if said is not None and said.id in (0, member.id) else 0)
    return min(told, default=0)


class Rising:
    """Lets the group rise while this member leads."""

    def __init__(self) -> None:
        self._appended = (0, 0)

    def advance(self, raft: Leadership, levels: Levels, level: int, seen: Mapping[str, Seen]) -> None:
        """Append what is due; `level`: where the group is, as far as this member has applied the log."""
        if level >= levels.highest or not raft.may_change or not raft.configurations.index:
            return
        target = attainable(raft.configurations.current, seen)
        # In one term once: it is committed in it, or cut off with it.
        if target <= level or self._appended == (raft.term, target):
            return
        self._appended = raft.term, target
        log.info("entry %d: all members can apply level %d, to which the group rises", raft.rise(target), target)


def check_log(config: StoreConfig, levels: Levels, rises: Mapping[int, bytes]) -> None:
    """Refuse to start with a log by which the group rises higher than this software can follow; `rises` by index.

    Also when it is not known to be committed: whoever wrote it could apply it, and starts with it.

    Raises:
        StartupError: see `unsupported`.
        InvalidEntry: an entry was written by another version.
    """
    for index, entry in sorted(rises.items()):
        level = decode_level(entry)
        if level > levels.highest:
            raise unsupported(config, levels, level, _log_from(config, index))


def not_applied(
    config: StoreConfig, levels: Levels, index: int, error: InvalidEntry | UnknownLevel | UnknownCommand
) -> StartupError:
    """Why a member ends that meets an entry which it cannot apply."""
    if isinstance(error, UnknownLevel):
        return unsupported(config, levels, error.level, _log_from(config, index))
    return StartupError(
        f"entry {index} was written by another version: {error}. {config.name} ({__version__}, {levels}) ends before "
        f"it, and what is in {config.data_dir} stays as it is. {_UPGRADE}"
    )


def unsupported(config: StoreConfig, levels: Levels, level: int, where: Path | str) -> StartupError:
    """Why a member ends that meets a level which it cannot apply; `where`: the file or member that it comes from."""
    told = (
        f"{config.name} cannot apply what the store's group writes: {where} is at level {level} of the state machine, "
        f"and this version of Kybern, {__version__}, applies {levels}. Nothing of it was applied. "
    )
    if level < levels.lowest:
        return StartupError(
            told + "Start the member with a version in between, which applies both, and upgrade all members to that "
            "one first: `kybern store status` shows when the group has risen"
        )
    return StartupError(told + _UPGRADE + _NO_WAY_BACK)


def _log_from(config: StoreConfig, index: int) -> str:
    return f"the log in {config.data_dir / 'log'}, from entry {index} on,"
