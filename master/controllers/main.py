"""All controllers of a cluster: the table of them, and how they are run.

A new controller is a class and a row here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from kybern.api import resources
from kybern.api.resources import Resource
from kybern.backoff import Backoff
from kybern.client.controller import Controller, ControllerContext
from master.controllers.deployments.controller import DeploymentController
from master.controllers.endpoints.legacy import EndpointsController
from master.controllers.endpoints.slices import EndpointSliceController
from master.controllers.garbage.collector import GarbageCollector
from master.controllers.namespaces import NamespaceController
from master.controllers.nodes.eviction import TaintEvictionController
from master.controllers.nodes.lifecycle import NodeLifecycleController
from master.controllers.pod_gc import PodGarbageCollector
from master.controllers.replicasets import ReplicaSetController
from master.controllers.root_ca import RootCaPublisher
from master.controllers.service_accounts import ServiceAccountController

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Settings:
    """What single controllers need to know. `ca_pem`: what pods verify the API server by; `served`: every resource."""

    ca_pem: bytes
    served: tuple[Resource, ...]


Maker = Callable[[ControllerContext, Settings], Controller]

TABLE: tuple[Maker, ...] = (
    lambda context, _: DeploymentController(context),
    lambda context, _: ReplicaSetController(context),
    lambda context, _: EndpointSliceController(context),
    lambda context, _: EndpointsController(context),
    lambda context, _: NodeLifecycleController(context),
    lambda context, _: TaintEvictionController(context),
    lambda context, _: PodGarbageCollector(context),
    lambda context, settings: NamespaceController(context, settings.served),
    lambda context, settings: GarbageCollector(context, settings.served),
    lambda context, _: ServiceAccountController(context),
    lambda context, settings: RootCaPublisher(context, settings.ca_pem),
)


async def run_controllers(
    context: ControllerContext,
    *,
    ca_pem: bytes,
    served: Iterable[Resource] = resources.BUILT_IN,
    table: Iterable[Maker] = TABLE,
) -> None:
    """Run every controller until cancelled; the caller runs `context.informers`."""
    settings = Settings(ca_pem, tuple(served))
    made = [(make, make(context, settings)) for make in table]
    async with asyncio.TaskGroup() as tasks:
        for make, controller in made:
            tasks.create_task(_keep_running(make, controller, context, settings), name=controller.name)


async def _keep_running(make: Maker, controller: Controller, context: ControllerContext, settings: Settings) -> None:
    """A controller that fails is made anew after a while; the others do not notice."""
    backoff = Backoff(base=1.0, cap=60.0, rng=context.rng)
    while True:
        began = context.clock.monotonic()
        try:
            await controller.run()
        except Exception:
            if context.clock.monotonic() - began > backoff.cap:
                backoff.reset()
            wait = backoff.next()
            log.exception("%s failed; starting it again in %.1f s", controller.name, wait)
            await asyncio.sleep(wait)
        finally:
            controller.close()
        controller = make(context, settings)
