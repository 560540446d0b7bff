"""`kybern store recover`: one member of a group that has lost its quorum goes on alone, with all that it has.

A snapshot of the state that the member's whole log leads to, with the member as the only one in it, is written beside
what there is, and takes the place of the log at the next start, as a leader's snapshot does. Its rename is the moment
in which everything changes: before it the directory is the old member's, after it the new group's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Self

from kybern.config.models import StoreConfig
from kybern.daemon import StartupError
from store.mvcc.machine import StoreMachine
from store.ops.state import skip_revisions, write_state
from store.raft import failpoints
from store.raft.configuration import Configuration, Configurations, initial
from store.raft.datadir import DataDir, Identity, sync_directory, sync_file
from store.raft.entries import LEVEL, InvalidEntry, decode_group, decode_level
from store.raft.interface import Applied, Member, UnknownCommand
from store.raft.journal import Journal
from store.raft.level import check_log
from store.raft.members import member_id
from store.raft.segments import CorruptJournal
from store.raft.snapshots import Header, SnapshotDirectory
from store.raft.snapshotting import Position, Snapshots

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Survey:
    """What the member has. `others` are the members that it knows besides itself."""

    own: Member
    others: Sequence[Member]
    # Whether the group, as this member knows it, has this member in it.
    belongs: bool
    last_index: int
    last_term: int
    term: int
    revision: int
    keys: int
    leases: int


class Survivor:
    """The data directory of a member that does not run, locked until `close`."""

    def __init__(self, config: StoreConfig, directory: DataDir) -> None:
        self._config = config
        self._directory = directory
        self._journal = Journal(directory.log_path)
        self.machine = StoreMachine()
        self._command_index = self._now_ms = 0
        self._configuration = Configuration()
        self._folder = directory.path / "snapshot"

    @classmethod
    def open(cls, config: StoreConfig) -> Self:
        """Lock and read everything.

        Raises:
            StartupError: when there is no member's data, the member runs, or something of it is damaged.
        """
        try:
            there = (config.data_dir / "identity.json").is_file()
        except OSError as error:
            raise StartupError(f"cannot use the data directory {config.data_dir}: {error.strerror}") from error
        if not there:
            raise StartupError(f"{config.data_dir} is not the data directory of a member; nothing was changed")
        directory = DataDir.open(config.data_dir, Identity(config.cluster_name, config.name))
        survivor = cls(config, directory)
        try:
            survivor._read()
        except (InvalidEntry, UnknownCommand, CorruptJournal) as error:
            survivor.close()
            raise StartupError(f"the log of {config.data_dir} cannot be used: {error}") from error
        except BaseException:
            survivor.close()
            raise
        return survivor

    def close(self) -> None:
        """Let a member start with the directory."""
        self._journal.close()
        self._directory.close()

    def survey(self) -> Survey:
        """What the member has."""
        own = self._own()
        keys = self.machine.keys
        return Survey(
            own=own,
            others=[member for member in self._configuration.members if member.id != own.id],
            belongs=self._configuration.with_id(own.id) is not None,
            last_index=self._journal.last_index,
            last_term=self._journal.last_term,
            term=self._directory.load_vote().term,
            revision=keys.revision,
            keys=len(keys.live),
            leases=len(self.machine.leases.leases),
        )

    def recover(self, now: datetime, bump: int) -> tuple[Path, int]:
        """Make this member the only one of a new group; where what was is kept, and the revision now.

        Args:
            now: Names the folder in which what was is kept.
            bump: Revisions that are left out; see `skip_revisions`.

        Raises:
            StartupError: when the disk does not take it. Either nothing has changed, or all has and only what is
                superfluous could not be removed: the member's next start will.
        """
        survey = self.survey()
        failpoints.hit("recover.begin")
        try:
            kept = self._keep(now)
            failpoints.hit("recover.kept")
            skip_revisions(self.machine, bump)
            self.machine.alarms.replace(())
            if not self._directory.load_id():
                self._directory.save_id(survey.own.id)
            self._folder.mkdir(mode=0o700, exist_ok=True)
            header = self._header(survey)
            written = write_state(self._folder, header, self.machine)
        except OSError as error:
            raise StartupError(f"cannot write to {self._directory.path}: {error}; nothing was changed") from error
        try:
            self._journal.reset(header.index, header.term)
            self._journal.remove()
            SnapshotDirectory(self._folder).remove_older(written)
        except OSError as error:
            log.warning("what is superfluous now stays until the member starts: %s", error)
        return kept, self.machine.keys.revision

    # --- within

    def _read(self) -> None:
        self._journal.open()
        check_log(self._config, self.machine.levels, self._journal.rises)
        header = asyncio.run(self._load())
        if header is None:
            known = Configurations(initial(self._config), entries=self._journal.configurations)
        else:
            known = Configurations(header.configuration, header.index, self._journal.configurations)
            self._command_index, self._now_ms = header.command_index, header.now_ms
        self._configuration = known.current
        first = header.index if header is not None else self._journal.base_index
        for index in range(first + 1, self._journal.last_index + 1):
            self._apply(self._journal.term_at(index), self._journal.read(index))

    async def _load(self) -> Header | None:
        """The newest snapshot, as a member loads it when it starts."""
        snapshots = Snapshots(self._config, self._folder, self._journal, self.machine, _Nobody())
        try:
            return await snapshots.restore()
        finally:
            await snapshots.stop()

    def _apply(self, term: int, entry: bytes) -> None:
        if entry[0] == LEVEL:
            self.machine.rise(decode_level(entry))
            return
        group = decode_group(entry)
        if group is None:
            return
        now_ms, runs = group
        self._now_ms = max(self._now_ms, now_ms)
        for run in runs:
            for command in run.commands:
                self._command_index += 1
                self.machine.apply(command, Applied(self._command_index, term, now_ms))
        self.machine.caught_up()

    def _own(self) -> Member:
        """This member as it is in the new group: it votes, and is reached where its configuration says."""
        config, known = self._config, self._configuration
        own = known.with_id(self._directory.load_id()) or known.named(config.name)
        if own is None:
            number = self._directory.load_id() or member_id(config.cluster_name, config.name)
            own = Member(number, config.name, config.peer_address, config.client_address)
        return replace(
            own,
            name=config.name,
            peer_address=config.peer_address,
            client_address=config.client_address,
            learner=False,
        )

    def _header(self, survey: Survey) -> Header:
        """After everything that the log has, in a term that nobody has led in."""
        gone = tuple(member.id for member in survey.others)
        configuration = Configuration(
            (survey.own,), removed=(*self._configuration.removed, *gone), group=secrets.token_hex(16)
        )
        return Header(
            self._config.cluster_name,
            survey.last_index + 1,
            max(survey.term, survey.last_term) + 1,
            self._command_index,
            self._now_ms,
            configuration,
            level=self.machine.level,
        )

    def _keep(self, now: datetime) -> Path:
        """A copy of the directory in a folder of its own, by links: what is there is only ever replaced or removed."""
        root = self._directory.path
        kept = root / f"before-recovery-{now:%Y%m%dT%H%M%SZ}"
        temporary = root / "before-recovery.new"
        if temporary.exists():
            shutil.rmtree(temporary)
        if kept.exists():
            raise FileExistsError(f"{kept} is there already")
        temporary.mkdir(mode=0o700)
        for folder in ("log", "snapshot"):
            (temporary / folder).mkdir(mode=0o700)
            if (root / folder).is_dir():
                for path in sorted((root / folder).iterdir()):
                    _link(path, temporary / folder / path.name)
                sync_directory(temporary / folder)
        for name in ("identity.json", "vote", "id", "directory_id"):
            if (root / name).exists():
                _link(root / name, temporary / name)
        sync_directory(temporary)
        temporary.rename(kept)
        sync_directory(root)
        return kept


class _Nobody:
    """The node around the snapshots of a member that does not run: nothing is asked of it."""

    def position(self) -> Position:
        """No snapshot is taken."""
        raise AssertionError("a member that does not run takes no snapshot")

    def restored(self, header: Header) -> None:
        """No leader's snapshot comes."""

    def snapshot_failed(self, error: Exception) -> None:
        """No leader's snapshot comes."""


def _link(source: Path, target: Path) -> None:
    with contextlib.suppress(OSError):
        os.link(source, target)
        return
    # A file system without links.
    shutil.copyfile(source, target)
    target.chmod(0o600)
    sync_file(target)
