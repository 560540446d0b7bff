"""Views of configuration and identities."""

from __future__ import annotations

from kybern.api.types.base import Object, View


class ConfigMap(Object):
    """Configuration for pods; `binary_data` is base64."""

    data: dict[str, str] = {}
    binary_data: dict[str, str] = {}
    immutable: bool = False


class Secret(Object):
    """What only its readers may see; values are base64. Never logged: its representation leaves them out."""

    type: str = ""
    data: dict[str, str] = {}
    immutable: bool = False

    def __repr__(self) -> str:
        return f"Secret({self.key}, keys={sorted(self.data)})"


class LocalObjectReference(View):
    """A name in the same namespace."""

    name: str = ""


class ServiceAccount(Object):
    """The identity of processes in pods."""

    secrets: tuple[LocalObjectReference, ...] = ()
    image_pull_secrets: tuple[LocalObjectReference, ...] = ()
    automount_service_account_token: bool | None = None
