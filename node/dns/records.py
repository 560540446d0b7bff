"""Names and records of the cluster's zone, apart from their form on the wire."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address
from typing import NamedTuple

# Seconds that clients may keep an answer. Short: an endpoint that is gone should not be asked for long. It is also how
# long "there is no such name" is believed (the SOA's minimum).
TTL = 5

# Version of the Kubernetes DNS specification that the zone follows; answered as TXT of dns-version.
SCHEMA_VERSION = "1.1.0"


class Type(IntEnum):
    """Types of records (RFC 1035, 2782, 3596, 6891)."""

    A = 1
    NS = 2
    CNAME = 5
    SOA = 6
    PTR = 12
    TXT = 16
    AAAA = 28
    SRV = 33
    OPT = 41
    ANY = 255


class Rcode(IntEnum):
    """Results of a query (RFC 1035, RFC 6891)."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5
    BADVERS = 16


Labels = tuple[str, ...]


class Srv(NamedTuple):
    """Data of an SRV record."""

    port: int
    target: Labels
    weight: int = 100
    priority: int = 0


class Record(NamedTuple):
    """One record; `data` is an address, a name, an SRV's data or (TXT) a text."""

    name: Labels
    type: Type
    data: IPv4Address | Labels | Srv | str


@dataclass(frozen=True)
class Answer:
    """What the zone says to a question.

    `alias` is the name outside of the zone's Service that the question continues with (ExternalName). `tags` name what
    the answer was made from; when one of them changes the answer is to be forgotten.
    """

    rcode: Rcode = Rcode.NOERROR
    answers: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()
    alias: Labels | None = None
    tags: frozenset[str] = frozenset()


def labels_of(name: str) -> Labels:
    """The labels of a name in dots, in lower case."""
    return tuple(name.strip(".").lower().split(".")) if name.strip(".") else ()


def reverse_address(labels: Labels) -> IPv4Address | None:
    """The address that a name under in-addr.arpa stands for; None for any other name."""
    if len(labels) != 6 or labels[4:] != ("in-addr", "arpa"):
        return None
    return _address(reversed(labels[:4]))


def dashed(address: str) -> str:
    """`10-244-1-5`: how endpoints and pods without a name of their own are called."""
    return address.replace(".", "-")


def undashed(label: str) -> IPv4Address | None:
    """The address in a label such as `10-244-1-5`; None when it is none."""
    return _address(label.split("-"))


def _address(parts: Iterable[str]) -> IPv4Address | None:
    try:
        return IPv4Address(".".join(parts))
    except ValueError:
        return None
