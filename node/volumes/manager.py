"""A pod's volumes on the node: made, kept up to date, taken away.

Everything lies under `DATA_DIR/pods/UID`, so that an agent that restarts finds it again and can tell what belongs to
pods that no longer exist.
"""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

from kybern.api import quantity
from kybern.api.errors import StatusError
from kybern.api.types import Pod
from kybern.api.types.pods import EmptyDirSource, Volume
from kybern.clock import Clock
from node.volumes import atomic, host_path
from node.volumes.files import FileCollector, Owner
from node.volumes.interface import Blocking, HostFacts, Mounter, Sources, VolumeError

log = logging.getLogger(__name__)


class VolumeManager:
    """Set-up and tear-down are idempotent. Calls for one pod must not overlap; those for different pods may."""

    def __init__(
        self, data_dir: Path, sources: Sources, host: HostFacts, clock: Clock, mounter: Mounter, blocking: Blocking
    ) -> None:
        self._pods = data_dir / "pods"
        self._collector = FileCollector(sources, host, clock)
        self._mounter = mounter
        self._blocking = blocking

    def pod_dir(self, uid: str) -> Path:
        """Where everything of a pod lies."""
        if not uid or "/" in uid or uid.startswith("."):
            raise VolumeError(f"{uid!r} cannot be the uid of a pod")
        return self._pods / uid

    async def known(self) -> set[str]:
        """The uids of the pods that something lies here for."""

        def read() -> set[str]:
            return {p.name for p in self._pods.iterdir()} if self._pods.is_dir() else set()

        return await self._blocking(read)

    async def set_up(self, pod: Pod) -> dict[str, Path]:
        """Make all volumes of a pod; the result maps their names to paths of the host.

        Raises:
            VolumeError: naming the volume and what is wrong.
        """
        paths = {}
        for volume in pod.spec.volumes:
            try:
                paths[volume.name] = await self._set_up_one(pod, volume)
            except (VolumeError, StatusError) as error:
                raise VolumeError(f'MountVolume.SetUp failed for volume "{volume.name}" : {error}') from error
            except OSError as error:
                text = error.strerror or error
                raise VolumeError(f'MountVolume.SetUp failed for volume "{volume.name}" : {text}') from error
        return paths

    async def refresh(self, pod: Pod) -> None:
        """Bring the files of a pod's volumes up to date; what cannot be read stays as it was."""
        for volume in pod.spec.volumes:
            if not _is_files(volume):
                continue
            path = self._volume_dir(pod.uid, volume.name)
            if not await self._blocking(path.is_dir):
                continue
            try:
                await self._write(pod, volume, path)
            except (VolumeError, StatusError, OSError) as error:
                log.info("volume %s of pod %s is not brought up to date: %s", volume.name, pod.key, error)

    async def tear_down(self, uid: str) -> None:
        """Unmount and remove everything of a pod.

        Raises:
            VolumeError: when something cannot be unmounted or removed.
        """
        self._collector.forget(uid)
        root = self.pod_dir(uid)

        def remove() -> None:
            if not root.exists():
                return
            # Before anything is removed: what is mounted may be someone else's.
            self._mounter.unmount_below(root)
            try:
                shutil.rmtree(root)
            except OSError as error:
                raise VolumeError(f"cannot remove {error.filename}: {error.strerror}") from error

        await self._blocking(remove)

    # --- one volume

    def _volume_dir(self, uid: str, name: str) -> Path:
        return self.pod_dir(uid) / "volumes" / name

    async def _set_up_one(self, pod: Pod, volume: Volume) -> Path:
        if volume.host_path is not None:
            source = volume.host_path
            return await self._blocking(lambda: host_path.prepare(Path(source.path), source.type))
        path = self._volume_dir(pod.uid, volume.name)
        if volume.empty_dir is not None:
            empty = volume.empty_dir
            group = pod.spec.security_context.fs_group
            await self._blocking(lambda: self._empty_dir(path, empty, group))
            return path
        if not _is_files(volume):
            raise VolumeError("volumes of this kind are not supported on this node")
        await self._blocking(lambda: self._files_dir(path, in_memory=volume.config_map is None))
        try:
            await self._write(pod, volume, path)
        except StatusError as error:
            # What was there before an agent's restart is better than nothing while the API is away.
            if await self._blocking(lambda: atomic.current(path)) is None:
                raise
            log.info("volume %s of pod %s stays as it is: %s", volume.name, pod.key, error)
        return path

    async def _write(self, pod: Pod, volume: Volume, path: Path) -> None:
        files = await self._collector.collect(pod, volume, _owner(pod))
        await self._blocking(lambda: atomic.write(path, files))

    def _files_dir(self, path: Path, *, in_memory: bool) -> None:
        path.mkdir(parents=True, exist_ok=True)
        if in_memory:
            # Secrets never reach a disk.
            self._mounter.mount_tmpfs(path, None, 0o755)

    def _empty_dir(self, path: Path, source: EmptyDirSource, group: int | None) -> None:
        made = not path.is_dir()
        path.mkdir(parents=True, exist_ok=True)
        if source.medium == "Memory":
            limit = quantity.whole(source.size_limit) if source.size_limit is not None else 0
            self._mounter.mount_tmpfs(path, limit or None, 0o777)
        elif source.medium:
            raise VolumeError(f"the medium {source.medium!r} is not supported on this node")
        if made:
            path.chmod(0o777)
            if group is not None:
                os.chown(path, -1, group)
                # New files belong to the group, too.
                path.chmod(0o2777)


def _is_files(volume: Volume) -> bool:
    return any(s is not None for s in (volume.config_map, volume.secret, volume.downward_api, volume.projected))


def _owner(pod: Pod) -> Owner:
    context = pod.spec.security_context
    users: set[int | None] = set()
    for container in (*pod.spec.init_containers, *pod.spec.containers):
        own = container.security_context
        users.add(own.run_as_user if own is not None and own.run_as_user is not None else context.run_as_user)
    return Owner(users.pop() if len(users) == 1 else None, context.fs_group)
