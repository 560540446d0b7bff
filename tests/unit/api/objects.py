"""Objects that the tests start from."""

from __future__ import annotations

from typing import Any

from kybern.api import resources
from kybern.api.defaults import apply_defaults
from kybern.api.resources import Resource

Document = dict[str, Any]


def pod(**spec: Any) -> Document:
    """A small, valid, defaulted Pod; keywords replace fields of its spec."""
    return defaulted(
        resources.PODS,
        {"metadata": {"name": "web", "namespace": "default"}, "spec": {"containers": [container()], **spec}},
    )


def container(**fields: Any) -> Document:
    """A small container."""
    return {"name": "web", "image": "nginx:1", **fields}


def template(**spec: Any) -> Document:
    """A template of small pods."""
    return {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container()], **spec}}


def deployment(**spec: Any) -> Document:
    """A small, valid, defaulted Deployment."""
    wanted = {"selector": {"matchLabels": {"app": "web"}}, "template": template(), **spec}
    return defaulted(resources.DEPLOYMENTS, {"metadata": {"name": "web", "namespace": "default"}, "spec": wanted})


def service(**spec: Any) -> Document:
    """A small, valid, defaulted Service."""
    wanted = {"selector": {"app": "web"}, "ports": [{"port": 80}], **spec}
    return defaulted(resources.SERVICES, {"metadata": {"name": "web", "namespace": "default"}, "spec": wanted})


def defaulted(resource: Resource, document: Document) -> Document:
    """A document with its type and its defaults."""
    result = {"apiVersion": resource.api_version, "kind": resource.kind, **document}
    apply_defaults(resource, result)
    return result
