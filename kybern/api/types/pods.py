"""Views of pods and what is in them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from kybern.api.types.base import Condition, Object, ObjectMeta, View


class ContainerPort(View):
    """A port that a container listens on."""

    container_port: int
    name: str = ""
    host_port: int = 0
    host_ip: str = msgspec.field(default="", name="hostIP")
    protocol: str = "TCP"


class KeySelector(View):
    """A key of a ConfigMap or Secret."""

    name: str = ""
    key: str = ""
    optional: bool = False


class ObjectFieldSelector(View):
    """A field of the pod itself."""

    field_path: str
    api_version: str = "v1"


class ResourceFieldSelector(View):
    """A container's request or limit."""

    resource: str
    container_name: str = ""
    divisor: str | int = ""


class EnvVarSource(View):
    """Where a variable's value comes from; one of the fields is set."""

    field_ref: ObjectFieldSelector | None = None
    resource_field_ref: ResourceFieldSelector | None = None
    config_map_key_ref: KeySelector | None = None
    secret_key_ref: KeySelector | None = None


class EnvVar(View):
    """An environment variable; `$(NAME)` in the value refers to earlier ones."""

    name: str
    value: str = ""
    value_from: EnvVarSource | None = None


class EnvSource(View):
    """A ConfigMap or Secret whose keys become variables."""

    name: str = ""
    optional: bool = False


class EnvFromSource(View):
    """Variables from all keys of a ConfigMap or Secret."""

    prefix: str = ""
    config_map_ref: EnvSource | None = None
    secret_ref: EnvSource | None = None


class VolumeMount(View):
    """Where a container sees a volume."""

    name: str
    mount_path: str
    read_only: bool = False
    sub_path: str = ""
    sub_path_expr: str = ""


class ResourceRequirements(View):
    """What a container needs and may use at most; quantities stay as they were written."""

    requests: dict[str, str | int | float] = {}
    limits: dict[str, str | int | float] = {}


class ExecAction(View):
    """A command whose exit code counts."""

    command: tuple[str, ...] = ()


class HttpHeader(View):
    """A header of a probe's request."""

    name: str
    value: str


class HttpGetAction(View):
    """An HTTP request whose status counts."""

    port: int | str
    path: str = "/"
    host: str = ""
    scheme: str = "HTTP"
    http_headers: tuple[HttpHeader, ...] = ()


class TcpSocketAction(View):
    """A connection that must open."""

    port: int | str
    host: str = ""


class GrpcAction(View):
    """A call of grpc.health.v1.Health/Check."""

    port: int
    service: str = ""


class Probe(View):
    """A check of a container; one of the four actions is set."""

    exec: ExecAction | None = None
    http_get: HttpGetAction | None = None
    tcp_socket: TcpSocketAction | None = None
    grpc: GrpcAction | None = None
    initial_delay_seconds: int = 0
    timeout_seconds: int = 1
    period_seconds: int = 10
    success_threshold: int = 1
    failure_threshold: int = 3
    termination_grace_period_seconds: int | None = None


class SleepAction(View):
    """A pause."""

    seconds: int


class LifecycleHandler(View):
    """What to do at a moment of a container's life."""

    exec: ExecAction | None = None
    http_get: HttpGetAction | None = None
    tcp_socket: TcpSocketAction | None = None
    sleep: SleepAction | None = None


class Lifecycle(View):
    """Hooks after the start and before the stop of a container."""

    post_start: LifecycleHandler | None = None
    pre_stop: LifecycleHandler | None = None


class Capabilities(View):
    """Linux capabilities to add and drop."""

    add: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()


class SecurityContext(View):
    """Privileges of one container; absent fields are those of the pod."""

    privileged: bool = False
    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    read_only_root_filesystem: bool = False
    allow_privilege_escalation: bool | None = None
    capabilities: Capabilities | None = None


class Sysctl(View):
    """A kernel setting of the pod's namespaces."""

    name: str
    value: str


class PodSecurityContext(View):
    """Privileges of all containers."""

    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    fs_group: int | None = None
    supplemental_groups: tuple[int, ...] = ()
    sysctls: tuple[Sysctl, ...] = ()


