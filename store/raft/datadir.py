"""The data directory of a member: whose it is, that one process alone uses it, and its term and vote.

lock            held with flock(2) while a process uses the directory
identity.json   cluster and member that the directory belongs to
id              the member's id in the group, from when the member knows it
directory_id    a random number of this directory: another one holds nothing of what this one's member acknowledged
vote            term and vote, replaced as a whole and fsynced each time
owed            what the member had once, while this is an older copy of its directory (see `standing`)
log/            the journal's segments
restoring       there while a restore writes all this: a member does not start with it
joining         the member was let join a group that runs: as the configuration's initial_state: existing
"""

from __future__ import annotations

import os
import secrets
import shutil
import struct
import zlib
from pathlib import Path
from typing import TypeVar

import msgspec

from kybern.daemon import StartupError, hold, unusable
from kybern.struct import Frozen
from store.raft import failpoints
from store.raft.standing import Standing

# What there is to do about a file that is missing or damaged.
ADVICE = (
    "bring it back as it was; or, if the other members are a majority, `kybern store join` on this host lets this one "
    "join anew, with all that they have"
)

_MARK = "restoring"
_JOINING = "joining"
# What may lie in a directory that counts as empty: the root of a file system has the second.
_OF_NOBODY = {"lock", "lost+found"}

_MAGIC = b"KYVO"
_HEADER = struct.Struct("<4sII")


Content = TypeVar("Content")


class Identity(Frozen, forbid_unknown_fields=True):
    """Whose a data directory is."""

    cluster: str
    member: str
    format: int = 1


class Vote(Frozen, array_like=True):
    """What a member must not forget: the term, and whom it voted for in it (empty: nobody)."""

    term: int = 0
    voted_for: str = ""


class Owed(Frozen, array_like=True):
    """What a member of a group has acknowledged and does not hold any more."""

    group: str
    standing: Standing


