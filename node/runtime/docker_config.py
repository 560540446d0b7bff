"""What the agent asks for, in the words of the Docker Engine API. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from node.runtime.interface import ContainerConfig, Mount, PodIdentity, Sandbox, SandboxConfig
from node.runtime.pause import PAUSE_COMMAND, PAUSE_IMAGE

LABEL = "kybern.io/"
KIND = LABEL + "kind"
POD_UID = LABEL + "pod-uid"
POD_NAME = LABEL + "pod-name"
POD_NAMESPACE = LABEL + "pod-namespace"
CONTAINER = LABEL + "container"
ATTEMPT = LABEL + "attempt"
SANDBOX = LABEL + "sandbox"
IMAGE = LABEL + "image"
SHARES = LABEL + "shares"
KIND_SANDBOX, KIND_CONTAINER, KIND_TRIAL = "sandbox", "container", "trial"
OWN_LABELS = frozenset({KIND, POD_UID, POD_NAME, POD_NAMESPACE, CONTAINER, ATTEMPT, SANDBOX, IMAGE, SHARES})

# What a sandbox shares beyond network and IPC; kept in its SHARES label, since its containers must do the same.
HOST_NETWORK, HOST_PID, HOST_IPC, POD_PID = "host-network", "host-pid", "host-ipc", "pod-pid"

# A sandbox goes last when memory is short: its end is the end of every container in it.
SANDBOX_OOM_SCORE = -998

# Bounds a container's log on the node: what is older is dropped.
LOG_CONFIG = {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}}
_NO_LOG = {"Type": "none", "Config": {}}


def shares(config: SandboxConfig) -> frozenset[str]:
    """What the SHARES label of a sandbox holds."""
    chosen = {
        HOST_NETWORK: config.host_network,
        HOST_PID: config.host_pid,
        HOST_IPC: config.host_ipc,
        POD_PID: config.share_process_namespace and not config.host_pid,
    }
    return frozenset(name for name, wanted in chosen.items() if wanted)


def sandbox_name(config: SandboxConfig) -> str:
    """The engine's name for a sandbox: one per pod and attempt, so that it cannot be made twice."""
    return f"kyb_POD_{_pod(config.pod)}_{config.attempt}"


def container_name(sandbox: Sandbox, config: ContainerConfig) -> str:
    """The engine's name for a container: one per pod, container and attempt of both."""
    return f"kyb_{config.name}_{_pod(sandbox.pod)}_{sandbox.attempt}_{config.attempt}"


def _pod(pod: PodIdentity) -> str:
    return f"{pod.name}_{pod.namespace}_{pod.uid}"


def pod_labels(pod: PodIdentity, attempt: int) -> dict[str, str]:
    """The labels that sandboxes and containers have in common."""
    return {POD_UID: pod.uid, POD_NAME: pod.name, POD_NAMESPACE: pod.namespace, ATTEMPT: str(attempt)}


def sandbox_body(config: SandboxConfig, cgroup_parent: str, lowest_oom_score: int) -> dict[str, Any]:
    """The body of POST /containers/create for a sandbox.

    Two choices make it cheap (see docs/design/runtime.md for figures). `NetworkDisabled` gives it an empty network
    namespace made by runc itself; network mode `none` would have the engine run a copy of its own binary as a hook.
    And no seccomp filter is compiled for a program of ours that makes four system calls.
    """
    shared = shares(config)
    host = {
        "NetworkMode": "host" if HOST_NETWORK in shared else "none",
        "IpcMode": "host" if HOST_IPC in shared else "shareable",
        "PidMode": "host" if HOST_PID in shared else "",
        "UTSMode": "host" if HOST_NETWORK in shared else "",
        "CgroupParent": cgroup_parent,
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges", "seccomp=unconfined"],
        "OomScoreAdj": max(SANDBOX_OOM_SCORE, lowest_oom_score),
        "LogConfig": _NO_LOG,
        "RestartPolicy": {"Name": "no"},
    }
    if config.sysctls:
        host["Sysctls"] = dict(config.sysctls)
    labels = pod_labels(config.pod, config.attempt) | {KIND: KIND_SANDBOX, SHARES: ",".join(sorted(shared))}
    return {
        "Image": PAUSE_IMAGE,
        "Entrypoint": [PAUSE_COMMAND],
        # The host's own name is used with its network: the engine refuses both together.
        "Hostname": "" if HOST_NETWORK in shared else config.hostname,
        "NetworkDisabled": HOST_NETWORK not in shared,
        "Labels": labels,
        "HostConfig": host,
    }


