"""Snapshots on their way from a leader to followers whose next entry is no longer in the log.

A leader reads its newest snapshot file in parts and sends a few of them ahead of what the follower has written: other
messages find room between them, and neither side holds the whole. What was sent and not confirmed is sent again after
a while; a follower that knows nothing of a transfer, because it was restarted, has it begin anew.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol, TypeVar

from store.raft import failpoints, messages
from store.raft.snapshots import CorruptSnapshot, Header, SnapshotDirectory, SnapshotFile, verify

log = logging.getLogger(__name__)

R = TypeVar("R")

PART_BYTES = 256 << 10
# What may be sent ahead of what the follower has confirmed.
WINDOW_BYTES = 1 << 20


class View(Protocol):
    """What transfers need to know of Raft and tell it; see `core.HardenedRaft`."""

    @property
    def term(self) -> int:
        """The current term."""
        ...

    @property
    def applied_index(self) -> int:
        """Entries up to here have been applied."""
        ...

    @property
    def behind(self) -> set[str]:
        """Members that need a snapshot, while this member leads."""
        ...

    def snapshot_installed(self, peer: str, index: int) -> None:
        """A follower has the snapshot up to `index`."""
        ...


@dataclass(slots=True, eq=False)
class _Outgoing:
    file: SnapshotFile
    descriptor: int
    progressed: float
    transfer: int = field(default_factory=lambda: secrets.randbits(63))
    sent: int = 0
    confirmed: int = 0
    task: asyncio.Task[None] | None = None


class Sender:
    """A leader's side."""

    def __init__(
        self, raft: View, send: Callable[[str, messages.Message], bool], now: Callable[[], float], patience: float
    ) -> None:
        """`patience`: seconds without progress after which something is sent again."""
        self._raft = raft
        self._send = send
        self._now = now
        self._patience = patience
        self._open: dict[str, _Outgoing] = {}
        self.bytes_sent = 0
        self.finished = 0

    def advance(self, newest: SnapshotFile | None) -> None:
        """Begin, continue and end transfers; called in every turn."""
        behind = self._raft.behind
        for peer in [peer for peer in self._open if peer not in behind]:
            self._close(peer)
        now = self._now()
        for peer in sorted(behind):
            outgoing = self._open.get(peer)
            if outgoing is None:
                if newest is None:
                    continue
                outgoing = self._begin(peer, newest, now)
            if now - outgoing.progressed > self._patience:
                outgoing.progressed = now
                outgoing.sent = outgoing.confirmed
                if outgoing.confirmed == outgoing.file.size:
                    # Everything is there; the answer to nothing at all says whether it is installed.
                    self._part(peer, outgoing, b"")
            if outgoing.task is None and self._may_send(outgoing):
                outgoing.task = asyncio.get_running_loop().create_task(self._stream(peer, outgoing), name="raft-send")

    def lowest(self) -> int | None:
        """The log from this entry on will be needed by those that are being sent snapshots."""
        return min((outgoing.file.header.index for outgoing in self._open.values()), default=None)

    def reply(self, peer: str, message: messages.SnapshotReply) -> None:
        """A follower says how far it is."""
        outgoing = self._open.get(peer)
        if outgoing is None or message.transfer != outgoing.transfer or message.term != self._raft.term:
            return
        if message.offset > outgoing.file.size:
            raise messages.InvalidMessage(f"{peer} confirms {message.offset} bytes of a snapshot, which has fewer")
        outgoing.progressed = self._now()
        if message.installed:
            index = outgoing.file.header.index
            log.info("%s has the snapshot up to entry %d", peer, index)
            self.finished += 1
            self._close(peer)
            self._raft.snapshot_installed(peer, index)
        elif message.offset < outgoing.confirmed:
            outgoing.sent = outgoing.confirmed = message.offset
        else:
            outgoing.confirmed = message.offset
            # More than was sent again, when an answer was only late.
            outgoing.sent = max(outgoing.sent, message.offset)

    async def stop(self) -> None:
        """End all transfers."""
        tasks = [outgoing.task for outgoing in self._open.values() if outgoing.task is not None]
        for peer in list(self._open):
            self._close(peer)
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, peer: str, newest: SnapshotFile, now: float) -> _Outgoing:
        # Open for the whole transfer: a newer snapshot may remove the name meanwhile.
        descriptor = os.open(newest.path, os.O_RDONLY | os.O_CLOEXEC)
        outgoing = self._open[peer] = _Outgoing(newest, descriptor, now)
        log.info(
            "sending %s the snapshot up to entry %d (%d bytes): the log does not go back to what it has",
            peer,
            newest.header.index,
            newest.size,
        )
        return outgoing

    def _may_send(self, outgoing: _Outgoing) -> bool:
        return outgoing.sent < outgoing.file.size and outgoing.sent - outgoing.confirmed < WINDOW_BYTES

    async def _stream(self, peer: str, outgoing: _Outgoing) -> None:
        try:
            while self._open.get(peer) is outgoing and self._may_send(outgoing):
                at = outgoing.sent
                data = await asyncio.to_thread(os.pread, outgoing.descriptor, PART_BYTES, at)
                if self._open.get(peer) is not outgoing or at != outgoing.sent:
                    continue
                if not data or not self._part(peer, outgoing, data):
                    # No room now: the connection calls when there is, and a turn comes.
                    return
                outgoing.sent += len(data)
                self.bytes_sent += len(data)
        finally:
            outgoing.task = None
            if self._open.get(peer) is not outgoing:
                os.close(outgoing.descriptor)

    def _part(self, peer: str, outgoing: _Outgoing, data: bytes) -> bool:
        header = outgoing.file.header
        part = messages.SnapshotPart(
            self._raft.term,
            outgoing.transfer,
            header.index,
            header.term,
            outgoing.file.size,
            outgoing.sent,
            data,
        )
        return self._send(peer, part)

    def _close(self, peer: str) -> None:
        outgoing = self._open.pop(peer)
        if outgoing.task is None:
            os.close(outgoing.descriptor)


