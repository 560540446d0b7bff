"""SPDY/3.1 frames: bytes to frames and back. No flow control: Kubernetes' clients send no window updates.

A control frame is a bit that is set, version 3, a type, flags and a length; a data frame is a stream's number, flags
and a length. Headers are compressed by one zlib stream per direction, primed with the protocol's dictionary.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

FLAG_FIN = 1

# A length has 24 bits; nobody who speaks to us needs more than this.
MOST_FRAME = 1 << 20
_MOST_HEADERS = 64 * 1024

_WORDS = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow "
    "authorization cache-control connection content-base content-encoding content-language content-length "
    "content-location content-md5 content-range content-type date etag expect expires from host if-match "
    "if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma "
    "proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade "
    "user-agent vary via warning www-authenticate method get status 200~OK version HTTP/1.1 url public set-cookie "
    "keep-alive origin"
)
_TAIL = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized"
    "403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,"
    "text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)


def _dictionary() -> bytes:
    words = [word.replace("~", " ").encode() for word in _WORDS.split(" ")]
    return b"".join(struct.pack(">I", len(w)) + w for w in words) + _TAIL.encode()


DICTIONARY = _dictionary()


class SpdyError(Exception):
    """The other side does not speak SPDY/3.1."""


@dataclass(frozen=True, slots=True)
class SynStream:
    """The other side opens a stream."""

    stream: int
    headers: Mapping[str, str]
    fin: bool = False


@dataclass(frozen=True, slots=True)
class SynReply:
    """The other side took a stream of ours."""

    stream: int
    headers: Mapping[str, str] = field(default_factory=dict)
    fin: bool = False


@dataclass(frozen=True, slots=True)
class Headers:
    """More headers of an open stream."""

    stream: int
    headers: Mapping[str, str]
    fin: bool = False


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes of a stream; `fin` says that there are no more."""

    stream: int
    data: bytes
    fin: bool = False


@dataclass(frozen=True, slots=True)
class RstStream:
    """A stream ends at once, in both directions."""

    stream: int
    status: int


@dataclass(frozen=True, slots=True)
class Ping:
    """To be sent back as it is."""

    number: int


@dataclass(frozen=True, slots=True)
class GoAway:
    """No more streams will be opened."""

    last: int


Frame = SynStream | SynReply | Headers | Data | RstStream | Ping | GoAway

_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _PING, _GOAWAY, _HEADERS = 1, 2, 3, 6, 7, 8
_CONTROL = 0x8003


class Decoder:
    """Cuts what arrives into frames. SETTINGS, WINDOW_UPDATE and types that it does not know it passes over."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are complete with `data`.

        Raises:
            SpdyError: when the bytes are not SPDY/3.1.
        """
        self._buffer += data
        buffer = self._buffer
        while len(buffer) >= 8:
            first, flags_and_length = struct.unpack_from(">II", buffer)
            flags, length = flags_and_length >> 24, flags_and_length & 0xFFFFFF
            if length > MOST_FRAME:
                raise SpdyError(f"a frame of {length} bytes is too long")
            if first >> 31 and first >> 16 != _CONTROL:
                raise SpdyError("a control frame is not of version 3")
            if len(buffer) < 8 + length:
                return
            body = bytes(buffer[8 : 8 + length])
            del buffer[: 8 + length]
            if not first >> 31:
                yield Data(first, body, bool(flags & FLAG_FIN))
            elif (frame := self._control(first & 0xFFFF, flags, body)) is not None:
                yield frame

    def _control(self, kind: int, flags: int, body: bytes) -> Frame | None:
        fin = bool(flags & FLAG_FIN)
        try:
            match kind:
                case 1:
                    return SynStream(_number(body), self._headers(body[10:]), fin)
                case 2:
                    return SynReply(_number(body), self._headers(body[4:]), fin)
                case 3:
                    return RstStream(_number(body), _number(body, 4))
                case 6:
                    return Ping(struct.unpack_from(">I", body)[0])
                case 7:
                    return GoAway(_number(body))
                case 8:
                    return Headers(_number(body), self._headers(body[4:]), fin)
        except struct.error:
            raise SpdyError(f"a control frame of type {kind} is too short") from None
        return None

    def _headers(self, block: bytes) -> dict[str, str]:
        try:
            plain = self._inflate.decompress(block, _MOST_HEADERS)
        except zlib.error as error:
            raise SpdyError(f"headers cannot be decompressed: {error}") from None
        if self._inflate.unconsumed_tail:
            raise SpdyError("headers are too long")
        (count,) = struct.unpack_from(">I", plain)
        at, headers = 4, {}
        for _ in range(count):
            name, at = _text(plain, at)
            value, at = _text(plain, at)
            headers[name.lower()] = value
        return headers


class Encoder:
    """Makes the bytes of frames."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(zdict=DICTIONARY)

    def syn_stream(self, stream: int, headers: Mapping[str, str], *, fin: bool = False) -> bytes:
        """Open a stream."""
        return _frame(_SYN_STREAM, struct.pack(">IIH", stream, 0, 0) + self._headers(headers), fin)

    def syn_reply(self, stream: int, headers: Mapping[str, str] | None = None) -> bytes:
        """Take a stream that the other side has opened."""
        return _frame(_SYN_REPLY, struct.pack(">I", stream) + self._headers(headers or {}))

    def data(self, stream: int, data: bytes, *, fin: bool = False) -> bytes:
        """Bytes of a stream."""
        return struct.pack(">II", stream, (FLAG_FIN if fin else 0) << 24 | len(data)) + data

    def rst_stream(self, stream: int, status: int) -> bytes:
        """End a stream at once."""
        return _frame(_RST_STREAM, struct.pack(">II", stream, status))

    def ping(self, number: int) -> bytes:
        """Answer a ping, or send one."""
        return _frame(_PING, struct.pack(">I", number))

    def go_away(self, last: int) -> bytes:
        """Say that no more streams are taken."""
        return _frame(_GOAWAY, struct.pack(">II", last, 0))

    def _headers(self, headers: Mapping[str, str]) -> bytes:
        parts = [struct.pack(">I", len(headers))]
        for name, value in headers.items():
            for text in (name.lower().encode(), value.encode()):
                parts += (struct.pack(">I", len(text)), text)
        return self._deflate.compress(b"".join(parts)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)


def _frame(kind: int, body: bytes, fin: bool = False) -> bytes:
    return struct.pack(">HHI", _CONTROL, kind, (FLAG_FIN if fin else 0) << 24 | len(body)) + body


def _number(body: bytes, at: int = 0) -> int:
    """A number of 31 bits."""
    number: int = struct.unpack_from(">I", body, at)[0]
    return number & 0x7FFFFFFF


def _text(plain: bytes, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from(">I", plain, at)
    end = at + 4 + length
    if end > len(plain):
        raise SpdyError("a header is cut off")
    return plain[at + 4 : end].decode("utf-8", "replace"), end