class DataDir:
    """A locked data directory."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self.log_path = path / "log"
        self._lock = lock
        self._vote_path = path / "vote"

    @classmethod
    def open(cls, path: Path, identity: Identity) -> DataDir:
        """Lock the directory for this process, making it when it is not there yet.

        Raises:
            StartupError: another process uses it, it belongs to another member, restoring it was interrupted, or it
                cannot be read or written.
        """
        return cls._locked(path, identity, restoring=False)

    @classmethod
    def begin(cls, path: Path, identity: Identity) -> DataDir:
        """Lock an empty directory, or what an interrupted restore left of one. Nothing in it counts before `complete`.

        Raises:
            StartupError: it is not empty, another process uses it, or it cannot be written.
        """
        require_empty(path)
        return cls._locked(path, identity, restoring=True)

    def complete(self) -> None:
        """After `begin`: what was written counts from now on.

        Raises:
            OSError: when the disk does not take that.
        """
        (self.path / _MARK).unlink()
        failpoints.hit("restore.unmarked")
        sync_directory(self.path)

    def abandon(self) -> None:
        """After `begin`: remove what was written.

        Raises:
            OSError: when the disk does not take that.
        """
        self._clear()
        (self.path / _MARK).unlink(missing_ok=True)
        sync_directory(self.path)

    @classmethod
    def _locked(cls, path: Path, identity: Identity, *, restoring: bool) -> DataDir:
        lock = hold(path)
        try:
            directory = cls(path, lock)
            directory._mark(restoring=restoring)
            directory._claim(identity)
        except OSError as error:
            os.close(lock)
            raise unusable(path, error) from error
        except StartupError:
            os.close(lock)
            raise
        return directory

    def close(self) -> None:
        """Let another process use the directory."""
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)

    def load_vote(self) -> Vote:
        """Term and vote as last saved.

        Raises:
            StartupError: when they cannot be read: without them the member could vote twice in a term.
        """
        try:
            data = self._vote_path.read_bytes()
        except FileNotFoundError:
            raise StartupError(
                f"{self._vote_path} is missing: without term and vote this member could vote twice; {ADVICE}"
            ) from None
        except OSError as error:
            raise StartupError(f"cannot read {self._vote_path}: {error.strerror}") from error
        try:
            vote = _unframed(data, Vote)
        except ValueError:
            raise StartupError(
                f"{self._vote_path} is corrupt at offset 0: it does not match its checksum; {ADVICE}"
            ) from None
        # A process that was killed between rename and fsync left it in the page cache alone.
        try:
            sync_file(self._vote_path)
            sync_directory(self.path)
        except OSError as error:
            raise unusable(self.path, error) from error
        return vote

    def save_vote(self, vote: Vote) -> None:
        """Make term and vote durable before this returns.

        Raises:
            OSError: when the disk does not take them; what was saved before is then still there.
        """
        replace_durably(self._vote_path, _framed(vote))

    def load_owed(self) -> Owed | None:
        """What the member owes its group; None when nothing.

        Raises:
            StartupError: when that cannot be read.
        """
        path = self.path / "owed"
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StartupError(f"cannot read {path}: {error.strerror}") from error
        try:
            return _unframed(data, Owed)
        except ValueError:
            raise StartupError(f"{path} is corrupt at offset 0: it does not match its checksum; {ADVICE}") from None

    def save_owed(self, owed: Owed | None) -> None:
        """Make durable what the member owes; None: nothing any more.

        Raises:
            OSError: when the disk does not take it.
        """
        path = self.path / "owed"
        if owed is not None:
            replace_durably(path, _framed(owed))
        else:
            path.unlink(missing_ok=True)
            sync_directory(self.path)

    def load_id(self) -> int:
        """The member's id; 0 when it is not known yet.

        Raises:
            StartupError: when the file is there and holds something else.
        """
        return self._load_number("id")

    def load_directory_id(self) -> int:
        """The directory's own id; one from before there were such ids is given one.

        Raises:
            StartupError: when the file is there and holds something else.
            OSError: when the disk does not take it.
        """
        found = self._load_number("directory_id")
        if not found:
            # It must fit into an int64, and never be the 0 that means none.
            found = secrets.randbits(62) + 1
            replace_durably(self.path / "directory_id", b"%d\n" % found)
        return found

    def _load_number(self, name: str) -> int:
        file = self.path / name
        try:
            text = file.read_text("ascii")
            return int(text)
        except FileNotFoundError:
            return 0
        except (OSError, ValueError) as error:
            raise StartupError(f"{file} does not hold a number: {error}; {ADVICE}") from error

    def save_id(self, member_id: int) -> None:
        """Keep the member's id.

        Raises:
            OSError: when the disk does not take it.
        """
        replace_durably(self.path / "id", b"%d\n" % member_id)

    def _mark(self, *, restoring: bool) -> None:
        mark = self.path / _MARK
        if not restoring:
            if mark.exists():
                raise StartupError(
                    f"restoring the data directory {self.path} from a file was interrupted; restore it again, or "
                    "empty it"
                )
            return
        require_empty(self.path)
        if mark.exists():
            self._clear()
        # Empty, so that it is whole as soon as it is there.
        mark.touch(mode=0o600)
        sync_file(mark)
        sync_directory(self.path)
        failpoints.hit("restore.marked")

    def _clear(self) -> None:
        """Remove all that a restore may have written, but not the mark, nor the lock that this process holds."""
        for path in self.path.iterdir():
            if path.name in (_MARK, *_OF_NOBODY):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        sync_directory(self.path)

    def _claim(self, identity: Identity) -> None:
        file = self.path / "identity.json"
        try:
            found = msgspec.json.decode(file.read_bytes(), type=Identity)
        except FileNotFoundError:
            found = None
        except msgspec.MsgspecError as error:
            raise StartupError(f"{file} is corrupt at offset 0: {error}; {ADVICE}") from error
        if found is None:
            self._initialise(file, identity)
            return
        if found.format != identity.format:
            raise StartupError(f"{file} names format {found.format}, which this version does not know")
        if found != identity:
            raise StartupError(
                f"the data directory {self.path} belongs to member {found.member!r} of cluster {found.cluster!r}, "
                f"not to {identity.member!r} of {identity.cluster!r}; name another data_dir"
            )

    def _initialise(self, file: Path, identity: Identity) -> None:
        """Claim an empty directory. The identity comes last: without it nothing in here has been used yet."""
        if self.log_path.is_dir() and any(self.log_path.iterdir()):
            raise StartupError(f"{file} is missing although {self.log_path} holds a log; {ADVICE}")
        self.log_path.mkdir(mode=0o700, exist_ok=True)
        self.save_vote(Vote())
        replace_durably(file, msgspec.json.encode(identity))
        sync_directory(self.path.parent)


def is_joining(path: Path) -> bool:
    """Whether a member is to join, with this data directory, a group that runs.

    Raises:
        StartupError: when the directory cannot be looked into.
    """
    try:
        return (path / _JOINING).exists()
    except OSError as error:
        raise unusable(path, error) from error


def vacate(path: Path, aside: str) -> Path | None:
    """Make the data directory one that a member can join with; where what it held is now: in a folder `aside` of it.

    Raises:
        StartupError: a process uses the directory, or the disk does not take that; it can be tried again.
    """
    lock = hold(path)
    try:
        held = [entry.name for entry in path.iterdir() if entry.name not in (*_OF_NOBODY, _JOINING)]
        held = [name for name in held if not name.startswith("before-")]
        kept = path / aside if held else None
        if kept is not None:
            kept.mkdir(mode=0o700, exist_ok=True)
            # First what the others know the directory by: with the rest alone they would let nobody in.
            for name in sorted(held, key=lambda name: name != "directory_id"):
                (path / name).rename(kept / name)
                sync_directory(path)
            sync_directory(kept)
        (path / _JOINING).touch(mode=0o600)
        sync_directory(path)
        return kept
    except OSError as error:
        raise StartupError(f"cannot empty the data directory {path}: {error}") from error
    finally:
        os.close(lock)


def require_empty(path: Path) -> None:
    """Refuse a directory that holds anything but what an interrupted restore left there; it need not exist.

    Raises:
        StartupError: it is not empty, or cannot be read.
    """
    try:
        found = {entry.name for entry in path.iterdir()} - _OF_NOBODY
    except FileNotFoundError:
        return
    except OSError as error:
        raise StartupError(f"cannot use the data directory {path}: {error.strerror}") from error
    if found and _MARK not in found:
        raise StartupError(
            f"the data directory {path} is not empty (it has {', '.join(sorted(found)[:3])}); nothing was changed: "
            "move away what it holds, or name another one"
        )


def replace_durably(path: Path, data: bytes) -> None:
    """Replace a file as a whole: after a crash it holds either the old or the new bytes."""
    temporary = path.with_name(path.name + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        write_all(descriptor, data)
        failpoints.hit("vote.written")
        os.fsync(descriptor)
        failpoints.hit("vote.synced")
    finally:
        os.close(descriptor)
    temporary.replace(path)
    failpoints.hit("vote.renamed")
    sync_directory(path.parent)
    failpoints.hit("vote.done")


def write_all(descriptor: int, data: bytes) -> None:
    """write(2) until all is written: a signal or a full disk may cut one call short."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def sync_file(path: Path) -> None:
    """Make what a file holds durable, whoever wrote it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _framed(content: Vote | Owed) -> bytes:
    body = msgspec.msgpack.encode(content)
    return _HEADER.pack(_MAGIC, len(body), zlib.crc32(body)) + body


def _unframed(data: bytes, content: type[Content]) -> Content:
    """What `_framed` made bytes of; ValueError when they are others."""
    if len(data) < _HEADER.size:
        raise ValueError("it is too short")
    magic, length, crc = _HEADER.unpack_from(data)
    body = data[_HEADER.size :]
    if magic != _MAGIC or len(body) != length or zlib.crc32(body) != crc:
        raise ValueError("the checksum is another one")
    found: Content = msgspec.msgpack.decode(body, type=content)
    return found
