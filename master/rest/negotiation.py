"""What form of an answer a client accepts: the `Accept` header, read once per distinct header."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from kybern.api.errors import not_acceptable

JSON = "application/json"
_GROUP_OF_FORMS = "meta.k8s.io"
_SUPPORTED = (JSON,)


class Form(Enum):
    """How objects are shown."""

    WHOLE = "whole"
    TABLE = "Table"
    METADATA = "PartialObjectMetadata"


@dataclass(frozen=True, slots=True)
class Accepted:
    """The form, and for tables and metadata their version of `meta.k8s.io`."""

    form: Form
    version: str = "v1"

    @property
    def api_version(self) -> str:
        """The apiVersion of tables and metadata."""
        return f"{_GROUP_OF_FORMS}/{self.version}"


@dataclass(frozen=True, slots=True)
class _Clause:
    media_type: str
    parameters: dict[str, str]
    quality: float


WHOLE = Accepted(Form.WHOLE)
_FORMS = {
    "Table": Form.TABLE,
    "PartialObjectMetadata": Form.METADATA,
    "PartialObjectMetadataList": Form.METADATA,
}


@lru_cache(maxsize=1024)
def accepted(header: str) -> Accepted:
    """The best form of objects that both sides know; clauses for what is not served are passed over.

    Raises:
        StatusError: 406 when there is none.
    """
    if not header.strip():
        return WHOLE
    for clause in _clauses(header):
        if clause.media_type not in (JSON, "*/*", "application/*"):
            continue
        wanted = clause.parameters.get("as")
        if wanted is None:
            return WHOLE
        version = clause.parameters.get("v", "v1")
        form = _FORMS.get(wanted)
        if form and clause.parameters.get("g") == _GROUP_OF_FORMS and version in ("v1", "v1beta1"):
            return Accepted(form, version)
    raise not_acceptable(_SUPPORTED)


@lru_cache(maxsize=256)
def wants_aggregated(header: str) -> bool:
    """Whether discovery is to be answered in its aggregated form (apidiscovery.k8s.io/v2).

    Raises:
        StatusError: 406 when the client takes no JSON at all.
    """
    if not header.strip():
        return False
    for clause in _clauses(header):
        if clause.media_type not in (JSON, "*/*", "application/*"):
            continue
        wanted = clause.parameters.get("as")
        if wanted is None:
            return False
        told = (wanted, clause.parameters.get("g"), clause.parameters.get("v"))
        if told == ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2"):
            return True
    raise not_acceptable(_SUPPORTED)


def _clauses(header: str) -> list[_Clause]:
    """The clauses, the most wanted first; those of the same quality stay in their order."""
    found = []
    for text in header.split(","):
        media_type, *rest = (part.strip() for part in text.split(";"))
        parameters = dict(part.split("=", 1) for part in rest if "=" in part)
        found.append(_Clause(media_type.lower(), parameters, _quality(parameters.pop("q", "1"))))
    return sorted((c for c in found if c.quality > 0), key=lambda c: -c.quality)


def _quality(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