@dataclass(slots=True, eq=False)
class _Incoming:
    peer: str
    transfer: int
    index: int
    index_term: int
    size: int
    file: BinaryIO | None = None
    # Bytes that were taken, and bytes that are written.
    taken: int = 0
    written: int = 0
    waiting: deque[bytes] = field(default_factory=deque)
    installing: bool = False


class Receiver:
    """A follower's side: one transfer at a time, written to `SnapshotDirectory.incoming`."""

    def __init__(
        self,
        raft: View,
        directory: SnapshotDirectory,
        executor: Executor,
        send: Callable[[str, messages.Message], bool],
        install: Callable[[Header], Awaitable[None]],
        cluster: str,
    ) -> None:
        """`install` puts log and state in the snapshot's place; the file is verified and durable by then."""
        self._raft = raft
        self._directory = directory
        self._executor = executor
        self._send = send
        self._install = install
        self._cluster = cluster
        self._incoming: _Incoming | None = None
        self._task: asyncio.Task[None] | None = None
        self.installed = 0

    def part(self, peer: str, message: messages.SnapshotPart) -> None:
        """Take a part of the leader's."""
        if message.term != self._raft.term:
            return
        if self._raft.applied_index >= message.index:
            self._reply(peer, message.transfer, message.size, installed=True)
            return
        incoming = self._incoming
        if incoming is None or incoming.transfer != message.transfer or incoming.peer != peer:
            if self._task is not None:
                # What an earlier one left is still being written; the leader asks again.
                self._incoming = incoming if incoming is not None and incoming.installing else None
                return
            self._drop()
            if message.offset:
                self._reply(peer, message.transfer, 0)
                return
            incoming = _Incoming(peer, message.transfer, message.index, message.index_term, message.size)
            self._incoming = incoming
            log.info("taking the snapshot of %s up to entry %d (%d bytes)", peer, message.index, message.size)
        if message.offset != incoming.taken or not message.data:
            self._reply(peer, message.transfer, incoming.written)
            return
        if incoming.taken - incoming.written > 2 * WINDOW_BYTES or incoming.taken + len(message.data) > incoming.size:
            raise messages.InvalidMessage("more of a snapshot than was agreed")
        incoming.taken += len(message.data)
        incoming.waiting.append(message.data)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._work(incoming), name="raft-receive")

    async def stop(self) -> None:
        """Give up what is being taken."""
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._drop()

    def _drop(self) -> None:
        """Forget what was taken so far; nothing of it is being written."""
        if self._incoming is not None and self._incoming.file is not None:
            self._incoming.file.close()
        self._incoming = None

    async def _work(self, incoming: _Incoming) -> None:
        try:
            while incoming.waiting and self._incoming is incoming:
                data = incoming.waiting.popleft()
                await self._run(self._write, incoming, data)
                incoming.written += len(data)
                self._reply(incoming.peer, incoming.transfer, incoming.written)
            if incoming.written == incoming.size and self._incoming is incoming:
                incoming.installing = True
                header = await self._run(self._finish, incoming)
                await self._install(header)
                self._drop()
                self.installed += 1
                self._reply(incoming.peer, incoming.transfer, incoming.size, installed=True)
        except (OSError, CorruptSnapshot) as error:
            log.warning("the snapshot of %s cannot be taken, it has to send it again: %s", incoming.peer, error)
            self._drop()
        finally:
            self._task = None
            if incoming.file is not None and self._incoming is not incoming:
                # Another one took its place meanwhile.
                incoming.file.close()

    def _write(self, incoming: _Incoming, data: bytes) -> None:
        if incoming.file is None:
            incoming.file = self._directory.incoming.open("wb")
            failpoints.hit("install.begin")
        incoming.file.write(data)
        failpoints.hit("install.partial")

    def _finish(self, incoming: _Incoming) -> Header:
        """Make the file durable and check that it is what the leader spoke of."""
        assert incoming.file is not None  # noqa: S101 - something was written
        incoming.file.flush()
        os.fsync(incoming.file.fileno())
        incoming.file.close()
        failpoints.hit("install.synced")
        path = self._directory.incoming
        header = verify(path)
        if (header.index, header.term, header.cluster) != (incoming.index, incoming.index_term, self._cluster):
            raise CorruptSnapshot(path, 0, f"entry {header.index} of term {header.term} of {header.cluster!r}")
        failpoints.hit("install.verified")
        return header

    def _reply(self, peer: str, transfer: int, offset: int, *, installed: bool = False) -> None:
        self._send(peer, messages.SnapshotReply(self._raft.term, transfer, offset, installed))

    async def _run(self, call: Callable[..., R], *arguments: object) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._executor, call, *arguments)
