"""The API server's handlers in memory: enough of them to serve real clients, without admission or authorization."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import msgspec

from kybern.api import decoding, errors, resources
from kybern.api.defaults import apply_defaults
from kybern.api.patch import apply_patch
from kybern.api.protobuf import MEDIA_TYPE, decode_protobuf
from kybern.api.resources import Registry
from kybern.api.schema import load
from kybern.client.fake import FakeClient
from kybern.client.interface import EventType, PatchType, WatchEvent
from kybern.clock import SystemClock
from kybern.pki import identity_of_der
from master.apiserver.interface import (
    Body,
    Deleted,
    DeleteOptions,
    Listed,
    ListOptions,
    PodLocation,
    Target,
    User,
    WatchOptions,
    WriteOptions,
    Written,
)

Document = dict[str, Any]


class DoubleAuthenticator:
    """Certificates mean what they say; there is one token."""

    def certificate(self, der: bytes) -> User:
        identity = identity_of_der(der)
        return User(identity.name, (*identity.groups, "system:authenticated"))

    async def token(self, token: str) -> User:
        if token != "good":
            raise errors.unauthorized()
        return User("token-user", ("system:authenticated",))


class DoubleHandlers:
    """Implements `Handlers` over a FakeClient."""

    def __init__(self) -> None:
        self.client = FakeClient(SystemClock())
        self.calls: list[tuple[str, Target, Any]] = []
        self.agent_address = ""
        self._registry = resources.built_in()

    @property
    def registry(self) -> Registry:
        return self._registry

    async def get(self, user: User, target: Target, *, resource_version: str = "") -> bytes:
        data = await self.client.get(target.resource, target.name, target.namespace)
        return _scale(msgspec.json.decode(data)) if target.subresource == "scale" else data

    async def list(self, user: User, target: Target, options: ListOptions) -> Listed:
        self.calls.append(("list", target, options))
        found = await self.client.list(target.resource, target.namespace, labels=options.labels, fields=options.fields)
        items = sorted(found.items, key=_sort_key)
        start = int(options.continue_token or 0)
        page = items[start : start + options.limit] if options.limit else items[start:]
        left = len(items) - start - len(page)
        return Listed(page, found.revision, str(start + len(page)) if left else "", left or None)

    async def watch(self, user: User, target: Target, options: WatchOptions) -> AsyncIterator[Sequence[WatchEvent]]:
        self.calls.append(("watch", target, options))
        since = int(options.resource_version or 0)
        if not since:
            found = await self.client.list(
                target.resource, target.namespace, labels=options.labels, fields=options.fields
            )
            since = found.revision
            events = [WatchEvent(EventType.ADDED, item, since) for item in found.items]
            if options.send_initial_events:
                events.append(_bookmark(target, since, {"k8s.io/initial-events-end": "true"}))
            yield events
        async for batch in self.client.watch(
            target.resource, target.namespace, labels=options.labels, fields=options.fields, since=since
        ):
            yield [e for e in batch if e.object]

    async def create(self, user: User, target: Target, body: Body, options: WriteOptions) -> Written:
        document = _decode(body)
        self.calls.append(("create", target, options))
        if target.subresource:
            await self.client.create(
                target.resource, document, target.namespace, name=target.name, subresource=target.subresource
            )
            return Written(b'{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success","code":201}', True)
        apply_defaults(target.resource, document)
        if options.dry_run:
            return Written(msgspec.json.encode(document), created=True)
        data = await self.client.create(target.resource, document, target.namespace)
        return Written(data, created=True, warnings=('say "hi"\n',) if target.resource.kind == "Secret" else ())

    async def update(self, user: User, target: Target, body: Body, options: WriteOptions) -> Written:
        return await self._replace(target, _decode(body), options)

    async def patch(
        self, user: User, target: Target, kind: PatchType, patch: bytes, options: WriteOptions, *, force: bool = False
    ) -> Written:
        self.calls.append(("patch", target, (kind, options, force)))
        if kind is PatchType.APPLY:
            change, _ = decoding.decode_yaml(patch)
            if self.client.read(target.resource, target.name, target.namespace) is None:
                return Written(await self.client.create(target.resource, change, target.namespace), created=True)
            kind = PatchType.MERGE
        else:
            change = decoding.decode_json_value(patch)
        before = msgspec.json.decode(await self.get(user, target))
        if target.subresource == "scale":
            after = apply_patch(load(target.resource), before, change, PatchType.MERGE)
        else:
            after = apply_patch(load(target.resource), before, change, kind)
        return await self._replace(target, after, options)

    async def delete(self, user: User, target: Target, options: DeleteOptions) -> Deleted:
        self.calls.append(("delete", target, options))
        data = await self.client.delete(
            target.resource, target.name, target.namespace, grace_seconds=options.grace_seconds, uid=options.uid
        )
        return Deleted(data, self.client.read(target.resource, target.name, target.namespace) is None)

    async def delete_collection(
        self, user: User, target: Target, selection: ListOptions, options: DeleteOptions
    ) -> Sequence[Deleted]:
        listed = await self.list(user, target, selection)
        names = [msgspec.json.decode(item)["metadata"]["name"] for item in listed.items]
        return [await self.delete(user, Target(target.resource, target.namespace, name), options) for name in names]

    async def locate(self, user: User, target: Target, container: str, *, verb: str) -> PodLocation:
        self.calls.append(("locate", target, (container, verb)))
        pod = msgspec.json.decode(await self.client.get(target.resource, target.name, target.namespace))
        names = [c["name"] for c in pod["spec"]["containers"]]
        if container and container not in names:
            raise errors.bad_request(f"container {container} is not valid for pod {target.name}")
        return PodLocation("n1", self.agent_address, pod["metadata"]["uid"], container or names[0])

    async def _replace(self, target: Target, document: Document, options: WriteOptions) -> Written:
        if target.subresource == "scale":
            now = self.client.read(target.resource, target.name, target.namespace) or {}
            now["spec"]["replicas"] = document["spec"]["replicas"]
            data = await self.client.update(target.resource, target.name, now, target.namespace)
            return Written(_scale(msgspec.json.decode(data)))
        if options.dry_run:
            return Written(msgspec.json.encode(document))
        data = await self.client.update(
            target.resource, target.name, document, target.namespace, subresource=target.subresource
        )
        return Written(data)


def _decode(body: Body) -> Document:
    if body.content_type == MEDIA_TYPE:
        return decode_protobuf(body.data)
    if body.content_type == "application/yaml":
        return decoding.decode_yaml(body.data)[0]
    return decoding.decode_json(body.data)[0]


def _sort_key(item: bytes) -> tuple[str, str]:
    metadata = msgspec.json.decode(item)["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def _bookmark(target: Target, revision: int, annotations: Mapping[str, str]) -> WatchEvent:
    metadata = {"resourceVersion": str(revision), "annotations": annotations, "creationTimestamp": None}
    document = {"kind": target.resource.kind, "apiVersion": target.resource.api_version, "metadata": metadata}
    return WatchEvent(EventType.BOOKMARK, msgspec.json.encode(document), revision)


def _scale(document: Document) -> bytes:
    metadata = {
        k: document["metadata"].get(k) for k in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    }
    spec = document["spec"]
    scale = {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": {"replicas": spec.get("replicas", 1)},
        "status": {"replicas": (document.get("status") or {}).get("replicas", 0), "selector": ""},
    }
    return msgspec.json.encode(scale)
