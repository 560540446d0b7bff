"""Only the names that Kybern uses."""

from collections.abc import Sequence
from typing import Any

class DNSError(Exception): ...

class DNSLabel:
    label: tuple[bytes, ...]
    def __init__(self, label: str | Sequence[bytes]) -> None: ...

class DNSHeader:
    id: int
    rcode: int
    qr: int
    aa: int
    tc: int
    rd: int
    ra: int
    def __init__(
        self,
        id: int | None = ...,
        bitmap: int | None = ...,
        q: int = ...,
        a: int = ...,
        auth: int = ...,
        ar: int = ...,
        **args: int,
    ) -> None: ...

class DNSQuestion:
    qname: DNSLabel
    qtype: int
    qclass: int
    def __init__(self, qname: DNSLabel | str | None = ..., qtype: int = ..., qclass: int = ...) -> None: ...

class RD: ...

class A(RD):
    def __init__(self, data: str | tuple[int, ...]) -> None: ...

class CNAME(RD):
    label: DNSLabel
    def __init__(self, label: DNSLabel | str | None = ...) -> None: ...

class NS(CNAME): ...
class PTR(CNAME): ...

class SRV(RD):
    target: DNSLabel
    port: int
    def __init__(
        self, priority: int = ..., weight: int = ..., port: int = ..., target: DNSLabel | str | None = ...
    ) -> None: ...

class TXT(RD):
    def __init__(self, data: str | bytes | Sequence[bytes]) -> None: ...

class SOA(RD):
    def __init__(
        self, mname: DNSLabel | str | None = ..., rname: DNSLabel | str | None = ..., times: Sequence[int] | None = ...
    ) -> None: ...

class RR:
    rname: DNSLabel
    rtype: int
    rclass: int
    ttl: int
    rdata: Any
    def __init__(
        self, rname: DNSLabel | str | None = ..., rtype: int = ..., rclass: int = ..., ttl: int = ..., rdata: Any = ...
    ) -> None: ...

class EDNS0(RR):
    def __init__(
        self,
        rname: DNSLabel | str | None = ...,
        rtype: int = ...,
        ext_rcode: int = ...,
        version: int = ...,
        flags: str = ...,
        udp_len: int = ...,
        opts: Sequence[Any] | None = ...,
    ) -> None: ...

class DNSRecord:
    header: DNSHeader
    questions: list[DNSQuestion]
    q: DNSQuestion
    rr: list[RR]
    auth: list[RR]
    ar: list[RR]
    def __init__(
        self,
        header: DNSHeader | None = ...,
        questions: list[DNSQuestion] | None = ...,
        rr: list[RR] | None = ...,
        q: DNSQuestion | None = ...,
        a: RR | None = ...,
        auth: list[RR] | None = ...,
        ar: list[RR] | None = ...,
    ) -> None: ...
    @classmethod
    def parse(cls, packet: bytes) -> DNSRecord: ...
    @classmethod
    def question(cls, qname: str, qtype: str = ..., qclass: str = ...) -> DNSRecord: ...
    def reply(self, ra: int = ..., aa: int = ...) -> DNSRecord: ...
    def pack(self) -> bytearray: ...
    def add_answer(self, *rr: RR) -> None: ...
    def add_auth(self, *auth: RR) -> None: ...
    def add_ar(self, *ar: RR) -> None: ...
