"""Who a client is: by its certificate, or by a service account token."""

from __future__ import annotations

from functools import lru_cache

from kybern.api import errors, resources
from kybern.clock import Clock
from kybern.pki import identity_of_der
from master.apiserver.entry import Document
from master.apiserver.interface import ANONYMOUS, User
from master.apiserver.lookup import Lookup
from master.auth import users
from master.auth.tokens import Bound, InvalidTokenError, Subject, TokenSigner

# Signatures that were checked a moment ago are not checked again; what they are bound to is.
_REMEMBERED = 4096


class TokenAuthenticator:
    """Implements `Authenticator` of the interface."""

    def __init__(self, lookup: Lookup, signer: TokenSigner, clock: Clock) -> None:
        self._lookup = lookup
        self._clock = clock
        # Failures raise and are therefore not kept.
        self._read = lru_cache(maxsize=_REMEMBERED)(signer.read)

    def certificate(self, der: bytes) -> User:
        """The user of a client certificate that TLS has verified already."""
        try:
            return users.of_identity(identity_of_der(der))
        except ValueError:
            return ANONYMOUS

    async def token(self, token: str) -> User:
        """The user of a bearer token.

        Raises:
            StatusError: 401 when it is not valid (any more).
        """
        try:
            subject, ends = self._read(token)
        except InvalidTokenError as error:
            raise errors.unauthorized() from error
        if ends <= self._clock.now().timestamp():
            raise errors.unauthorized()
        await self._still_there(subject)
        return users.of_account(subject.namespace, subject.account.name, subject.account.uid)

    async def _still_there(self, subject: Subject) -> None:
        """Refuse tokens whose account, or the object that they are bound to, is gone."""
        namespace = subject.namespace
        checks = (
            (resources.SERVICE_ACCOUNTS, namespace, subject.account),
            (resources.PODS, namespace, subject.pod),
            (resources.SECRETS, namespace, subject.secret),
        )
        for resource, where, bound in checks:
            if bound is None:
                continue
            found = await self._lookup.get(resource, where, bound.name)
            if found is None or not _is(found.document(), bound):
                # The cache may hold the predecessor of the same name.
                found = await self._lookup.fresh(resource, where, bound.name)
            if found is None or not _is(found.document(), bound):
                raise errors.unauthorized()


def _is(document: Document, bound: Bound) -> bool:
    return bool(document["metadata"].get("uid") == bound.uid)
