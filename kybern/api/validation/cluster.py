"""Rules for Namespaces, Nodes, Leases and Events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kybern.api import names
from kybern.api.validation.field import Causes, forbidden, invalid, non_negative, required
from kybern.api.validation.scheduling import validate_taints


def namespace(document: Mapping[str, Any], out: Causes) -> None:
    """Complain about a Namespace."""
    for index, name in enumerate((document.get("spec") or {}).get("finalizers") or ()):
        path = f"spec.finalizers[{index}]"
        out += [invalid(path, name, w) for w in names.qualified(name)]
        if "/" not in name and name not in ("kubernetes", "orphan"):
            out.append(invalid(path, name, "name is neither a standard finalizer name nor is it fully qualified"))


def node(document: Mapping[str, Any], out: Causes) -> None:
    """Complain about a Node."""
    spec = document.get("spec") or {}
    validate_taints(spec.get("taints") or (), "spec.taints", out)
    ranges = spec.get("podCIDRs") or ()
    for index, value in enumerate(ranges):
        out += [invalid(f"spec.podCIDRs[{index}]", value, w) for w in names.cidr(value)]
    if len(ranges) > 2:
        out.append(invalid("spec.podCIDRs", ranges, "may specify no more than one CIDR for each IP family"))
    if ranges and spec.get("podCIDR") and spec["podCIDR"] != ranges[0]:
        out.append(invalid("spec.podCIDRs", ranges, "first value must match `podCIDR`"))


def node_update(new: Mapping[str, Any], old: Mapping[str, Any], out: Causes) -> None:
    """Complain about changes of what is set once in a node's life."""
    spec, before = new.get("spec") or {}, old.get("spec") or {}
    for field in ("podCIDR", "podCIDRs", "providerID"):
        if before.get(field) and spec.get(field) != before[field]:
            shown = "podCIDR" if field == "podCIDRs" else field
            out.append(forbidden(f"spec.{field}", f'node updates may not change {shown} except from "" to valid'))


def lease(document: Mapping[str, Any], out: Causes) -> None:
    """Complain about a Lease."""
    spec = document.get("spec") or {}
    seconds = spec.get("leaseDurationSeconds")
    if seconds is not None and seconds <= 0:
        out.append(invalid("spec.leaseDurationSeconds", seconds, "must be greater than 0"))
    non_negative("spec.leaseTransitions", spec.get("leaseTransitions"), out)


def event(document: Mapping[str, Any], out: Causes) -> None:
    """Complain about an Event: it lies in the namespace of what it is about, or in `default`."""
    namespace_of_event = (document.get("metadata") or {}).get("namespace") or ""
    about = (document.get("involvedObject") or {}).get("namespace") or ""
    path = "involvedObject.namespace"
    if (about and about != namespace_of_event) or (not about and namespace_of_event not in ("default", "kube-system")):
        out.append(invalid(path, about, "does not match event.namespace"))
    for field in ("reason", "reportingComponent"):
        if len(document.get(field) or "") > 1024:
            out.append(invalid(field, document[field][:32] + "...", "can have at most 1024 characters"))
    non_negative("count", document.get("count"), out)


def binding(document: Mapping[str, Any], out: Causes) -> None:
    """Complain about a Binding, the body that puts a pod onto a node."""
    target = document.get("target") or {}
    if target.get("kind") not in (None, "", "Node"):
        detail = 'must be empty or "Node"'
        out.append(invalid("target.kind", target["kind"], detail))
    if not target.get("name"):
        out.append(required("target.name"))
