"""Hosts and pods out of network namespaces, and what talks in them.

A bridge in a namespace of its own, two nodes and a host outside of the cluster on it; pods are empty namespaces that
the nodes' own stack wires. Sockets are opened inside the namespaces by a thread, so servers and clients need no
processes.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from node.network.netlink import in_namespace

ROOT = Path(__file__).parents[3]
NETWORK = "192.168.77"
ECHO_PORT = 8080


def run(*command: str, check: bool = True) -> str:
    """The output of a command."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: {done.stderr}")
    return done.stdout


class Namespace:
    """A network namespace."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = f"/run/netns/{name}"
        self._sockets: list[socket.socket] = []
        run("ip", "netns", "add", name)

    def run(self, *command: str, check: bool = True) -> str:
        """The output of a command in the namespace."""
        return run("nsenter", f"--net={self.path}", *command, check=check)

    def sysctl(self, name: str, value: str) -> None:
        """Set a kernel setting of the namespace."""
        self.run("sh", "-c", f"echo {value} > /proc/sys/{name}")

    def socket(self, kind: int, bind: tuple[str, int] | None = None) -> socket.socket:
        """A socket inside the namespace."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:

            def make() -> socket.socket:
                made = socket.socket(socket.AF_INET, kind)
                if bind is not None:
                    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    made.bind(bind)
                return made

            return in_namespace(descriptor, make)
        finally:
            os.close(descriptor)

    def ask(self, address: str, port: int, *, udp: bool = False, source: int = 0, timeout: float = 2.0) -> str:
        """What an echo server says: its name, and who it takes us for. Raises OSError as sockets do."""
        kind = socket.SOCK_DGRAM if udp else socket.SOCK_STREAM
        with self.socket(kind, ("0.0.0.0", source) if source else None) as sock:
            sock.settimeout(timeout)
            sock.connect((address, port))
            if udp:
                sock.send(b"?")
            return sock.recv(200).decode()

    def serve(self, name: str, port: int = ECHO_PORT) -> None:
        """Answer on TCP and UDP with the name and the client's address, for as long as the process lives."""
        tcp = self.socket(socket.SOCK_STREAM, ("0.0.0.0", port))
        tcp.listen(64)
        udp = self.socket(socket.SOCK_DGRAM, ("0.0.0.0", port))
        self._sockets += [tcp, udp]
        threading.Thread(target=_serve_tcp, args=(tcp, name), daemon=True).start()
        threading.Thread(target=_serve_udp, args=(udp, name), daemon=True).start()

    def silence(self) -> None:
        """End the servers."""
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        self._sockets.clear()

    def delete(self) -> None:
        """End the servers and delete the namespace, links included."""
        self.silence()
        run("ip", "netns", "del", self.name, check=False)


def _serve_tcp(server: socket.socket, name: str) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection, client = server.accept()
            with connection:
                connection.sendall(f"{name} {client[0]}".encode())


def _serve_udp(server: socket.socket, name: str) -> None:
    client: tuple[str, int] | None
    with contextlib.suppress(OSError):
        while True:
            _, client = server.recvfrom(2000)
            if client is None:
                return
            server.sendto(f"{name} {client[0]}".encode(), client)


class Node:
    """A host with the stack running on it."""

    def __init__(self, namespace: Namespace, name: str, address: str, folder: Path, upstream: str) -> None:
        self.ns = namespace
        self.name = name
        self.address = address
        self._socket_path = str(folder / f"{name}.sock")
        self._log = folder / f"{name}.log"
        self._upstream = upstream
        self._objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None

    def start(self) -> None:
        """Start the stack, with all objects that there are in its API from the beginning."""
        Path(self._socket_path).unlink(missing_ok=True)
        objects = Path(self._socket_path).with_suffix(".json")
        objects.write_text(json.dumps([(plural, document) for (plural, _, _), document in self._objects.items()]))
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    "nsenter",
                    f"--net={self.ns.path}",
                    sys.executable,
                    "-m",
                    "tests.lab.network.driver",
                    self._socket_path,
                    str(objects),
                    self.name,
                    self.address,
                    self._upstream,
                ],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._connection = socket.socket(socket.AF_UNIX)
        eventually(lambda: self._connection.connect(self._socket_path), 20)  # type: ignore[union-attr]

    def kill(self) -> None:
        """End the stack without a warning."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def put(self, plural: str, *documents: dict[str, Any]) -> None:
        """Change the API as this node sees it."""
        for document in documents:
            meta = document["metadata"]
            self._objects[plural, meta.get("namespace", ""), meta["name"]] = document
        if self._connection is not None:
            self._do("put", plural=plural, documents=list(documents))

    def remove(self, plural: str, name: str, namespace: str = "") -> None:
        """Delete an object, if it is there."""
        if self._objects.pop((plural, namespace, name), None) is not None:
            self._do("delete", plural=plural, name=name, namespace=namespace)

    def ready(self) -> None:
        """Wait for the stack."""
        self._do("ready")

    def in_force(self) -> None:
        """Wait until the rules follow from all that was put."""
        self._do("in_force")

    def attach(self, sandbox: str, namespace: Namespace) -> tuple[str, float]:
        """The pod's address, and the seconds that it took."""
        address, seconds = self._do("attach", sandbox=sandbox, namespace=namespace.path)
        return address, seconds

    def detach(self, sandbox: str) -> None:
        """Take a pod off the network."""
        self._do("detach", sandbox=sandbox)

    def addresses(self) -> dict[str, str]:
        """What is wired."""
        found: dict[str, str] = self._do("addresses")
        return found

    def rules(self) -> str:
        """The rules without their counters and comments."""
        lines = self.ns.run("iptables-save").splitlines()
        return "\n".join(line.partition(" [")[0] for line in lines if not line.startswith("#"))

    def log(self) -> str:
        """What the stack logged."""
        return self._log.read_text()

    def _do(self, verb: str, **arguments: Any) -> Any:
        assert self._connection is not None
        self._connection.settimeout(30)
        self._connection.sendall(json.dumps({"do": verb, **arguments}).encode() + b"\n")
        data = b""
        while not data.endswith(b"\n"):
            part = self._connection.recv(65536)
            assert part, self.log()
            data += part
        answer = json.loads(data)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["result"]


