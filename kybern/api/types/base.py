"""What every view has: metadata, owners, conditions."""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeVar, cast

import msgspec

from kybern.key import Key
from kybern.struct import Frozen


class View(Frozen, rename="camel", omit_defaults=True):
    """Base of every view: immutable, camelCase on the wire."""


class OwnerReference(View):
    """An object that this one depends on."""

    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool = False
    block_owner_deletion: bool = False


class ObjectMeta(View):
    """Metadata of every object."""

    name: str = ""
    generate_name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    deletion_grace_period_seconds: int | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_references: tuple[OwnerReference, ...] = ()
    finalizers: tuple[str, ...] = ()


class Condition(View):
    """One aspect of an object's state. `status` is `True`, `False` or `Unknown`."""

    type: str
    status: str = "Unknown"
    reason: str = ""
    message: str = ""
    observed_generation: int = 0
    last_transition_time: datetime | None = None
    last_update_time: datetime | None = None
    last_probe_time: datetime | None = None
    last_heartbeat_time: datetime | None = None

    @property
    def true(self) -> bool:
        """Whether the condition holds."""
        return self.status == "True"


class Object(View):
    """Base of the views of whole objects."""

    api_version: str = ""
    kind: str = ""
    metadata: ObjectMeta = msgspec.field(default_factory=ObjectMeta)

    @property
    def key(self) -> Key:
        """Namespace and name."""
        return Key(self.metadata.namespace, self.metadata.name)

    @property
    def name(self) -> str:
        """The name within the namespace."""
        return self.metadata.name

    @property
    def namespace(self) -> str:
        """The namespace; empty for cluster-scoped kinds."""
        return self.metadata.namespace

    @property
    def uid(self) -> str:
        """Unique over time and space."""
        return self.metadata.uid

    @property
    def deleting(self) -> bool:
        """Whether its deletion has begun."""
        return self.metadata.deletion_timestamp is not None

    @property
    def revision(self) -> int:
        """The resource version as a number; 0 when unknown."""
        return int(self.metadata.resource_version or 0)

    @property
    def controller(self) -> OwnerReference | None:
        """The owner that manages this object."""
        return next((o for o in self.metadata.owner_references if o.controller), None)

    def owner_reference(self) -> dict[str, Any]:
        """What a dependent puts into its ownerReferences when this object manages it."""
        return {
            "apiVersion": self.api_version,
            "kind": self.kind,
            "name": self.name,
            "uid": self.uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }


T = TypeVar("T", bound=View)

_decoders: dict[type[View], msgspec.json.Decoder[View]] = {}


def decode(data: bytes, kind: type[T]) -> T:
    """The view of a JSON document.

    Raises:
        msgspec.ValidationError: when a field that the view holds has another type in the document.
    """
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    return cast(T, decoder.decode(data))
