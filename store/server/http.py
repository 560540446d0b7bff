"""`/metrics` for Prometheus, `/health` and `/lag`, over HTTPS on an address of their own, named by `metrics_address`.

As with all else, certificates of members and masters are served and no others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import (
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    UntypedMetricFamily,
)
from prometheus_client.registry import Collector

from kybern.config.models import Tls
from kybern.daemon import StartupError
from kybern.pki import identity_of_der
from kybern.rpc.server import check_address
from kybern.tls import server_context
from store.server.core import Core, admitted
from store.server.lag import LoopLag
from store.watch.hub import WatchHub

_PREFIX = "kybern_store_"


class StoreCollector(Collector):
    """The member's figures, as they are when they are asked for."""

    def __init__(self, core: Core, hub: WatchHub, lag: LoopLag) -> None:
        self._core = core
        self._hub = hub
        self._lag = lag

    def collect(self) -> Iterable[Metric]:
        """All figures. Raft's are counters and gauges alike, so they have no type."""
        machine, status = self._core.machine, self._core.raft.status()
        gauges = {
            "has_leader": ("Whether a leader is known", float(status.leader is not None)),
            "revision": ("The last revision", machine.keys.revision),
            "compacted_revision": ("The oldest revision that can be read", machine.keys.compacted),
            "keys": ("Keys that there are", len(machine.keys.live)),
            "used_bytes": ("Estimate of what keys, values and history take", machine.keys.footprint),
            "quota_bytes": ("Estimate beyond which writes are refused", self._core.quota.limit),
            "superfluous_changes": ("Changes that are compacted and still take memory", machine.keys.superfluous),
            "leases": ("Leases that there are", len(machine.leases.leases)),
            "watchers": ("Watches on this member", len(self._hub)),
            "level": ("The group's level: what commands in the log mean", machine.level),
            "highest_level": ("The highest level that this member can apply", machine.levels.highest),
            "alarms": ("Alarms that are on, in the whole group", len(machine.alarms.matching())),
        }
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(_PREFIX + name, text, value)
        for name, value in self._core.raft.metrics().items():
            yield UntypedMetricFamily(f"{_PREFIX}raft_{name}", "Of the Raft node", value)
        yield from self._lags()

    def _lags(self) -> Iterator[Metric]:
        buckets, total = self._lag.histogram()
        text = "How late the loop was for a timer of every 10 ms"
        yield HistogramMetricFamily(_PREFIX + "loop_lag_seconds", text, buckets=buckets, sum_value=total)
        worst = self._lag.worst()
        gauges = {
            "loop_lag_worst_seconds": ("The worst of these delays in the last minute", worst.late),
            "loop_turn_worst_cpu_seconds": (
                "The most CPU time that the loop's thread used between two such timers in the last minute",
                worst.cpu,
            ),
        }
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(_PREFIX + name, text, value)


def problems(core: Core) -> Iterator[str]:
    """Why the member is not well."""
    status = core.raft.status()
    if status.trouble:
        yield status.trouble
    elif status.leader is None:
        yield "there is no leader"
    if core.machine.alarms.no_space:
        yield "the alarm NOSPACE is on"


class HttpServer:
    """Serves all of it; made by the member."""

    def __init__(self, address: str, tls: Tls, core: Core, hub: WatchHub) -> None:
        self._address = address
        self._tls = tls
        self._core = core
        self._registry = CollectorRegistry()
        self._lag = LoopLag()
        self._registry.register(StoreCollector(core, hub, self._lag))
        ProcessCollector(registry=self._registry)
        application = web.Application(middlewares=[_admit])
        application.router.add_get("/metrics", self._metrics)
        application.router.add_get("/health", self._health)
        application.router.add_get("/lag", self._worst_lag)
        self._runner = web.AppRunner(application, access_log=None)

    async def start(self) -> None:
        """Listen.

        Raises:
            StartupError: when the address cannot be listened on or the certificate cannot be used.
        """
        check_address(self._address)
        host, _, port = self._address.rpartition(":")
        await self._runner.setup()
        site = web.TCPSite(self._runner, host.strip("[]"), int(port), ssl_context=server_context(self._tls))
        try:
            await site.start()
        except OSError as error:
            raise StartupError(f"cannot listen on {self._address}: {error.strerror}", retry=True) from error
        self._lag.start()

    async def stop(self) -> None:
        """Listen no more."""
        self._lag.stop()
        await self._runner.cleanup()

    def show(self, collector: Collector) -> None:
        """Let `/metrics` have further figures."""
        self._registry.register(collector)

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), content_type="text/plain", charset="utf-8")

    async def _health(self, request: web.Request) -> web.Response:
        found = list(problems(self._core))
        # As etcd words it, also that the truth is a text.
        answer = {"health": "false", "reason": "; ".join(found)} if found else {"health": "true", "reason": ""}
        body = msgspec.json.encode(answer)
        return web.Response(body=body, status=503 if found else 200, content_type="application/json")

    async def _worst_lag(self, request: web.Request) -> web.Response:
        """The worst delays of the loop since this was asked last."""
        body = msgspec.json.encode(msgspec.to_builtins(self._lag.take()))
        return web.Response(body=body, content_type="application/json")


@web.middleware
async def _admit(request: web.Request, handler: Handler) -> web.StreamResponse:
    connection = request.get_extra_info("ssl_object")
    der = connection.getpeercert(binary_form=True) if connection is not None else None
    if not der or not admitted(identity_of_der(der)):
        raise web.HTTPForbidden(text="the certificate is neither a store member's nor a master's (O=)\n")
    return await handler(request)
