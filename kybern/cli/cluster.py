"""What every host of a cluster must know of it, and the daemons' configurations that follow from it.

`kybern init` writes it to `cluster.yaml`; bundles carry it to the other hosts. Pure: nothing is read or written here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import yaml

from kybern.cli.errors import CliError
from kybern.config.models import Cluster, DockerRuntime, MasterConfig, NodeConfig, NodePortNumber, StoreConfig, Tls
from kybern.struct import Frozen

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class Ports(Frozen, forbid_unknown_fields=True):
    """Where the daemons listen, the same on every host."""

    rest: NodePortNumber = 6443
    grpc: NodePortNumber = 6444
    store: NodePortNumber = 2379
    peers: NodePortNumber = 2380
    agent: NodePortNumber = 10250


class ClusterFile(Frozen, forbid_unknown_fields=True):
    """`cluster.yaml`."""

    # What kubeconfigs name: `https://host:port`, which must lead to a master.
    endpoint: str
    # Masters, each with a member of the store: name and address.
    members: dict[str, str]
    cluster: Cluster = msgspec.field(default_factory=Cluster)
    ports: Ports = msgspec.field(default_factory=Ports)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things lie on a host."""

    folder: Path
    data: Path

    def cert(self, name: str) -> Path:
        """A certificate's file."""
        return self.folder / "pki" / f"{name}.crt"

    def key(self, name: str) -> Path:
        """A private key's file."""
        return self.folder / "pki" / f"{name}.key"

    def tls(self, name: str, ca: str) -> Tls:
        """A certificate of the authority `ca`."""
        return Tls(cert=self.cert(name), key=self.key(name), ca=self.cert(ca))


def store_config(file: ClusterFile, name: str, layout: Layout) -> StoreConfig:
    """`store.yaml` of the member `name`."""
    address = file.members[name]
    return StoreConfig(
        name=name,
        data_dir=layout.data / "store",
        client_address=f"{address}:{file.ports.store}",
        peer_address=f"{address}:{file.ports.peers}",
        members={n: f"{a}:{file.ports.peers}" for n, a in file.members.items()},
        clients={n: f"{a}:{file.ports.store}" for n, a in file.members.items()},
        tls=layout.tls("store", "store-ca"),
        cluster_name=file.cluster.name,
        backup_directory=layout.data / "store-copies",
    )


def master_config(file: ClusterFile, name: str, layout: Layout) -> MasterConfig:
    """`master.yaml` of the master `name`; its own host's store member comes first."""
    address = file.members[name]
    others = [a for n, a in file.members.items() if n != name]
    return MasterConfig(
        name=name,
        rest_address=f"{address}:{file.ports.rest}",
        grpc_address=f"{address}:{file.ports.grpc}",
        store=[f"{a}:{file.ports.store}" for a in (address, *others)],
        tls=layout.tls("master", "ca"),
        store_tls=layout.tls("store-client", "store-ca"),
        client_tls=layout.tls("master-client", "ca"),
        service_account_key=layout.key("service-account"),
        cluster=file.cluster,
    )


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """What only the node's own host knows."""

    docker: str = "unix:///var/run/docker.sock"
    cgroup_parent: str = ""
    labels: Mapping[str, str] | None = None
    reserved: Mapping[str, str] | None = None


def node_config(file: ClusterFile, name: str, address: str, layout: Layout, options: NodeOptions) -> NodeConfig:
    """`node.yaml` of the node `name`."""
    return NodeConfig(
        name=name,
        address=address,
        agent_address=f"{address}:{file.ports.agent}",
        masters=[f"{a}:{file.ports.grpc}" for a in file.members.values()],
        tls=layout.tls("node", "ca"),
        data_dir=layout.data / "node",
        runtime=DockerRuntime(endpoint=options.docker, cgroup_parent=options.cgroup_parent),
        cluster=file.cluster,
        labels=dict(options.labels or {}),
        reserved=dict(options.reserved or {}),
    )


