"""One member of the store: its log, its state, and all services on one port."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from kybern.clock import Clock
from kybern.config.models import StoreConfig
from kybern.rpc.server import RpcServer
from store.mvcc.machine import StoreMachine
from store.raft.interface import Raft, RaftUnavailable
from store.server import cluster, kv, lease, maintenance, pipe, watch
from store.server.backups import BackupCollector, Backups, Schedule
from store.server.compaction import Compactor
from store.server.core import Core, Guard, admit
from store.server.expiry import LeaseClock
from store.watch.hub import WatchHub

if TYPE_CHECKING:
    from store.server.http import HttpServer

log = logging.getLogger(__name__)

SERVICES = (kv.SERVICE, watch.SERVICE, lease.SERVICE, cluster.SERVICE, maintenance.SERVICE, pipe.SERVICE)
# Bytes of one message: a pipe's may hold several requests.
_MAX_MESSAGE = 4 * 1024 * 1024
_READY_INTERVAL = 0.1
_HEALTH_INTERVAL = 0.5


@dataclass(slots=True)
class StoreMember:
    """Runs a member on a Raft that is given. Made by `create`; use `start`, `until_ready` and `stop`."""

    core: Core
    hub: WatchHub
    server: RpcServer
    _lease_clock: LeaseClock
    _compactor: Compactor
    _tasks: list[asyncio.Task[None]]
    _http: HttpServer | None = None
    _backups: Backups | None = None

    @classmethod
    def create(cls, config: StoreConfig, raft: Raft, clock: Clock) -> Self:
        """Put the parts together; nothing runs yet."""
        machine = StoreMachine()
        core = Core(raft, machine, config.cluster_name, quota_bytes=config.quota_bytes)
        hub = WatchHub(machine.keys)
        machine.on_caught_up(hub.caught_up)
        machine.on_loaded(hub.reloaded)
        lease_clock = LeaseClock(core, clock)
        machine.lease_observer = lease_clock
        compactor = Compactor(core, clock, revisions=config.history_revisions, seconds=config.history_seconds)
        server = RpcServer(
            config.client_address,
            config.tls,
            SERVICES,
            max_message=_MAX_MESSAGE,
            admit=admit,
        )
        guard = Guard()
        server.grpc.add_generic_rpc_handlers(
            (
                pipe.pipe_handlers(core, guard),
                kv.kv_handlers(core, guard),
                watch.watch_handlers(core, hub, guard),
                lease.lease_handlers(core, lease_clock, guard),
                cluster.cluster_handlers(core, guard),
                maintenance.maintenance_handlers(core, guard),
            )
        )
        http: HttpServer | None = None
        if config.metrics_address:
            # Only here: aiohttp takes a third of the time in which a member starts.
            from store.server.http import HttpServer  # noqa: PLC0415

            http = HttpServer(config.metrics_address, config.tls, core, hub)
        return cls(core, hub, server, lease_clock, compactor, [], http, _backups(config, core, clock))

    async def start(self) -> None:
        """Listen for clients and join the group.

        Raises:
            StartupError: when an address or the data directory cannot be used.
        """
        # Clients are answered from the start, though with UNAVAILABLE: that sends them to another member at once.
        await self.server.start()
        await self.server.serving(False)
        try:
            if self._http is not None:
                if self._backups is not None:
                    self._http.show(BackupCollector(self._backups.figures))
                await self._http.start()
            await self.core.raft.start(self.core.machine)
        except BaseException:
            await self._stop_serving(0)
            raise
        for work in (self._lease_clock.run(), self._compactor.run(), self._report_health()):
            self._tasks.append(asyncio.create_task(work))
        if self._backups is not None:
            self._tasks.append(asyncio.create_task(self._backups.run()))

    async def until_ready(self) -> None:
        """Wait until a leader is known and this member has applied everything that was committed."""
        while True:
            try:
                await self.core.raft.read_barrier()
                return
            except RaftUnavailable:
                await asyncio.sleep(_READY_INTERVAL)

    async def stop(self) -> None:
        """End the calls, then leave the group."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        await self._stop_serving(1.0)
        await self.core.raft.stop()

    async def watch_tasks(self) -> None:
        """Wait for a background task to fail; returns never otherwise."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def _stop_serving(self, grace: float) -> None:
        if self._http is not None:
            await self._http.stop()
        await self.server.stop(grace)

    async def _report_health(self) -> None:
        """Keep the health service's answer: serving while there is a leader."""
        known: bool | None = None
        while True:
            status = self.core.raft.status()
            leads = status.leader is not None
            if leads != known:
                known = leads
                await self.server.serving(leads)
                log.info("a leader is known" if leads else status.trouble or "there is no leader")
            await asyncio.sleep(_HEALTH_INTERVAL)


def _backups(config: StoreConfig, core: Core, clock: Clock) -> Backups | None:
    if config.backup_directory is None:
        return None
    schedule = Schedule(config.backup_directory, config.name, config.backup_interval_seconds, config.backup_keep)
    return Backups(core, clock, schedule)