def trial_body(cgroup_parent: str, oom_score: int) -> dict[str, Any]:
    """A sandbox of no pod, which shows whether the engine can start one with that oom_score_adj."""
    config = SandboxConfig(PodIdentity("", "", ""))
    body = sandbox_body(config, cgroup_parent, oom_score)
    body["Labels"] = {KIND: KIND_TRIAL}
    return body


def container_body(
    sandbox: Sandbox, shared: frozenset[str], config: ContainerConfig, cgroup_parent: str, lowest_oom_score: int
) -> dict[str, Any]:
    """The body of POST /containers/create for a container in a sandbox that shares `shared`."""
    labels = {
        **{key: value for key, value in config.labels.items() if key not in OWN_LABELS},
        **pod_labels(sandbox.pod, config.attempt),
        KIND: KIND_CONTAINER,
        CONTAINER: config.name,
        SANDBOX: sandbox.id,
        IMAGE: config.image,
    }
    body: dict[str, Any] = {
        "Image": config.image,
        "Env": [f"{name}={value}" for name, value in config.env],
        "WorkingDir": config.working_dir,
        "User": config.security.user,
        "Labels": labels,
        "Tty": config.tty,
        "OpenStdin": config.stdin,
        "StdinOnce": config.stdin and config.stdin_once,
        # Health is the agent's business; the image's own check would run beside its probes.
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": _host_config(sandbox, shared, config, cgroup_parent, lowest_oom_score),
    }
    if config.command:
        body["Entrypoint"] = list(config.command)
    if config.args:
        body["Cmd"] = list(config.args)
    if config.stop_signal:
        body["StopSignal"] = config.stop_signal
    return body


def _host_config(
    sandbox: Sandbox, shared: frozenset[str], config: ContainerConfig, cgroup_parent: str, lowest_oom_score: int
) -> dict[str, Any]:
    limits, security = config.limits, config.security
    joined = f"container:{sandbox.id}"
    pid_mode = "host" if HOST_PID in shared else joined if POD_PID in shared else ""
    options = []
    if not security.allow_privilege_escalation and not security.privileged:
        options.append("no-new-privileges")
    host: dict[str, Any] = {
        "NetworkMode": "host" if HOST_NETWORK in shared else joined,
        "IpcMode": "host" if HOST_IPC in shared else joined,
        "PidMode": pid_mode,
        "UTSMode": "host" if HOST_NETWORK in shared else "",
        "CgroupParent": cgroup_parent,
        "Mounts": [_mount(mount) for mount in config.mounts],
        "Privileged": security.privileged,
        "ReadonlyRootfs": security.read_only_root,
        "CapAdd": [_capability(name) for name in security.add_capabilities],
        "CapDrop": [_capability(name) for name in security.drop_capabilities],
        "GroupAdd": [str(group) for group in security.supplemental_groups],
        "SecurityOpt": options,
        "OomScoreAdj": max(limits.oom_score_adj, lowest_oom_score),
        "LogConfig": LOG_CONFIG,
        "RestartPolicy": {"Name": "no"},
    }
    amounts = {
        "CpuShares": limits.cpu_shares,
        "CpuPeriod": limits.cpu_period_us if limits.cpu_quota_us else 0,
        "CpuQuota": limits.cpu_quota_us,
        "Memory": limits.memory_bytes,
        # The same as Memory: no swap on top of it.
        "MemorySwap": limits.memory_bytes,
    }
    return host | {name: amount for name, amount in amounts.items() if amount}


def _mount(mount: Mount) -> dict[str, Any]:
    return {
        "Type": "bind",
        "Source": str(mount.host_path),
        "Target": mount.container_path,
        "ReadOnly": mount.read_only,
        # The engine's own default, rprivate, is what `private` means to people.
        "BindOptions": {"Propagation": "rprivate" if mount.propagation == "private" else mount.propagation},
    }


def _capability(name: str) -> str:
    """The engine takes names with or without CAP_, but ALL only bare."""
    bare = name.upper().removeprefix("CAP_")
    return bare if bare == "ALL" else f"CAP_{bare}"


def stop_seconds(grace_seconds: float) -> int:
    """The engine counts a grace period in whole seconds; none is cut short."""
    return max(0, math.ceil(grace_seconds))


def label_filter(kind: str, **more: str) -> Mapping[str, list[str]]:
    """The engine's filter for one kind of our containers; `more` names further labels without their prefix."""
    return {"label": [f"{KIND}={kind}", *(f"{LABEL}{name}={value}" for name, value in more.items())]}
