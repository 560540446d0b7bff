"""Does what the pod machine asks for, one action at a time; knows nothing of why.

Every step may fail with an exception that `node.agent.failures` knows; whoever calls tries again later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kybern.api.types import Container as ContainerSpec
from kybern.api.types import Pod
from kybern.client.events import NORMAL, WARNING
from node.agent import pod_files, resolv
from node.agent.container_config import Prepared, container_config, sandbox_config
from node.agent.context import NodeContext
from node.agent.environment import service_variables
from node.agent.failures import ActionError
from node.agent.model import (
    SANDBOX,
    Action,
    AttachNetwork,
    RemoveContainer,
    RemoveSandbox,
    ResumeContainer,
    RunSandbox,
    SetUpVolumes,
    StartContainer,
    StopContainer,
    StopSandbox,
    TearDown,
)
from node.agent.qos import limits_of
from node.agent.security import security_of
from node.runtime.interface import Container, LogOptions, RuntimeFailure, Sandbox

# A container gets at least so long between its stop signal and SIGKILL, whatever its hook took.
_LEAST_GRACE = 2.0


class PodOperator:
    """Works on one pod. What it remembers can be found again: after a restart of the agent it starts empty."""

    def __init__(self, node: NodeContext, pod: Callable[[], Pod]) -> None:
        self._node = node
        self._pod = pod
        self.volumes: dict[str, Path] | None = None
        self.torn_down = False
        # Keys of actions that are in a part that may be given up when the pod is to end.
        self.interruptible: set[str] = set()
        self._hooked: set[str] = set()

    async def do(self, action: Action) -> None:
        """Do one action to its end."""
        match action:
            case RunSandbox():
                await self._run_sandbox(action.attempt)
            case AttachNetwork():
                await self._attach(action.sandbox)
            case SetUpVolumes():
                self.torn_down = False
                self.volumes = await self._node.volumes.set_up(self._pod())
            case StartContainer():
                await self._start(action)
            case ResumeContainer():
                await self._resume(action)
            case StopContainer():
                await self._stop(action)
            case StopSandbox():
                await self._detach(action.sandbox)
                await self._node.runtime.stop_sandbox(action.sandbox.id)
            case RemoveSandbox():
                await self._detach(action.sandbox)
                await self._node.runtime.remove_sandbox(action.sandbox.id)
            case RemoveContainer():
                await self._node.runtime.remove_container(action.container.id)
            case TearDown():
                await self._node.volumes.tear_down(self._pod().uid)
                self.volumes = None
                self.torn_down = True

    def report(self, reason: str, message: str, *, warning: bool = False, container: str = "") -> None:
        """An event about the pod, or about one container of it."""
        pod = self._pod()
        path = ""
        if container:
            init = any(c.name == container for c in pod.spec.init_containers)
            path = f"spec.{'initContainers' if init else 'containers'}{{{container}}}"
        self._node.events.record(pod, reason, message, type=WARNING if warning else NORMAL, field_path=path)

    # --- sandbox

    async def _run_sandbox(self, attempt: int) -> None:
        pod = self._pod()
        hostname = resolv.hostname_of(pod, self._node.config.name)
        if not pod.spec.host_network:
            with self._may_be_given_up(SANDBOX):
                await self._node.gate.passed()
        async with self._node.starts:
            sandbox = await self._node.runtime.run_sandbox(sandbox_config(pod, attempt, hostname))
            await self._attach(sandbox)

    async def _attach(self, sandbox: Sandbox) -> None:
        if self._pod().spec.host_network:
            return
        if sandbox.network_namespace is None:
            raise ActionError("FailedCreatePodSandBox", "the sandbox has no network namespace")
        address = await self._node.network.attach(sandbox.id, sandbox.network_namespace)
        self._node.observer.note_address(sandbox.id, address)

    async def _detach(self, sandbox: Sandbox) -> None:
        if not self._pod().spec.host_network:
            await self._node.network.detach(sandbox.id)
            self._node.observer.note_address(sandbox.id, "")

    # --- containers

    async def _start(self, action: StartContainer) -> None:
        node, pod, spec = self._node, self._pod(), action.spec

        def report(reason: str, message: str, warning: bool) -> None:
            self.report(reason, message, warning=warning, container=spec.name)

        with self._may_be_given_up(action.key):
            image = await node.images.ensure(pod, spec, report)
            address = self._address(action.sandbox)
            env = await node.environment.build(pod, spec, self._services(pod), address)
            await node.starts.acquire()
        try:
            made = Prepared(
                env=env,
                volumes=self.volumes or {},
                files=await self._files(pod, address),
                message_file=await self._message_file(pod, spec, action.attempt),
                limits=limits_of(pod.spec, spec, capacity=node.host.memory_bytes),
                security=security_of(pod, spec, image),
            )
            config = container_config(pod, spec, spec.image, action.attempt, action.backoff, made)
            container_id = await node.runtime.create_container(action.sandbox, config)
            self.report("Created", f"Container created: {spec.name}", container=spec.name)
            await self._start_created(container_id, spec)
        except ActionError as error:
            self.report("Failed", f"Error: {error}", warning=True, container=spec.name)
            raise
        finally:
            node.starts.release()
        await self._post_start(action.key, container_id, spec, address)

    async def _start_created(self, container_id: str, spec: ContainerSpec) -> None:
        try:
            await self._node.runtime.start_container(container_id)
        except RuntimeFailure as failure:
            if not failure.unavailable:
                self.report("Failed", f"Error: {failure}", warning=True, container=spec.name)
            raise
        self.report("Started", f"Container started: {spec.name}", container=spec.name)

    async def _resume(self, action: ResumeContainer) -> None:
        async with self._node.starts:
            await self._start_created(action.container.id, action.spec)
        seen = self._node.observer.seen(self._pod().uid)
        sandbox = next((s for s in seen.sandboxes if s.id == action.container.sandbox_id), None)
        address = self._address(sandbox) if sandbox is not None else ""
        await self._post_start(action.key, action.container.id, action.spec, address)

    async def _post_start(self, key: str, container_id: str, spec: ContainerSpec, address: str) -> None:
        hook = spec.lifecycle.post_start if spec.lifecycle is not None else None
        if hook is None:
            return
        with self._may_be_given_up(key):
            answer = await self._node.hooks.hook(hook, spec, container_id, address)
        if not answer.ok:
            text = f"PostStartHook failed: {answer.message}"
            self.report("FailedPostStartHook", text, warning=True, container=spec.name)
            grace = float(self._pod().spec.termination_grace_period_seconds)
            self.report("Killing", "FailedPostStartHook", container=spec.name)
            await self._node.runtime.stop_container(container_id, max(_LEAST_GRACE, grace))

    async def _stop(self, action: StopContainer) -> None:
        container, spec, grace = action.container, action.spec, action.grace_seconds
        if container.id not in self._hooked:
            self.report("Killing", action.message, container=container.name)
        hook = spec.lifecycle.pre_stop if spec is not None and spec.lifecycle is not None else None
        if hook is not None and spec is not None and grace > 0 and container.id not in self._hooked:
            self._hooked.add(container.id)
            begun = self._node.clock.monotonic()
            address = self._node.observer.address(container.sandbox_id) or self._node.host.address
            answer = await self._node.hooks.hook(hook, spec, container.id, address, grace)
            if not answer.ok:
                text = f"PreStopHook failed: {answer.message}"
                self.report("FailedPreStopHook", text, warning=True, container=container.name)
            grace = max(_LEAST_GRACE, grace - (self._node.clock.monotonic() - begun))
        self._hooked.add(container.id)
        await self._node.runtime.stop_container(container.id, grace)

    # --- what a container needs

    def _address(self, sandbox: Sandbox) -> str:
        if self._pod().spec.host_network:
            return self._node.host.address
        return self._node.observer.address(sandbox.id)

    def _services(self, pod: Pod) -> dict[str, str]:
        if not self._node.services.has_synced:
            raise ActionError(
                "CreateContainerConfigError",
                "services have not yet been read at least once, cannot construct envvars",
            )
        return service_variables(self._node.services.all(), pod.namespace, links=pod.spec.enable_service_links)

    async def _files(self, pod: Pod, address: str) -> dict[str, Path]:
        node = self._node
        cluster = node.config.cluster
        hostname = resolv.hostname_of(pod, node.config.name)

        def write() -> dict[str, Path]:
            resolver = resolv.resolver_of(pod, cluster, resolv.host_resolver(node.host_resolv))
            host_file = node.host_hosts.read_text(errors="replace") if pod.spec.host_network else ""
            hosts = resolv.hosts_of(pod, cluster, hostname, address, host_file)
            pod_dir = node.volumes.pod_dir(pod.uid)
            return pod_files.write_etc(pod_dir, hosts=hosts, resolv=resolver.text(), hostname=hostname)

        return await node.blocking(write)

    async def _message_file(self, pod: Pod, spec: ContainerSpec, attempt: int) -> Path | None:
        if not spec.termination_message_path:
            return None
        pod_dir = self._node.volumes.pod_dir(pod.uid)
        return await self._node.blocking(lambda: pod_files.make_message_file(pod_dir, spec.name, attempt))

    async def termination_message(self, container: Container, spec: ContainerSpec | None) -> str:
        """What a container that has ended left as a message."""
        uid = self._pod().uid
        pod_dir = self._node.volumes.pod_dir(uid)
        text = await self._node.blocking(lambda: pod_files.read_message(pod_dir, container.name, container.attempt))
        if text or not pod_files.wants_log(spec, container.exit_code):
            return text
        tail = b""
        try:
            async with asyncio.timeout(5.0):
                options = LogOptions(tail_lines=pod_files.FALLBACK_LINES)
                async for piece in self._node.runtime.logs(container.id, options):
                    tail = (tail + piece)[-pod_files.FALLBACK_BYTES :]
        except (RuntimeFailure, TimeoutError):
            return ""
        return tail.decode(errors="replace")

    @contextmanager
    def _may_be_given_up(self, key: str) -> Iterator[None]:
        self.interruptible.add(key)
        try:
            yield
        finally:
            self.interruptible.discard(key)
