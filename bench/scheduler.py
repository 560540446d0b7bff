"""How many pods a second the scheduler decides on, next to the same decision made node by node in plain Python.

Prints one JSON line per figure: `name`, `value` (pods per second of CPU, median of the rounds), `unit`, `ratio` (to the
plain decision, measured in turn with it). Binding is not part of it. Run with `python -m bench.scheduler [NODES]`.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec

from kybern.api.types import Node, Pod, decode
from master.scheduler.pods import PodInfo, compile_pod
from master.scheduler.profile import Profile, Refusal
from master.scheduler.snapshot import Snapshot

ROUNDS = 5
PER_ROUND = 1000
PLAIN_PER_ROUND = 5

HOSTNAME = "kubernetes.io/hostname"


def nodes(count: int) -> list[Node]:
    """Nodes of one size in three zones."""
    have = {"cpu": "32", "memory": "128Gi", "pods": "110", "ephemeral-storage": "500Gi"}
    return [
        decode(
            msgspec.json.encode(
                {
                    "metadata": {"name": f"n{n}", "labels": {HOSTNAME: f"n{n}", "zone": "abc"[n % 3]}},
                    "status": {"allocatable": have, "conditions": [{"type": "Ready", "status": "True"}]},
                }
            ),
            Node,
        )
        for n in range(count)
    ]


def pods(name: str, count: int, **spec: Any) -> list[PodInfo]:
    """Pods as one ReplicaSet makes them."""
    requests = {"cpu": "100m", "memory": "128Mi"}
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": name, "uid": name, "controller": True}
    result = []
    for number in range(count):
        document = {
            "metadata": {
                "name": f"{name}-{number}",
                "namespace": "default",
                "uid": f"{name}-{number}",
                "labels": {"app": name},
                "ownerReferences": [owner],
            },
            "spec": {"containers": [{"name": "c", "resources": {"requests": requests}}], **spec},
        }
        result.append(compile_pod(decode(msgspec.json.encode(document), Pod), lambda _: frozenset()))
    return result


class Plain:
    """Fit, least allocated, balanced and spread by owner, one node after the other."""

    def __init__(self, count: int) -> None:
        self.nodes = [
            {"name": f"n{n}", "free": {"cpu": 32000, "memory": 128 * 2**30, "pods": 110}, "owners": {}}
            for n in range(count)
        ]

    def decide(self, pod: PodInfo) -> None:
        """Choose a node and place the pod there."""
        best, points = None, -1.0
        for node in self.nodes:
            free: dict[str, int] = node["free"]  # type: ignore[assignment]
            if any(free[name] < amount for name, amount in pod.requests.items()):
                continue
            cpu = 1 - (free["cpu"] - pod.requests["cpu"]) / 32000
            memory = 1 - (free["memory"] - pod.requests["memory"]) / (128 * 2**30)
            siblings: int = node["owners"].get(pod.owner, 0)  # type: ignore[attr-defined]
            score = 100 - 50 * (cpu + memory) + 100 - 50 * abs(cpu - memory) - 200 * siblings
            if score > points or best is None:
                best, points = node, score
        if best is not None:
            for name, amount in pod.requests.items():
                best["free"][name] -= amount  # type: ignore[index]
            best["owners"][pod.owner] = best["owners"].get(pod.owner, 0) + 1  # type: ignore[attr-defined, index]


def rate(work: Callable[[], int]) -> float:
    """Decisions per second of CPU."""
    began = time.process_time()
    done = work()
    return done / (time.process_time() - began)


def main() -> None:
    """Measure and print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    spread = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
    far = {"topologyKey": HOSTNAME, "labelSelector": {"matchLabels": {"app": "anti"}}}
    kinds: dict[str, dict[str, Any]] = {
        "plain": {},
        "node-selector": {"nodeSelector": {"zone": "a"}},
        "zone-spread": {
            "topologySpreadConstraints": [{**spread, "labelSelector": {"matchLabels": {"app": "zone-spread"}}}]
        },
        "anti": {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [far]}}},
    }
    rates: dict[str, list[float]] = {name: [] for name in (*kinds, "peer")}
    for number in range(ROUNDS):
        for name, spec in kinds.items():
            snapshot, profile = Snapshot(), Profile(random.Random(number))
            for node in nodes(count):
                snapshot.set_node(node)
            wanted = pods(name, PER_ROUND, **spec)

            def work(wanted: list[PodInfo] = wanted, snapshot: Snapshot = snapshot, profile: Profile = profile) -> int:
                placed = 0
                for pod in wanted:
                    choice = profile.decide(pod, snapshot)
                    if not isinstance(choice, Refusal):
                        snapshot.place(pod, choice)
                        placed += 1
                return placed

            rates[name].append(rate(work))
        plain, few = Plain(count), pods("plain", PLAIN_PER_ROUND)
        rates["peer"].append(rate(lambda plain=plain, few=few: len([plain.decide(p) for p in few])))  # type: ignore[misc]
    peer = statistics.median(rates["peer"])
    for name in kinds:
        value = statistics.median(rates[name])
        figure = {"name": f"scheduler/{name}/{count}-nodes", "value": round(value), "unit": "pods/s"}
        print(json.dumps({**figure, "ratio": round(value / peer, 1)}))


if __name__ == "__main__":
    main()
