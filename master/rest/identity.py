"""Who makes a request: a client certificate, else a bearer token, else nobody."""

from __future__ import annotations

from aiohttp import web

from kybern.api.errors import unauthorized
from master.apiserver.interface import ANONYMOUS, Authenticator, User

_MOST_REMEMBERED = 4096


class Identifier:
    """Asks the authenticator, and remembers what certificates say: they do not change."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator
        self._known: dict[bytes, User] = {}

    async def user(self, request: web.BaseRequest) -> User:
        """The user of a request; ANONYMOUS when it shows nothing.

        Raises:
            StatusError: 401 when what it shows is not valid.
        """
        transport = request.transport
        tls = transport.get_extra_info("ssl_object") if transport is not None else None
        der = tls.getpeercert(True) if tls is not None else None
        if der:
            return self._known.get(der) or self._remember(der)
        header = request.headers.get("Authorization")
        if not header:
            return ANONYMOUS
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise unauthorized()
        return await self._authenticator.token(token.strip())

    def _remember(self, der: bytes) -> User:
        if len(self._known) >= _MOST_REMEMBERED:
            self._known.clear()
        user = self._known[der] = self._authenticator.certificate(der)
        return user
