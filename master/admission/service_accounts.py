"""Every pod has a service account, and finds its token where clients look for it."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

from kybern.api import errors, resources
from kybern.api.metadata import NAME_ALPHABET
from master.admission.request import Admission, Verb
from master.apiserver.entry import Document
from master.apiserver.lookup import Lookup

MOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
ROOT_CA = "kube-root-ca.crt"
_VOLUME_PREFIX = "kube-api-access-"
# An hour and a few seconds: tells tokens of this volume from those that somebody asked for.
_TOKEN_SECONDS = 3607
# A namespace's default account follows the namespace by a moment; pods made meanwhile wait for it.
_ATTEMPTS = 10
_WAIT = 0.1


class ServiceAccounts:
    """Reads ServiceAccounts; writes account, pull secrets, volume and mounts of new pods."""

    def __init__(self, lookup: Lookup, rng: Random) -> None:
        self._lookup = lookup
        self._rng = rng

    async def admit(self, request: Admission) -> None:
        """Complete a new pod, or refuse it when its account does not exist."""
        if request.verb is not Verb.CREATE or request.resource != resources.PODS or request.subresource:
            return
        assert request.document is not None  # noqa: S101 - creates have one
        spec = request.document.setdefault("spec", {})
        name = spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"
        spec["serviceAccountName"] = name
        account = await self._account(request, name)
        if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
            spec["imagePullSecrets"] = [{"name": s.get("name", "")} for s in account["imagePullSecrets"]]
        mounted = spec.get("automountServiceAccountToken")
        if mounted is None:
            mounted = account.get("automountServiceAccountToken")
        if mounted is not False:
            self._mount(spec)

    async def _account(self, request: Admission, name: str) -> Document:
        for attempt in range(_ATTEMPTS):
            found = await self._lookup.get(resources.SERVICE_ACCOUNTS, request.namespace, name)
            if found is not None:
                return found.document()
            if attempt + 1 < _ATTEMPTS:
                await asyncio.sleep(_WAIT * self._rng.random())
        raise errors.forbidden(
            "pods",
            "",
            request.name,
            f'error looking up service account {request.namespace}/{name}: serviceaccount "{name}" not found',
        )

    def _mount(self, spec: dict[str, Any]) -> None:
        containers = [c for f in ("initContainers", "containers") for c in spec.get(f) or ()]
        without = [
            c for c in containers if not any(m.get("mountPath") == MOUNT_PATH for m in c.get("volumeMounts") or ())
        ]
        if not without:
            return
        # A pod that was made from another one's document has the volume already.
        volumes = spec.setdefault("volumes", [])
        name = next((v["name"] for v in volumes if str(v.get("name", "")).startswith(_VOLUME_PREFIX)), "")
        if not name:
            name = _VOLUME_PREFIX + "".join(self._rng.choices(NAME_ALPHABET, k=5))
            volumes.append(_volume(name))
        for container in without:
            mount = {"name": name, "readOnly": True, "mountPath": MOUNT_PATH}
            container["volumeMounts"] = [*(container.get("volumeMounts") or ()), mount]


def _volume(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "projected": {
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": _TOKEN_SECONDS, "path": "token"}},
                {"configMap": {"name": ROOT_CA, "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {
                    "downwardAPI": {
                        "items": [
                            {
                                "path": "namespace",
                                "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
                            }
                        ]
                    }
                },
            ],
            "defaultMode": 0o644,
        },
    }
