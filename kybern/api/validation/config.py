"""Rules for ConfigMaps, Secrets and ServiceAccounts."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import msgspec

from kybern.api import names
from kybern.api.validation.field import IMMUTABLE, Causes, forbidden, invalid, required, too_long

# Bytes of all values together: what fits a transaction of the store.
_DATA_LIMIT = 1024 * 1024
_FROZEN = "field is immutable when `immutable` is set"


def config_map(document: Mapping[str, Any], out: Causes) -> None:
    """Complain about a ConfigMap."""
    text, binary = document.get("data") or {}, document.get("binaryData") or {}
    size = 0
    for field, values in (("data", text), ("binaryData", binary)):
        for key, value in values.items():
            out += [invalid(f"{field}[{key}]", key, w) for w in names.config_key(key)]
            size += len(value.encode()) if field == "data" else _decoded_size(value)
    out += [
        invalid(f"data[{key}]", key, "duplicate of key present in binaryData") for key in sorted(text.keys() & binary)
    ]
    if size > _DATA_LIMIT:
        out.append(too_long("", _DATA_LIMIT))


def config_map_update(new: Mapping[str, Any], old: Mapping[str, Any], out: Causes) -> None:
    """Complain about a change of what was made immutable."""
    _immutable(new, old, ("data", "binaryData"), out)


def _immutable(new: Mapping[str, Any], old: Mapping[str, Any], fields: tuple[str, ...], out: Causes) -> None:
    if not old.get("immutable"):
        return
    if not new.get("immutable"):
        out.append(forbidden("immutable", _FROZEN))
    out += [forbidden(field, _FROZEN) for field in fields if (new.get(field) or {}) != (old.get(field) or {})]


def _decoded_size(text: str) -> int:
    return len(text) * 3 // 4 - text[-2:].count("=")


# Keys that secrets of a type must have.
_TYPE_KEYS: Mapping[str, tuple[str, ...]] = {
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
}
_JSON_KEYS = frozenset({".dockercfg", ".dockerconfigjson"})
_ACCOUNT_NAME = "kubernetes.io/service-account.name"


def secret(document: Mapping[str, Any], out: Causes) -> None:
    """Complain about a Secret."""
    data = document.get("data") or {}
    size = 0
    for key, value in data.items():
        out += [invalid(f"data[{key}]", key, w) for w in names.config_key(key)]
        size += _decoded_size(value)
    if size > _DATA_LIMIT:
        out.append(too_long("data", _DATA_LIMIT))
    _secret_type(document, data, out)


def _secret_type(document: Mapping[str, Any], data: Mapping[str, str], out: Causes) -> None:
    kind = document.get("type") or "Opaque"
    if kind == "kubernetes.io/service-account-token":
        annotations = (document.get("metadata") or {}).get("annotations") or {}
        if not annotations.get(_ACCOUNT_NAME):
            out.append(required(f"metadata.annotations[{_ACCOUNT_NAME}]"))
    elif kind == "kubernetes.io/basic-auth" and "username" not in data and "password" not in data:
        out += [required("data[username]"), required("data[password]")]
    for key in _TYPE_KEYS.get(kind, ()):
        if key not in data:
            out.append(required(f"data[{key}]"))
        elif key in _JSON_KEYS and not _is_json(data[key]):
            out.append(invalid(f"data[{key}]", "<secret contents redacted>", "must be valid json"))


def _is_json(encoded: str) -> bool:
    try:
        msgspec.json.decode(base64.b64decode(encoded))
    except (msgspec.DecodeError, ValueError, RecursionError):
        return False
    return True


def secret_update(new: Mapping[str, Any], old: Mapping[str, Any], out: Causes) -> None:
    """Complain about a changed type, and about a change of what was made immutable."""
    if new.get("type") != old.get("type"):
        out.append(invalid("type", new.get("type"), IMMUTABLE))
    _immutable(new, old, ("data",), out)
