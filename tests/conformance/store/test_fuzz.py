"""Random bytes, and certificates that are not a member's, on a member's client and peer ports: nothing crashes, and
nobody is told anything. Bounded: so many connections, none of which is waited for longer than a moment.
"""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from kybern.config.models import Tls
from kybern.pb.etcd import kv_pb2
from tests.conformance.store.group import Group
from tests.integration.store.serving import Certificates

CONNECTIONS = 150
# Fixed, so that a run that fails can be repeated.
SEED = 20261126

HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def noise(random_: random.Random) -> bytes:
    """Bytes that are nothing, or begin like something."""
    begin = random_.choice(
        [
            b"",
            HTTP2,
            HTTP2 + b"\0\0\0\4\0\0\0\0\0",
            b"GET / HTTP/1.1\r\n\r\n",
            # A TLS record that says it is longer than it is.
            b"\x16\x03\x01\xff\xff",
            # A frame of the peers' protocol: of no length, of more than is allowed, of a few bytes.
            b"\0\0\0\0",
            b"\xff\xff\xff\xff",
            b"\0\0\0\x10",
            # MessagePack: an array that says it has four thousand million items.
            b"\0\0\0\x05\xdd\xff\xff\xff\xff",
        ]
    )
    return begin + random_.randbytes(random_.choice([0, 1, 7, 64, 1000, 20_000]))


def send(connection: socket.socket, data: bytes, *, read: bool) -> bytes:
    """Send; what came back within a moment."""
    answer = b""
    with contextlib.suppress(OSError):
        connection.sendall(data)
        if read:
            answer = connection.recv(65536)
    return answer


def context(tls: Tls | None, ca: Path, *, h2: bool) -> ssl.SSLContext:
    """A client's side of TLS, with a certificate or without."""
    made = ssl.create_default_context(cafile=str(ca))
    made.check_hostname = False
    if tls is not None:
        made.load_cert_chain(tls.cert, tls.key)
    if h2:
        made.set_alpn_protocols(["h2"])
    return made


@pytest.fixture
def unharmed(group: Group, prefix: str) -> Iterator[None]:
    """The group serves afterwards, with the same processes, and has logged no traceback."""
    before = {name: process.pid for name, process in group.processes.items()}
    group.etcdctl("put", f"{prefix}before", "1")
    yield
    assert all(process.poll() is None for process in group.processes.values())
    assert {name: process.pid for name, process in group.processes.items()} == before
    for address in group.clients.values():
        assert group.etcdctl("get", f"{prefix}before", "--print-value-only", endpoints=[address]) == "1"
    assert group.etcdctl("put", f"{prefix}after", "1") == "OK"
    for name in group.processes:
        assert "Traceback" not in group.log(name)


def ports(group: Group) -> list[str]:
    """Both ports of a member."""
    config = group.configs["s2"]
    return [config.client_address, config.peer_address]


def connect(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=0.05)


