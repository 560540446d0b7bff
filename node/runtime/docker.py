"""Containers run by a Docker engine (20.10 or newer).

docker-py makes the calls that the engine answers at once, in a small pool of threads of its own. What streams or waits
(logs, exec, attach, events, pulls, stopping, removing) is read on the event loop (`engine_http`). The engine's labels
are the only memory; the cache here holds what cannot change any more and is rebuilt after a restart.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import math
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, TypeVar

from docker import APIClient
from docker.errors import APIError, DockerException

from kybern.clock import Clock, SystemClock
from kybern.config.models import DockerRuntime as DockerConfig
from node.runtime import cgroups, docker_view, pause
from node.runtime import docker_config as words
from node.runtime.docker_streams import EngineProcess, json_lines, outputs
from node.runtime.engine_http import Answer, EngineError, EngineHttp, lost
from node.runtime.interface import (
    Container,
    ContainerConfig,
    ContainerUsage,
    ExecResult,
    Image,
    LogOptions,
    ProcessStream,
    RuntimeEvent,
    RuntimeFailure,
    RuntimeVersion,
    Sandbox,
    SandboxConfig,
)
from node.runtime.processes import kill_member
from node.runtime.references import normalise, parse

log = logging.getLogger(__name__)
T = TypeVar("T")

# Seconds. An engine under load takes its time; one that hangs must be noticed all the same.
_QUICK = 20.0
_START = 60.0
_HEALTH = 5.0
# A pull says something all the time while it makes progress.
_PULL_SILENCE = 120.0
# An event stream is silent for hours when nothing happens; an engine that hangs is silent as well.
_EVENTS_SILENCE = 5.0
# What a sandbox's program gets to end by itself; it ends at once.
_SANDBOX_GRACE = 2.0
# The kernel's report that memory ran out may come after the exit that it caused.
_SETTLED = timedelta(seconds=5)
_KILLED = 137
# docker-py speaks no newer version; the engine may speak no newer one either.
_NEWEST_API = (1, 45)
# A command's output that is kept (probes show a line of it); the rest is read and dropped.
_EXEC_OUTPUT_BYTES = 1024 * 1024


class DockerRuntime:
    """`node.runtime.interface.Runtime` on a Docker engine."""

    def __init__(self, config: DockerConfig, *, clock: Clock | None = None, threads: int = 8) -> None:
        self._config = config
        self._clock = clock or SystemClock()
        self._http = EngineHttp(config.endpoint)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="docker")
        self._local = threading.local()
        self._clients: list[APIClient] = []
        self._api = ""
        self._cgroup_version = 0
        self._preparing = asyncio.Lock()
        self._tried = False
        self._lowest_oom_score = -1000
        # By kind: what was inspected, under the state that it was in. See `_settled`.
        self._seen: dict[str, dict[str, dict[str, Any]]] = {words.KIND_SANDBOX: {}, words.KIND_CONTAINER: {}}
        self._users: dict[str, str] = {}

    async def version(self) -> RuntimeVersion:
        """As `Runtime.version`."""
        try:
            answer = await self._http.call("GET", "/version", seconds=_HEALTH)
        except RuntimeFailure:
            # It may come back as another version.
            self._api = ""
            raise
        self._api = _api_version(answer["ApiVersion"])
        if self._cgroup_version == 0:
            info = await self._http.call("GET", f"/v{self._api}/info", seconds=_QUICK)
            self._cgroup_version = int(info.get("CgroupVersion") or 1)
        return RuntimeVersion("docker", answer["Version"], self._cgroup_version)

    async def prepare(self) -> None:
        """As `Runtime.prepare`; also starts one sandbox for trial, to learn whether scores below zero are allowed."""
        async with self._preparing:
            await self.version()
            if await self._call(_inspect_image, pause.PAUSE_IMAGE) is None:
                await self._call(_import_pause)
            if not self._tried:
                await self._try()
                self._tried = True

    async def sandboxes(self) -> Sequence[Sandbox]:
        """As `Runtime.sandboxes`."""
        found = (docker_view.sandbox(each) for each in await self._inspect_all(words.KIND_SANDBOX))
        return [sandbox for sandbox in found if sandbox is not None]

    async def containers(self) -> Sequence[Container]:
        """As `Runtime.containers`."""
        found = (docker_view.container(each) for each in await self._inspect_all(words.KIND_CONTAINER))
        return [container for container in found if container is not None]

    def events(self) -> AsyncIterator[RuntimeEvent]:
        """As `Runtime.events`; nothing is missed that happened since this call, however late the first one is read."""
        return self._events(f"{self._clock.now().timestamp():.9f}")

    async def run_sandbox(self, config: SandboxConfig) -> Sandbox:
        """As `Runtime.run_sandbox`."""
        body = words.sandbox_body(config, self._config.cgroup_parent, self._lowest_oom_score)
        name = words.sandbox_name(config)
        with _refused("CreatePodSandboxError"):
            try:
                inspected = await self._call(_create_and_start, body, name, seconds=_START)
            except EngineError as error:
                if error.status != 404 or "image" not in str(error).lower():
                    raise
                # Somebody tidied the image away.
                await self.prepare()
                inspected = await self._call(_create_and_start, body, name, seconds=_START)
        sandbox = docker_view.sandbox(inspected)
        if sandbox is None or not sandbox.ready:
            raise RuntimeFailure(f"the sandbox of {config.pod.name} ended at once", reason="CreatePodSandboxError")
        self._remember(words.KIND_SANDBOX, inspected)
        return sandbox

    async def stop_sandbox(self, sandbox_id: str) -> None:
        """As `Runtime.stop_sandbox`."""
        await self._stop(sandbox_id, _SANDBOX_GRACE)

    async def remove_sandbox(self, sandbox_id: str) -> None:
        """As `Runtime.remove_sandbox`."""
        filters = words.label_filter(words.KIND_CONTAINER, sandbox=sandbox_id)
        inside = await self._call(_list, filters)
        await asyncio.gather(*(self._remove(each["Id"]) for each in inside))
        await self._remove(sandbox_id)

    async def create_container(self, sandbox: Sandbox, config: ContainerConfig) -> str:
        """As `Runtime.create_container`."""
        with _refused("CreateContainerError"):
            shared = docker_view.shares_of(docker_view.labels_of(await self._sandbox(sandbox.id)))
            if config.limits.oom_score_adj < 0 and not self._tried:
                await self.prepare()
            parent = self._config.cgroup_parent
            body = words.container_body(sandbox, shared, config, parent, self._lowest_oom_score)
            return await self._call(_create, body, words.container_name(sandbox, config), seconds=_START)

    async def start_container(self, container_id: str) -> None:
        """As `Runtime.start_container`."""
        with _refused("RunContainerError"):
            await self._call(_start, container_id, seconds=_START)

    async def stop_container(self, container_id: str, grace_seconds: float) -> None:
        """As `Runtime.stop_container`."""
        await self._stop(container_id, grace_seconds)

    async def remove_container(self, container_id: str) -> None:
        """As `Runtime.remove_container`."""
        await self._remove(container_id)

    async def image(self, reference: str) -> Image | None:
        """As `Runtime.image`."""
        # The engine answers nonsense with nonsense.
        normalise(reference)
        shown = await self._call(_inspect_image, reference)
        return docker_view.image(shown) if shown is not None else None

    async def images(self) -> Sequence[Image]:
        """As `Runtime.images`; the sandboxes' own is left out, so that nobody tidies it away."""
        listed = await self._call(_list_images)
        shown = [docker_view.image(await self._with_user(each)) for each in listed]
        own = str(parse(pause.PAUSE_IMAGE))
        return [image for image in shown if own not in image.tags]

    async def pull_image(self, reference: str, auth: Mapping[str, str] | None = None) -> Image:
        """As `Runtime.pull_image`."""
        parsed = parse(reference)
        query = {"fromImage": parsed.repository, "tag": parsed.digest or parsed.tag}
        headers = {}
        if auth:
            credentials = {"serveraddress": parsed.domain, **auth}
            headers["X-Registry-Auth"] = base64.urlsafe_b64encode(json.dumps(credentials).encode()).decode()
        with _refused("ErrImagePull", gone=False):
            path = await self._versioned("/images/create")
            answer = await self._http.open("POST", path, query, headers=headers, answer_seconds=_PULL_SILENCE)
            try:
                await _watch_pull(answer, reference)
            finally:
                answer.close()
        image = await self.image(reference)
        if image is None:
            raise RuntimeFailure(f"{reference} was pulled, but is not there", reason="ErrImagePull")
        return image

    async def remove_image(self, image_id: str) -> None:
        """As `Runtime.remove_image`."""
        with _refused("ImageInUse"):
            await self._call(_remove_image, image_id, seconds=_START)
        self._users.pop(image_id, None)

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout: float) -> ExecResult:
        """As `Runtime.exec_sync`; a command that takes too long is killed."""
        exec_id, answer = await self._start_exec(container_id, command, tty=False, stdin=False)
        kept = bytearray()
        process = self._exec_process(exec_id, answer, tty=False)
        try:
            async with asyncio.timeout(timeout):
                async for output in process.output():
                    kept += output.data[: _EXEC_OUTPUT_BYTES - len(kept)]
                return ExecResult(await process.exit_code(), bytes(kept))
        except TimeoutError:
            await self._kill_exec(exec_id, container_id)
            text = f"the command has not ended after {timeout:g} s"
            raise RuntimeFailure(text, reason="Timeout") from None
        finally:
            await process.close()

    async def exec(self, container_id: str, command: Sequence[str], *, tty: bool, stdin: bool) -> ProcessStream:
        """As `Runtime.exec`."""
        exec_id, answer = await self._start_exec(container_id, command, tty=tty, stdin=stdin)
        return self._exec_process(exec_id, answer, tty=tty)

    async def attach(self, container_id: str, *, tty: bool, stdin: bool) -> ProcessStream:
        """As `Runtime.attach`."""
        await self._running(container_id)
        query = {"stream": 1, "stdin": int(stdin), "stdout": 1, "stderr": 1}
        path = await self._versioned(f"/containers/{container_id}/attach")
        answer = await self._http.open("POST", path, query, upgrade=True)

        async def result() -> int | None:
            state = (await self._call(_inspect, container_id))["State"]
            return None if state.get("Running") else int(state.get("ExitCode") or 0)

        async def resize(width: int, height: int) -> None:
            await self._call(_resize, container_id, width, height)

        return EngineProcess(answer, tty=tty, result=result, resize=resize)

    async def logs(self, container_id: str, options: LogOptions) -> AsyncIterator[bytes]:
        """As `Runtime.logs`."""
        inspected = await self._call(_inspect, container_id)
        query = {
            "stdout": 1,
            "stderr": 1,
            "follow": int(options.follow),
            "timestamps": int(options.timestamps),
            "tail": "all" if options.tail_lines is None else options.tail_lines,
            "since": None if options.since is None else f"{options.since.timestamp():.9f}",
        }
        left = options.limit_bytes
        if left is not None and left <= 0:
            return
        path = await self._versioned(f"/containers/{container_id}/logs")
        answer = await self._http.open("GET", path, query)
        try:
            async for output in outputs(answer, tty=bool(inspected["Config"].get("Tty"))):
                data = output.data[:left]
                yield data
                if left is not None:
                    left -= len(data)
                    if left == 0:
                        return
        finally:
            answer.close()

    async def usage(self) -> Sequence[ContainerUsage]:
        """As `Runtime.usage`."""
        running = []
        for inspected in await self._inspect_all(words.KIND_CONTAINER):
            container = docker_view.container(inspected)
            if container is not None and (pid := docker_view.pid_of(inspected)):
                running.append((container, pid))
        loop = asyncio.get_running_loop()
        read = await loop.run_in_executor(self._pool, _read_usage, [(pid, c.id) for c, pid in running])
        found = []
        for (container, _), numbers in zip(running, read, strict=True):
            figures = numbers or await self._stats(container.id)
            if figures is not None:
                found.append(ContainerUsage(container.id, container.pod, container.name, *figures))
        return found

    async def close(self) -> None:
        """As `Runtime.close`."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for client in self._clients:
            client.close()
        self._clients.clear()

    # Calls.

    async def _call(self, work: Callable[..., T], *arguments: Any, seconds: float = _QUICK) -> T:
        """Run a function of this module with a docker-py client, in a thread, within `seconds`."""
        api = await self._version()
        loop = asyncio.get_running_loop()
        try:
            # The thread's own time-out ends the work; this one ends the wait for a free thread as well.
            async with asyncio.timeout(seconds + _HEALTH):
                return await loop.run_in_executor(self._pool, self._in_thread, api, work, arguments, seconds)
        except TimeoutError as error:
            self._api = ""
            raise lost(f"has not answered in {seconds:g} s") from error
        except RuntimeFailure as failure:
            if failure.unavailable:
                self._api = ""
            raise
        except RuntimeError as error:
            raise lost("is not in use any more", error) from error

    def _in_thread(self, api: str, work: Callable[..., T], arguments: tuple[Any, ...], seconds: float) -> T:
        client = getattr(self._local, "client", None)
        try:
            if client is None or client.api_version != api:
                client = APIClient(self._config.endpoint, version=api, timeout=math.ceil(seconds))
                # Neither proxies nor .netrc of the environment have anything to do with the engine.
                client.trust_env = False
                self._local.client = client
                self._clients.append(client)
            client.timeout = math.ceil(seconds)
            return work(client, *arguments)
        except APIError as error:
            status = error.response.status_code if error.response is not None else 500
            raise EngineError(status, str(error.explanation or error)) from error
        # requests' errors are OSErrors: refused, closed, or no answer in time.
        except (DockerException, OSError) as error:
            raise lost("does not answer", error) from error

    async def _version(self) -> str:
        if not self._api:
            await self.version()
        return self._api

    async def _versioned(self, path: str) -> str:
        return f"/v{await self._version()}{path}"

    # Sandboxes and containers.

    async def _try(self) -> None:
        """Learn whether the engine may start processes with a score below zero: that takes CAP_SYS_RESOURCE.

        runc says only that its child has gone, so the difference between two trials is what tells.
        """
        for leftover in await self._call(_list, words.label_filter(words.KIND_TRIAL)):
            await self._remove(leftover["Id"])
        parent = self._config.cgroup_parent
        try:
            await self._trial(words.trial_body(parent, -1000))
        except EngineError as refusal:
            try:
                await self._trial(words.trial_body(parent, 0))
            except EngineError as error:
                text = f"the container engine cannot start a sandbox: {error}"
                raise RuntimeFailure(text, reason="RuntimeBroken") from error
            self._lowest_oom_score = 0
            log.warning(
                "the engine lacks CAP_SYS_RESOURCE, so an oom_score_adj below zero is taken as zero",
                extra={"data": {"refusal": str(refusal)}},
            )

    async def _trial(self, body: dict[str, Any]) -> None:
        made = await self._call(_create, body, None, seconds=_START)
        try:
            await self._call(_start, made, seconds=_START)
        finally:
            await self._remove(made)

    async def _sandbox(self, sandbox_id: str) -> dict[str, Any]:
        known = self._seen[words.KIND_SANDBOX].get(sandbox_id)
        return known if known is not None else await self._call(_inspect, sandbox_id)

    async def _stop(self, container_id: str, grace_seconds: float) -> None:
        path = await self._versioned(f"/containers/{container_id}/stop")
        seconds = words.stop_seconds(grace_seconds)
        with contextlib.suppress(_GoneError):
            await self._long("POST", path, {"t": seconds}, seconds + _START)

    async def _remove(self, container_id: str) -> None:
        path = await self._versioned(f"/containers/{container_id}")
        try:
            with contextlib.suppress(_GoneError):
                await self._long("DELETE", path, {"force": 1, "v": 1}, _START)
        except EngineError as error:
            # Somebody else is at it; what counts is that it goes.
            if error.status != 409 or "progress" not in str(error):
                raise
            with contextlib.suppress(_GoneError):
                await self._long("POST", f"{path}/wait", {"condition": "removed"}, _START)
        for kind in self._seen.values():
            kind.pop(container_id, None)

    async def _long(self, method: str, path: str, query: Mapping[str, Any], seconds: float) -> None:
        try:
            await self._http.call(method, path, query, seconds=seconds)
        except EngineError as error:
            if error.gone:
                raise _GoneError(error.status, str(error)) from error
            raise

    async def _inspect_all(self, kind: str) -> list[dict[str, Any]]:
        listed = await self._call(_list, words.label_filter(kind))
        seen = self._seen[kind]
        for gone in seen.keys() - {each["Id"] for each in listed}:
            del seen[gone]
        return [each for each in await asyncio.gather(*(self._known(kind, each) for each in listed)) if each]

    async def _known(self, kind: str, listed: Mapping[str, Any]) -> dict[str, Any] | None:
        known = self._seen[kind].get(listed["Id"])
        if known is not None and known["State"]["Status"] == listed["State"]:
            return known
        try:
            inspected = await self._call(_inspect, listed["Id"])
        except EngineError as error:
            if error.gone:
                return None
            raise
        self._remember(kind, inspected)
        return inspected

    def _remember(self, kind: str, inspected: dict[str, Any]) -> None:
        if self._settled(inspected["State"]):
            self._seen[kind][inspected["Id"]] = inspected

    def _settled(self, state: Mapping[str, Any]) -> bool:
        """Whether nothing changes any more while the container stays in this state."""
        if state.get("Status") == "running":
            return True
        finished = docker_view.moment(state.get("FinishedAt", ""))
        if state.get("Status") != "exited" or finished is None:
            return False
        return state.get("ExitCode") != _KILLED or self._clock.now() - finished > _SETTLED

    async def _events(self, since: str) -> AsyncIterator[RuntimeEvent]:
        filters = {"type": ["container"], "event": ["start", "die", "destroy"], "label": [words.KIND]}
        path = await self._versioned("/events")
        query = {"since": since, "filters": json.dumps(filters)}
        answer = await self._http.open("GET", path, query, answer_seconds=_HEALTH)
        lines = json_lines(answer)
        waiting: asyncio.Future[Any] | None = None
        try:
            while True:
                waiting = asyncio.ensure_future(anext(lines, None))
                while not (await asyncio.wait({waiting}, timeout=_EVENTS_SILENCE))[0]:
                    await self.version()
                event = waiting.result()
                if event is None:
                    raise lost("has ended its events")
                actor = event.get("Actor") or {}
                for seen in self._seen.values():
                    seen.pop(actor.get("ID", ""), None)
                pod = docker_view.pod_of(actor.get("Attributes") or {})
                if pod is not None:
                    yield RuntimeEvent(pod)
        finally:
            if waiting is not None and not waiting.done():
                waiting.cancel()
                await asyncio.wait({waiting})
            answer.close()

    # Processes in containers.

    async def _running(self, container_id: str) -> None:
        state = (await self._call(_inspect, container_id))["State"]
        if not state.get("Running"):
            raise RuntimeFailure("the container is not running", reason="NotRunning")

    async def _start_exec(
        self, container_id: str, command: Sequence[str], *, tty: bool, stdin: bool
    ) -> tuple[str, Answer]:
        try:
            exec_id = await self._call(_create_exec, container_id, list(command), tty, stdin)
            path = await self._versioned(f"/exec/{exec_id}/start")
            return exec_id, await self._http.open("POST", path, None, {"Detach": False, "Tty": tty}, upgrade=True)
        except EngineError as error:
            if error.status == 409:
                raise RuntimeFailure(str(error), reason="NotRunning") from error
            raise

    def _exec_process(self, exec_id: str, answer: Answer, *, tty: bool) -> EngineProcess:
        async def result() -> int | None:
            shown = await self._call(_inspect_exec, exec_id)
            return None if shown.get("Running") or shown.get("ExitCode") is None else int(shown["ExitCode"])

        async def resize(width: int, height: int) -> None:
            await self._call(_resize_exec, exec_id, width, height)

        return EngineProcess(answer, tty=tty, result=result, resize=resize)

    async def _kill_exec(self, exec_id: str, container_id: str) -> None:
        """The engine cannot end a command, and a probe that hangs would leave one behind each time."""
        with contextlib.suppress(RuntimeFailure):
            shown = await self._call(_inspect_exec, exec_id)
            if shown.get("Running") and shown.get("Pid"):
                kill_member(int(shown["Pid"]), container_id)

    async def _stats(self, container_id: str) -> tuple[int, int] | None:
        query = {"stream": 0, "one-shot": 1}
        try:
            path = await self._versioned(f"/containers/{container_id}/stats")
            shown = await self._http.call("GET", path, query, seconds=_QUICK)
            memory = shown["memory_stats"]
            details = memory.get("stats") or {}
            inactive = details.get("total_inactive_file") or details.get("inactive_file") or 0
            return int(shown["cpu_stats"]["cpu_usage"]["total_usage"]), max(0, int(memory["usage"]) - int(inactive))
        except (EngineError, KeyError):
            # It has ended meanwhile: no figures.
            return None

    async def _with_user(self, listed: dict[str, Any]) -> dict[str, Any]:
        """The list lacks the default user, which never changes for an image's id."""
        if listed["Id"] not in self._users:
            shown = await self._call(_inspect_image, listed["Id"]) or {}
            self._users[listed["Id"]] = str((shown.get("Config") or {}).get("User") or "")
        return {**listed, "Config": {"User": self._users[listed["Id"]]}}


