"""Answers that hold keys; those of very many are found and encoded in slices."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import BinaryIO, Self

from kybern.pb.etcd import kv_pb2
from store.mvcc.errors import StoreError
from store.mvcc.outcomes import DeleteOutcome, RangeOutcome
from store.mvcc.ranges import may_be_large
from store.mvcc.records import Record
from store.mvcc.walks import Walk, read_range
from store.server.convert import deletion_head, encode_deleted, encode_found, encode_range, range_head
from store.server.core import Core, Refused
from store.server.turns import sliced

# Keys that are looked at and encoded in one go: about two milliseconds.
_AT_ONCE = 1024
# Records that are encoded between two looks at the clock; with values of a megabyte that is long enough.
_PORTION = 32
# Bytes that are joined at a time, and the most that one message can have (one read gives no more).
_JOINED = 4 * 1024 * 1024
_LARGEST = 0x7FFF_F000
_TOO_LARGE = StoreError(
    "RESOURCE_EXHAUSTED", "kybern-store: the answer is larger than 2 GiB; ask for less with a limit"
)


async def find(core: Core, request: kv_pb2.RangeRequest) -> RangeOutcome | StoreError:
    """Read keys as they are on this member, all of one moment."""
    keys = core.machine.keys
    if may_be_large(keys, request, _AT_ONCE):
        return await core.turns.run(lambda: read_range(keys, request))
    return core.machine.range(request)


async def encode(core: Core, outcome: RangeOutcome, header: kv_pb2.ResponseHeader | None = None) -> bytes:
    """A `RangeResponse`, encoded.

    Raises:
        Refused: when it is larger than a message can be.
    """
    if len(outcome.records) <= _PORTION:
        return encode_range(outcome, header)

    def portion(records: Sequence[Record]) -> bytes:
        return encode_found(records, keys_only=outcome.keys_only)

    return await _encode(core, range_head(outcome, header), outcome.records, portion)


async def encode_deletion(core: Core, outcome: DeleteOutcome, header: kv_pb2.ResponseHeader | None = None) -> bytes:
    """A `DeleteRangeResponse`, encoded.

    Raises:
        Refused: when it is larger than a message can be; the keys are deleted all the same.
    """
    head = deletion_head(outcome, header)
    if len(outcome.previous) <= _PORTION:
        return head + encode_deleted(outcome.previous)
    return await _encode(core, head, outcome.previous, encode_deleted)


async def _encode(
    core: Core, head: bytes, records: Sequence[Record], portion: Callable[[Sequence[Record]], bytes]
) -> bytes:
    with _Joiner() as joiner:
        walk = _walk(head, records, portion, joiner)
        await (sliced(walk) if len(records) <= _AT_ONCE else core.turns.run(lambda: walk))
        return await joiner.joined()


def _walk(
    head: bytes, records: Sequence[Record], portion: Callable[[Sequence[Record]], bytes], joiner: _Joiner
) -> Walk[None]:
    joiner.add(head)
    for at in range(0, len(records), _PORTION):
        joiner.add(portion(records[at : at + _PORTION]))
        yield


class _Joiner:
    """Joins parts. What is large goes through the kernel, which copies it without holding up the interpreter."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = self._written = 0
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, part: bytes) -> None:
        """Take a part.

        Raises:
            Refused: when all together are larger than a message can be.
        """
        self._parts.append(part)
        self._size += len(part)
        if self._size > _LARGEST:
            raise Refused(_TOO_LARGE)
        if self._size - self._written >= _JOINED:
            if self._file is None:
                self._file = os.fdopen(os.memfd_create("kybern-range", os.MFD_CLOEXEC), "w+b")
            self._file.write(self._rest())

    async def joined(self) -> bytes:
        """All parts as one."""
        file = self._file
        if file is None:
            return self._rest()
        file.write(self._rest())
        return await asyncio.to_thread(self._read_back, file)

    def _read_back(self, file: BinaryIO) -> bytes:
        with file:
            file.seek(0)
            return file.read(self._size)

    def _rest(self) -> bytes:
        rest = b"".join(self._parts)
        self._parts.clear()
        self._written = self._size
        return rest