@pytest.mark.usefixtures("unharmed")
def test_random_bytes_without_tls(group: Group) -> None:
    random_ = random.Random(SEED)
    for _ in range(CONNECTIONS):
        for address in ports(group):
            with connect(address) as connection:
                send(connection, noise(random_), read=random_.random() < 0.1)


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("who", ["member", "master"])
def test_random_bytes_within_tls(group: Group, who: str) -> None:
    """Also from one who may connect: a member of which nothing is right but the certificate."""
    random_ = random.Random(SEED + 1)
    tls = group.configs["s1"].tls if who == "member" else group.tls
    for address in ports(group):
        made = context(tls, tls.ca, h2=address == group.configs["s2"].client_address)
        for _ in range(CONNECTIONS // 3):
            with connect(address) as plain:
                plain.settimeout(5)
                with contextlib.suppress(OSError), made.wrap_socket(plain) as connection:
                    connection.settimeout(0.05)
                    send(connection, noise(random_), read=random_.random() < 0.2)


@pytest.mark.usefixtures("unharmed")
def test_random_messages_to_every_method(group: Group) -> None:
    """Well-formed calls with bodies that are not."""
    random_ = random.Random(SEED + 2)
    tls = group.tls
    credentials = grpc.ssl_channel_credentials(tls.ca.read_bytes(), tls.key.read_bytes(), tls.cert.read_bytes())
    methods = ["KV/Range", "KV/Put", "KV/Txn", "KV/DeleteRange", "Lease/LeaseGrant", "Maintenance/HashKV"]
    with grpc.secure_channel(group.configs["s2"].client_address, credentials) as channel:
        for _ in range(CONNECTIONS):
            method = random_.choice(methods)
            call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/etcdserverpb.{method}")
            # Most begin with a field that is none, so that they are refused before they are anything.
            body = random_.choice([b"\xff", b"\x0a\x7f", b"\x07", b"\x0a\xff\xff\xff\xff\x0f"]) + random_.randbytes(40)
            with pytest.raises(grpc.RpcError) as caught:
                call(body, timeout=5)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        for method in ("etcdserverpb.Watch/Watch", "kybern.v1.StorePipe/Pipe"):
            stream: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(f"/{method}")
            with pytest.raises(grpc.RpcError) as caught:
                next(stream(iter([b"\xff"]), timeout=5))
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def read_key(address: str, tls: Tls | None, ca: Path) -> grpc.StatusCode:
    """How a read ends."""
    key, cert = (tls.key.read_bytes(), tls.cert.read_bytes()) if tls is not None else (None, None)
    credentials = grpc.ssl_channel_credentials(ca.read_bytes(), key, cert)
    with grpc.secure_channel(address, credentials) as channel:
        call: grpc.UnaryUnaryMultiCallable[kv_pb2.RangeRequest, kv_pb2.RangeResponse] = channel.unary_unary(
            "/etcdserverpb.KV/Range",
            request_serializer=kv_pb2.RangeRequest.SerializeToString,
            response_deserializer=kv_pb2.RangeResponse.FromString,
        )
        try:
            call(kv_pb2.RangeRequest(key=b"a"), timeout=10)
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code
    return grpc.StatusCode.OK


Pick = Callable[[Group, Path], Tls | None]


def stranger(group: Group, folder: Path) -> Tls:
    """A member by name and group, of another authority."""
    folder.mkdir(exist_ok=True)
    return Certificates(folder).member("s1")


REFUSED: dict[str, tuple[Pick, grpc.StatusCode]] = {
    "no certificate": (lambda group, _: None, grpc.StatusCode.UNAVAILABLE),
    "another authority's": (stranger, grpc.StatusCode.UNAVAILABLE),
    "a node's": (
        lambda g, f: g.certificates.issue("system:node:n1", "system:nodes"),
        grpc.StatusCode.PERMISSION_DENIED,
    ),
    "an administrator's": (lambda g, f: g.certificates.issue("a", "system:masters"), grpc.StatusCode.PERMISSION_DENIED),
}


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("case", REFUSED)
def test_a_client_with_a_wrong_certificate_gets_nothing(group: Group, tmp_path: Path, case: str) -> None:
    pick, expected = REFUSED[case]
    tls = pick(group, tmp_path / "other")
    assert read_key(group.configs["s2"].client_address, tls, group.tls.ca) is expected
    assert read_key(group.configs["s2"].client_address, group.tls, group.tls.ca) is grpc.StatusCode.OK


PEERS: dict[str, Pick] = {
    "no certificate": lambda group, _: None,
    "another authority's": stranger,
    "a master's": lambda group, _: group.tls,
    "a node's": lambda group, _: group.certificates.issue("system:node:n1", "system:nodes"),
}


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("case", PEERS)
def test_a_peer_with_a_wrong_certificate_gets_nothing(group: Group, tmp_path: Path, case: str) -> None:
    tls = PEERS[case](group, tmp_path / "other")
    made = context(tls, group.tls.ca, h2=False)
    got = b""
    with connect(group.configs["s2"].peer_address) as plain:
        plain.settimeout(5)
        with contextlib.suppress(OSError), made.wrap_socket(plain) as connection:
            # It is closed, or says nothing.
            while data := send(connection, b"\0\0\0\1\xc0", read=True):
                got += data
    assert got == b""