class _GoneError(EngineError):
    """There is no such container: what should be done has been done."""


@contextlib.contextmanager
def _refused(reason: str, *, gone: bool | None = None) -> Iterator[None]:
    """Give the engine's refusal the word that the pod's status shows."""
    try:
        yield
    except EngineError as error:
        raise RuntimeFailure(str(error), reason=reason, gone=error.gone if gone is None else gone) from error


async def _watch_pull(answer: Answer, reference: str) -> None:
    lines = json_lines(answer)
    while True:
        try:
            async with asyncio.timeout(_PULL_SILENCE):
                line = await anext(lines, None)
        except TimeoutError as error:
            text = f"pulling {reference}: no progress for {_PULL_SILENCE:g} s"
            raise RuntimeFailure(text, reason="ErrImagePull") from error
        if line is None:
            return
        if line.get("error"):
            raise RuntimeFailure(f"pulling {reference}: {line['error']}", reason="ErrImagePull")


def _api_version(engine: str) -> str:
    """The newest version of the API that both the engine and docker-py speak."""
    major, _, minor = engine.partition(".")
    chosen = min((int(major), int(minor)), _NEWEST_API)
    return f"{chosen[0]}.{chosen[1]}"


# What the threads run: one engine call each, but for steps that belong together.


def _list(client: APIClient, filters: Mapping[str, Any]) -> list[dict[str, Any]]:
    return list(client.containers(all=True, filters=dict(filters)))


