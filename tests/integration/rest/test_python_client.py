"""The official Python client against the door; it is blocking, so it runs in a thread."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Iterator
from typing import Any

import pytest

from kybern.api.resources import CONFIG_MAPS, PODS
from tests.integration.rest.agent import FakeAgent
from tests.integration.rest.double import DoubleHandlers
from tests.integration.rest.serving import Served

# Its types describe what it was generated from, not what it takes.
client: Any = importlib.import_module("kubernetes.client")
config: Any = importlib.import_module("kubernetes.config")
dynamic: Any = importlib.import_module("kubernetes.dynamic")
streams: Any = importlib.import_module("kubernetes.stream")
watch: Any = importlib.import_module("kubernetes.watch")


@pytest.fixture
def api(served: Served) -> Iterator[Any]:
    """The client."""
    made = config.new_client_from_config(str(served.kubeconfig()))
    yield made
    made.rest_client.pool_manager.clear()
    made.close()


async def test_objects(handlers: DoubleHandlers, api: Any) -> None:
    core, apps = client.CoreV1Api(api), client.AppsV1Api(api)

    def run() -> None:
        assert client.VersionApi(api).get_code().minor == "37"
        core.create_namespaced_config_map(
            "default", {"metadata": {"name": "a", "labels": {"x": "y"}}, "data": {"k": "v"}}
        )
        assert core.list_namespaced_config_map("default", label_selector="x=y", limit=1).items[0].data == {"k": "v"}
        core.patch_namespaced_config_map("a", "default", {"data": {"k": "w"}})
        core.patch_namespaced_config_map("a", "default", [{"op": "add", "path": "/data/l", "value": "m"}])
        read = core.read_namespaced_config_map("a", "default")
        assert read.data == {"k": "w", "l": "m"}
        read.data = {"z": "1"}
        assert core.replace_namespaced_config_map("a", "default", read).data == {"z": "1"}
        assert core.delete_namespaced_config_map("a", "default", propagation_policy="Foreground")["status"] == "Success"
        core.create_namespaced_config_map("default", {"metadata": {"name": "b", "labels": {"x": "y"}}})
        core.delete_collection_namespaced_config_map("default", label_selector="x=y")
        with pytest.raises(client.ApiException) as caught:
            core.read_namespaced_config_map("b", "default")
        assert (caught.value.status, "configmaps" in caught.value.body) == (404, True)
        template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
        spec = {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": template}
        apps.create_namespaced_deployment("default", {"metadata": {"name": "d"}, "spec": spec})
        apps.patch_namespaced_deployment_scale("d", "default", {"spec": {"replicas": 3}})
        assert apps.read_namespaced_deployment("d", "default").spec.replicas == 3

    await asyncio.to_thread(run)


async def test_watches(handlers: DoubleHandlers, api: Any) -> None:
    handlers.client.put(CONFIG_MAPS, {"metadata": {"name": "a", "namespace": "default"}})

    def run() -> list[tuple[str, str]]:
        events = watch.Watch().stream(client.CoreV1Api(api).list_namespaced_config_map, "default", timeout_seconds=1)
        return [(e["type"], e["object"].metadata.name) for e in events]

    assert await asyncio.to_thread(run) == [("ADDED", "a")]


async def test_the_dynamic_client(api: Any) -> None:
    def run() -> None:
        resource = dynamic.DynamicClient(api).resources.get(api_version="v1", kind="ConfigMap")
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "dy"}, "data": {"a": "b"}}
        resource.server_side_apply(namespace="default", name="dy", body=body, field_manager="x")
        assert resource.get(namespace="default", name="dy").data.a == "b"

    await asyncio.to_thread(run)


async def test_streams(handlers: DoubleHandlers, agent: FakeAgent, api: Any) -> None:
    spec = {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}
    handlers.client.put(PODS, {"metadata": {"name": "p", "namespace": "default"}, "spec": spec})
    core = client.CoreV1Api(api)

    def shell(*command: str, stdin: str = "") -> tuple[str, int]:
        socket = streams.stream(
            core.connect_get_namespaced_pod_exec, "p", "default", command=list(command), stdout=True, stderr=True,
            stdin=bool(stdin), tty=False, _preload_content=False,
        )  # fmt: skip
        raw = socket.sock.sock
        if stdin:
            socket.write_stdin(stdin)
        out = ""
        while socket.is_open():
            socket.update(timeout=10)
            out += socket.read_stdout(timeout=1) if socket.peek_stdout() else ""
            out += socket.read_stderr(timeout=1) if socket.peek_stderr() else ""
            if stdin and out:
                break
        code = 0 if socket.is_open() else socket.returncode
        socket.close()
        # The client forgets its connection without closing it.
        raw.close()
        return out, code

    def forward() -> bytes:
        ports = streams.portforward(core.connect_get_namespaced_pod_portforward, "p", "default", ports="80")
        raw, socket = ports.websocket.sock, ports.socket(80)
        socket.setblocking(True)
        socket.sendall(b"quit\n")
        data: bytes = socket.recv(100)
        socket.close()
        ports.websocket.close()
        raw.close()
        return data

    assert await asyncio.to_thread(core.read_namespaced_pod_log, "p", "default", tail_lines=1) == "line 0\n"
    assert await asyncio.to_thread(shell, "echo", "hi") == ("hi\n", 0)
    assert await asyncio.to_thread(shell, "fail", "x", "4") == ("x", 4)
    assert await asyncio.to_thread(shell, "cat", stdin="typed") == ("typed", 0)
    assert await asyncio.to_thread(forward) == b"QUIT\n"
