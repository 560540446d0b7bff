"""An API server without its doors: cache, handlers, authentication, and the objects that it keeps itself."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from random import Random

from cryptography.hazmat.primitives.asymmetric import ec

from kybern.api import resources
from kybern.api.resources import Registry
from kybern.client.store import StoreClient
from kybern.clock import Clock, SystemClock
from kybern.config.models import Cluster
from master.admission import chain
from master.apiserver.allocation import Allocator
from master.apiserver.cache.cacher import Cacher
from master.apiserver.event_leases import EventLeases
from master.apiserver.handlers import ApiHandlers
from master.apiserver.lookup import Lookup
from master.apiserver.machinery import Machinery
from master.apiserver.storage import Storage
from master.auth.authenticator import TokenAuthenticator
from master.auth.authorizer import Authorizer
from master.auth.tokens import TokenSigner


class ApiServer:
    """Use it as an asynchronous context: inside, its cache is being filled and followed.

    `handlers` and `authenticator` are what the doors need. Several servers may share one store.
    """

    def __init__(
        self,
        store: StoreClient,
        *,
        cluster: Cluster | None = None,
        signing_key: ec.EllipticCurvePrivateKey | None = None,
        clock: Clock | None = None,
        rng: Random | None = None,
        registry: Registry | None = None,
    ) -> None:
        self.cluster = cluster or Cluster()
        self.clock: Clock = clock or SystemClock()
        rng = rng or Random()  # noqa: S311 - names and free values, no secrets
        registry = registry or resources.built_in()
        self.storage = Storage(store)
        self.cacher = Cacher(self.storage, registry)
        lookup = Lookup(self.cacher, self.storage)
        issuer = f"https://kubernetes.default.svc.{self.cluster.domain}"
        signer = TokenSigner(signing_key or ec.generate_private_key(ec.SECP256R1()), issuer, self.clock)
        machinery = Machinery(
            registry=registry,
            storage=self.storage,
            cacher=self.cacher,
            lookup=lookup,
            authorizer=Authorizer(lookup),
            admission=chain.standard(lookup, self.cluster, rng),
            allocator=Allocator(self.cluster, rng),
            event_leases=EventLeases(store, self.cluster.event_ttl, self.clock),
            signer=signer,
            cluster=self.cluster,
            clock=self.clock,
            rng=rng,
        )
        self.handlers = ApiHandlers(machinery)
        self.authenticator = TokenAuthenticator(lookup, signer, self.clock)
        self._task: asyncio.Task[None] | None = None

    @property
    def registry(self) -> Registry:
        """What is served now."""
        return self.handlers.registry

    def ready(self) -> bool:
        """Whether requests can be answered: the cache has been filled."""
        return self.cacher.ready

    async def run(self) -> None:
        """Fill and follow the cache until cancelled; open watches end then."""
        try:
            await self.cacher.run()
        finally:
            self.cacher.stop()

    def synced(self) -> Awaitable[None]:
        """Wait until the cache has been filled."""
        return self.cacher.synced()

    async def __aenter__(self) -> ApiServer:
        self._task = asyncio.create_task(self.run(), name="api-server")
        await self.cacher.synced()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
