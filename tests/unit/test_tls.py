"""Certificate files that are exchanged while something made of them is in use."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import uvloop

from kybern import pki
from kybern.config.models import Tls
from kybern.daemon import StartupError
from kybern.tls import Renewed, client_context, server_context

HOST = "127.0.0.1"


class Files:
    """A daemon's certificate files, by whichever authority."""

    def __init__(self, folder: Path) -> None:
        self.tls = Tls(folder / "d.crt", folder / "d.key", folder / "ca.crt")
        self.first = pki.new_authority("first", pki.utc_now())
        self.second = pki.new_authority("second", pki.utc_now())
        self.trust(self.first)
        self.put(self.pair())

    def pair(
        self, by: pki.KeyPair | None = None, name: str = "d", group: str = "g", lifetime: timedelta = timedelta(days=1)
    ) -> pki.KeyPair:
        return pki.issue(
            by or self.first,
            pki.Identity(name, (group,)),
            pki.utc_now() - timedelta(hours=1),
            hosts=[HOST],
            server=True,
            lifetime=lifetime,
        )

    def put(self, pair: pki.KeyPair) -> pki.KeyPair:
        pair.write(self.tls.cert, self.tls.key)
        return pair

    def trust(self, *authorities: pki.KeyPair) -> None:
        self.tls.ca.write_bytes(b"".join(one.cert_pem for one in authorities))


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def readings(files: Files) -> Renewed[bytes]:
    """What is made of the files here is the certificate itself; it must fit its key."""

    def make() -> bytes:
        client_context(files.tls)
        return files.tls.cert.read_bytes()

    return Renewed(files.tls, make)


def test_nothing_is_made_again_while_the_files_stay(files: Files) -> None:
    renewed = Renewed(files.tls, object)
    assert renewed.get() is renewed.get()


def test_a_renewed_certificate_is_used(files: Files) -> None:
    renewed = readings(files)
    for _ in range(2):
        pair = files.put(files.pair())
        assert renewed.get() == pair.cert_pem


def test_an_exchange_that_is_half_done_is_waited_for(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    renewed = readings(files)
    before, pair = renewed.get(), files.pair()
    files.tls.key.write_bytes(pair.key_pem)
    for _ in range(3):
        assert renewed.get() == before
    assert [r.levelno for r in caplog.records] == [logging.WARNING]
    assert "are not a certificate with its key" in caplog.text
    files.tls.cert.write_bytes(pair.cert_pem)
    assert renewed.get() == pair.cert_pem


def test_what_cannot_be_used_is_not_taken(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    renewed = readings(files)
    before = renewed.get()
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: files.put(files.pair(name="other")), r"is of 'other' (g) now, not of 'd' (g)"),
        (lambda: files.put(files.pair(group="masters")), r"is of 'd' (masters) now, not of 'd' (g)"),
        (lambda: files.put(files.pair(lifetime=timedelta(minutes=1))), "expired at"),
        (lambda: files.tls.cert.write_bytes(b"?"), "is not a PEM certificate"),
        (files.tls.cert.unlink, "cannot read"),
        (lambda: files.put(files.pair(files.second, name="e")), "is of 'e'"),
    ]
    for spoil, words in cases:
        caplog.clear()
        spoil()
        assert renewed.get() == before
        assert words in caplog.text
    new = files.put(files.pair())
    files.tls.ca.write_bytes(b"?")
    assert renewed.get() == before
    files.tls.ca.unlink()
    assert renewed.get() == before
    files.trust(files.first)
    assert renewed.get() == new.cert_pem


class Calendar:
    """A clock that stands until it is set on."""

    def __init__(self) -> None:
        self.time = pki.utc_now()

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.time.timestamp()


def test_its_end_is_complained_of_once_a_day_until_it_is_renewed(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    calendar = Calendar()

    def complaints(renewed: Renewed[object], *, days: float) -> int:
        caplog.clear()
        calendar.time += timedelta(days=days)
        for _ in range(3):
            renewed.get()
        return sum("UTC only" in record.getMessage() for record in caplog.records)

    files.put(files.pair(lifetime=timedelta(days=365)))
    long = Renewed(files.tls, object, calendar)
    assert [complaints(long, days=days) for days in (0, 334, 2, 0, 1.1, 0.5)] == [0, 0, 1, 0, 1, 0]
    files.put(files.pair(lifetime=timedelta(days=2 * 365)))
    assert complaints(long, days=2) == 0
    # One that lives for days is not near its end from the first.
    calendar = Calendar()
    files.put(files.pair(lifetime=timedelta(days=3)))
    short = Renewed(files.tls, object, calendar)
    assert [complaints(short, days=days) for days in (0, 1.8, 0.3)] == [0, 0, 1]


def test_the_first_must_be_good(files: Files) -> None:
    files.tls.key.write_bytes(files.pair().key_pem)
    with pytest.raises(StartupError, match="are not a certificate with its key"):
        server_context(files.tls)


def test_each_handshake_has_the_newest_certificate_and_authority(files: Files, tmp_path: Path) -> None:
    clients = {}
    for name, authority in (("one", files.first), ("two", files.second)):
        folder = tmp_path / name
        tls = Tls(folder / "c.crt", folder / "c.key", folder / "ca.crt")
        files.pair(authority, "client").write(tls.cert, tls.key)
        tls.ca.write_bytes(files.first.cert_pem + files.second.cert_pem)
        clients[name] = tls

    async def run() -> None:
        async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"hello")
            writer.close()

        server = await asyncio.start_server(greet, HOST, 0, ssl=server_context(files.tls))
        port = server.sockets[0].getsockname()[1]

        async def shown(client: str, name: str = "") -> bytes:
            """The certificate that the server shows to a client, who may name a server; empty when it is refused."""
            try:
                reader, writer = await asyncio.open_connection(
                    HOST, port, ssl=client_context(clients[client]), server_hostname=name
                )
                try:
                    cert: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
                    return cert if await reader.read() == b"hello" else b""
                finally:
                    writer.close()
            except (ssl.SSLError, ConnectionError):
                return b""

        def is_shown(pair: pki.KeyPair) -> bytes:
            return ssl.PEM_cert_to_DER_cert(pair.cert_pem.decode())

        old = ssl.PEM_cert_to_DER_cert(files.tls.cert.read_text())
        assert (await shown("one"), await shown("one", "d.example"), await shown("two")) == (old, old, b"")
        new = files.put(files.pair())
        assert (await shown("one"), await shown("one", "d.example")) == (is_shown(new),) * 2
        # The authority is exchanged: first both are good, then the new one alone.
        files.trust(files.second, files.first)
        assert (await shown("one"), await shown("two")) == (is_shown(new),) * 2
        newest = files.put(files.pair(files.second))
        assert (await shown("one"), await shown("two")) == (is_shown(newest),) * 2
        files.trust(files.second)
        assert (await shown("one"), await shown("two")) == (b"", is_shown(newest))
        server.close()
        await server.wait_closed()

    # The loop of the daemons.
    uvloop.run(run())


def test_one_of_several_authorities_must_have_issued_a_daemons_certificate(files: Files) -> None:
    now = datetime.now(UTC)
    files.trust(files.second)
    with pytest.raises(StartupError, match="was not issued by the authority in"):
        pki.check_files(files.tls.cert, files.tls.key, files.tls.ca, now)
    files.trust(files.second, files.first)
    assert pki.check_files(files.tls.cert, files.tls.key, files.tls.ca, now) == pki.Identity("d", ("g",))
