"""The configuration of every daemon: what `kybern init` and `kybern join` write and the daemons read.

All durations are seconds, all addresses `host:port` with a literal IP address unless said otherwise. Unknown fields are
errors, so that a misspelt one is noticed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from kybern.struct import Frozen

Seconds = Annotated[float, msgspec.Meta(gt=0)]
NodePortNumber = Annotated[int, msgspec.Meta(ge=1, le=65535)]


class _Config(Frozen, forbid_unknown_fields=True):
    pass


class Tls(_Config):
    """A certificate, its key, and the authority that the other side's certificate must come from (PEM files)."""

    cert: Path
    key: Path
    ca: Path


class Logging(_Config):
    """What is logged, and how."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


class Cluster(_Config):
    """Settings that must be the same on every host of a cluster."""

    name: str = "kybern"
    # Ranges of pod and service addresses; they must not overlap each other or the hosts' network.
    pod_cidr: str = "10.244.0.0/16"
    node_cidr_bits: Annotated[int, msgspec.Meta(ge=8, le=30)] = 24
    service_cidr: str = "10.96.0.0/16"
    dns_address: str = "10.96.0.10"
    domain: str = "cluster.local"
    node_port_first: NodePortNumber = 30000
    node_port_last: NodePortNumber = 32767
    # How often a node renews its Lease, and after how long without a renewal it is NotReady. The grace period must be
    # longer than a change of the store's leader takes, or that would look like the loss of every node.
    node_lease_interval: Seconds = 5.0
    node_grace_period: Seconds = 20.0
    # How long pods that say nothing else stay bound to a node that is NotReady or unreachable.
    default_toleration_seconds: Annotated[int, msgspec.Meta(ge=0)] = 60
    # How long a leader's Lease is valid without renewal (scheduler and controllers).
    leader_lease: Seconds = 5.0
    # How long events are kept.
    event_ttl: Seconds = 3600.0


class StoreConfig(_Config):
    """`kybern-store`: one member of the Raft group."""

    name: str
    data_dir: Path
    # Where clients and members connect to. What is listened on is also what the others are told.
    client_address: str
    peer_address: str
    # Every member's name and peer address, this one's included. Only the first start of a group goes by it: from then
    # on the log says who belongs to it, and a member that joins finds the others here.
    members: dict[str, str]
    # Every member's client address, for clients that ask for the member list.
    clients: dict[str, str]
    tls: Tls
    cluster_name: str = "kybern"
    # `existing`: this member was added to a group that runs, and waits until the leader finds it instead of making a
    # group out of `members`. It matters only while the data directory is empty.
    initial_state: Literal["new", "existing"] = "new"
    # Raft timing. A prototype flapped under load with 0.4 to 1.4 s and held with 1.0 to 2.5 s.
    heartbeat_interval: Seconds = 0.1
    election_timeout_min: Seconds = 1.0
    election_timeout_max: Seconds = 2.5
    # How much history is kept for reads and watches of the past: at most so many revisions, none older than that.
    history_revisions: Annotated[int, msgspec.Meta(gt=0)] = 10_000
    history_seconds: Seconds = 300.0
    # About how many bytes of memory keys, values and their history may take. A write that exceeds it raises the alarm
    # NOSPACE: until it is disarmed, what makes the store grow is refused.
    quota_bytes: Annotated[int, msgspec.Meta(gt=0)] = 2 * 1024**3
    # Where /metrics and /health are served, over HTTPS to members and masters; empty for nowhere.
    metrics_address: str = ""
    # A snapshot is taken when the log has grown by so many bytes (or by the last snapshot's size, if that is more) or
    # entries since the last one; so many entries before it stay, for members that are a little behind.
    snapshot_log_bytes: Annotated[int, msgspec.Meta(gt=0)] = 64 << 20
    snapshot_entries: Annotated[int, msgspec.Meta(gt=0)] = 50_000
    snapshot_keep_entries: Annotated[int, msgspec.Meta(ge=0)] = 5_000
    # Where this member writes copies of its state by itself, outside of data_dir; none when it is not set. How often,
    # and how many of its own files stay. Members may share the folder.
    backup_directory: Path | None = None
    backup_interval_seconds: Seconds = 6 * 3600.0
    backup_keep: Annotated[int, msgspec.Meta(gt=0)] = 12
    log: Logging = msgspec.field(default_factory=Logging)


class MasterConfig(_Config):
    """`kybern-master`: API server, scheduler and controllers."""

    name: str
    # Kubernetes REST over TLS, and kybern.v1 over gRPC.
    rest_address: str
    grpc_address: str
    store: list[str]
    # Server certificate; client certificates are checked against its `ca`.
    tls: Tls
    # Client certificate towards the store.
    store_tls: Tls
    # Client certificate towards node agents (and towards other masters).
    client_tls: Tls
    # PEM key that service account tokens are signed with (the same on every master).
    service_account_key: Path
    cluster: Cluster = msgspec.field(default_factory=Cluster)
    components: list[Literal["apiserver", "scheduler", "controllers"]] = msgspec.field(
        default_factory=lambda: ["apiserver", "scheduler", "controllers"]
    )
    # gRPC addresses of API servers, for a process that runs without one of its own.
    api_servers: list[str] = msgspec.field(default_factory=list)
    log: Logging = msgspec.field(default_factory=Logging)


class DockerRuntime(_Config, tag="docker", tag_field="kind"):
    """Containers run by a Docker engine."""

    endpoint: str = "unix:///var/run/docker.sock"
    # Parent of the containers' cgroups; empty for the engine's default.
    cgroup_parent: str = ""


class FakeRuntime(_Config, tag="fake", tag_field="kind"):
    """Containers that exist in memory alone; for tests and simulations."""

    # Seconds that a container takes to start.
    start_seconds: Annotated[float, msgspec.Meta(ge=0)] = 0.1


class NodeConfig(_Config):
    """`kybern-node`: agent, service routing and DNS."""

    name: str
    # Address of this host that other hosts reach it by, and where the agent's gRPC server listens.
    address: str
    agent_address: str
    # gRPC addresses of all masters.
    masters: list[str]
    # This node's certificate, for both directions.
    tls: Tls
    data_dir: Path
    runtime: DockerRuntime | FakeRuntime = msgspec.field(default_factory=DockerRuntime)
    cluster: Cluster = msgspec.field(default_factory=Cluster)
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    max_pods: Annotated[int, msgspec.Meta(gt=0)] = 110
    # Resources kept for the host itself, as Kubernetes quantities (`cpu`, `memory`).
    reserved: dict[str, str] = msgspec.field(default_factory=dict)
    # Name servers that the cluster DNS forwards to; empty for those of the host's resolv.conf.
    upstream_dns: list[str] = msgspec.field(default_factory=list)
    # How many pods are started at once: what a Docker engine takes well is 4 to 8.
    parallel_starts: Annotated[int, msgspec.Meta(gt=0)] = 4
    # Switches for parts that a test host cannot or need not run.
    network: bool = True
    log: Logging = msgspec.field(default_factory=Logging)
