"""The published definitions as they are: JSON Schema by name, decoded one at a time.

The file has 1.8 MB, most of it documentation. It is kept as bytes; a definition is decoded when somebody asks for it.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

# The Kubernetes version whose API is served, and the variant whose references stay inside the one file.
VERSION = "1.37.0"
_FOLDER = "kubernetes-json-schema"
_FILE = f"v{VERSION}-local/_definitions.json"


class _File(msgspec.Struct):
    definitions: dict[str, msgspec.Raw] = msgspec.field(name="$defs")


class _GroupVersionKind(msgspec.Struct, frozen=True):
    group: str
    version: str
    kind: str


class _Kinds(msgspec.Struct):
    kinds: list[_GroupVersionKind] = msgspec.field(name="x-kubernetes-group-version-kind", default_factory=list)


@cache
def _all() -> dict[str, msgspec.Raw]:
    # Found without an import: the package itself needs 4 MB of libraries that nothing here uses.
    package = find_spec("kubernetes_validate")
    if package is None or package.origin is None:
        raise LookupError("the package kubernetes-validate is not installed")
    data = Path(package.origin).with_name(_FOLDER).joinpath(_FILE).read_bytes()
    return msgspec.json.decode(data, type=_File).definitions


@cache
def _by_kind() -> dict[tuple[str, str, str], str]:
    """Names of the definitions by group, version and kind."""
    decoder = msgspec.json.Decoder(_Kinds)
    return {
        (k.group, k.version, k.kind): name
        for name, definition in _all().items()
        for k in decoder.decode(definition).kinds
    }


def names() -> list[str]:
    """The names of all definitions."""
    return list(_all())


def name_of_kind(group: str, version: str, kind: str) -> str:
    """The name of the definition of a kind.

    Raises:
        LookupError: when there is none.
    """
    name = _by_kind().get((group, version, kind))
    if name is None:
        raise LookupError(f"no definition of kind {kind} in {group or 'core'}/{version}")
    return name


def resolve_name(name: str) -> str:
    """The full name of a definition that is named in full or by its last parts, as in `autoscaling.v1.Scale`.

    Raises:
        LookupError: when no definition, or more than one, has that name.
    """
    if name in _all():
        return name
    matches = [n for n in _all() if n.endswith(f".{name}")]
    if len(matches) != 1:
        raise LookupError(f"{'no' if not matches else 'more than one'} definition is named {name!r}")
    return matches[0]


def read(name: str) -> dict[str, Any]:
    """A definition as it was published. The result is the caller's own.

    Raises:
        KeyError: when there is none of that name.
    """
    definition: dict[str, Any] = msgspec.json.decode(_all()[name])
    return definition
