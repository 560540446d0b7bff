"""The Kubernetes REST API over TLS: the door for kubectl, helm and client libraries."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable

from kybern.clock import Clock, SystemClock
from kybern.config.models import MasterConfig
from kybern.daemon import StartupError
from kybern.rpc.server import check_address
from kybern.tls import server_context
from master.apiserver.interface import Authenticator, Handlers
from master.rest.connection import HttpServer, Sessions
from master.rest.documents import ApiDocuments
from master.rest.forwards import Forwards
from master.rest.identity import Identifier
from master.rest.logs import Logs
from master.rest.nodes import NodeAgents
from master.rest.objects import Objects
from master.rest.router import Router
from master.rest.shells import Shells
from master.rest.watches import Watches

# Kubernetes' own bound; what is stored must be smaller still (the store's bound).
MOST_BODY = 3 * 1024 * 1024

_HANDSHAKE_SECONDS = 10.0
_KEEPALIVE_SECONDS = 180.0


class RestServer:
    """Serves `handlers` on `config.rest_address`. `ready` is what /readyz says."""

    def __init__(
        self,
        handlers: Handlers,
        authenticator: Authenticator,
        config: MasterConfig,
        ready: Callable[[], bool] = lambda: True,
        clock: Clock | None = None,
    ) -> None:
        self.address = config.rest_address
        self._config = config
        self._sessions = Sessions()
        clock = clock or SystemClock()
        self._nodes = NodeAgents(config.client_tls)
        shells = Shells(handlers, self._nodes, self._sessions)
        streams = {
            "log": Logs(handlers, self._nodes, self._sessions, clock).log,
            "exec": shells.exec,
            "attach": shells.attach,
            "portforward": Forwards(handlers, self._nodes, self._sessions).forward,
        }
        router = Router(
            handlers,
            Identifier(authenticator),
            Objects(handlers, clock),
            Watches(handlers, self._sessions, clock),
            ApiDocuments(lambda: handlers.registry, config.rest_address, clock),
            streams,
            self._sessions,
            ready,
            clock,
        )
        self._handle = router.handle
        self._http: HttpServer | None = None
        self._listener: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen and serve.

        Raises:
            StartupError: when the address cannot be listened on, or a file of the certificate cannot be used.
        """
        # A client certificate is asked for and need not be shown; one that is shown must be good.
        context = server_context(
            self._config.tls, verify=ssl.CERT_OPTIONAL, minimum=ssl.TLSVersion.TLSv1_2, protocols=["http/1.1"]
        )
        check_address(self.address)
        host, _, port = self.address.rpartition(":")
        self._http = HttpServer(self._handle, most_body=MOST_BODY, keepalive=_KEEPALIVE_SECONDS)
        loop = asyncio.get_running_loop()
        try:
            self._listener = await loop.create_server(
                self._http,
                host.strip("[]"),
                int(port),
                ssl=context,
                ssl_handshake_timeout=_HANDSHAKE_SECONDS,
                backlog=1024,
            )
        except OSError as error:
            raise StartupError(f"cannot listen on {self.address}: {error.strerror or error}", retry=True) from error

    async def stop(self, grace: float = 2.0) -> None:
        """Take no more connections, end watches and streams, and close what is open after `grace` seconds."""
        if self._listener is not None:
            self._listener.close()
        # Before the connections: a connection that is being closed takes in nothing more, not even a WebSocket's end.
        await self._sessions.stop(grace)
        if self._http is not None:
            await self._http.stop(grace)
        await self._nodes.close()
        if self._listener is not None:
            await self._listener.wait_closed()
