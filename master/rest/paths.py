"""What a path of the REST API names: pure, no request and no registry needed.

`/api/v1/...` is the core group, `/apis/GROUP/VERSION/...` the named ones; then `namespaces/NS/PLURAL/NAME/SUBRESOURCE`
or, for cluster-scoped kinds and for "in all namespaces", `PLURAL/NAME/SUBRESOURCE`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote

# What `namespaces/NAME/...` may be followed by without naming a resource inside the namespace.
_NAMESPACE_SUBRESOURCES = frozenset({"status", "finalize"})


@dataclass(frozen=True, slots=True)
class ResourcePath:
    """A collection (`name` empty), an object, or a subresource of one."""

    group: str
    version: str
    plural: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""


@dataclass(frozen=True, slots=True)
class GroupPath:
    """A document about the API: `/api`, `/apis`, a group, or a group-version (with both set, or `v1` in the core)."""

    core: bool
    group: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True)
class OtherPath:
    """Anything else, without a slash at its end (`/version`, `/healthz`)."""

    path: str


Path = ResourcePath | GroupPath | OtherPath


@lru_cache(maxsize=4096)
def parse(raw: str) -> Path | None:
    """What the path of a URL names; `raw` is still percent-encoded.

    Returns:
        None when it lies under `/api` or `/apis` and can name nothing there.
    """
    parts = [unquote(part) for part in raw.split("/") if part]
    match parts:
        case ["api"]:
            return GroupPath(core=True)
        case ["apis"]:
            return GroupPath(core=False)
        case ["api", version]:
            return GroupPath(True, "", version)
        case ["apis", group]:
            return GroupPath(False, group)
        case ["apis", group, version]:
            return GroupPath(False, group, version)
        case ["api", version, *rest]:
            return _resource("", version, rest)
        case ["apis", group, version, *rest]:
            return _resource(group, version, rest)
    return OtherPath("/" + "/".join(parts))


def _resource(group: str, version: str, rest: list[str]) -> ResourcePath | None:
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2 and not (group == "" and rest[2] in _NAMESPACE_SUBRESOURCES):
        namespace, rest = rest[1], rest[2:]
    match rest:
        case [plural]:
            return ResourcePath(group, version, plural, namespace)
        case [plural, name]:
            return ResourcePath(group, version, plural, namespace, name)
        case [plural, name, subresource]:
            return ResourcePath(group, version, plural, namespace, name, subresource)
    return None
