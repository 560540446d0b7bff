"""What the scheduler needs of a pod, compiled once: requests as numbers, selectors as values that can be compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from kybern.api import quantity, selectors
from kybern.api.selectors import Requirement, Selector
from kybern.api.types import Container, Pod, Toleration
from kybern.key import Key

CPU = "cpu"
MEMORY = "memory"
PODS = "pods"

# What a container that asks for nothing is taken for when nodes are compared (never when they are ruled out).
_USUAL_CPU = 100
_USUAL_MEMORY = 200 * 2**20

_ALL_ADDRESSES = "0.0.0.0"


@dataclass(frozen=True, slots=True)
class Matcher:
    """Pods by labels in some namespaces (None: in all)."""

    namespaces: frozenset[str] | None
    selector: Selector

    def matches(self, namespace: str, labels: Mapping[str, str]) -> bool:
        """Whether it means a pod with these labels in that namespace."""
        return (self.namespaces is None or namespace in self.namespaces) and self.selector.matches(labels)


@dataclass(frozen=True, slots=True)
class Term:
    """Pods, in the same domain of a topology. `weight` is that of a preference, 0 for a requirement."""

    matcher: Matcher
    topology: str
    weight: int = 0


@dataclass(frozen=True, slots=True)
class Spread:
    """A limit to how unevenly the matching pods may lie over the domains of a topology."""

    matcher: Matcher
    topology: str
    most: int
    least_domains: int
    required: bool


@dataclass(frozen=True, slots=True)
class NodeTerm:
    """Requirements on a node: all of its labels and all of its fields."""

    labels: Selector
    fields: Selector
    weight: int = 0

    def matches(self, labels: Mapping[str, str], name: str) -> bool:
        """Whether a node meets it; a term without any requirement is met by none."""
        if self.labels.empty and self.fields.empty:
            return False
        return self.labels.matches(labels) and self.fields.matches({"metadata.name": name})


@dataclass(frozen=True, slots=True)
class NodeChoice:
    """The nodes that a pod may run on; one of `terms` must be met, if there are any."""

    selector: Selector = selectors.EVERYTHING
    terms: tuple[NodeTerm, ...] | None = None

    @property
    def any(self) -> bool:
        """Whether every node will do."""
        return self.selector.empty and self.terms is None

    def matches(self, labels: Mapping[str, str], name: str) -> bool:
        """Whether a node will do."""
        if not self.selector.matches(labels):
            return False
        return self.terms is None or any(t.matches(labels, name) for t in self.terms)


@dataclass(frozen=True, slots=True)
class HostPort:
    """A port of the node that the pod takes."""

    address: str
    protocol: str
    port: int

    def conflicts(self, address: str) -> bool:
        """Whether the same port at another pod's address is the same socket."""
        return _ALL_ADDRESSES in (self.address, address) or self.address == address


@dataclass(frozen=True, slots=True)
class PodInfo:
    """A pod, compiled. Amounts are thousandths of a CPU, bytes, or units."""

    pod: Pod
    requests: Mapping[str, int]
    usual: tuple[int, int]
    ports: tuple[HostPort, ...]
    choice: NodeChoice
    preferred_nodes: tuple[NodeTerm, ...]
    tolerations: tuple[Toleration, ...]
    affinity: tuple[Term, ...]
    anti_affinity: tuple[Term, ...]
    preferred: tuple[Term, ...]
    avoided: tuple[Term, ...]
    spreads: tuple[Spread, ...]
    owner: str

    @property
    def uid(self) -> str:
        """The pod's uid."""
        return self.pod.uid

    @property
    def key(self) -> Key:
        """The pod's name."""
        return self.pod.key

    @property
    def namespace(self) -> str:
        """The pod's namespace."""
        return self.pod.namespace

    @property
    def labels(self) -> Mapping[str, str]:
        """The pod's labels."""
        return self.pod.metadata.labels


# Names of the namespaces whose labels a selector matches.
NamespacesOf = Callable[[Selector], frozenset[str]]


def compile_pod(pod: Pod, namespaces: NamespacesOf) -> PodInfo:
    """Compile a pod.

    Raises:
        ValueError: a quantity or a selector in it cannot be read.
    """
    affinity = pod.spec.affinity or {}
    nodes = affinity.get("nodeAffinity") or {}
    near = affinity.get("podAffinity") or {}
    far = affinity.get("podAntiAffinity") or {}
    required, preferred = (
        "requiredDuringSchedulingIgnoredDuringExecution",
        ("preferredDuringSchedulingIgnoredDuringExecution"),
    )
    requests = total_requests(pod)
    return PodInfo(
        pod=pod,
        requests=requests,
        usual=(requests.get(CPU) or _usual(pod, CPU), requests.get(MEMORY) or _usual(pod, MEMORY)),
        ports=_host_ports(pod),
        choice=_choice(pod, nodes.get(required)),
        preferred_nodes=tuple(_node_term(p["preference"], p.get("weight") or 1) for p in nodes.get(preferred) or ()),
        tolerations=pod.spec.tolerations,
        affinity=tuple(_term(pod, t, 0, namespaces) for t in near.get(required) or ()),
        anti_affinity=tuple(_term(pod, t, 0, namespaces) for t in far.get(required) or ()),
        preferred=tuple(
            _term(pod, p["podAffinityTerm"], p.get("weight") or 1, namespaces) for p in near.get(preferred) or ()
        ),
        avoided=tuple(
            _term(pod, p["podAffinityTerm"], p.get("weight") or 1, namespaces) for p in far.get(preferred) or ()
        ),
        spreads=tuple(_spread(pod, c) for c in pod.spec.topology_spread_constraints),
        owner=pod.controller.uid if pod.controller is not None else "",
    )


