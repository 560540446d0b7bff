"""Reads ConfigMaps, Secrets and tokens from the API."""

from __future__ import annotations

import base64
import logging
from collections.abc import Mapping
from datetime import datetime

import msgspec

from kybern.api import resources
from kybern.api.errors import Reason, StatusError
from kybern.api.types import ConfigMap, Pod, Secret
from kybern.api.types.base import View, decode
from kybern.client.interface import Client
from node.volumes.interface import Token

log = logging.getLogger(__name__)


class _TokenStatus(View):
    token: str
    expiration_timestamp: datetime


class _TokenRequest(View):
    status: _TokenStatus


class ApiSources:
    """Implements `node.volumes.interface.Sources` with single reads, as of now.

    A node may read single objects that its pods refer to, and nothing more: so nothing is listed or watched here.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    async def config_map(self, namespace: str, name: str) -> ConfigMap | None:
        """As `Sources.config_map`."""
        try:
            return decode(await self._client.get(resources.CONFIG_MAPS, name, namespace), ConfigMap)
        except StatusError as error:
            if error.reason == Reason.NOT_FOUND:
                return None
            raise

    async def secret(self, namespace: str, name: str) -> Secret | None:
        """As `Sources.secret`."""
        try:
            return decode(await self._client.get(resources.SECRETS, name, namespace), Secret)
        except StatusError as error:
            if error.reason == Reason.NOT_FOUND:
                return None
            raise

    async def token(self, pod: Pod, audience: str, seconds: int) -> Token:
        """As `Sources.token`."""
        bound = {"apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": pod.uid}
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": [audience] if audience else [],
                "expirationSeconds": seconds,
                "boundObjectRef": bound,
            },
        }
        account = pod.spec.service_account_name or "default"
        answer = await self._client.create(
            resources.SERVICE_ACCOUNTS, request, pod.namespace, name=account, subresource="token"
        )
        status = decode(answer, _TokenRequest).status
        return Token(status.token, status.expiration_timestamp)


class _DockerConfig(msgspec.Struct):
    auths: dict[str, dict[str, str]] = {}


def registry_logins(secret: Secret) -> dict[str, Mapping[str, str]]:
    """User names and passwords by registry, out of an image pull secret; nothing when it is not one."""
    try:
        if secret.type == "kubernetes.io/dockerconfigjson":
            data = base64.b64decode(secret.data.get(".dockerconfigjson", ""))
            auths = msgspec.json.decode(data, type=_DockerConfig).auths
        elif secret.type == "kubernetes.io/dockercfg":
            data = base64.b64decode(secret.data.get(".dockercfg", ""))
            auths = msgspec.json.decode(data, type=dict[str, dict[str, str]])
        else:
            return {}
    except (ValueError, msgspec.MsgspecError):
        log.warning("the image pull secret %s cannot be read", secret.key)
        return {}
    return {registry_of(server): login for server, entry in auths.items() if (login := _login(entry))}


def registry_of(server: str) -> str:
    """The host (and port) in the name of a server, such as `https://index.docker.io/v1/`."""
    host = server.partition("://")[2] or server
    host = host.partition("/")[0]
    return "docker.io" if host in ("index.docker.io", "registry-1.docker.io") else host


def _login(entry: Mapping[str, str]) -> Mapping[str, str]:
    if entry.get("username"):
        return {"username": entry["username"], "password": entry.get("password", "")}
    try:
        user, _, password = base64.b64decode(entry.get("auth", "")).decode().partition(":")
    except ValueError:
        return {}
    return {"username": user, "password": password} if user else {}
