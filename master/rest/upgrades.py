"""Leaving HTTP: which protocol a client asks for with `Upgrade`, and which of its subprotocols we speak."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from kybern.api.errors import StatusError, bad_request

WEBSOCKET, SPDY = "websocket", "spdy/3.1"
_SPDY_HEADER = "X-Stream-Protocol-Version"
# Messages of Kubernetes' clients have 32 KiB; the bound is for the rest of the world.
_MOST_MESSAGE = 4 * 1024 * 1024
# A client that answers no ping for this long is gone.
_HEARTBEAT_SECONDS = 30.0
# How long a client may take to answer the end of a WebSocket.
_CLOSE_SECONDS = 2.0


def wanted(request: web.BaseRequest) -> str:
    """WEBSOCKET or SPDY.

    Raises:
        StatusError: 400 when the client asks for neither.
    """
    upgrade = request.headers.get("Upgrade", "").strip().lower()
    connection = request.headers.get("Connection", "").lower()
    if upgrade not in (WEBSOCKET, SPDY) or "upgrade" not in connection:
        raise bad_request("Upgrade request required")
    return upgrade


def subprotocol(request: web.BaseRequest, upgrade: str, spoken: Sequence[str]) -> str:
    """The first of the client's subprotocols that is spoken here.

    Raises:
        StatusError: 403 when there is none, as Kubernetes has it.
    """
    name = "Sec-WebSocket-Protocol" if upgrade == WEBSOCKET else _SPDY_HEADER
    offered = [p.strip() for header in request.headers.getall(name, []) for p in header.split(",")]
    for protocol in offered:
        if protocol in spoken:
            return protocol
    message = f"unable to upgrade: the client offers {offered}, the server speaks {list(spoken)}"
    raise StatusError(403, "Forbidden", message)


async def open_websocket(request: web.BaseRequest, protocol: str) -> web.WebSocketResponse:
    """Accept a WebSocket with a subprotocol."""
    socket = web.WebSocketResponse(
        timeout=_CLOSE_SECONDS,
        protocols=(protocol,),
        compress=False,
        heartbeat=_HEARTBEAT_SECONDS,
        max_msg_size=_MOST_MESSAGE,
    )
    await socket.prepare(request)
    return socket


def spdy_headers(protocol: str) -> dict[str, str]:
    """What the answer to an upgrade to SPDY says beside the upgrade."""
    return {_SPDY_HEADER: protocol}