class Container(View):
    """A container of a pod."""

    name: str
    image: str = ""
    image_pull_policy: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    working_dir: str = ""
    ports: tuple[ContainerPort, ...] = ()
    env: tuple[EnvVar, ...] = ()
    env_from: tuple[EnvFromSource, ...] = ()
    resources: ResourceRequirements = msgspec.field(default_factory=ResourceRequirements)
    volume_mounts: tuple[VolumeMount, ...] = ()
    liveness_probe: Probe | None = None
    readiness_probe: Probe | None = None
    startup_probe: Probe | None = None
    lifecycle: Lifecycle | None = None
    termination_message_path: str = "/dev/termination-log"
    termination_message_policy: str = "File"
    security_context: SecurityContext | None = None
    # `Always` on an init container makes it a sidecar.
    restart_policy: str | None = None
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False


class KeyToPath(View):
    """Which key becomes which file."""

    key: str
    path: str
    mode: int | None = None


class EmptyDirSource(View):
    """A directory that lives as long as the pod. `medium` is empty (disk) or `Memory`."""

    medium: str = ""
    size_limit: str | int | None = None


class HostPathSource(View):
    """A path of the node."""

    path: str
    type: str = ""


class ConfigMapSource(View):
    """Files from a ConfigMap."""

    name: str = ""
    items: tuple[KeyToPath, ...] = ()
    default_mode: int = 0o644
    optional: bool = False


class SecretSource(View):
    """Files from a Secret."""

    secret_name: str = ""
    items: tuple[KeyToPath, ...] = ()
    default_mode: int = 0o644
    optional: bool = False


class DownwardFile(View):
    """A file with a field of the pod."""

    path: str
    field_ref: ObjectFieldSelector | None = None
    resource_field_ref: ResourceFieldSelector | None = None
    mode: int | None = None


class DownwardSource(View):
    """Files with fields of the pod."""

    items: tuple[DownwardFile, ...] = ()
    default_mode: int = 0o644


class TokenProjection(View):
    """A file with a service account token."""

    path: str
    audience: str = ""
    expiration_seconds: int = 3600


class NamedProjection(View):
    """Files from a ConfigMap or Secret inside a projected volume."""

    name: str = ""
    items: tuple[KeyToPath, ...] = ()
    optional: bool = False


class DownwardProjection(View):
    """Files with fields of the pod inside a projected volume."""

    items: tuple[DownwardFile, ...] = ()


class Projection(View):
    """One source of a projected volume; one of the fields is set."""

    service_account_token: TokenProjection | None = None
    config_map: NamedProjection | None = None
    secret: NamedProjection | None = None
    downward_api: DownwardProjection | None = msgspec.field(default=None, name="downwardAPI")


class ProjectedSource(View):
    """Several sources in one directory."""

    sources: tuple[Projection, ...] = ()
    default_mode: int = 0o644


class Volume(View):
    """A volume of a pod; one of the sources is set (kinds that the node does not know are all absent here)."""

    name: str
    empty_dir: EmptyDirSource | None = None
    host_path: HostPathSource | None = None
    config_map: ConfigMapSource | None = None
    secret: SecretSource | None = None
    downward_api: DownwardSource | None = msgspec.field(default=None, name="downwardAPI")
    projected: ProjectedSource | None = None


class Toleration(View):
    """A taint that a pod can live with."""

    key: str = ""
    # Equal or Exists.
    operator: str = "Equal"
    value: str = ""
    # Empty matches every effect.
    effect: str = ""
    toleration_seconds: int | None = None


class HostAlias(View):
    """A line of /etc/hosts."""

    ip: str
    hostnames: tuple[str, ...] = ()


class DnsOption(View):
    """An option of resolv.conf."""

    name: str
    value: str | None = None


class DnsConfig(View):
    """Additions to resolv.conf."""

    nameservers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[DnsOption, ...] = ()


class ReadinessGate(View):
    """A condition that must be true for the pod to be ready."""

    condition_type: str


class SchedulingGate(View):
    """As long as there is one, the pod is not scheduled."""

    name: str