def _inspect(client: APIClient, container_id: str) -> dict[str, Any]:
    shown = client.inspect_container(container_id)
    # The rest, several kilobytes each, is of no use here.
    config = {key: shown["Config"].get(key) for key in ("Labels", "Tty")}
    return {**{key: shown[key] for key in ("Id", "Created", "Image", "State")}, "Config": config}


def _create(client: APIClient, body: dict[str, Any], name: str | None) -> str:
    made = client.create_container_from_config(body, name)  # type: ignore[no-untyped-call]
    return str(made["Id"])


def _start(client: APIClient, container_id: str) -> None:
    client.start(container_id)


def _create_and_start(client: APIClient, body: dict[str, Any], name: str) -> dict[str, Any]:
    made = _create(client, body, name)
    try:
        client.start(made)
        return _inspect(client, made)
    except APIError:
        # It would keep the name.
        with contextlib.suppress(APIError):
            client.remove_container(made, force=True, v=True)
        raise


def _inspect_image(client: APIClient, reference: str) -> dict[str, Any] | None:
    try:
        return dict(client.inspect_image(reference))  # type: ignore[no-untyped-call]
    except APIError as error:
        if error.response is not None and error.response.status_code == 404:
            return None
        raise


def _list_images(client: APIClient) -> list[dict[str, Any]]:
    return list(client.images())


