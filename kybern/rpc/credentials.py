"""mTLS for gRPC: server and channel credentials from a daemon's files, and who the peer is."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import grpc
import grpc.aio

from kybern.config.models import Tls
from kybern.daemon import StartupError
from kybern.pki import Identity, identity_of_pem
from kybern.tls import Renewed, client_context

# Detect a peer that is cut off or stopped: its kernel may still acknowledge, so HTTP/2 pings must be answered.
KEEPALIVE_OPTIONS: list[tuple[str, int]] = [
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    # What gRPC's core really goes by for pings; its default is a minute.
    ("grpc.http2.ping_timeout_ms", 3_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # A server must allow what its clients do, or it ends their connections with ENHANCE_YOUR_CALM.
    ("grpc.http2.min_ping_interval_without_data_ms", 2_000),
    ("grpc.http2.max_ping_strikes", 0),
]
# A peer that comes back must be tried again soon; gRPC's own default waits up to two minutes.
RECONNECT_OPTIONS: list[tuple[str, int]] = [
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
]


def server_credentials(tls: Tls) -> grpc.ServerCredentials:
    """Credentials of a server that demands a certificate of its authority from every client.

    They are read again when the files were exchanged: `kybern.tls.Renewed`.

    Raises:
        StartupError: when a file cannot be read, or is not what it should be.
    """

    def make() -> grpc.ServerCertificateConfiguration:
        # gRPC takes everything here and complains in each handshake.
        client_context(tls)
        key, cert, ca = _read(tls)
        return grpc.ssl_server_certificate_configuration([(key, cert)], root_certificates=ca)

    renewed = Renewed(tls, make)
    given = renewed.get()

    def newer() -> grpc.ServerCertificateConfiguration | None:
        """Asked before each handshake, by one of gRPC's threads; None: as before."""
        nonlocal given
        newest = renewed.get()
        if newest is given:
            return None
        given = newest
        return newest

    return grpc.dynamic_ssl_server_credentials(
        given,
        newer,  # type: ignore[arg-type] # the stubs do not know that None is an answer
        require_client_authentication=True,
    )


def channel_credentials(tls: Tls) -> grpc.ChannelCredentials:
    """Credentials of a client that shows its certificate and accepts servers of its authority alone.

    Raises:
        StartupError: when a file cannot be read.
    """
    key, cert, ca = _read(tls)
    return grpc.ssl_channel_credentials(root_certificates=ca, private_key=key, certificate_chain=cert)


def open_channel(address: str, tls: Tls, options: list[tuple[str, Any]] | None = None) -> grpc.aio.Channel:
    """A channel to `address` with mTLS, keep-alive and quick reconnection; `options` win over those.

    Raises:
        StartupError: when a file of `tls` cannot be read.
    """
    merged: dict[str, Any] = dict([*KEEPALIVE_OPTIONS, *RECONNECT_OPTIONS, *(options or [])])
    return grpc.aio.secure_channel(address, channel_credentials(tls), options=list(merged.items()))


def peer_identity(context: grpc.aio.ServicerContext[Any, Any]) -> Identity:
    """User and groups of the certificate that the client of this call showed; empty without one."""
    pem = next(iter(context.auth_context().get("x509_pem_cert", ())), b"")
    return _identity(bytes(pem)) if pem else Identity("")


@lru_cache(maxsize=1024)
def _identity(pem: bytes) -> Identity:
    return identity_of_pem(pem)


def _read(tls: Tls) -> tuple[bytes, bytes, bytes]:
    try:
        return tls.key.read_bytes(), tls.cert.read_bytes(), tls.ca.read_bytes()
    except OSError as error:
        raise StartupError(f"cannot read {error.filename}: {error.strerror}") from error
