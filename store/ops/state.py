"""The state out of a file, and into a member's data directory, without a member that runs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from kybern import snapshots
from kybern.daemon import StartupError
from kybern.snapshots import BadSnapshot
from store.mvcc.dump import BadDump, Loader, OtherLevel, dump
from store.mvcc.machine import StoreMachine
from store.raft.snapshots import PART_BYTES, Header, SnapshotFile, SnapshotWriter

# Revisions that are left out by default, more than any store makes between a copy and its loss: whoever has seen
# revisions that are lost must not take later ones for them.
BUMP = 1_000_000_000
MOST_BUMP = 1 << 50


def read_file(path: Path, *, check: bool) -> tuple[StoreMachine, str]:
    """The state in a file, and the SHA-256 of the whole file.

    Args:
        path: A file of `kybern store snapshot save` or `etcdctl snapshot save`.
        check: Whether the file's own checksum must be right.

    Raises:
        StartupError: when the file cannot be read, is damaged, or is not of this store.
    """
    digest = hashlib.sha256()
    machine = StoreMachine()
    loader = Loader(machine)
    try:
        if check:
            snapshots.verify(path)
        snapshots.read_head(path)
        for portion in snapshots.portions(path):
            digest.update(portion)
            loader.feed(portion)
        loader.finish()
    except BadSnapshot as error:
        raise StartupError(f"{error}{'; ' if error.hint else ''}{error.hint}") from error
    except OtherLevel as error:
        raise StartupError(f"{path} is not a snapshot that this version can restore: {error}") from error
    except BadDump as error:
        raise StartupError(f"{path} is not a whole snapshot of this store: {error}") from error
    return machine, digest.hexdigest()


def skip_revisions(machine: StoreMachine, count: int) -> None:
    """Let the next revisions come after `count` that nobody made; history before is compacted (0: nothing changes).

    Watches that go on from any revision up to there are told that it was compacted, so that they begin anew.
    """
    if count:
        machine.keys.revision += count
        machine.keys.compact(machine.keys.revision)


def write_state(folder: Path, header: Header, machine: StoreMachine) -> SnapshotFile:
    """Write a snapshot that takes the place of the log at the member's next start; it counts once this returns.

    Raises:
        OSError: when the disk does not take it; nothing has changed then.
    """
    writer = SnapshotWriter(folder, header, installed=True)
    try:
        for part in _parts(dump(machine)):
            writer.write(part)
        return writer.finish()
    except BaseException:
        writer.abandon()
        raise


def _parts(frames: Iterator[bytes]) -> Iterator[bytes]:
    parts: list[bytes] = []
    size = 0
    for frame in frames:
        parts.append(frame)
        size += len(frame)
        if size >= PART_BYTES:
            yield b"".join(parts)
            parts.clear()
            size = 0
    if parts:
        yield b"".join(parts)
