"""From a container of a pod to what the runtime is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kybern.api.types import Container as ContainerSpec
from kybern.api.types import Pod
from node.agent.environment import expand
from node.agent.failures import ActionError
from node.agent.model import BACKOFF_LABEL, HASH_LABEL
from node.agent.restarts import spec_hash
from node.runtime.interface import ContainerConfig, Limits, Mount, PodIdentity, SandboxConfig, Security
from node.volumes import sub_path
from node.volumes.interface import VolumeError


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a container needs of the node."""

    env: Sequence[tuple[str, str]]
    volumes: Mapping[str, Path]
    # Files that every container gets, by container path.
    files: Mapping[str, Path]
    message_file: Path | None
    limits: Limits
    security: Security


def identity_of(pod: Pod) -> PodIdentity:
    """The pod as the runtime's labels name it."""
    return PodIdentity(pod.namespace, pod.name, pod.uid)


def sandbox_config(pod: Pod, attempt: int, hostname: str) -> SandboxConfig:
    """The pod's shared surroundings."""
    return SandboxConfig(
        pod=identity_of(pod),
        attempt=attempt,
        hostname="" if pod.spec.host_network else hostname,
        host_network=pod.spec.host_network,
        host_pid=pod.spec.host_pid,
        host_ipc=pod.spec.host_ipc,
        share_process_namespace=pod.spec.share_process_namespace,
        sysctls={s.name: s.value for s in pod.spec.security_context.sysctls},
    )


def container_config(
    pod: Pod, spec: ContainerSpec, image: str, attempt: int, backoff: float, made: Prepared
) -> ContainerConfig:
    """One attempt of a container.

    Raises:
        ActionError: when a mount cannot be made.
    """
    variables = dict(made.env)
    return ContainerConfig(
        name=spec.name,
        image=image,
        attempt=attempt,
        command=tuple(expand(word, variables) for word in spec.command),
        args=tuple(expand(word, variables) for word in spec.args),
        working_dir=spec.working_dir,
        env=made.env,
        mounts=_mounts(spec, variables, made),
        limits=made.limits,
        security=made.security,
        tty=spec.tty,
        stdin=spec.stdin,
        stdin_once=spec.stdin_once,
        labels={HASH_LABEL: spec_hash(spec), BACKOFF_LABEL: f"{backoff:g}"},
    )


def _mounts(spec: ContainerSpec, variables: Mapping[str, str], made: Prepared) -> list[Mount]:
    mounts = []
    for wanted in spec.volume_mounts:
        path = made.volumes.get(wanted.name)
        if path is None:
            raise ActionError("CreateContainerConfigError", f"there is no volume {wanted.name!r}")
        part = expand(wanted.sub_path_expr, variables) if wanted.sub_path_expr else wanted.sub_path
        if part:
            try:
                path = sub_path.resolve(path, part)
            except (VolumeError, OSError) as error:
                text = f'failed to prepare subPath for volumeMount "{wanted.name}" of container "{spec.name}": {error}'
                raise ActionError("CreateContainerConfigError", text) from error
        mounts.append(Mount(path, wanted.mount_path, wanted.read_only))
    taken = {mount.container_path for mount in mounts}
    # What the pod mounts itself comes before what every pod gets.
    mounts += [Mount(path, target) for target, path in made.files.items() if target not in taken]
    if made.message_file is not None and spec.termination_message_path not in taken:
        mounts.append(Mount(made.message_file, spec.termination_message_path))
    return mounts
