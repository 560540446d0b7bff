"""Rules for the volumes of a pod."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kybern.api import names, quantity
from kybern.api.validation.containers import relative_path, validate_field_reference, validate_source
from kybern.api.validation.field import (
    Causes,
    duplicate,
    forbidden,
    in_range,
    invalid,
    not_supported,
    required,
)

_FILE_FIELDS = frozenset(
    {"metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"}
)
_HOST_PATH_TYPES = frozenset(
    {"", "DirectoryOrCreate", "Directory", "FileOrCreate", "File", "Socket", "CharDevice", "BlockDevice"}
)
_MODE = "must be a number between 0 and 0777 (octal), both inclusive"
# Kubernetes' bounds for a token in a projected volume.
_LEAST_TOKEN_SECONDS = 600
_MOST_TOKEN_SECONDS = 1 << 32


def validate_all(spec: Mapping[str, Any], path: str, out: Causes) -> frozenset[str]:
    """Complain about the volumes of a pod spec; returns their names."""
    seen: set[str] = set()
    for index, volume in enumerate(spec.get("volumes") or ()):
        at = f"{path}.volumes[{index}]"
        name = volume.get("name")
        if not name:
            out.append(required(f"{at}.name"))
        else:
            out += [invalid(f"{at}.name", name, w) for w in names.label(name)]
            if name in seen:
                out.append(duplicate(f"{at}.name", name))
            seen.add(name)
        sources = [k for k in volume if k != "name"]
        if not sources:
            out.append(required(at, "must specify a volume type"))
        for further in sources[1:]:
            out.append(forbidden(f"{at}.{further}", "may not specify more than 1 volume type"))
        for kind in sources[:1]:
            rule = _RULES.get(kind)
            if rule is not None:
                rule(volume[kind], f"{at}.{kind}", out)
    return frozenset(seen)


Rule = Callable[[Mapping[str, Any], str, Causes], None]


def _needs(*fields: str) -> Rule:
    """A rule: these fields must be set."""

    def rule(source: Mapping[str, Any], path: str, out: Causes) -> None:
        out += [required(f"{path}.{field}") for field in fields if not source.get(field)]

    return rule


def _config_map(source: Mapping[str, Any], path: str, out: Causes) -> None:
    if not source.get("name"):
        out.append(required(f"{path}.name"))
    _mode(source.get("defaultMode"), f"{path}.defaultMode", out)
    _items(source, path, out)


def _secret(source: Mapping[str, Any], path: str, out: Causes) -> None:
    if not source.get("secretName"):
        out.append(required(f"{path}.secretName"))
    _mode(source.get("defaultMode"), f"{path}.defaultMode", out)
    _items(source, path, out)


def _mode(mode: int | None, path: str, out: Causes) -> None:
    if mode is not None and not 0 <= mode <= 0o777:
        out.append(invalid(path, mode, _MODE))


def _items(source: Mapping[str, Any], path: str, out: Causes) -> None:
    for index, item in enumerate(source.get("items") or ()):
        at = f"{path}.items[{index}]"
        if not item.get("key"):
            out.append(required(f"{at}.key"))
        _file(item, at, out)


def _file(item: Mapping[str, Any], path: str, out: Causes) -> None:
    where = item.get("path")
    if not where:
        out.append(required(f"{path}.path"))
    else:
        relative_path(where, f"{path}.path", out)
        if where.startswith(".."):
            out.append(invalid(f"{path}.path", where, "must not start with '..'"))
    _mode(item.get("mode"), f"{path}.mode", out)


def _host_path(source: Mapping[str, Any], path: str, out: Causes) -> None:
    where = source.get("path")
    if not where:
        out.append(required(f"{path}.path"))
    elif ".." in where.split("/"):
        out.append(invalid(f"{path}.path", where, "must not contain '..'"))
    kind = source.get("type") or ""
    if kind not in _HOST_PATH_TYPES:
        out.append(not_supported(f"{path}.type", kind, _HOST_PATH_TYPES))


def _empty_dir(source: Mapping[str, Any], path: str, out: Causes) -> None:
    limit = source.get("sizeLimit")
    if limit is not None and quantity.of(limit) < 0:
        out.append(forbidden(f"{path}.sizeLimit", "SizeLimit field must be a valid resource quantity"))


def _downward(source: Mapping[str, Any], path: str, out: Causes) -> None:
    _mode(source.get("defaultMode"), f"{path}.defaultMode", out)
    _downward_items(source, path, out)


def _downward_items(source: Mapping[str, Any], path: str, out: Causes) -> None:
    for index, item in enumerate(source.get("items") or ()):
        at = f"{path}.items[{index}]"
        _file(item, at, out)
        if "fieldRef" in item:
            validate_field_reference(item["fieldRef"], f"{at}.fieldRef", _FILE_FIELDS, out)
            if "resourceFieldRef" in item:
                out.append(invalid(at, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously"))
        elif "resourceFieldRef" in item:
            if not item["resourceFieldRef"].get("containerName"):
                out.append(required(f"{at}.resourceFieldRef.containerName"))
            validate_source("resourceFieldRef", item["resourceFieldRef"], f"{at}.resourceFieldRef", out)
        else:
            out.append(required(f"{at}.fieldRef", "one of fieldRef and resourceFieldRef is required"))


def _projected(source: Mapping[str, Any], path: str, out: Causes) -> None:
    _mode(source.get("defaultMode"), f"{path}.defaultMode", out)
    for index, projection in enumerate(source.get("sources") or ()):
        at = f"{path}.sources[{index}]"
        kinds = [k for k in projection if projection[k] is not None]
        if not kinds:
            out.append(required(at, "must specify at least one projection source"))
        for further in kinds[1:]:
            out.append(forbidden(f"{at}.{further}", "may not specify more than 1 volume type"))
        for kind in kinds[:1]:
            _projection(kind, projection[kind], f"{at}.{kind}", out)


def _projection(kind: str, source: Mapping[str, Any], path: str, out: Causes) -> None:
    match kind:
        case "configMap" | "secret":
            if not source.get("name"):
                out.append(required(f"{path}.name"))
            _items(source, path, out)
        case "downwardAPI":
            _downward_items(source, path, out)
        case "serviceAccountToken":
            seconds = source.get("expirationSeconds", _LEAST_TOKEN_SECONDS)
            if seconds < _LEAST_TOKEN_SECONDS:
                out.append(
                    invalid(f"{path}.expirationSeconds", seconds, "may not specify a duration less than 10 minutes")
                )
            elif seconds > _MOST_TOKEN_SECONDS:
                out.append(
                    invalid(f"{path}.expirationSeconds", seconds, "may not specify a duration larger than 2^32 seconds")
                )
            if not source.get("path"):
                out.append(required(f"{path}.path"))
            else:
                relative_path(source["path"], f"{path}.path", out)


def _claim(source: Mapping[str, Any], path: str, out: Causes) -> None:
    if not source.get("claimName"):
        out.append(required(f"{path}.claimName"))


def _nfs(source: Mapping[str, Any], path: str, out: Causes) -> None:
    _needs("server", "path")(source, path, out)
    if source.get("path") and not source["path"].startswith("/"):
        out.append(invalid(f"{path}.path", source["path"], "must be an absolute path"))


def _iscsi(source: Mapping[str, Any], path: str, out: Causes) -> None:
    _needs("targetPortal", "iqn")(source, path, out)
    in_range(f"{path}.lun", source.get("lun") or 0, 0, 255, out)


_RULES: Mapping[str, Rule] = {
    "configMap": _config_map,
    "csi": _needs("driver"),
    "downwardAPI": _downward,
    "emptyDir": _empty_dir,
    "ephemeral": _needs("volumeClaimTemplate"),
    "hostPath": _host_path,
    "image": _needs("reference"),
    "iscsi": _iscsi,
    "nfs": _nfs,
    "persistentVolumeClaim": _claim,
    "projected": _projected,
    "secret": _secret,
}