def _import_pause(client: APIClient) -> None:
    repository, _, tag = pause.PAUSE_IMAGE.partition(":")
    changes = [f'ENTRYPOINT ["{pause.PAUSE_COMMAND}"]']
    client.import_image_from_data(pause.image_tar(), repository=repository, tag=tag, changes=changes)


def _remove_image(client: APIClient, image_id: str) -> None:
    shown = _inspect_image(client, image_id)
    if shown is None:
        return
    # By name, one after the other: the engine refuses an id with several names, and force would take one in use.
    for name in shown.get("RepoTags") or (image_id,):
        client.remove_image(name)


def _create_exec(client: APIClient, container_id: str, command: list[str], tty: bool, stdin: bool) -> str:
    return str(client.exec_create(container_id, command, stdout=True, stderr=True, stdin=stdin, tty=tty)["Id"])


def _inspect_exec(client: APIClient, exec_id: str) -> dict[str, Any]:
    return dict(client.exec_inspect(exec_id))


def _resize_exec(client: APIClient, exec_id: str, width: int, height: int) -> None:
    client.exec_resize(exec_id, height=height, width=width)


def _resize(client: APIClient, container_id: str, width: int, height: int) -> None:
    client.resize(container_id, height=height, width=width)


def _read_usage(processes: Sequence[tuple[int, str]]) -> list[tuple[int, int] | None]:
    return [cgroups.usage(pid, container_id) for pid, container_id in processes]
