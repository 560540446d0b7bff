"""The bytes of a log entry. The first byte is PySyncObj's command type, the rest is ours.

    no-op   0x01                          put by a new leader
    group   0x00, milliseconds (8 bytes, big-endian), msgpack list of runs
    members 0x04, msgpack (store.raft.configuration); PySyncObj's own entries about members have another type
    level   0x05, 4 bytes, big-endian     the group rises to this level (store.raft.level)

A run is what one member proposed in one go: its process's random number, the sequence of the first command, the
commands. The proposer knows its own commands by the first two when they are applied.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import msgspec

from kybern.struct import Frozen

GROUP = 0
NO_OP = 1
CONFIGURATION = 4
LEVEL = 5

_HEAD = struct.Struct(">BQ")
_LEVEL = struct.Struct(">BI")
_WITHOUT_CLOCK = (bytes([NO_OP]), bytes([CONFIGURATION]), bytes([LEVEL]))


class Run(Frozen, array_like=True):
    """Commands of one proposer, with consecutive sequence numbers."""

    origin: int
    first_sequence: int
    commands: Sequence[bytes]

    @property
    def size(self) -> int:
        """Bytes of the commands."""
        return sum(map(len, self.commands))


class InvalidEntry(Exception):  # noqa: N818 - names the state of bytes
    """An entry that this version did not write."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Run])


def encode_group(now_ms: int, runs: Sequence[Run]) -> bytes:
    """An entry of many commands, stamped with the leader's clock."""
    return _HEAD.pack(GROUP, now_ms) + _encoder.encode(runs)


def decode_group(entry: bytes) -> tuple[int, list[Run]] | None:
    """Clock and commands of an entry; None for one that holds no commands.

    Raises:
        InvalidEntry: when it is of no known type.
    """
    stamp = clock_of(entry)
    if stamp is None:
        return None
    try:
        return stamp, _decoder.decode(memoryview(entry)[_HEAD.size :])
    except msgspec.MsgspecError as error:
        raise InvalidEntry(f"the commands of an entry cannot be decoded: {error}") from error


def encode_level(level: int) -> bytes:
    """An entry by which the group rises to a level."""
    return _LEVEL.pack(LEVEL, level)


def decode_level(entry: bytes) -> int:
    """The level in an entry.

    Raises:
        InvalidEntry: when it holds none.
    """
    if len(entry) != _LEVEL.size or entry[0] != LEVEL:
        raise InvalidEntry(f"{len(entry)} bytes of type {entry[:1].hex()} are no level")
    return int(_LEVEL.unpack(entry)[1])


def clock_of(entry: bytes) -> int | None:
    """The leader's clock in an entry, in milliseconds; None for one that holds no commands.

    Raises:
        InvalidEntry: when it is of no known type.
    """
    if entry[:1] in _WITHOUT_CLOCK:
        return None
    if len(entry) < _HEAD.size or entry[0] != GROUP:
        raise InvalidEntry(f"an entry of unknown type {entry[:1].hex()}")
    return int(_HEAD.unpack_from(entry)[1])
