"""Where a pod runs: what log, exec, attach and port-forward need to know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kybern.api import errors, resources
from master.apiserver.interface import PodLocation, Target
from master.apiserver.machinery import Machinery

_DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
_DEFAULT_PORT = 10250


class Locator:
    """Finds the node agent of a pod."""

    def __init__(self, machinery: Machinery) -> None:
        self._machinery = machinery

    async def locate(self, target: Target, container: str) -> PodLocation:
        """The agent of the node that the pod is on, and the container that is meant.

        Raises:
            StatusError: 404 no such pod; 400 no such container, or no node yet.
        """
        entry = await self._machinery.lookup.fresh(resources.PODS, target.namespace, target.name)
        if entry is None:
            raise errors.not_found("pods", "", target.name)
        pod = entry.document()
        chosen = "" if target.subresource == "portforward" else choose_container(pod, container)
        name = (pod.get("spec") or {}).get("nodeName") or ""
        if not name:
            raise errors.bad_request(f"pod {target.name} does not have a host assigned")
        node = await self._machinery.lookup.get(resources.NODES, "", name)
        if node is None:
            raise errors.not_found("nodes", "", name)
        return PodLocation(name, agent_address(node.document()), pod["metadata"]["uid"], chosen)


def choose_container(pod: Mapping[str, Any], asked: str) -> str:
    """The container that is asked for, or the pod's default, or its only one.

    Raises:
        StatusError: 400 when there is no such one, or nobody can tell which is meant.
    """
    spec, name = pod.get("spec") or {}, pod["metadata"]["name"]
    known = {f: [c["name"] for c in spec.get(f) or ()] for f in ("containers", "initContainers", "ephemeralContainers")}
    everywhere = [n for listed in known.values() for n in listed]
    if asked:
        if asked not in everywhere:
            raise errors.bad_request(f"container {asked} is not valid for pod {name}")
        return asked
    default = (pod["metadata"].get("annotations") or {}).get(_DEFAULT_CONTAINER, "")
    if default in known["containers"]:
        return str(default)
    if len(known["containers"]) == 1:
        return str(known["containers"][0])
    text = f"a container name must be specified for pod {name}, choose one of: [{' '.join(known['containers'])}]"
    if known["initContainers"]:
        text += f" or one of the init containers: [{' '.join(known['initContainers'])}]"
    raise errors.bad_request(text)


def agent_address(node: Mapping[str, Any]) -> str:
    """`host:port` of a node's agent.

    Raises:
        StatusError: 503 when the node has not said where it is.
    """
    status = node.get("status") or {}
    port = ((status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}).get("Port") or _DEFAULT_PORT
    for address in status.get("addresses") or ():
        if address.get("type") == "InternalIP":
            host = address.get("address", "")
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    raise errors.unavailable(f"node {node['metadata']['name']} has no InternalIP address")
