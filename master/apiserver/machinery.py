"""What all handlers of one API server share."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from kybern.api import errors
from kybern.api.resources import Registry
from kybern.clock import Clock
from kybern.config.models import Cluster
from master.admission.chain import Chain
from master.apiserver.allocation import Allocator
from master.apiserver.cache.cacher import Cacher
from master.apiserver.cache.selection import Selection
from master.apiserver.event_leases import EventLeases
from master.apiserver.interface import Target, User
from master.apiserver.lookup import Lookup
from master.apiserver.storage import Storage
from master.auth.authorizer import Authorizer
from master.auth.request import Access
from master.auth.tokens import TokenSigner


@dataclass(frozen=True)
class Machinery:
    """Parts that handlers are made of."""

    registry: Registry
    storage: Storage
    cacher: Cacher
    lookup: Lookup
    authorizer: Authorizer
    admission: Chain
    allocator: Allocator
    event_leases: EventLeases
    signer: TokenSigner
    cluster: Cluster
    clock: Clock
    rng: Random

    async def authorize(self, user: User, verb: str, target: Target, selection: Selection | None = None) -> None:
        """Check that the resource can do that, and that the user may.

        Raises:
            StatusError: 403, 404 (no such subresource) or 405.
        """
        name, node = "", ""
        if selection is not None:
            name = selection.exact("metadata.name") or ""
            node = selection.exact("spec.nodeName") or ""
        access = Access(user, verb, target.resource, target.namespace, target.name, target.subresource, name, node)
        await self.authorizer.check(access)
        _supported(verb, target)


def _supported(verb: str, target: Target) -> None:
    resource = target.resource
    if not target.subresource:
        if verb not in resource.verbs:
            raise errors.method_not_allowed(verb, resource.plural, resource.group)
        return
    subresource = resource.subresource(target.subresource)
    if subresource is None:
        raise errors.no_such_path()
    if verb not in subresource.verbs:
        raise errors.method_not_allowed(verb, f"{resource.plural}/{subresource.name}", resource.group)