class Lab:
    """The hosts; and the pods that tests make, by name."""

    def __init__(self, folder: Path) -> None:
        self._prefix = f"hnet{os.getpid()}"
        self._namespaces: list[Namespace] = []
        self.pods: dict[str, tuple[Namespace, str]] = {}
        self.bridge = self.namespace("br")
        self.bridge.run("ip", "link", "add", "br0", "type", "bridge")
        self.bridge.run("ip", "link", "set", "br0", "up")
        self.outside = self._host("out", 100)
        self.nodes = [
            Node(self._host(f"h{n}", 10 + n), f"n{n}", f"{NETWORK}.{10 + n}", folder, f"{NETWORK}.100") for n in (1, 2)
        ]
        for node in self.nodes:
            for number, other in enumerate(self.nodes, start=1):
                node.put("nodes", node_document(other.name, other.address, f"10.244.{number}.0/24"))

    def namespace(self, name: str) -> Namespace:
        """Another namespace, deleted with the lab."""
        made = Namespace(f"{self._prefix}-{name}")
        self._namespaces.append(made)
        return made

    def pod(self, name: str, node: Node) -> tuple[Namespace, str]:
        """A pod with an echo server, and its address."""
        if name not in self.pods:
            namespace = self.namespace(name)
            address, _ = node.attach(f"sandbox-{name}", namespace)
            namespace.serve(name)
            self.pods[name] = (namespace, address)
        return self.pods[name]

    def put(self, plural: str, *documents: dict[str, Any]) -> None:
        """Change the API."""
        for node in self.nodes:
            node.put(plural, *documents)

    def remove(self, plural: str, name: str, namespace: str = "") -> None:
        """Delete an object."""
        for node in self.nodes:
            node.remove(plural, name, namespace)

    def in_force(self) -> None:
        """Wait until the rules of both nodes follow from all that was put."""
        for node in self.nodes:
            node.in_force()

    def close(self) -> None:
        """End everything and delete every namespace."""
        for node in self.nodes:
            node.kill()
        for namespace in self._namespaces:
            namespace.delete()

    def _host(self, name: str, number: int) -> Namespace:
        host = self.namespace(name)
        host.run("ip", "link", "set", "lo", "up")
        port = f"p{number}"
        self.bridge.run("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", host.name)
        self.bridge.run("ip", "link", "set", port, "master", "br0", "up")
        host.run("ip", "addr", "add", f"{NETWORK}.{number}/24", "dev", "eth0")
        host.run("ip", "link", "set", "eth0", "up")
        return host


def node_document(name: str, address: str, pods: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "spec": {"podCIDR": pods, "podCIDRs": [pods]},
        "status": {"addresses": [{"type": "InternalIP", "address": address}]},
    }


def eventually(attempt: Callable[[], Any], seconds: float = 5.0) -> Any:
    """What `attempt` returns once it neither raises nor returns False."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            result = attempt()
            if result is not False:
                return result
            problem: Exception = AssertionError("it stayed false")
        except (AssertionError, OSError) as error:
            problem = error
        if time.monotonic() > deadline:
            raise problem
        time.sleep(0.02)


def answers(ask: Callable[[], str], count: int) -> Sequence[str]:
    """Who answered, `count` times."""
    return [ask().split()[0] for _ in range(count)]


@contextlib.contextmanager
def lab(folder: Path) -> Iterator[Lab]:
    """A lab with both nodes ready."""
    made = Lab(folder)
    try:
        for node in made.nodes:
            node.start()
        for node in made.nodes:
            node.ready()
        yield made
    finally:
        made.close()
