"""Collects the files of configMap, secret, downwardAPI and projected volumes."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from kybern.api.types import Pod
from kybern.api.types.pods import DownwardFile, KeyToPath, Projection, TokenProjection, Volume
from kybern.clock import Clock
from node.volumes.atomic import FileEntry
from node.volumes.downward import pod_field, resource_field
from node.volumes.interface import HostFacts, Sources, Token, VolumeError

# A token is replaced when this part of its life has passed.
_REFRESH_AT = 0.8
_MAX_TOKEN_AGE = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Owner:
    """Who files belong to: `gid` is the pod's fsGroup, `uid` the one user that all its containers run as."""

    uid: int | None = None
    gid: int | None = None

    def entry(self, data: bytes, mode: int) -> FileEntry:
        """A file that the pod's group, if it has one, can read."""
        if self.gid is None:
            return FileEntry(data, mode)
        return FileEntry(data, mode | 0o440, gid=self.gid)

    def secret_entry(self, data: bytes, mode: int) -> FileEntry:
        """A token's file: for the pod's group or its one user alone where there is such."""
        if self.gid is not None:
            return FileEntry(data, 0o640, gid=self.gid)
        if self.uid is not None:
            return FileEntry(data, 0o600, uid=self.uid)
        return FileEntry(data, mode)


@dataclass(frozen=True, slots=True)
class _Held:
    token: Token
    refresh_at: datetime


class FileCollector:
    """Remembers tokens until they are due for replacement; everything else is read each time."""

    def __init__(self, sources: Sources, host: HostFacts, clock: Clock) -> None:
        self._sources = sources
        self._host = host
        self._clock = clock
        self._tokens: dict[str, dict[tuple[str, str], _Held]] = {}

    async def collect(self, pod: Pod, volume: Volume, owner: Owner) -> dict[str, FileEntry]:
        """The files of a volume, by relative path.

        Raises:
            VolumeError: when something that is not optional is missing.
            StatusError: when the API does not answer.
        """
        if volume.config_map is not None:
            source = volume.config_map
            found = await self._config_map(pod.namespace, source.name, source.optional)
            return _pick(found, source.items, source.default_mode, source.optional, owner, f'configmap "{source.name}"')
        if volume.secret is not None:
            secret = volume.secret
            found = await self._secret(pod.namespace, secret.secret_name, secret.optional)
            what = f'secret "{secret.secret_name}"'
            return _pick(found, secret.items, secret.default_mode, secret.optional, owner, what)
        if volume.downward_api is not None:
            down = volume.downward_api
            return self._downward(pod, down.items, down.default_mode, owner)
        if volume.projected is not None:
            files: dict[str, FileEntry] = {}
            for projection in volume.projected.sources:
                files |= await self._project(pod, volume, projection, volume.projected.default_mode, owner)
            return files
        raise VolumeError(f'volume "{volume.name}" is not made of files')

    def forget(self, uid: str) -> None:
        """Drop a pod's tokens."""
        self._tokens.pop(uid, None)

    async def _project(
        self, pod: Pod, volume: Volume, source: Projection, mode: int, owner: Owner
    ) -> dict[str, FileEntry]:
        if source.service_account_token is not None:
            token = await self._token(pod, volume.name, source.service_account_token)
            return {source.service_account_token.path: owner.secret_entry(token.text.encode(), mode)}
        if source.config_map is not None:
            named = source.config_map
            found = await self._config_map(pod.namespace, named.name, named.optional)
            return _pick(found, named.items, mode, named.optional, owner, f'configmap "{named.name}"')
        if source.secret is not None:
            named = source.secret
            found = await self._secret(pod.namespace, named.name, named.optional)
            return _pick(found, named.items, mode, named.optional, owner, f'secret "{named.name}"')
        if source.downward_api is not None:
            return self._downward(pod, source.downward_api.items, mode, owner)
        raise VolumeError(f'volume "{volume.name}" has a projection of a kind that this node does not know')

    async def _config_map(self, namespace: str, name: str, optional: bool) -> dict[str, bytes] | None:
        found = await self._sources.config_map(namespace, name)
        if found is None:
            if optional:
                return None
            raise VolumeError(f'configmap "{name}" not found')
        binary = {key: base64.b64decode(value) for key, value in found.binary_data.items()}
        return {**{key: value.encode() for key, value in found.data.items()}, **binary}

    async def _secret(self, namespace: str, name: str, optional: bool) -> dict[str, bytes] | None:
        found = await self._sources.secret(namespace, name)
        if found is None:
            if optional:
                return None
            raise VolumeError(f'secret "{name}" not found')
        return {key: base64.b64decode(value) for key, value in found.data.items()}

    def _downward(self, pod: Pod, items: Sequence[DownwardFile], mode: int, owner: Owner) -> dict[str, FileEntry]:
        files = {}
        for item in items:
            if item.field_ref is not None:
                text = pod_field(pod, item.field_ref.field_path, self._host)
            elif item.resource_field_ref is not None:
                text = resource_field(pod, None, item.resource_field_ref, self._host)
            else:
                raise VolumeError(f"the file {item.path!r} has neither fieldRef nor resourceFieldRef")
            files[item.path] = owner.entry(text.encode(), mode if item.mode is None else item.mode)
        return files

    async def _token(self, pod: Pod, volume: str, wanted: TokenProjection) -> Token:
        held = self._tokens.setdefault(pod.uid, {})
        known = held.get((volume, wanted.path))
        now = self._clock.now()
        if known is not None and now < known.refresh_at:
            return known.token
        token = await self._sources.token(pod, wanted.audience, wanted.expiration_seconds)
        refresh_at = now + min((token.expires_at - now) * _REFRESH_AT, _MAX_TOKEN_AGE)
        held[volume, wanted.path] = _Held(token, refresh_at)
        return token


def _pick(
    found: Mapping[str, bytes] | None,
    items: Sequence[KeyToPath],
    mode: int,
    optional: bool,
    owner: Owner,
    what: str,
) -> dict[str, FileEntry]:
    if found is None:
        return {}
    if not items:
        return {key: owner.entry(data, mode) for key, data in found.items()}
    files = {}
    for item in items:
        if item.key in found:
            files[item.path] = owner.entry(found[item.key], mode if item.mode is None else item.mode)
        elif not optional:
            raise VolumeError(f"references non-existent key {item.key!r} of {what}")
    return files
