"""TLS of servers and clients out of a daemon's certificate files, which are read again when they were exchanged.

Certificates end after a year and are renewed before. A daemon that had to be restarted for that would be forgotten
once, and its cluster would end with the certificate. So whatever is made of the files is made anew for the next
connection once they have changed; connections that are there go on with what they began with, as TLS has it.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Generic, TypeVar

from cryptography import x509

from kybern.clock import Clock, SystemClock
from kybern.config.models import Tls
from kybern.daemon import StartupError
from kybern.pki import identity_of, load_certificates

log = logging.getLogger(__name__)

T = TypeVar("T")

# How long before its end a certificate is complained of, and how often.
_NEAR = timedelta(days=30)
_AGAIN = timedelta(days=1)

# Of each file: what an exchange of it changes. None for one that is not there.
Stamp = tuple[tuple[int, int, int] | None, ...]


def stamp(tls: Tls) -> Stamp:
    """What changes when one of the files is exchanged; cheap enough to ask for with each connection."""
    return tuple(_file_stamp(path) for path in (tls.cert, tls.key, tls.ca))


class Renewed(Generic[T]):
    """What `make` makes of certificate files, from files that can be used: the newest ones, or those before them.

    A certificate and its key are two files, so there is a moment in which they do not belong together; and an operator
    may put the wrong ones there. Neither ends a daemon that runs: it goes on with what it has, and says so. Another
    identity than before is not taken either, since to others that would be another daemon: that takes a restart.
    May be used by several threads.
    """

    def __init__(self, tls: Tls, make: Callable[[], T], clock: Clock | None = None) -> None:
        """Make it for the first time.

        Raises:
            StartupError: when a file cannot be read, or is not what it should be.
        """
        self._tls = tls
        self._make = make
        self._clock = clock or SystemClock()
        # Before the files are read: a change in between is then seen the next time.
        self._made_of = self._complained_of = stamp(tls)
        self._value = make()
        certificate = load_certificates(tls.cert)[0]
        self._identity = identity_of(certificate)
        self._until, self._near = _end(certificate)

    def get(self) -> T:
        """The newest that can be made now."""
        now = stamp(self._tls)
        if now != self._made_of:
            try:
                self._value = self._remade()
            except StartupError as error:
                if now != self._complained_of:
                    self._complained_of = now
                    log.warning("the certificate was not renewed, the one before is still used: %s", error)
            else:
                self._made_of = self._complained_of = now
        self._complain_of_its_end()
        return self._value

    def _remade(self) -> T:
        path = self._tls.cert
        certificate = load_certificates(path)[0]
        until = certificate.not_valid_after_utc
        if until <= self._clock.now():
            raise StartupError(f"that in {path} expired at {until:%Y-%m-%d %H:%M} UTC")
        if (identity := identity_of(certificate)) != self._identity:
            raise StartupError(
                f"that in {path} is of {identity.name!r} ({', '.join(identity.groups)}) now, not of "
                f"{self._identity.name!r} ({', '.join(self._identity.groups)}); restart the daemon if that is meant"
            )
        value = self._make()
        self._until, self._near = _end(certificate)
        log.info("the certificate in %s was renewed; it is good until %s UTC", path, f"{until:%Y-%m-%d %H:%M}")
        return value

    def _complain_of_its_end(self) -> None:
        if (now := self._clock.now()) < self._near:
            return
        self._near = now + _AGAIN
        log.warning(
            "the certificate in %s is good until %s UTC only; see `kybern certs renew --help`",
            self._tls.cert,
            f"{self._until:%Y-%m-%d %H:%M}",
        )


def server_context(
    tls: Tls,
    *,
    verify: ssl.VerifyMode = ssl.CERT_REQUIRED,
    minimum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    protocols: Sequence[str] = (),
    clock: Clock | None = None,
) -> ssl.SSLContext:
    """A server's context, good for as long as the server runs: each handshake has the newest certificate and authority.

    Raises:
        StartupError: when a file cannot be read, or is not what it should be.
    """

    def make() -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = minimum
        context.verify_mode = verify
        if protocols:
            context.set_alpn_protocols(list(protocols))
        _load(context, tls)
        return context

    renewed = Renewed(tls, make, clock)
    first = renewed.get()

    def choose(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        # OpenSSL asks in every handshake, also of a client that names no server.
        if (newest := renewed.get()) is not first:
            connection.context = newest

    # Of the one that the server was given; the others are never asked.
    first.sni_callback = choose
    return first


def client_context(tls: Tls) -> ssl.SSLContext:
    """The context of a client of another daemon, for one connection: TLS 1.3, and no look at the server's name.

    Raises:
        StartupError: when a file cannot be read or used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # The name in the certificate is that of a daemon, not of its host: the caller compares it.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    _load(context, tls)
    return context


def _load(context: ssl.SSLContext, tls: Tls) -> None:
    try:
        context.load_cert_chain(tls.cert, tls.key)
    except ssl.SSLError as error:
        raise StartupError(f"{tls.cert} and {tls.key} are not a certificate with its key: {error.reason}") from error
    except OSError as error:
        raise StartupError(f"cannot read {tls.cert} or {tls.key}: {error.strerror}") from error
    try:
        context.load_verify_locations(tls.ca)
    except ssl.SSLError as error:
        raise StartupError(f"{tls.ca} is not a PEM certificate: {error.reason}") from error
    except OSError as error:
        raise StartupError(f"cannot read {tls.ca}: {error.strerror}") from error


def _end(certificate: x509.Certificate) -> tuple[datetime, datetime]:
    """When a certificate ends, and from when on that is near: for one that lives for days only, not from its first."""
    until = certificate.not_valid_after_utc
    return until, until - min(_NEAR, (until - certificate.not_valid_before_utc) / 3)


def _file_stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
