"""What volumes need of the rest of the node, and how they fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol, TypeVar

from kybern.api.types import ConfigMap, Pod, Secret

T = TypeVar("T")


class VolumeError(Exception):
    """A volume cannot be made (now); the message says which, and why. Trying again may help."""


@dataclass(frozen=True, slots=True)
class Token:
    """A service account token. Never logged."""

    text: str
    expires_at: datetime

    def __repr__(self) -> str:
        return f"Token(expires_at={self.expires_at})"


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What fields of a pod are filled with that are the node's."""

    name: str
    address: str
    # For limits that a container does not have: thousandths of a core, bytes.
    cpu_milli: int = 0
    memory_bytes: int = 0
    storage_bytes: int = 0


class Sources(Protocol):
    """Reads what volumes and variables are made from. Raises StatusError when the API does not answer."""

    async def config_map(self, namespace: str, name: str) -> ConfigMap | None:
        """The ConfigMap; None when there is none."""
        ...

    async def secret(self, namespace: str, name: str) -> Secret | None:
        """The Secret; None when there is none."""
        ...

    async def token(self, pod: Pod, audience: str, seconds: int) -> Token:
        """A new token of the pod's service account that is bound to the pod."""
        ...


class Mounter(Protocol):
    """Mounts file systems."""

    def mount_tmpfs(self, path: Path, size_bytes: int | None, mode: int) -> None:
        """Mount an empty memory file system on a directory, unless one is there already."""
        ...

    def unmount_below(self, root: Path) -> None:
        """Unmount everything that is mounted on or below a directory."""
        ...


class Blocking(Protocol):
    """Runs work that waits for disks: in a thread in production, at once where time is virtual."""

    async def __call__(self, work: Callable[[], T]) -> T:
        """Run it and return what it returns."""
        ...


async def run_inline(work: Callable[[], T]) -> T:
    """`Blocking` without a thread."""
    return work()


async def run_in_thread(work: Callable[[], T]) -> T:
    """`Blocking` in the loop's own pool of threads."""
    return await asyncio.to_thread(work)
