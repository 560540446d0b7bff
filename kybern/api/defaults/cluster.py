"""Defaults of namespaces, nodes and events."""

from __future__ import annotations

from typing import Any

# Lets selectors of namespaces name one.
NAME_LABEL = "kubernetes.io/metadata.name"


def namespace(document: dict[str, Any]) -> None:
    """Defaults of a Namespace."""
    metadata = document.setdefault("metadata", {})
    if metadata.get("name"):
        metadata.setdefault("labels", {})[NAME_LABEL] = metadata["name"]
    spec = document.setdefault("spec", {})
    # The finalizer is taken away when everything in the namespace is gone, and must stay away then.
    if "deletionTimestamp" not in metadata:
        spec.setdefault("finalizers", ["kubernetes"])
    status = document.setdefault("status", {})
    if not status.get("phase"):
        status["phase"] = "Active"


def node(document: dict[str, Any]) -> None:
    """Defaults of a Node: all that it has can be used, unless it says otherwise."""
    document.setdefault("spec", {})
    status = document.get("status")
    if status and "allocatable" not in status and status.get("capacity"):
        status["allocatable"] = dict(status["capacity"])


def event(document: dict[str, Any]) -> None:
    """Defaults of an Event: the fields that its readers print are there."""
    document.setdefault("source", {})
    document.setdefault("reportingComponent", "")
    document.setdefault("reportingInstance", "")
