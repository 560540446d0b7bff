"""Rules for probes and lifecycle hooks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kybern.api import names
from kybern.api.validation.field import Causes, forbidden, in_range, invalid, non_negative, one_of, required

_SCHEMES = frozenset({"HTTP", "HTTPS"})
_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc")
_HOOK_HANDLERS = ("exec", "httpGet", "tcpSocket", "sleep")
_COUNTS = ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold")


def validate(container: Mapping[str, Any], path: str, out: Causes) -> None:
    """Complain about the probes and hooks of a container."""
    for field in ("livenessProbe", "readinessProbe", "startupProbe"):
        probe = container.get(field)
        if probe is not None:
            _probe(probe, field, f"{path}.{field}", out)
    for field, handler in (container.get("lifecycle") or {}).items():
        if isinstance(handler, dict):
            _handler(handler, _HOOK_HANDLERS, f"{path}.lifecycle.{field}", out)


def _probe(probe: Mapping[str, Any], field: str, path: str, out: Causes) -> None:
    _handler(probe, _HANDLERS, path, out)
    for count in _COUNTS:
        non_negative(f"{path}.{count}", probe.get(count), out)
    if field != "readinessProbe" and probe.get("successThreshold", 1) != 1:
        out.append(invalid(f"{path}.successThreshold", probe["successThreshold"], "must be 1"))
    grace = probe.get("terminationGracePeriodSeconds")
    if grace is None:
        return
    at = f"{path}.terminationGracePeriodSeconds"
    if field == "readinessProbe":
        out.append(invalid(at, grace, "must not be set for readinessProbes"))
    elif grace <= 0:
        out.append(invalid(at, grace, "must be greater than 0"))


def _handler(handler: Mapping[str, Any], known: tuple[str, ...], path: str, out: Causes) -> None:
    given = [k for k in known if handler.get(k) is not None]
    if not given:
        out.append(required(path, "must specify a handler type"))
    for further in given[1:]:
        out.append(forbidden(f"{path}.{further}", "may not specify more than 1 handler type"))
    for kind in given:
        _action(kind, handler[kind], f"{path}.{kind}", out)


def _action(kind: str, action: Mapping[str, Any], path: str, out: Causes) -> None:
    match kind:
        case "exec":
            if not action.get("command"):
                out.append(required(f"{path}.command"))
        case "httpGet":
            _http_get(action, path, out)
        case "tcpSocket":
            port_reference(action.get("port"), f"{path}.port", out)
        case "grpc":
            in_range(f"{path}.port", action.get("port") or 0, 1, 65535, out)
        case "sleep":
            non_negative(f"{path}.seconds", action.get("seconds"), out)


def _http_get(action: Mapping[str, Any], path: str, out: Causes) -> None:
    if not action.get("path"):
        out.append(required(f"{path}.path"))
    port_reference(action.get("port"), f"{path}.port", out)
    one_of(f"{path}.scheme", action.get("scheme"), _SCHEMES, out)
    for index, header in enumerate(action.get("httpHeaders") or ()):
        if not header.get("name") or any(c.isspace() or c == ":" for c in header["name"]):
            detail = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name')"
            out.append(invalid(f"{path}.httpHeaders[{index}].name", header.get("name", ""), detail))


def port_reference(port: int | str | None, path: str, out: Causes) -> None:
    """Complain about a port that is neither a number nor a name."""
    if isinstance(port, str):
        out += [invalid(path, port, w) for w in names.port_name(port)]
    else:
        in_range(path, port or 0, 1, 65535, out)
