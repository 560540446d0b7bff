"""Rules for pods and pod templates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kybern.api import names
from kybern.api.validation import containers, metadata, scheduling, volumes
from kybern.api.validation.field import (
    Causes,
    duplicate,
    forbidden,
    in_range,
    invalid,
    non_negative,
    one_of,
    required,
)

_RESTART_POLICIES = frozenset({"Always", "OnFailure", "Never"})
_DNS_POLICIES = frozenset({"ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"})
_PREEMPTION_POLICIES = frozenset({"Never", "PreemptLowerPriority"})
_OPERATING_SYSTEMS = frozenset({"linux", "windows"})
# Bounds of resolv.conf that Kubernetes keeps.
_MOST_NAMESERVERS = 3
_MOST_SEARCHES = 32
_MOST_SEARCH_CHARACTERS = 2048
_LARGEST_INT32 = 2**31 - 1


def pod(document: Mapping[str, Any], out: Causes) -> None:
    """Complain about a Pod."""
    validate_spec(document.get("spec") or {}, "spec", out)


def new_pod(document: Mapping[str, Any], out: Causes) -> None:
    """Complain about what a Pod may have, but not from the start."""
    if (document.get("spec") or {}).get("ephemeralContainers"):
        out.append(forbidden("spec.ephemeralContainers", "cannot be set on create"))


def validate_template(template: Mapping[str, Any], path: str, out: Causes) -> None:
    """Complain about a pod template."""
    given = template.get("metadata") or {}
    metadata.validate_labels(given.get("labels"), f"{path}.metadata.labels", out)
    metadata.validate_annotations(given.get("annotations"), f"{path}.metadata.annotations", out)
    spec = template.get("spec") or {}
    validate_spec(spec, f"{path}.spec", out)
    if spec.get("ephemeralContainers"):
        out.append(forbidden(f"{path}.spec.ephemeralContainers", "ephemeral containers not allowed in pod template"))


def validate_spec(spec: Mapping[str, Any], path: str, out: Causes) -> None:
    """Complain about what a pod wants."""
    known = volumes.validate_all(spec, path, out)
    containers.validate_all(spec, path, known, out)
    one_of(f"{path}.restartPolicy", spec.get("restartPolicy"), _RESTART_POLICIES, out)
    one_of(f"{path}.dnsPolicy", spec.get("dnsPolicy"), _DNS_POLICIES, out)
    non_negative(f"{path}.terminationGracePeriodSeconds", spec.get("terminationGracePeriodSeconds"), out)
    if spec.get("activeDeadlineSeconds") is not None:
        in_range(f"{path}.activeDeadlineSeconds", spec["activeDeadlineSeconds"], 1, _LARGEST_INT32, out)
    one_of(f"{path}.preemptionPolicy", spec.get("preemptionPolicy"), _PREEMPTION_POLICIES, out, needed=False)
    _text_rules(spec, path, out)
    scheduling.validate(spec, path, out)
    if spec.get("securityContext"):
        _security(spec["securityContext"], f"{path}.securityContext", out)
    for field, rule in _RARE.items():
        if spec.get(field):
            rule(spec, f"{path}.{field}", out)
    if spec.get("dnsPolicy") == "None" and not (spec.get("dnsConfig") or {}).get("nameservers"):
        detail = "must provide at least one DNS nameserver when `dnsPolicy` is None"
        out.append(required(f"{path}.dnsConfig.nameservers", detail))
    if spec.get("resources"):
        containers.validate_resources(spec["resources"], f"{path}.resources", out)


_TEXT_RULES: Mapping[str, Callable[[str], tuple[str, ...]]] = {
    "serviceAccountName": names.subdomain,
    "nodeName": names.subdomain,
    "hostname": names.label,
    "subdomain": names.label,
    "priorityClassName": names.subdomain,
    "runtimeClassName": names.subdomain,
    "schedulerName": names.qualified,
}


def _text_rules(spec: Mapping[str, Any], path: str, out: Causes) -> None:
    for field, rule in _TEXT_RULES.items():
        value = spec.get(field)
        if value:
            wrong = rule(value)
            if wrong:
                out += [invalid(f"{path}.{field}", value, w) for w in wrong]


def _security(security: Mapping[str, Any], path: str, out: Causes) -> None:
    for field in ("runAsUser", "runAsGroup", "fsGroup"):
        non_negative(f"{path}.{field}", security.get(field), out)
    for index, group in enumerate(security.get("supplementalGroups") or ()):
        non_negative(f"{path}.supplementalGroups[{index}]", group, out)
    seen: set[str] = set()
    for index, sysctl in enumerate(security.get("sysctls") or ()):
        at, name = f"{path}.sysctls[{index}].name", sysctl.get("name")
        if not name:
            out.append(required(at))
        elif name in seen:
            out.append(duplicate(at, name))
        seen.add(name or "")


# --- fields that few pods have


def _pull_secrets(spec: Mapping[str, Any], path: str, out: Causes) -> None:
    for index, reference in enumerate(spec["imagePullSecrets"]):
        if not reference.get("name"):
            out.append(required(f"{path}[{index}].name"))


def _host_aliases(spec: Mapping[str, Any], path: str, out: Causes) -> None:
    for index, alias in enumerate(spec["hostAliases"]):
        address = alias.get("ip") or ""
        out += [invalid(f"{path}[{index}].ip", address, w) for w in names.ip_address(address)]
        for number, name in enumerate(alias.get("hostnames") or ()):
            out += [invalid(f"{path}[{index}].hostnames[{number}]", name, w) for w in names.subdomain(name)]


def _dns_config(spec: Mapping[str, Any], path: str, out: Causes) -> None:
    config = spec["dnsConfig"]
    servers, searches = config.get("nameservers") or (), config.get("searches") or ()
    if len(servers) > _MOST_NAMESERVERS:
        detail = f"must not have more than {_MOST_NAMESERVERS} nameservers"
        out.append(invalid(f"{path}.nameservers", servers, detail))
    for index, address in enumerate(servers):
        out += [invalid(f"{path}.nameservers[{index}]", address, w) for w in names.ip_address(address)]
    if len(searches) > _MOST_SEARCHES:
        out.append(invalid(f"{path}.searches", searches, f"must not have more than {_MOST_SEARCHES} search paths"))
    if len(" ".join(searches)) > _MOST_SEARCH_CHARACTERS:
        detail = f"must not have more than {_MOST_SEARCH_CHARACTERS} characters (including spaces) in the search list"
        out.append(invalid(f"{path}.searches", searches, detail))
    for index, option in enumerate(config.get("options") or ()):
        if not option.get("name"):
            out.append(required(f"{path}.options[{index}]", "must not be empty"))


def _readiness_gates(spec: Mapping[str, Any], path: str, out: Causes) -> None:
    for index, gate in enumerate(spec["readinessGates"]):
        kind = gate.get("conditionType") or ""
        out += [invalid(f"{path}[{index}].conditionType", kind, w) for w in names.qualified(kind)]


def _scheduling_gates(spec: Mapping[str, Any], path: str, out: Causes) -> None:
    seen: set[str] = set()
    for index, gate in enumerate(spec["schedulingGates"]):
        name = gate.get("name") or ""
        out += [invalid(f"{path}[{index}]", name, w) for w in names.qualified(name)]
        if name in seen:
            out.append(duplicate(f"{path}[{index}]", name))
        seen.add(name)


def _operating_system(spec: Mapping[str, Any], path: str, out: Causes) -> None:
    one_of(f"{path}.name", spec["os"].get("name"), _OPERATING_SYSTEMS, out)


def _overhead(spec: Mapping[str, Any], path: str, out: Causes) -> None:
    containers.validate_amounts(spec["overhead"], path, out)


_RARE: Mapping[str, Callable[[Mapping[str, Any], str, Causes], None]] = {
    "imagePullSecrets": _pull_secrets,
    "hostAliases": _host_aliases,
    "dnsConfig": _dns_config,
    "readinessGates": _readiness_gates,
    "schedulingGates": _scheduling_gates,
    "os": _operating_system,
    "overhead": _overhead,
}
