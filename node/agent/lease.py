"""The node's sign of life: a Lease that is renewed, whatever else happens."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from kybern.api import resources
from kybern.api.errors import Reason, StatusError
from kybern.client.interface import Client, WriteOptions
from kybern.clock import Clock, rfc3339_micro
from kybern.config.models import NodeConfig

log = logging.getLogger(__name__)

NAMESPACE = "kube-node-lease"
_OPTIONS = WriteOptions(field_manager="kybern-node")


class NodeLease:
    """Renews the Lease every `cluster.node_lease_interval`; `uid` gives the Node's, once it is known."""

    def __init__(self, config: NodeConfig, client: Client, clock: Clock, uid: Callable[[], str]) -> None:
        self._config = config
        self._client = client
        self._clock = clock
        self._uid = uid
        self._failing = False

    async def run(self) -> None:
        """Renew until cancelled."""
        interval = self._config.cluster.node_lease_interval
        while True:
            begun = self._clock.monotonic()
            try:
                # A master that hangs must not cost the next renewal, which may go to another one.
                async with asyncio.timeout(interval):
                    await self._renew()
                if self._failing:
                    log.info("the node's lease is renewed again")
                self._failing = False
                wait = interval - (self._clock.monotonic() - begun)
            except (StatusError, TimeoutError) as error:
                if not self._failing:
                    log.warning("the node's lease could not be renewed: %s", str(error) or "no answer in time")
                self._failing = True
                wait = min(1.0, interval / 2)
            await asyncio.sleep(max(0.05, wait))

    async def _renew(self) -> None:
        name = self._config.name
        spec = {
            "holderIdentity": name,
            "leaseDurationSeconds": max(1, round(self._config.cluster.node_grace_period)),
            "renewTime": rfc3339_micro(self._clock.now()),
        }
        try:
            await self._client.patch(resources.LEASES, name, {"spec": spec}, NAMESPACE, options=_OPTIONS)
        except StatusError as error:
            if error.reason != Reason.NOT_FOUND:
                raise
            await self._create(name, spec)

    async def _create(self, name: str, spec: dict[str, object]) -> None:
        metadata: dict[str, object] = {"name": name, "namespace": NAMESPACE}
        if uid := self._uid():
            metadata["ownerReferences"] = [{"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid}]
        lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
        await self._client.create(resources.LEASES, lease, NAMESPACE, options=_OPTIONS)
