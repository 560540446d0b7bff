"""Rules for the metadata of every object."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kybern.api import names
from kybern.api.resources import Resource
from kybern.api.validation.field import IMMUTABLE, Causes, forbidden, invalid, non_negative, required, show, too_long

# Bytes of all annotations of an object together.
_ANNOTATIONS_LIMIT = 256 * 1024

NameRule = Callable[[str], tuple[str, ...]]

_NAME_RULES: Mapping[tuple[str, str], NameRule] = {
    ("", "Namespace"): names.label,
    ("", "Service"): names.label_1035,
}


def name_rule(resource: Resource) -> NameRule:
    """What the names of a resource's objects must be."""
    return _NAME_RULES.get((resource.group, resource.kind), names.subdomain)


def validate(resource: Resource, metadata: Mapping[str, Any], out: Causes) -> None:
    """Complain about metadata that breaks a rule."""
    rule = name_rule(resource)
    _names(resource, rule, metadata, out)
    if resource.namespaced:
        namespace = metadata.get("namespace")
        if not namespace:
            out.append(required("metadata.namespace"))
        elif wrong := names.label(namespace):
            out += [invalid("metadata.namespace", namespace, w) for w in wrong]
    elif metadata.get("namespace"):
        out.append(forbidden("metadata.namespace", "not allowed on this type"))
    non_negative("metadata.generation", metadata.get("generation"), out)
    validate_labels(metadata.get("labels"), "metadata.labels", out)
    validate_annotations(metadata.get("annotations"), "metadata.annotations", out)
    if "ownerReferences" in metadata:
        _owners(metadata["ownerReferences"], out)
    if "finalizers" in metadata:
        _finalizers(metadata["finalizers"], out)


def _names(resource: Resource, rule: NameRule, metadata: Mapping[str, Any], out: Causes) -> None:
    base = metadata.get("generateName")
    if base:
        # Something follows the base, so it may end with a dash.
        masked = base[:-1] + "a" if base.endswith("-") and len(base) > 1 else base
        out += [invalid("metadata.generateName", base, w) for w in rule(masked[: names.LABEL_LENGTH])]
    name = metadata.get("name")
    if not name:
        out.append(required("metadata.name", "name or generateName is required"))
    elif wrong := rule(name):
        out += [invalid("metadata.name", name, w) for w in wrong]


def validate_labels(values: Mapping[str, str] | None, path: str, out: Causes) -> None:
    """Complain about labels whose key or value breaks a rule."""
    for key, value in (values or {}).items():
        if wrong := names.qualified(key):
            out += [invalid(path, key, w) for w in wrong]
        if wrong := names.label_value(value):
            out += [invalid(path, value, w) for w in wrong]


def validate_annotations(values: Mapping[str, str] | None, path: str, out: Causes) -> None:
    """Complain about annotations whose key breaks a rule, or that are too large."""
    if not values:
        return
    size = 0
    for key, value in values.items():
        # Keys are compared without regard to case; values are free.
        if wrong := names.qualified(key.lower()):
            out += [invalid(path, key, w) for w in wrong]
        size += len(key) + len(value)
    if size > _ANNOTATIONS_LIMIT // 4 and _utf8_size(values) > _ANNOTATIONS_LIMIT:
        out.append(too_long(path, _ANNOTATIONS_LIMIT))


def _utf8_size(values: Mapping[str, str]) -> int:
    return sum(len(k.encode()) + len(v.encode()) for k, v in values.items())


def _owners(owners: Sequence[Mapping[str, Any]], out: Causes) -> None:
    controller = ""
    for index, owner in enumerate(owners):
        path = f"metadata.ownerReferences[{index}]"
        for key in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(key):
                out.append(invalid(f"{path}.{key}", owner.get(key, ""), f"{key} must not be empty"))
        version = owner.get("apiVersion") or ""
        if version.count("/") > 1:
            out.append(invalid(f"{path}.apiVersion", version, f"unexpected GroupVersion string: {version}"))
        if owner.get("apiVersion") == "v1" and owner.get("kind") == "Event":
            out.append(invalid(path, "v1, Kind=Event", "v1, Kind=Event is disallowed from being an owner"))
        if owner.get("controller"):
            if controller:
                detail = (
                    'Only one reference can have Controller set to true. Found "true" in references for '
                    f"{controller} and {owner.get('name')}"
                )
                out.append(invalid("metadata.ownerReferences", owners, detail))
            controller = str(owner.get("name"))


def _finalizers(finalizers: Sequence[str], out: Causes) -> None:
    for index, name in enumerate(finalizers):
        if wrong := names.qualified(name):
            out += [invalid(f"metadata.finalizers[{index}]", name, w) for w in wrong]
    if "orphan" in finalizers and "foregroundDeletion" in finalizers:
        detail = "finalizer orphan and foregroundDeletion cannot be both set"
        out.append(invalid("metadata.finalizers", finalizers, detail))


def validate_update(metadata: Mapping[str, Any], before: Mapping[str, Any], out: Causes) -> None:
    """Complain about changes of metadata that cannot change."""
    for key in ("name", "namespace", "uid", "creationTimestamp"):
        if before.get(key) and metadata.get(key) != before[key]:
            out.append(invalid(f"metadata.{key}", metadata.get(key), IMMUTABLE))
    if before.get("deletionTimestamp"):
        added = sorted(set(metadata.get("finalizers") or ()) - set(before.get("finalizers") or ()))
        if added:
            detail = (
                f"no new finalizers can be added if the object is being deleted, found new finalizers {show(added)}"
            )
            out.append(forbidden("metadata.finalizers", detail))
