"""The components that lead: scheduler and controllers, on one master at a time, with the fence of their reign."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random

from kybern.client.controller import ControllerContext
from kybern.client.informer import Informers
from kybern.client.interface import Client
from kybern.client.leader import LeaderElector, Leadership
from kybern.clock import Clock
from kybern.config.models import Cluster
from kybern.key import Key
from master.controllers.main import run_controllers
from master.scheduler.main import run_scheduler

SCHEDULER, CONTROLLERS = "scheduler", "controllers"


def lease_of(components: Sequence[str]) -> Key:
    """The Lease that is held: one for both, or the scheduler's own when it runs without the controllers."""
    return Key("kube-system", "kybern-controllers" if CONTROLLERS in components else "kybern-scheduler")


class Leading:
    """Takes part in the election and runs the components during each reign."""

    def __init__(
        self,
        components: Sequence[str],
        identity: str,
        *,
        scheduler: Client,
        controllers: Client,
        cluster: Cluster,
        clock: Clock,
        ca_pem: bytes,
    ) -> None:
        self._components = components
        self._scheduler = scheduler
        self._controllers = controllers
        self._cluster = cluster
        self._clock = clock
        self._ca_pem = ca_pem
        elector = controllers if CONTROLLERS in components else scheduler
        self._elector = LeaderElector(elector, lease_of(components), identity, clock, duration=cluster.leader_lease)

    async def run(self) -> None:
        """Campaign and lead until cancelled."""
        await self._elector.run(self._lead)

    async def _lead(self, leadership: Leadership) -> None:
        # The controllers may read everything; the scheduler reads the same caches and writes in its own name.
        reader = self._controllers if CONTROLLERS in self._components else self._scheduler
        informers = Informers(reader)

        def context(client: Client) -> ControllerContext:
            return ControllerContext(
                client,
                informers,
                self._cluster,
                self._clock,
                Random(),  # noqa: S311 - jitter
                leadership.fence,
            )

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(informers.run(), name="informers")
            if CONTROLLERS in self._components:
                tasks.create_task(run_controllers(context(self._controllers), ca_pem=self._ca_pem), name=CONTROLLERS)
            if SCHEDULER in self._components:
                tasks.create_task(run_scheduler(context(self._scheduler)), name=SCHEDULER)