def kubeconfig(file: ClusterFile, *, user: str, ca: str, cert: str, key: str) -> str:
    """A kubeconfig whose certificates are inside it (`ca`, `cert`, `key`: PEM in base64)."""
    context = f"{user}@{file.cluster.name}"
    # Whatever address leads to a master, its certificate is valid for this name.
    cluster = {"server": file.endpoint, "certificate-authority-data": ca, "tls-server-name": "kubernetes"}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": file.cluster.name, "cluster": cluster}],
        "users": [{"name": user, "user": {"client-certificate-data": cert, "client-key-data": key}}],
        "contexts": [{"name": context, "context": {"cluster": file.cluster.name, "user": user}}],
        "current-context": context,
    }
    return yaml.safe_dump(document, sort_keys=False)


def server_names(file: ClusterFile, name: str) -> list[str]:
    """Names and addresses that the API server certificate of the master `name` is valid for."""
    service = str(IPv4Network(file.cluster.service_cidr)[1])
    kubernetes = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"]
    names = [*kubernetes, f"kubernetes.default.svc.{file.cluster.domain}", "localhost", "127.0.0.1", service]
    return list(dict.fromkeys([*names, name, file.members[name], urlsplit(file.endpoint).hostname or name]))


def settings(pairs: Sequence[str], **given: object) -> Cluster:
    """Cluster settings out of `field=value` texts and values that are set (not None).

    Raises:
        CliError: for an unknown field or a value that breaks its rule.
    """
    fields = set(Cluster.__annotations__)
    values: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
    for pair in pairs:
        field, sign, value = pair.partition("=")
        if not sign or field not in fields:
            raise CliError(f"--set {pair}: no cluster setting of that name", f"there are: {', '.join(sorted(fields))}")
        values[field] = value
    try:
        return msgspec.convert(values, Cluster, strict=False)
    except msgspec.ValidationError as error:
        raise CliError(f"cluster setting: {error}") from error


def check(file: ClusterFile) -> None:
    """Check what the daemons would stumble over.

    Raises:
        CliError: naming the option and the rule.
    """
    cluster = file.cluster
    pods, services = _network("--pod-cidr", cluster.pod_cidr), _network("--service-cidr", cluster.service_cidr)
    if pods.overlaps(services):
        raise CliError(f"--pod-cidr {pods} and --service-cidr {services} overlap; they must not")
    if services.num_addresses < 16:
        raise CliError(f"--service-cidr {services} is too small: it needs 16 addresses or more")
    if cluster.node_cidr_bits <= pods.prefixlen:
        raise CliError(f"--pod-cidr {pods} has no room for ranges of /{cluster.node_cidr_bits}, one for each node")
    if check_address("--dns-address", cluster.dns_address) not in services:
        raise CliError(f"--dns-address {cluster.dns_address} is not in --service-cidr {services}")
    for name, address in file.members.items():
        check_name("--member", name)
        check_host(file, f"--member {name}", address)
    if len(set(file.members.values())) != len(file.members):
        raise CliError("two members have the same address")
    parts = urlsplit(file.endpoint)
    if parts.scheme != "https" or not parts.hostname or parts.path not in ("", "/"):
        raise CliError(f"--endpoint {file.endpoint}: must be of the form https://host:port")


def check_name(option: str, name: str) -> str:
    """The name, which must be a DNS label.

    Raises:
        CliError: when it is not.
    """
    if not _NAME.fullmatch(name):
        raise CliError(f"{option}: {name!r} is not a name: lower case letters, digits and '-', at most 63 of them")
    return name


def check_host(file: ClusterFile, option: str, address: str) -> str:
    """The address of a host, which must not lie in the cluster's own ranges.

    Raises:
        CliError: when it does, or is no IPv4 address.
    """
    parsed = check_address(option, address)
    for what, cidr in (("pods", file.cluster.pod_cidr), ("services", file.cluster.service_cidr)):
        if parsed in IPv4Network(cidr):
            raise CliError(f"{option}: {address} lies in the range of the {what}, {cidr}; it must not")
    return address


def check_address(option: str, address: str) -> IPv4Address:
    """The address.

    Raises:
        CliError: when it is no IPv4 address.
    """
    try:
        return IPv4Address(address)
    except ValueError as error:
        raise CliError(f"{option}: {address!r} is not an IPv4 address") from error


def _network(option: str, text: str) -> IPv4Network:
    try:
        return IPv4Network(text)
    except ValueError as error:
        raise CliError(f"{option}: {text!r} is not an IPv4 range: {error}") from error
