"""Keeps the packet filter as the Services and their endpoints want it. Reads informers, writes to a backend."""

from __future__ import annotations

import asyncio
import logging
from ipaddress import IPv4Address

from kybern.backoff import Backoff
from kybern.clock import Clock
from kybern.key import Key
from node.network.addresses import parse_address
from node.network.informers import NetworkInformers
from node.proxy.conntrack import Expected, Flows
from node.proxy.interface import RoutingBackend, RoutingError
from node.proxy.model import PortRoute, resolve

log = logging.getLogger(__name__)

# Changes that come together are written together: what a rolling update does within this many seconds is one write.
BATCH = 0.02
# How often everything is compared with the packet filter; but not more than this part of the time is spent on it.
RESYNC_INTERVAL = 60.0
RESYNC_SHARE = 0.02
# Reading the Services of a large cluster must not hold up the rest of the process.
_SLICE = 200


class Proxier:
    """Run it in a task; `ready` is set once the rules are in force for the first time."""

    def __init__(
        self, node: str, informers: NetworkInformers, backend: RoutingBackend, flows: Flows, clock: Clock
    ) -> None:
        self.ready = asyncio.Event()
        self._node = node
        self._informers = informers
        self._backend = backend
        self._flows = flows
        self._clock = clock
        self._changed: set[Key] = set()
        self._nodes_changed = True
        self._wake = asyncio.Event()
        # Changes that were seen, how many of them are in force, and who waits for that.
        self._seen = 0
        self._in_force = 0
        self._progress = asyncio.Condition()
        # The routes of every Service as they were last handed to the backend.
        self._routes: dict[Key, tuple[PortRoute, ...]] = {}
        # UDP routes that were changed, and whose flows were not cleared yet.
        self._udp: dict[Key, set[PortRoute]] = {}
        informers.on_service_change(self._on_service)
        informers.nodes.on_change(lambda old, new: self._on_node())

    async def run(self) -> None:
        """Write rules until cancelled. Leaves them in force."""
        await self._informers.synced()
        backoff = Backoff(base=0.5, cap=30.0)
        due = self._clock.monotonic()
        while True:
            started = self._clock.monotonic()
            full = started >= due
            try:
                await self._write(full=full)
            except RoutingError as error:
                wait = backoff.next()
                log.warning("service routing is not up to date: %s; trying again in %.1f s", error, wait)
                await asyncio.sleep(wait)
                continue
            backoff.reset()
            if full:
                self._first_time()
                ended = self._clock.monotonic()
                due = ended + max(RESYNC_INTERVAL, (ended - started) / RESYNC_SHARE)
            await self._next_change(due)

    async def in_force(self) -> None:
        """Wait until the rules follow from all that the informers know by now."""
        seen = self._seen
        async with self._progress:
            await self._progress.wait_for(lambda: self._in_force >= seen)

    async def _write(self, *, full: bool) -> None:
        seen = self._seen
        await self._update()
        if not full or self.ready.is_set():
            await self._backend.sync()
        if full:
            repaired = await self._backend.resync()
            if repaired and self.ready.is_set():
                log.warning("service routing had been changed by somebody else: repaired %d places", repaired)
        await self._clear_flows()
        async with self._progress:
            self._in_force = seen
            self._progress.notify_all()

    async def _update(self) -> None:
        """Hand what changed to the backend. No event is lost: what changes meanwhile is there the next time."""
        if self._nodes_changed:
            self._nodes_changed = False
            self._backend.set_nodes(self._node_addresses())
        changed, self._changed = self._changed, set()
        for number, key in enumerate(changed):
            if number % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)
            try:
                self._update_service(key)
            except Exception:
                # One Service that this code cannot read must not keep the others from their changes.
                log.exception("service %s cannot be routed", key)

    def _update_service(self, key: Key) -> None:
        service = self._informers.services.get(key)
        routes = () if service is None else resolve(service, self._informers.slices_of(key), self._node)
        old = self._routes.get(key, ())
        if routes == old:
            return
        self._note_udp(key, old, routes)
        self._backend.set_service(key, routes)
        if routes:
            self._routes[key] = routes
        else:
            del self._routes[key]

    def _node_addresses(self) -> set[IPv4Address]:
        found = (parse_address(node.internal_ip) for node in self._informers.nodes.all())
        return {address for address in found if address is not None}

    def _note_udp(self, key: Key, old: tuple[PortRoute, ...], new: tuple[PortRoute, ...]) -> None:
        changed = {route for route in (*old, *new) if route.protocol == "udp"}
        if changed:
            self._udp.setdefault(key, set()).update(changed)

    async def _clear_flows(self) -> None:
        """After the rules, or a packet in between would make the old flow anew."""
        if not self._udp:
            return
        expected = Expected()
        for key, changed in self._udp.items():
            present = self._routes.get(key, ())
            for route in changed:
                expected.add(route, gone=True)
            for route in present:
                expected.add(route)
        try:
            await self._flows.clear_stale(expected)
        except OSError as error:
            # Tried again with the next change or full comparison.
            log.warning("UDP flows to endpoints that are gone cannot be cleared: %s", error)
            return
        self._udp.clear()

    def _first_time(self) -> None:
        if not self.ready.is_set():
            log.info("service routing is in force: %d services", len(self._routes))
            self.ready.set()

    async def _next_change(self, due: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, due - self._clock.monotonic())):
                await self._wake.wait()
        except TimeoutError:
            return
        await asyncio.sleep(BATCH)
        self._wake.clear()

    def _on_service(self, key: Key) -> None:
        self._changed.add(key)
        self._seen += 1
        self._wake.set()

    def _on_node(self) -> None:
        self._nodes_changed = True
        self._seen += 1
        self._wake.set()