def total_requests(pod: Pod) -> dict[str, int]:
    """What the pod asks of a node: its containers together, or its largest init container if that is more."""
    running: dict[str, int] = {}
    for container in pod.spec.containers:
        _add(running, _requests(container))
    sidecars: dict[str, int] = {}
    starting: dict[str, int] = {}
    for container in pod.spec.init_containers:
        own = _requests(container)
        if container.restart_policy == "Always":
            _add(sidecars, own)
            own = {}
        _add(own, sidecars)
        for name, amount in own.items():
            starting[name] = max(starting.get(name, 0), amount)
    _add(running, sidecars)
    total = {name: max(running.get(name, 0), starting.get(name, 0)) for name in {*running, *starting}}
    _add(total, {name: amount_of(name, value) for name, value in pod.spec.overhead.items()})
    total[PODS] = 1
    return total


def amount_of(resource: str, value: str | int | float) -> int:
    """A quantity in the scheduler's unit of the resource.

    Raises:
        ValueError: it is not a quantity.
    """
    return quantity.milli(value) if resource == CPU else quantity.whole(value)


def _requests(container: Container) -> dict[str, int]:
    return {name: amount_of(name, value) for name, value in container.resources.requests.items()}


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, 0) + amount


def _usual(pod: Pod, resource: str) -> int:
    return (_USUAL_CPU if resource == CPU else _USUAL_MEMORY) * len(pod.spec.containers)


def _host_ports(pod: Pod) -> tuple[HostPort, ...]:
    containers = (*pod.spec.containers, *(c for c in pod.spec.init_containers if c.restart_policy == "Always"))
    return tuple(
        HostPort(port.host_ip or _ALL_ADDRESSES, port.protocol, port.host_port)
        for container in containers
        for port in container.ports
        if port.host_port
    )


def _choice(pod: Pod, required: Mapping[str, Any] | None) -> NodeChoice:
    simple = selectors.from_mapping(pod.spec.node_selector) or selectors.EVERYTHING
    terms = tuple(_node_term(t) for t in required.get("nodeSelectorTerms") or ()) if required is not None else None
    return NodeChoice(simple, terms)


def _node_term(term: Mapping[str, Any], weight: int = 0) -> NodeTerm:
    return NodeTerm(
        Selector(tuple(selectors.from_expressions(term.get("matchExpressions") or ()))),
        Selector(tuple(selectors.from_expressions(term.get("matchFields") or ()))),
        weight,
    )


def _term(pod: Pod, term: Mapping[str, Any], weight: int, namespaces: NamespacesOf) -> Term:
    selector = _with_keys(pod, _selector(term.get("labelSelector")), term.get("matchLabelKeys") or ())
    return Term(Matcher(_scope(pod, term, namespaces), selector), term.get("topologyKey") or "", weight)


def _scope(pod: Pod, term: Mapping[str, Any], namespaces: NamespacesOf) -> frozenset[str] | None:
    named = frozenset(term.get("namespaces") or ())
    chosen = selectors.from_label_selector(term.get("namespaceSelector"))
    if chosen is None:
        return named or frozenset((pod.namespace,))
    return None if chosen.empty else named | namespaces(chosen)


# An absent selector matches no pod.
_NOTHING = Selector((Requirement("", selectors.Operator.IN, frozenset()),))


def _selector(document: Mapping[str, Any] | None) -> Selector:
    found = selectors.from_label_selector(document)
    return _NOTHING if found is None else found


def _with_keys(pod: Pod, selector: Selector, keys: Iterable[str]) -> Selector:
    labels = pod.metadata.labels
    same = [Requirement(k, selectors.Operator.IN, frozenset((labels[k],))) for k in keys if k in labels]
    return Selector((*selector.requirements, *same)) if same else selector


def _spread(pod: Pod, constraint: Mapping[str, Any]) -> Spread:
    selector = _with_keys(pod, _selector(constraint.get("labelSelector")), constraint.get("matchLabelKeys") or ())
    return Spread(
        Matcher(frozenset((pod.namespace,)), selector),
        constraint.get("topologyKey") or "",
        int(constraint.get("maxSkew") or 1),
        int(constraint.get("minDomains") or 1),
        (constraint.get("whenUnsatisfiable") or "DoNotSchedule") == "DoNotSchedule",
    )


def facts(pod: Pod) -> Sequence[object]:
    """All of a pod that a decision depends on: after another change it need not be compiled again."""
    return (
        pod.uid,
        pod.spec.node_name,
        pod.metadata.labels,
        pod.metadata.generation,
        pod.deleting,
        pod.finished,
        msgspec.to_builtins(pod.spec.scheduling_gates),
    )
