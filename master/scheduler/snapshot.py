"""The cluster as arrays: a row per node, a column per resource. Plugins look at all nodes at once.

Rows of nodes that are gone are reused; `valid` says which rows count. What follows from nodes alone (labels, taints) is
cached until one of them changes; what follows from pods is kept up to date as they come and go.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from kybern.api.types import Node, Taint
from master.scheduler.pods import CPU, MEMORY, PODS, Matcher, PodInfo, Term, amount_of

Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

V = TypeVar("V")

_FIRST_ROWS = 16
_NOT_READY = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
# Selectors of pods whose matches are counted all along; the least lately used is forgotten.
_COUNTED = 128


class Snapshot:
    """Nodes, and the pods placed on them, assumed ones included."""

    def __init__(self) -> None:
        self.columns: dict[str, int] = {CPU: 0, MEMORY: 1, "ephemeral-storage": 2, PODS: 3}
        self.rows: dict[str, int] = {}
        self.nodes: list[Node | None] = [None] * _FIRST_ROWS
        self.valid: Mask = np.zeros(_FIRST_ROWS, np.bool_)
        self.unschedulable: Mask = np.zeros(_FIRST_ROWS, np.bool_)
        # By columns in memory: plugins read one resource of all nodes at a time.
        self.allocatable: Ints = np.zeros((_FIRST_ROWS, len(self.columns)), np.int64, order="F")
        self.requested: Ints = np.zeros((_FIRST_ROWS, len(self.columns)), np.int64, order="F")
        # CPU and memory with what pods that ask for nothing are taken for, and the share of the node that a unit is.
        self.usual: Ints = np.zeros((_FIRST_ROWS, 2), np.int64, order="F")
        self.share: Floats = np.ones((_FIRST_ROWS, 2), np.float64, order="F")
        self.taint_sets: list[tuple[Taint, ...]] = [()]
        self.taints: Ints = np.zeros(_FIRST_ROWS, np.int64)
        self.ports: dict[tuple[str, int], dict[int, list[str]]] = {}
        self._free = list(range(_FIRST_ROWS))
        self._placed: dict[str, tuple[PodInfo, str]] = {}
        self._on: dict[str, set[str]] = {}
        self._owners: dict[str, Ints] = {}
        self._anti: dict[Term, Ints] = {}
        self._counted: OrderedDict[Matcher, Ints] = OrderedDict()
        self._static: dict[Hashable, Any] = {}

    # --- nodes

    def set_node(self, node: Node) -> bool:
        """Add or replace a node; whether anything changed that a decision depends on."""
        row = self.rows.get(node.name)
        old = self.nodes[row] if row is not None else None
        if old is not None and _facts(old) == _facts(node):
            return False
        if row is None:
            row = self._new_row(node.name)
        if old is None or _static_facts(old) != _static_facts(node):
            self._static.clear()
        self.nodes[row] = node
        self.unschedulable[row] = node.spec.unschedulable
        self.taints[row] = self._taint_set(effective_taints(node))
        self.allocatable[row] = 0
        for name, value in node.status.allocatable.items():
            column = self._column(name)  # may replace the arrays
            self.allocatable[row, column] = amount_of(name, value)
        # Of nothing any unit is all.
        self.share[row] = 1.0 / np.maximum(self.allocatable[row, :2], 1)
        return True

    def remove_node(self, name: str) -> None:
        """Forget a node. Its pods stay known, for the case that it comes back."""
        row = self.rows.get(name)
        if row is None:
            return
        for uid in self._on.get(name, ()):
            self._count(self._placed[uid][0], row, -1)
        del self.rows[name]
        self.nodes[row] = None
        self.valid[row] = False
        self._free.append(row)
        self._static.clear()

    def _new_row(self, name: str) -> int:
        if not self._free:
            self._grow()
        row = self._free.pop()
        self.rows[name] = row
        self.valid[row] = True
        for uid in self._on.get(name, ()):
            self._count(self._placed[uid][0], row, 1)
        return row

    def _grow(self) -> None:
        size = len(self.nodes)
        self._free = list(range(2 * size - 1, size - 1, -1))
        self.nodes += [None] * size
        self.valid, self.unschedulable = _twice(self.valid), _twice(self.unschedulable)
        self.allocatable, self.requested = _twice(self.allocatable), _twice(self.requested)
        self.usual, self.share, self.taints = _twice(self.usual), _twice(self.share), _twice(self.taints)
        for counts in (self._owners, self._anti, self._counted):
            _twice_all(counts)
        self._static.clear()

    def _column(self, resource: str) -> int:
        column = self.columns.get(resource)
        if column is None:
            column = self.columns[resource] = len(self.columns)
            extra = np.zeros((len(self.nodes), 1), np.int64)
            self.allocatable = np.asfortranarray(np.hstack((self.allocatable, extra)))
            self.requested = np.asfortranarray(np.hstack((self.requested, extra)))
        return column

    def _taint_set(self, taints: tuple[Taint, ...]) -> int:
        # When a taint was added does not matter here, and would make every set a different one.
        plain = tuple(Taint(t.key, t.value, t.effect) for t in taints)
        if plain not in self.taint_sets:
            self.taint_sets.append(plain)
            self._static.clear()
        return self.taint_sets.index(plain)

    # --- pods

    def place(self, info: PodInfo, node: str) -> None:
        """The pod is on a node, or will be; replaces what was known of it."""
        self.remove(info.uid)
        self._placed[info.uid] = (info, node)
        self._on.setdefault(node, set()).add(info.uid)
        row = self.rows.get(node)
        if row is not None:
            self._count(info, row, 1)

    def remove(self, uid: str) -> bool:
        """The pod is on no node any more; whether it was."""
        found = self._placed.pop(uid, None)
        if found is None:
            return False
        info, node = found
        there = self._on[node]
        there.discard(uid)
        if not there:
            del self._on[node]
        row = self.rows.get(node)
        if row is not None:
            self._count(info, row, -1)
        return True

    def node_of(self, uid: str) -> str | None:
        """Where the pod is placed."""
        found = self._placed.get(uid)
        return found[1] if found is not None else None

    def __len__(self) -> int:
        return len(self._placed)

    def _count(self, info: PodInfo, row: int, sign: int) -> None:
        for name, amount in info.requests.items():
            column = self._column(name)  # may replace the arrays
            self.requested[row, column] += sign * amount
        self.usual[row, 0] += sign * info.usual[0]
        self.usual[row, 1] += sign * info.usual[1]
        for port in info.ports:
            there = self.ports.setdefault((port.protocol, port.port), {}).setdefault(row, [])
            there.append(port.address) if sign > 0 else there.remove(port.address)
        for term in info.anti_affinity:
            self._bump(self._anti, term, row, sign)
        if info.pod.deleting:
            return  # it makes room for others of its kind already
        if info.owner:
            self._bump(self._owners, info.owner, row, sign)
        for matcher, counts in self._counted.items():
            if matcher.matches(info.namespace, info.labels):
                counts[row] += sign

    def _bump(self, table: dict[V, Ints], key: V, row: int, sign: int) -> None:
        counts = table.get(key)
        if counts is None:
            counts = table[key] = np.zeros(len(self.nodes), np.int64)
        counts[row] += sign
        if sign < 0 and not counts.any():
            del table[key]

    # --- for plugins

    def row_of_requests(self, requests: Mapping[str, int]) -> Ints:
        """Requests as a row of the arrays."""
        columns = [(self._column(name), amount) for name, amount in requests.items()]
        row = np.zeros(len(self.columns), np.int64)
        for column, amount in columns:
            row[column] = amount
        return row

    def static(self, key: Hashable, compute: Callable[[], V]) -> V:
        """What `compute` says, remembered until a node's labels or taints change or nodes come or go."""
        if key not in self._static:
            self._static[key] = compute()
        result: V = self._static[key]
        return result

    def where(self, key: Hashable, holds: Callable[[Node], bool]) -> Mask:
        """The nodes for which something holds that follows from name and labels alone; remembered under `key`."""

        def compute() -> Mask:
            mask = np.zeros(len(self.nodes), np.bool_)
            for row in self.rows.values():
                node = self.nodes[row]
                mask[row] = node is not None and holds(node)
            return mask

        return self.static(key, compute)

    def domains(self, topology: str) -> tuple[Ints, int]:
        """For every row the number of its domain, -1 where the label is missing; and how many domains there are."""

        def compute() -> tuple[Ints, int]:
            ids = np.full(len(self.nodes), -1, np.int64)
            names: dict[str, int] = {}
            for row in self.rows.values():
                node = self.nodes[row]
                value = node.metadata.labels.get(topology) if node is not None else None
                if value is not None:
                    ids[row] = names.setdefault(value, len(names))
            return ids, len(names)

        return self.static(("domains", topology), compute)

    def owned(self, owner: str) -> Ints | None:
        """Pods of an owner by row; None when it has none."""
        return self._owners.get(owner)

    def count(self, matcher: Matcher) -> Ints:
        """Pods that a matcher means, by row."""
        counts = self._counted.get(matcher)
        if counts is None:
            counts = np.zeros(len(self.nodes), np.int64)
            for info, node in self._placed.values():
                row = self.rows.get(node)
                if row is not None and not info.pod.deleting and matcher.matches(info.namespace, info.labels):
                    counts[row] += 1
            self._counted[matcher] = counts
            if len(self._counted) > _COUNTED:
                self._counted.popitem(last=False)
        self._counted.move_to_end(matcher)
        return counts

    def repelling(self, info: PodInfo) -> Iterable[tuple[Term, Ints]]:
        """Anti-affinity of placed pods that means this pod, with those pods by row."""
        return [(t, c) for t, c in self._anti.items() if t.matcher.matches(info.namespace, info.labels)]


def in_domains(ids: Ints, domains: int, counts: Ints) -> Ints:
    """For every row the sum of the counts in its domain; 0 where it is in none."""
    if domains == 0:
        return np.zeros(len(ids), np.int64)
    inside = ids >= 0
    sums = np.bincount(ids[inside], weights=counts[inside], minlength=domains).astype(np.int64)
    return np.where(inside, sums[ids], 0)


def _twice(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.asfortranarray(np.concatenate((array, np.zeros_like(array))))


def _twice_all(table: Any) -> None:
    for key in table:
        table[key] = _twice(table[key])


def effective_taints(node: Node) -> tuple[Taint, ...]:
    """The node's taints; one that is not ready has the taint for that before a controller has written it."""
    if node.ready or any(t.key in _NOT_READY for t in node.spec.taints):
        return node.spec.taints
    return (*node.spec.taints, Taint(_NOT_READY[0], "", "NoSchedule"))


def _static_facts(node: Node) -> object:
    return node.metadata.labels, effective_taints(node), node.spec.unschedulable


def _facts(node: Node) -> object:
    return _static_facts(node), node.status.allocatable
