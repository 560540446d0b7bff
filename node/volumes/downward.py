"""The downward API: fields of a pod and resources of its containers as text, for variables and files."""

from __future__ import annotations

import re
from decimal import ROUND_CEILING

from kybern.api import quantity
from kybern.api.types import Container, Pod
from kybern.api.types.pods import ResourceFieldSelector
from node.volumes.interface import HostFacts, VolumeError

_SUBSCRIPT = re.compile(r"(metadata\.(?:labels|annotations))\['([^']*)'\]")


def pod_field(pod: Pod, path: str, host: HostFacts, address: str = "") -> str:
    """The text of a field such as `metadata.name` or `metadata.labels['app']`.

    Raises:
        VolumeError: when there is no such field.
    """
    subscript = _SUBSCRIPT.fullmatch(path)
    if subscript is not None:
        table = pod.metadata.labels if subscript[1].endswith("labels") else pod.metadata.annotations
        return table.get(subscript[2], "")
    ip = address or pod.status.pod_ip
    match path:
        case "metadata.name":
            return pod.name
        case "metadata.namespace":
            return pod.namespace
        case "metadata.uid":
            return pod.uid
        case "metadata.labels":
            return _table(pod.metadata.labels)
        case "metadata.annotations":
            return _table(pod.metadata.annotations)
        case "spec.nodeName":
            return pod.spec.node_name or host.name
        case "spec.serviceAccountName":
            return pod.spec.service_account_name
        case "status.hostIP" | "status.hostIPs":
            return host.address
        case "status.podIP" | "status.podIPs":
            return ip or (host.address if pod.spec.host_network else "")
    raise VolumeError(f"the field {path!r} of a pod cannot be read")


def resource_field(pod: Pod, container: Container | None, selector: ResourceFieldSelector, host: HostFacts) -> str:
    """A request or limit of a container, in units of the divisor, rounded up.

    A limit that is not set is what the node has.

    Raises:
        VolumeError: when container or resource do not exist.
    """
    if selector.container_name:
        every = (*pod.spec.init_containers, *pod.spec.containers)
        container = next((c for c in every if c.name == selector.container_name), None)
    if container is None:
        raise VolumeError(f"there is no container {selector.container_name!r} to read {selector.resource} of")
    kind, _, name = selector.resource.partition(".")
    wanted = container.resources
    table = wanted.limits if kind == "limits" else wanted.requests
    value = quantity.of(table.get(name))
    if not value and kind == "requests":
        value = quantity.of(wanted.limits.get(name))
    if not value and kind == "limits":
        nodes = {"memory": host.memory_bytes, "ephemeral-storage": host.storage_bytes}
        value = quantity.of(f"{host.cpu_milli}m") if name == "cpu" else quantity.of(nodes.get(name, 0))
    divisor = quantity.of(selector.divisor or "1") or quantity.of("1")
    return str(int((value / divisor).to_integral_value(ROUND_CEILING)))


def _table(values: dict[str, str]) -> str:
    """Kubernetes' form: one `key="value"` a line, sorted, values quoted."""
    return "\n".join(f"{key}={_quote(value)}" for key, value in sorted(values.items()))


def _quote(text: str) -> str:
    escapes = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return '"' + "".join(escapes.get(c, c) for c in text) + '"'
