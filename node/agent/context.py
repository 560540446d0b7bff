"""What everything that works on pods shares."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from kybern.api.types import Service
from kybern.client.events import EventRecorder
from kybern.client.informer import Informer
from kybern.clock import Clock
from kybern.config.models import NodeConfig
from node.agent.environment import Environment
from node.agent.gate import NetworkGate
from node.agent.images import ImageService
from node.agent.observer import Observer
from node.agent.prober import NetworkProber
from node.agent.probes import Prober
from node.agent.statuses import StatusWriter
from node.network.interface import PodNetwork
from node.runtime.interface import Runtime
from node.volumes.interface import Blocking, HostFacts
from node.volumes.manager import VolumeManager


@dataclass
class NodeContext:
    """One node's parts."""

    config: NodeConfig
    clock: Clock
    runtime: Runtime
    network: PodNetwork
    gate: NetworkGate
    observer: Observer
    volumes: VolumeManager
    images: ImageService
    environment: Environment
    services: Informer[Service]
    statuses: StatusWriter
    events: EventRecorder
    prober: Prober
    hooks: NetworkProber
    host: HostFacts
    blocking: Blocking
    # At most so many pods are started at once.
    starts: asyncio.Semaphore
    # Kept by the node's heartbeat.
    runtime_name: str = "docker"
    host_resolv: Path = field(default=Path("/etc/resolv.conf"))
    host_hosts: Path = field(default=Path("/etc/hosts"))
