"""Netlink: many requests in one message to the kernel, each answered by an acknowledgement.

pyroute2 knows the messages (how a link or a route is laid out). Sending them is done here: a pod is wired in two system
calls when its requests go out together, and a socket can be opened inside another network namespace without a child
process.

Everything blocks for the fraction of a millisecond that the kernel takes; call it in the thread that owns the socket.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pyroute2.netlink import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    NLM_F_REQUEST,
    nlmsg,
)

T = TypeVar("T")
M = TypeVar("M", bound=nlmsg)

CREATE = NLM_F_CREATE
EXCLUSIVE = NLM_F_CREATE | NLM_F_EXCL
REPLACE = NLM_F_CREATE | NLM_F_REPLACE

Attributes = Sequence[tuple[str, Any]]

_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_HEADER = struct.Struct("=IHHII")
_CLONE_NEWNET = 0x40000000
# A dump's answers and a batch's acknowledgements must fit (netlink(7): the kernel drops what does not).
_RECEIVE_BUFFER = 1 << 20
_READ = 1 << 18
# The kernel answers within the system call; an answer that takes longer was lost.
_TIMEOUT = 5.0


class NetlinkError(OSError):
    """The kernel refused a request; `errno` is its reason, `strerror` names what was asked for as well."""

    def __init__(self, code: int, what: str) -> None:
        super().__init__(code, f"{what}: {os.strerror(code)}")


@dataclass(frozen=True)
class Request:
    """One request. `ignore` lists error codes that mean that there was nothing to do."""

    what: str
    type: int
    message: nlmsg
    flags: int = 0
    ignore: frozenset[int] = frozenset()

    def encode(self, sequence: int, flags: int) -> bytes:
        """The bytes for the kernel."""
        header = self.message["header"]
        header["type"] = self.type
        header["flags"] = NLM_F_REQUEST | self.flags | flags
        header["sequence_number"] = sequence
        self.message.reset()
        self.message.encode()
        return bytes(self.message.data)


def message(kind: type[M], fields: Mapping[str, int], attributes: Attributes = ()) -> M:
    """A message of pyroute2 with its fixed fields and attributes set."""
    made = kind()
    made.update(fields)
    made["attrs"] = list(attributes)
    return made


def read(kind: type[M], data: bytes) -> M:
    """A message out of the bytes that `Netlink.dump` and `Netlink.get` return."""
    found = kind(data)
    found.decode()
    return found


class Netlink:
    """A socket of one netlink family, in the network namespace that the calling thread is in."""

    def __init__(self, family: int = socket.NETLINK_ROUTE) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
        self._socket.bind((0, 0))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        self._socket.settimeout(_TIMEOUT)
        self._sequence = 0

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def run(self, *requests: Request) -> None:
        """Send all requests at once; the kernel takes them in order and goes on after one that it refuses.

        Raises:
            NetlinkError: for the first refused request.
        """
        if not requests:
            return
        waiting: dict[int, Request] = {}
        data = bytearray()
        for request in requests:
            self._sequence += 1
            waiting[self._sequence] = request
            data += request.encode(self._sequence, NLM_F_ACK)
        self._socket.send(data)
        failed: NetlinkError | None = None
        while waiting:
            for kind, sequence, answer in self._receive():
                asked = waiting.pop(sequence, None) if kind == _NLMSG_ERROR else None
                code = _error(answer) if asked is not None else 0
                if asked is not None and code and code not in asked.ignore and failed is None:
                    failed = NetlinkError(code, asked.what)
        if failed is not None:
            raise failed

    def run_raw(self, what: str, encode: Callable[[int], bytes]) -> None:
        """Send one request that `encode` lays out for a sequence number, with NLM_F_ACK among its flags.

        Raises:
            NetlinkError: when the kernel refuses.
        """
        self._sequence += 1
        self._socket.send(encode(self._sequence))
        while True:
            for kind, sequence, answer in self._receive():
                if sequence == self._sequence and kind == _NLMSG_ERROR:
                    if code := _error(answer):
                        raise NetlinkError(code, what)
                    return

    def dump(self, request: Request) -> Iterator[bytes]:
        """Every object of the list that the request asks for; see `read`.

        Raises:
            NetlinkError: when the kernel refuses.
        """
        yield from self.dump_raw(request.what, lambda sequence: request.encode(sequence, NLM_F_DUMP))

    def dump_raw(self, what: str, encode: Callable[[int], bytes]) -> Iterator[bytes]:
        """As `dump`, of a request that `encode` lays out for a sequence number."""
        self._sequence += 1
        self._socket.send(encode(self._sequence))
        while True:
            for kind, sequence, answer in self._receive():
                if sequence != self._sequence:
                    continue
                if kind == _NLMSG_DONE:
                    return
                if kind == _NLMSG_ERROR:
                    raise NetlinkError(_error(answer), what)
                yield answer

    def get(self, request: Request) -> bytes:
        """The one object that the request asks for; see `read`.

        Raises:
            NetlinkError: when the kernel refuses, for example with ENODEV.
        """
        self._sequence += 1
        self._socket.send(request.encode(self._sequence, 0))
        while True:
            for kind, sequence, answer in self._receive():
                if sequence != self._sequence:
                    continue
                if kind == _NLMSG_ERROR:
                    raise NetlinkError(_error(answer), request.what)
                return answer

    def _receive(self) -> list[tuple[int, int, bytes]]:
        try:
            data = self._socket.recv(_READ)
        except TimeoutError:
            raise NetlinkError(errno.ETIMEDOUT, "waiting for the kernel's answer") from None
        messages = []
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, _, sequence, _ = _HEADER.unpack_from(data, offset)
            if length < _HEADER.size:
                break
            messages.append((kind, sequence, data[offset : offset + length]))
            offset += (length + 3) & ~3
        return messages


def in_namespace(namespace: int, work: Callable[[], T]) -> T:
    """What `work` returns when it runs in the network namespace of that file descriptor.

    setns(2) moves the calling thread alone. The thread is one of our own that ends there: nothing has to come back, and
    no process that has other threads is forked.

    Raises:
        OSError: when the namespace cannot be entered; whatever `work` raises.
    """
    results: list[T] = []
    errors: list[Exception] = []

    def enter() -> None:
        try:
            _enter(namespace)
            results.append(work())
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=enter, name="namespace", daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, _CLONE_NEWNET) != 0:
        raise NetlinkError(ctypes.get_errno(), "entering the network namespace")


def _error(answer: bytes) -> int:
    code: int = struct.unpack_from("=i", answer, _HEADER.size)[0]
    return -code


_libc = ctypes.CDLL(None, use_errno=True)
