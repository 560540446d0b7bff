"""Figures of the REST door in Prometheus' text format."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """What one server counts. Requests are counted by verb, resource and code; the names are Kubernetes'."""

    media_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "apiserver_request", "Requests by outcome.", ["verb", "resource", "code"], registry=self._registry
        )
        self._seconds = Histogram(
            "apiserver_request_duration_seconds",
            "How long requests took, those that last not counted.",
            ["verb"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._sessions = Gauge(
            "apiserver_longrunning_requests", "Open watches, logs, shells and forwards.", registry=self._registry
        )
        # Finding a labelled child costs more than counting: each is found once.
        self._counters: dict[tuple[str, str, int], Counter] = {}
        self._timers: dict[str, Histogram] = {}

    def observe(self, verb: str, resource: str, code: int, seconds: float | None) -> None:
        """Count a request; `seconds` is None for those that last as long as their client wants."""
        key = (verb, resource, code)
        counter = self._counters.get(key)
        if counter is None:
            counter = self._counters[key] = self._requests.labels(verb, resource, str(code))
        counter.inc()
        if seconds is not None:
            timer = self._timers.get(verb)
            if timer is None:
                timer = self._timers[verb] = self._seconds.labels(verb)
            timer.observe(seconds)

    def render(self, sessions: int) -> bytes:
        """Everything as text."""
        self._sessions.set(sessions)
        return generate_latest(self._registry)
