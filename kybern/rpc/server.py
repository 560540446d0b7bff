"""What every gRPC server of Kybern has: mTLS, health, reflection, bounded messages, and an address of its own."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from typing import Any

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from kybern.config.models import Tls
from kybern.daemon import StartupError
from kybern.rpc.admission import Admit, GenericServices
from kybern.rpc.credentials import KEEPALIVE_OPTIONS, server_credentials
from kybern.rpc.gone import expect_clients_to_go

HANDSHAKE_SECONDS = 10


class RpcServer:
    """A grpc.aio server with health and reflection; add servicers to `services` or handlers to `grpc`, then `start`."""

    def __init__(
        self,
        address: str,
        tls: Tls,
        services: Sequence[str],
        *,
        max_message: int = 4 * 1024 * 1024,
        options: Sequence[tuple[str, Any]] = (),
        admit: Admit | None = None,
    ) -> None:
        """`admit` is asked before health and reflection answer; a server's own services see to themselves."""
        self.address = address
        self._tls = tls
        self._services = services
        expect_clients_to_go()
        self.grpc = grpc.aio.server(
            options=[
                *KEEPALIVE_OPTIONS,
                ("grpc.max_receive_message_length", max_message),
                # Two servers on one port must be an error, not a lottery.
                ("grpc.so_reuseport", 0),
                # Who has shown no certificate by then gets no descriptor any longer; gRPC's default is two minutes.
                ("grpc.server_handshake_timeout_ms", HANDSHAKE_SECONDS * 1000),
                *options,
            ],
        )
        self._health = health.aio.HealthServicer()
        names = (*services, health.SERVICE_NAME, reflection.SERVICE_NAME)
        admitted: Any = GenericServices(self.grpc, admit)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, admitted)
        add_reflection: Any = reflection_pb2_grpc.add_ServerReflectionServicer_to_server
        add_reflection(reflection.aio.ReflectionServicer(names), admitted)
        # What generated code adds servicers to.
        self.services: Any = GenericServices(self.grpc, None)

    async def start(self) -> None:
        """Listen and serve.

        Raises:
            StartupError: when the address cannot be listened on, or a file of the certificate cannot be read.
        """
        check_address(self.address)
        try:
            port = self.grpc.add_secure_port(self.address, server_credentials(self._tls))
        except RuntimeError as error:
            raise StartupError(f"cannot listen on {self.address}: {error}", retry=True) from error
        if port == 0:
            raise StartupError(f"cannot listen on {self.address}", retry=True)
        await self.grpc.start()

    async def serving(self, serving: bool) -> None:
        """Set the health of the server and of every service of it."""
        value = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", *self._services):
            await self._health.set(name, value)

    async def stop(self, grace: float = 1.0) -> None:
        """Refuse new calls, and end the open ones after `grace` seconds."""
        await self._health.enter_graceful_shutdown()
        await self.grpc.stop(grace)


def check_address(address: str) -> None:
    """Say clearly why an address cannot be listened on: gRPC's own error does not name the reason.

    Raises:
        StartupError: when the port is taken, the address is not this host's, or is not an address.
    """
    host, _, port = address.rpartition(":")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host.strip("[]"), int(port)))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            text = f"cannot listen on {address}: the port is taken by another process (ss -ltnp shows which)"
            raise StartupError(text, retry=True) from error
        raise StartupError(f"cannot listen on {address}: {error.strerror or error}", retry=True) from error
    except (ValueError, OverflowError) as error:
        raise StartupError(f"{address!r} is not an address of the form host:port") from error
