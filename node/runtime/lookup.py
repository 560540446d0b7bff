"""Which container a request names, among those that the runtime shows. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kybern.api.errors import Reason, StatusError, not_found
from node.runtime.interface import Container, PodIdentity, Sandbox


def _is(pod: PodIdentity, namespace: str, name: str, uid: str) -> bool:
    return (pod.namespace, pod.name) == (namespace, name) and uid in ("", pod.uid)


def attempts(
    containers: Iterable[Container], namespace: str, pod: str, uid: str, container: str
) -> Sequence[Container]:
    """All attempts of a container that are still there, the latest first.

    Without a UID the youngest pod of that name is meant.

    Raises:
        StatusError: 404 when the pod has no container here, or none of that name.
    """
    of_pod = [c for c in containers if _is(c.pod, namespace, pod, uid)]
    if not of_pod:
        raise not_found("pods", "", pod)
    youngest = max(of_pod, key=lambda c: c.created_at).pod.uid
    found = [c for c in of_pod if c.pod.uid == youngest and c.name == container]
    if not found:
        text = f'container "{container}" of pod "{pod}" is not on this node'
        raise StatusError(404, Reason.NOT_FOUND, text, name=pod, kind="pods")
    return sorted(found, key=lambda c: (c.created_at, c.attempt), reverse=True)


def sandbox(sandboxes: Iterable[Sandbox], namespace: str, pod: str, uid: str) -> Sandbox:
    """The pod's sandbox that is ready.

    Raises:
        StatusError: 404 when there is none.
    """
    found = [s for s in sandboxes if s.ready and _is(s.pod, namespace, pod, uid)]
    if not found:
        raise not_found("pods", "", pod)
    return max(found, key=lambda s: s.created_at)