class ImagePullSecret(View):
    """Name of a Secret with registry credentials."""

    name: str = ""


class PodSpec(View):
    """What a pod wants. `affinity` and `topology_spread_constraints` stay JSON: the scheduler compiles them."""

    node_name: str = ""
    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] = ()
    volumes: tuple[Volume, ...] = ()
    restart_policy: str = "Always"
    termination_grace_period_seconds: int = 30
    active_deadline_seconds: int | None = None
    dns_policy: str = "ClusterFirst"
    dns_config: DnsConfig | None = None
    node_selector: dict[str, str] = {}
    affinity: dict[str, Any] | None = None
    topology_spread_constraints: tuple[dict[str, Any], ...] = ()
    tolerations: tuple[Toleration, ...] = ()
    scheduler_name: str = "default-scheduler"
    scheduling_gates: tuple[SchedulingGate, ...] = ()
    priority: int = 0
    service_account_name: str = ""
    automount_service_account_token: bool | None = None
    host_network: bool = False
    host_pid: bool = msgspec.field(default=False, name="hostPID")
    host_ipc: bool = msgspec.field(default=False, name="hostIPC")
    share_process_namespace: bool = False
    hostname: str | None = None
    subdomain: str = ""
    host_aliases: tuple[HostAlias, ...] = ()
    image_pull_secrets: tuple[ImagePullSecret, ...] = ()
    security_context: PodSecurityContext = msgspec.field(default_factory=PodSecurityContext)
    readiness_gates: tuple[ReadinessGate, ...] = ()
    enable_service_links: bool = True
    overhead: dict[str, str | int | float] = {}


class StateWaiting(View):
    """Not running yet, or not any more until it is started again."""

    reason: str = ""
    message: str = ""


class StateRunning(View):
    """Running."""

    started_at: datetime | None = None


class StateTerminated(View):
    """Ended."""

    exit_code: int = 0
    signal: int = 0
    reason: str = ""
    message: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    container_id: str = msgspec.field(default="", name="containerID")


class ContainerState(View):
    """One of the three is set."""

    waiting: StateWaiting | None = None
    running: StateRunning | None = None
    terminated: StateTerminated | None = None


class ContainerStatus(View):
    """What became of a container."""

    name: str
    state: ContainerState = msgspec.field(default_factory=ContainerState)
    last_state: ContainerState = msgspec.field(default_factory=ContainerState)
    ready: bool = False
    started: bool | None = None
    restart_count: int = 0
    image: str = ""
    image_id: str = msgspec.field(default="", name="imageID")
    container_id: str = msgspec.field(default="", name="containerID")


class PodIP(View):
    """One address of a pod."""

    ip: str = ""


class PodStatus(View):
    """What a pod has."""

    phase: str = ""
    conditions: tuple[Condition, ...] = ()
    message: str = ""
    reason: str = ""
    host_ip: str = msgspec.field(default="", name="hostIP")
    pod_ip: str = msgspec.field(default="", name="podIP")
    pod_ips: tuple[PodIP, ...] = msgspec.field(default=(), name="podIPs")
    start_time: datetime | None = None
    container_statuses: tuple[ContainerStatus, ...] = ()
    init_container_statuses: tuple[ContainerStatus, ...] = ()
    qos_class: str = ""
    observed_generation: int = 0


class PodTemplate(View):
    """What new pods are made from."""

    metadata: ObjectMeta = msgspec.field(default_factory=ObjectMeta)
    spec: PodSpec = msgspec.field(default_factory=PodSpec)


class Pod(Object):
    """Containers that live and die together on one node."""

    spec: PodSpec = msgspec.field(default_factory=PodSpec)
    status: PodStatus = msgspec.field(default_factory=PodStatus)

    @property
    def finished(self) -> bool:
        """Whether it has ended for good."""
        return self.status.phase in ("Succeeded", "Failed")

    @property
    def ready(self) -> bool:
        """Whether it says that it can serve."""
        return any(c.type == "Ready" and c.true for c in self.status.conditions)

    def condition(self, kind: str) -> Condition | None:
        """The condition of that type."""
        return next((c for c in self.status.conditions if c.type == kind), None)
