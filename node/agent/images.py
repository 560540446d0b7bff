"""Gets images onto the node as the pull policies say.

An image that is pulled for one container is not pulled for another at the same time. Whoever fails is told the reason
that belongs into the pod's status.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from kybern.api.errors import StatusError
from kybern.api.types import Container as ContainerSpec
from kybern.api.types import Pod
from node.agent.failures import ActionError
from node.agent.sources import registry_logins
from node.runtime.interface import Image, Runtime, RuntimeFailure
from node.runtime.references import normalise, parse
from node.volumes.interface import Sources

# Tells what happens, for events: reason, message, whether it is a warning.
Report = Callable[[str, str, bool], None]
Login = Mapping[str, str]


class ImageService:
    """Shared by all pods of the node."""

    def __init__(self, runtime: Runtime, sources: Sources) -> None:
        self._runtime = runtime
        self._sources = sources
        self._pulls: dict[tuple[str, str], asyncio.Task[Image]] = {}

    async def ensure(self, pod: Pod, spec: ContainerSpec, report: Report) -> Image:
        """The image of a container, once it is on this node.

        Raises:
            ActionError: with reason ErrImagePull, ErrImageNeverPull or InvalidImageName.
            RuntimeFailure: when the runtime does not answer.
        """
        try:
            reference = normalise(spec.image)
        except RuntimeFailure as failure:
            text = f'Failed to apply default image tag "{spec.image}": {failure}'
            report("InspectFailed", text, True)
            raise ActionError("InvalidImageName", text) from failure
        policy = spec.image_pull_policy or "IfNotPresent"
        if policy != "Always":
            found = await self._runtime.image(spec.image)
            if found is not None:
                report("Pulled", f'Container image "{spec.image}" already present on machine', False)
                return found
            if policy == "Never":
                text = f'Container image "{spec.image}" is not present with pull policy of Never'
                report("ErrImageNeverPull", text, True)
                raise ActionError("ErrImageNeverPull", text)
        report("Pulling", f'Pulling image "{spec.image}"', False)
        image = await self._pull(pod, spec.image, parse(reference).domain, report)
        report("Pulled", f'Successfully pulled image "{spec.image}"', False)
        return image

    async def _pull(self, pod: Pod, reference: str, registry: str, report: Report) -> Image:
        failure: RuntimeFailure | None = None
        for login in await self._logins(pod, registry, report):
            try:
                return await self._pull_once(reference, login)
            except RuntimeFailure as error:
                if error.unavailable:
                    raise
                failure = error
        text = f'Failed to pull image "{reference}": {failure}'
        report("Failed", text, True)
        reason = failure.reason if failure is not None and failure.reason != "RuntimeError" else "ErrImagePull"
        raise ActionError(reason, str(failure)) from failure

    async def _pull_once(self, reference: str, login: Login | None) -> Image:
        # Keyed by the user too: what one may read, another may not.
        key = (reference, (login or {}).get("username", ""))
        task = self._pulls.get(key)
        if task is None:
            task = self._pulls[key] = asyncio.create_task(self._runtime.pull_image(reference, login))
            task.add_done_callback(lambda done: self._forget(key, done))
        # A pod that goes must not end the pull that another one waits for.
        return await asyncio.shield(task)

    def _forget(self, key: tuple[str, str], done: asyncio.Task[Image]) -> None:
        self._pulls.pop(key, None)
        if not done.cancelled():
            # Read once, so that a failure nobody waits for any more is not reported as lost.
            done.exception()

    async def _logins(self, pod: Pod, registry: str, report: Report) -> Sequence[Login | None]:
        logins: list[Login | None] = []
        for reference in pod.spec.image_pull_secrets:
            try:
                secret = await self._sources.secret(pod.namespace, reference.name)
            except StatusError as error:
                secret = None
                report("FailedToRetrieveImagePullSecret", f"{reference.name}: {error}", True)
            if secret is not None and (login := registry_logins(secret).get(registry)):
                logins.append(login)
        return logins or [None]

    async def close(self) -> None:
        """End the pulls that are at work."""
        tasks = list(self._pulls.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
