"""Rules for containers: what they run, their ports, environment, resources and mounts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from kybern.api import names, quantity
from kybern.api.validation import probes
from kybern.api.validation.field import (
    Causes,
    duplicate,
    forbidden,
    in_range,
    invalid,
    non_negative,
    not_found,
    not_supported,
    one_of,
    required,
)

PULL_POLICIES = frozenset({"Always", "IfNotPresent", "Never"})
PROTOCOLS = frozenset({"TCP", "UDP", "SCTP"})
_MESSAGE_POLICIES = frozenset({"File", "FallbackToLogsOnError"})
_RESTART_POLICIES = frozenset({"Always", "Never", "OnFailure"})
_SOURCES = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef")
_RESOURCES = frozenset({"cpu", "memory", "ephemeral-storage", "storage"})
_FIELDS = frozenset(
    {
        "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
        "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs",
    }
)  # fmt: skip


def validate_all(spec: Mapping[str, Any], path: str, volumes: frozenset[str], out: Causes) -> None:
    """Complain about the containers of a pod spec."""
    seen: set[str] = set()
    host_ports: set[tuple[str, str, int]] = set()
    regular = spec.get("containers") or ()
    if not regular:
        out.append(required(f"{path}.containers"))
    for field, listed in (("containers", regular), ("initContainers", spec.get("initContainers") or ())):
        for index, container in enumerate(listed):
            at = f"{path}.{field}[{index}]"
            _name(container, at, seen, out)
            _validate(container, at, volumes, out)
            _ports(container, at, bool(spec.get("hostNetwork")), host_ports if field == "containers" else None, out)
            if field == "containers":
                probes.validate(container, at, out)
            else:
                _init_rules(container, at, out)


def _name(container: Mapping[str, Any], path: str, seen: set[str], out: Causes) -> None:
    name = container.get("name")
    if not name:
        out.append(required(f"{path}.name"))
        return
    out += [invalid(f"{path}.name", name, w) for w in names.label(name)]
    if name in seen:
        out.append(duplicate(f"{path}.name", name))
    seen.add(name)


def _init_rules(container: Mapping[str, Any], path: str, out: Causes) -> None:
    """Init containers run once and then are gone; those that restart always are sidecars, which may have probes."""
    if container.get("restartPolicy") == "Always":
        probes.validate(container, path, out)
        return
    for field in ("lifecycle", "livenessProbe", "readinessProbe", "startupProbe"):
        if container.get(field) is not None:
            out.append(forbidden(f"{path}.{field}", "may not be set for init containers without restartPolicy=Always"))


def _validate(container: Mapping[str, Any], path: str, volumes: frozenset[str], out: Causes) -> None:
    image = container.get("image")
    if not image:
        out.append(required(f"{path}.image"))
    elif image != image.strip():
        out.append(invalid(f"{path}.image", image, "must not have leading or trailing whitespace"))
    one_of(f"{path}.imagePullPolicy", container.get("imagePullPolicy"), PULL_POLICIES, out)
    one_of(f"{path}.terminationMessagePolicy", container.get("terminationMessagePolicy"), _MESSAGE_POLICIES, out)
    one_of(f"{path}.restartPolicy", container.get("restartPolicy"), _RESTART_POLICIES, out, needed=False)
    for index, variable in enumerate(container.get("env") or ()):
        _variable(variable, f"{path}.env[{index}]", out)
    for index, source in enumerate(container.get("envFrom") or ()):
        _variables_from(source, f"{path}.envFrom[{index}]", out)
    resources = container.get("resources")
    if resources:
        validate_resources(resources, f"{path}.resources", out)
    mounts = container.get("volumeMounts")
    if mounts:
        _mounts(mounts, f"{path}.volumeMounts", volumes, out)
    security = container.get("securityContext")
    if security:
        _security(security, f"{path}.securityContext", out)


# --- ports


def _ports(
    container: Mapping[str, Any], path: str, host: bool, taken: set[tuple[str, str, int]] | None, out: Causes
) -> None:
    seen: set[str] = set()
    for index, port in enumerate(container.get("ports") or ()):
        at = f"{path}.ports[{index}]"
        name = port.get("name")
        if name:
            out += [invalid(f"{at}.name", name, w) for w in names.port_name(name)]
            if name in seen:
                out.append(duplicate(f"{at}.name", name))
            seen.add(name)
        number = port.get("containerPort")
        if not number:
            out.append(required(f"{at}.containerPort"))
        else:
            in_range(f"{at}.containerPort", number, 1, 65535, out)
        _host_port(port, at, host, taken, out)
        one_of(f"{at}.protocol", port.get("protocol"), PROTOCOLS, out)


def _host_port(
    port: Mapping[str, Any], path: str, host: bool, taken: set[tuple[str, str, int]] | None, out: Causes
) -> None:
    number = port.get("hostPort")
    if not number:
        return
    in_range(f"{path}.hostPort", number, 1, 65535, out)
    if host and number != port.get("containerPort"):
        out.append(invalid(f"{path}.hostPort", number, "must match `containerPort` when `hostNetwork` is true"))
    if port.get("hostIP"):
        out += [invalid(f"{path}.hostIP", port["hostIP"], w) for w in names.ip_address(port["hostIP"])]
    if taken is not None:
        key = (str(port.get("protocol")), str(port.get("hostIP") or ""), number)
        if key in taken:
            out.append(duplicate(f"{path}.hostPort", "/".join(str(k) for k in key)))
        taken.add(key)


# --- environment


def _variable(variable: Mapping[str, Any], path: str, out: Causes) -> None:
    name = variable.get("name")
    if not name:
        out.append(required(f"{path}.name"))
    else:
        out += [invalid(f"{path}.name", name, w) for w in names.environment(name)]
    source = variable.get("valueFrom")
    if source is None:
        return
    at = f"{path}.valueFrom"
    given = [s for s in _SOURCES if s in source]
    if not given:
        listed = ", ".join(f"`{s}`" for s in _SOURCES)
        out.append(invalid(at, "", f"must specify one of: {listed}"))
    elif len(given) > 1:
        out.append(invalid(at, "", "may not have more than one field specified at a time"))
    if given and variable.get("value"):
        out.append(invalid(at, "", "may not be specified when `value` is not empty"))
    for kind in given:
        validate_source(kind, source[kind], f"{at}.{kind}", out)


def validate_source(kind: str, source: Mapping[str, Any], path: str, out: Causes) -> None:
    """Complain about a reference to a field, a resource, or a key of a ConfigMap or Secret."""
    match kind:
        case "fieldRef":
            validate_field_reference(source, path, _FIELDS, out)
        case "resourceFieldRef":
            if not source.get("resource"):
                out.append(required(f"{path}.resource"))
        case "configMapKeyRef" | "secretKeyRef":
            if not source.get("name"):
                out.append(required(f"{path}.name"))
            key = source.get("key")
            if not key:
                out.append(required(f"{path}.key"))
            else:
                out += [invalid(f"{path}.key", key, w) for w in names.config_key(key)]


def validate_field_reference(source: Mapping[str, Any], path: str, fields: frozenset[str], out: Causes) -> None:
    """Complain about a reference to a field of the pod that cannot be referred to."""
    field = source.get("fieldPath")
    if not field:
        out.append(required(f"{path}.fieldPath"))
        return
    if field in fields:
        return
    base, bracket, key = field.partition("['")
    if bracket and base in ("metadata.labels", "metadata.annotations") and key.endswith("']"):
        out += [invalid(path, key[:-2], w) for w in names.qualified(key[:-2].lower())]
        return
    out.append(not_supported(f"{path}.fieldPath", field, fields))


def _variables_from(source: Mapping[str, Any], path: str, out: Causes) -> None:
    prefix = source.get("prefix")
    if prefix:
        out += [invalid(f"{path}.prefix", prefix, w) for w in names.environment(prefix)]
    given = [k for k in ("configMapRef", "secretRef") if k in source]
    if not given:
        out.append(invalid(path, "", "must specify one of: `configMapRef` or `secretRef`"))
    elif len(given) > 1:
        out.append(invalid(path, "", "may not have more than one field specified at a time"))
    for kind in given:
        if not source[kind].get("name"):
            out.append(required(f"{path}.{kind}.name"))


# --- resources


def validate_resources(resources: Mapping[str, Any], path: str, out: Causes) -> None:
    """Complain about requests and limits that are not resources, below zero, or at odds with each other."""
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    validate_amounts(limits, f"{path}.limits", out)
    validate_amounts(requests, f"{path}.requests", out)
    for name, value in requests.items():
        limit = limits.get(name)
        if limit is None or limit == value:
            continue
        wanted, most = _number(value), _number(limit)
        if wanted is None or most is None:
            continue
        if wanted > most:
            detail = f"must be less than or equal to {name} limit of {limit}"
            out.append(invalid(f"{path}.requests", str(value), detail))
        elif wanted != most and _exclusive(name):
            out.append(invalid(f"{path}.requests", str(value), f"must be equal to {name} limit of {limit}"))


def validate_amounts(amounts: Mapping[str, Any], path: str, out: Causes) -> None:
    """Complain about amounts of what is no resource, or of less than nothing."""
    for name, value in amounts.items():
        _amount(name, value, f"{path}[{name}]", out)


def _amount(name: str, value: Any, at: str, out: Causes) -> None:
    if name not in _RESOURCES and not name.startswith("hugepages-"):
        out += [invalid(at, name, w) for w in names.qualified(name)]
        if "/" not in name:
            out.append(invalid(at, name, "must be a standard resource type or fully qualified"))
    number = _number(value)
    if number is None:
        return
    if number < 0:
        out.append(invalid(at, str(value), "must be greater than or equal to 0"))
    elif _exclusive(name) and number != number.to_integral_value():
        out.append(invalid(at, str(value), "must be an integer"))


def _number(value: Any) -> Decimal | None:
    try:
        return quantity.of(value)
    except ValueError:
        return None


def _exclusive(name: str) -> bool:
    """Whether a resource comes in whole units that are not shared: extended resources and huge pages."""
    return name.startswith("hugepages-") or ("/" in name and "kubernetes.io/" not in name)


# --- mounts and privileges


def _mounts(mounts: Sequence[Mapping[str, Any]], path: str, volumes: frozenset[str], out: Causes) -> None:
    seen: set[str] = set()
    for index, mount in enumerate(mounts):
        at = f"{path}[{index}]"
        name, where = mount.get("name"), mount.get("mountPath")
        if not name:
            out.append(required(f"{at}.name"))
        elif name not in volumes:
            out.append(not_found(f"{at}.name", name))
        if not where:
            out.append(required(f"{at}.mountPath"))
        elif where in seen:
            out.append(invalid(f"{at}.mountPath", where, "must be unique"))
        seen.add(where or "")
        if mount.get("subPath") and mount.get("subPathExpr"):
            out.append(
                invalid(f"{at}.subPathExpr", mount["subPathExpr"], "subPathExpr and subPath are mutually exclusive")
            )
        for field in ("subPath", "subPathExpr"):
            if mount.get(field):
                relative_path(mount[field], f"{at}.{field}", out)


def relative_path(value: str, path: str, out: Causes) -> None:
    """Complain about a path that leaves the directory it is relative to."""
    if value.startswith("/"):
        out.append(invalid(path, value, "must be a relative path"))
    if ".." in value.split("/"):
        out.append(invalid(path, value, "must not contain '..'"))


def _security(security: Mapping[str, Any], path: str, out: Causes) -> None:
    non_negative(f"{path}.runAsUser", security.get("runAsUser"), out)
    non_negative(f"{path}.runAsGroup", security.get("runAsGroup"), out)
    if security.get("allowPrivilegeEscalation") is False:
        if security.get("privileged"):
            detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
            out.append(invalid(path, security, detail))
        elif "SYS_ADMIN" in ((security.get("capabilities") or {}).get("add") or ()):
            detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"
            out.append(invalid(path, security, detail))
