"""Indices that several controllers keep on the shared informers."""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeVar

from kybern.api.types import Object, Pod
from kybern.client.informer import Informer

T = TypeVar("T", bound=Object)

_CONTROLLER = "controller"
_NODE = "node"
_NAMESPACE = "namespace"


def by_controller(informer: Informer[T]) -> None:
    """Keep an index by the uid of the controlling owner; objects without one are found by their namespace."""
    informer.index(_CONTROLLER, lambda o: (o.controller.uid if o.controller else _orphans_of(o.namespace),))


def controlled(informer: Informer[T], uid: str) -> Collection[T]:
    """The objects that the owner of that uid controls."""
    return informer.indexed(_CONTROLLER, uid)


def orphans(informer: Informer[T], namespace: str) -> Collection[T]:
    """The objects of a namespace that nobody controls."""
    return informer.indexed(_CONTROLLER, _orphans_of(namespace))


def by_node(pods: Informer[Pod]) -> None:
    """Keep an index of pods by the node that they are bound to."""
    pods.index(_NODE, lambda pod: (pod.spec.node_name,) if pod.spec.node_name else ())


def on_node(pods: Informer[Pod], node: str) -> Collection[Pod]:
    """The pods that are bound to a node."""
    return pods.indexed(_NODE, node)


def by_namespace(informer: Informer[T]) -> None:
    """Keep an index by namespace."""
    informer.index(_NAMESPACE, lambda o: (o.namespace,))


def in_namespace(informer: Informer[T], namespace: str) -> Collection[T]:
    """The objects of a namespace."""
    return informer.indexed(_NAMESPACE, namespace)


def _orphans_of(namespace: str) -> str:
    # No uid has a slash.
    return f"orphans/{namespace}"
