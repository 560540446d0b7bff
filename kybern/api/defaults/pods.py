"""Defaults of pods and of pod templates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

# rw-r--r--, as JSON has no octal numbers.
_MODE_0644 = 0o644
_TOKEN_SECONDS = 3600


def pod(document: dict[str, Any]) -> None:
    """Defaults of a Pod: those of its spec, and some that templates do not get."""
    spec = document.setdefault("spec", {})
    pod_spec(spec)
    # Not in templates: a change of these defaults must not change a template, which would roll out new pods.
    spec.setdefault("enableServiceLinks", True)
    for name in ("initContainers", "containers"):
        for container in spec.get(name) or ():
            _requests_from_limits(container["resources"])
    if "resources" in spec:
        _requests_from_limits(spec["resources"])


def pod_template(template: dict[str, Any]) -> None:
    """Defaults of the template of a workload."""
    pod_spec(template.setdefault("spec", {}))


def pod_spec(spec: dict[str, Any]) -> None:
    """Defaults that pods and templates share."""
    _unless_set(spec, "restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    _unless_set(spec, "dnsPolicy", "ClusterFirst")
    spec.setdefault("securityContext", {})
    _unless_set(spec, "schedulerName", "default-scheduler")
    _service_account(spec)
    for name in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(name) or ():
            _container(container)
            if spec.get("hostNetwork"):
                _host_ports(container)
    for volume in spec.get("volumes") or ():
        _volume(volume)


def _unless_set(target: dict[str, Any], key: str, value: Any) -> None:
    """Set a field in which empty means unset."""
    if not target.get(key):
        target[key] = value


def _service_account(spec: dict[str, Any]) -> None:
    """Keep the old name of `serviceAccountName` in step with it."""
    name = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if name:
        spec["serviceAccountName"] = spec["serviceAccount"] = name


def _requests_from_limits(resources: dict[str, Any]) -> None:
    limits = resources.get("limits")
    if limits:
        requests = resources.setdefault("requests", {})
        for name, value in limits.items():
            requests.setdefault(name, value)


# --- containers


def _container(container: dict[str, Any]) -> None:
    container.setdefault("resources", {})
    _unless_set(container, "terminationMessagePath", "/dev/termination-log")
    _unless_set(container, "terminationMessagePolicy", "File")
    _unless_set(container, "imagePullPolicy", pull_policy(container.get("image") or ""))
    for port in container.get("ports") or ():
        _unless_set(port, "protocol", "TCP")
    for variable in container.get("env") or ():
        source = variable.get("valueFrom")
        if source:
            _field_source(source)
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        probe = container.get(name)
        if probe is not None:
            _probe(probe)
    lifecycle = container.get("lifecycle")
    if lifecycle:
        for name in ("postStart", "preStop"):
            _http_get((lifecycle.get(name) or {}).get("httpGet"))


def pull_policy(image: str) -> str:
    """`Always` for images tagged `latest` or not at all, else `IfNotPresent`."""
    if "@" in image:
        return "IfNotPresent"
    # A colon before the last slash belongs to the registry's port.
    tag = image.rpartition("/")[2].partition(":")[2]
    return "Always" if tag in ("", "latest") else "IfNotPresent"


def _host_ports(container: dict[str, Any]) -> None:
    """On the host's network a container's port is the host's."""
    for port in container.get("ports") or ():
        if not port.get("hostPort") and port.get("containerPort"):
            port["hostPort"] = port["containerPort"]


def _field_source(source: dict[str, Any]) -> None:
    field = source.get("fieldRef")
    if field is not None:
        _unless_set(field, "apiVersion", "v1")
    resource = source.get("resourceFieldRef")
    if resource is not None:
        _unless_set(resource, "divisor", "0")


def _probe(probe: dict[str, Any]) -> None:
    _unless_set(probe, "timeoutSeconds", 1)
    _unless_set(probe, "periodSeconds", 10)
    _unless_set(probe, "successThreshold", 1)
    _unless_set(probe, "failureThreshold", 3)
    _http_get(probe.get("httpGet"))
    grpc = probe.get("grpc")
    if grpc is not None:
        grpc.setdefault("service", "")


def _http_get(action: dict[str, Any] | None) -> None:
    if action is not None:
        _unless_set(action, "path", "/")
        _unless_set(action, "scheme", "HTTP")


# --- volumes


def _volume(volume: dict[str, Any]) -> None:
    sources = [key for key in volume if key != "name"]
    if not sources:
        volume["emptyDir"] = {}
    for key in sources:
        default = _SOURCES.get(key)
        if default is not None:
            default(volume[key])


def _files(source: dict[str, Any]) -> None:
    source.setdefault("defaultMode", _MODE_0644)


def _downward(source: dict[str, Any]) -> None:
    _files(source)
    _downward_items(source)


def _downward_items(source: dict[str, Any]) -> None:
    for item in source.get("items") or ():
        _field_source(item)


def _projected(source: dict[str, Any]) -> None:
    _files(source)
    for projection in source.get("sources") or ():
        if "serviceAccountToken" in projection:
            projection["serviceAccountToken"].setdefault("expirationSeconds", _TOKEN_SECONDS)
        if "downwardAPI" in projection:
            _downward_items(projection["downwardAPI"])


def _host_path(source: dict[str, Any]) -> None:
    source.setdefault("type", "")


def _ephemeral(source: dict[str, Any]) -> None:
    template = source.get("volumeClaimTemplate")
    if template:
        template.setdefault("spec", {}).setdefault("volumeMode", "Filesystem")


def _image(source: dict[str, Any]) -> None:
    _unless_set(source, "pullPolicy", pull_policy(source.get("reference") or ""))


def _iscsi(source: dict[str, Any]) -> None:
    _unless_set(source, "iscsiInterface", "default")


def _rbd(source: dict[str, Any]) -> None:
    _unless_set(source, "pool", "rbd")
    _unless_set(source, "user", "admin")
    _unless_set(source, "keyring", "/etc/ceph/keyring")


def _azure_disk(source: dict[str, Any]) -> None:
    source.setdefault("cachingMode", "ReadWrite")
    source.setdefault("kind", "Shared")
    source.setdefault("fsType", "ext4")
    source.setdefault("readOnly", False)


def _scale_io(source: dict[str, Any]) -> None:
    _unless_set(source, "storageMode", "ThinProvisioned")
    _unless_set(source, "fsType", "xfs")


_SOURCES: Mapping[str, Callable[[dict[str, Any]], None]] = {
    "azureDisk": _azure_disk,
    "configMap": _files,
    "downwardAPI": _downward,
    "ephemeral": _ephemeral,
    "hostPath": _host_path,
    "image": _image,
    "iscsi": _iscsi,
    "projected": _projected,
    "rbd": _rbd,
    "scaleIO": _scale_io,
    "secret": _files,
}
