"""The errors of the API: a Kubernetes `Status`, as an exception.

Every door turns a `StatusError` into its own form (REST: the Status object; gRPC: a status code with a kybern.v1.Status
in the details); clients turn it back. Whether to try again is a property of the error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Reason(StrEnum):
    """Machine-readable reasons, as Kubernetes spells them (meta/v1 StatusReason)."""

    BAD_REQUEST = "BadRequest"
    UNAUTHORIZED = "Unauthorized"
    FORBIDDEN = "Forbidden"
    NOT_FOUND = "NotFound"
    METHOD_NOT_ALLOWED = "MethodNotAllowed"
    NOT_ACCEPTABLE = "NotAcceptable"
    ALREADY_EXISTS = "AlreadyExists"
    CONFLICT = "Conflict"
    GONE = "Gone"
    EXPIRED = "Expired"
    TOO_LARGE = "RequestEntityTooLarge"
    UNSUPPORTED_MEDIA_TYPE = "UnsupportedMediaType"
    INVALID = "Invalid"
    TOO_MANY_REQUESTS = "TooManyRequests"
    INTERNAL = "InternalError"
    SERVICE_UNAVAILABLE = "ServiceUnavailable"
    TIMEOUT = "Timeout"


class CauseType(StrEnum):
    """What is wrong with a field, as Kubernetes spells it (meta/v1 CauseType)."""

    REQUIRED = "FieldValueRequired"
    INVALID = "FieldValueInvalid"
    TYPE_INVALID = "FieldValueTypeInvalid"
    DUPLICATE = "FieldValueDuplicate"
    NOT_SUPPORTED = "FieldValueNotSupported"
    FORBIDDEN = "FieldValueForbidden"
    TOO_LONG = "FieldValueTooLong"
    NOT_FOUND = "FieldValueNotFound"
    FIELD_MANAGER_CONFLICT = "FieldManagerConflict"


@dataclass(frozen=True, slots=True)
class Cause:
    """One field and the rule that it breaks."""

    field: str
    message: str
    reason: str = CauseType.INVALID

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


@dataclass(eq=False)
class StatusError(Exception):
    """A failed request. `code` is the HTTP status; the other fields are those of a Kubernetes `Status`.

    Compared and hashed by identity, as exceptions are.
    """

    code: int
    reason: str
    message: str
    name: str = ""
    group: str = ""
    kind: str = ""
    uid: str = ""
    causes: Sequence[Cause] = field(default_factory=tuple)
    retry_after: int = 0
    # The `metadata.continue` that a client may go on with after an expired list (410).
    continue_token: str = ""

    def __post_init__(self) -> None:
        super().__init__(self.message)

    def __str__(self) -> str:
        return self.message

    @property
    def transient(self) -> bool:
        """Whether the same request may succeed when it is simply sent again later."""
        return self.code in (429, 500, 502, 503, 504)

    def document(self) -> dict[str, Any]:
        """The Kubernetes `Status` object."""
        details: dict[str, Any] = {}
        for key in ("name", "group", "kind", "uid"):
            if getattr(self, key):
                details[key] = getattr(self, key)
        if self.causes:
            details["causes"] = [{"reason": str(c.reason), "message": c.message, "field": c.field} for c in self.causes]
        if self.retry_after:
            details["retryAfterSeconds"] = self.retry_after
        metadata = {"continue": self.continue_token} if self.continue_token else {}
        status: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "metadata": metadata, "status": "Failure"}
        status["message"] = self.message
        status["reason"] = str(self.reason)
        if details:
            status["details"] = details
        status["code"] = self.code
        return status


def from_document(status: dict[str, Any], code: int = 500) -> StatusError:
    """The exception for a Kubernetes `Status` object that another API server answered with."""
    details = status.get("details") or {}
    return StatusError(
        code=int(status.get("code") or code),
        reason=str(status.get("reason") or Reason.INTERNAL),
        message=str(status.get("message") or ""),
        name=str(details.get("name") or ""),
        group=str(details.get("group") or ""),
        kind=str(details.get("kind") or ""),
        uid=str(details.get("uid") or ""),
        causes=[
            Cause(str(c.get("field") or ""), str(c.get("message") or ""), str(c.get("reason") or ""))
            for c in details.get("causes") or ()
        ],
        retry_after=int(details.get("retryAfterSeconds") or 0),
        continue_token=str((status.get("metadata") or {}).get("continue") or ""),
    )


def _qualified(resource: str, group: str) -> str:
    return f"{resource}.{group}" if group else resource


def bad_request(message: str) -> StatusError:
    """400: the request itself cannot be understood."""
    return StatusError(400, Reason.BAD_REQUEST, message)


def unauthorized(message: str = "Unauthorized") -> StatusError:
    """401: who asks is not known."""
    return StatusError(401, Reason.UNAUTHORIZED, message)


def forbidden(resource: str, group: str, name: str, message: str) -> StatusError:
    """403: who asks may not do that; `message` says who, what and where."""
    subject = f'{_qualified(resource, group)} "{name}"' if name else _qualified(resource, group)
    return StatusError(403, Reason.FORBIDDEN, f"{subject} is forbidden: {message}", name, group, resource)


def not_found(resource: str, group: str, name: str) -> StatusError:
    """404: no such object."""
    return StatusError(
        404, Reason.NOT_FOUND, f'{_qualified(resource, group)} "{name}" not found', name, group, resource
    )


def no_such_path() -> StatusError:
    """404: no such resource, version or path."""
    return StatusError(404, Reason.NOT_FOUND, "the server could not find the requested resource")


def method_not_allowed(verb: str, resource: str, group: str = "") -> StatusError:
    """405: the resource exists but cannot do that."""
    message = f'{verb} is not supported on resources of kind "{_qualified(resource, group)}"'
    return StatusError(405, Reason.METHOD_NOT_ALLOWED, message, "", group, resource)


def already_exists(resource: str, group: str, name: str) -> StatusError:
    """409: an object of that name is there."""
    message = f'{_qualified(resource, group)} "{name}" already exists'
    return StatusError(409, Reason.ALREADY_EXISTS, message, name, group, resource)


def conflict(resource: str, group: str, name: str, message: str, causes: Sequence[Cause] = ()) -> StatusError:
    """409: the object is not in the state that the request takes for granted."""
    text = f'Operation cannot be fulfilled on {_qualified(resource, group)} "{name}": {message}'
    return StatusError(409, Reason.CONFLICT, text, name, group, resource, causes=causes)


def modified(resource: str, group: str, name: str) -> StatusError:
    """409: the object was changed since the request's resourceVersion."""
    return conflict(
        resource,
        group,
        name,
        "the object has been modified; please apply your changes to the latest version and try again",
    )


def expired(message: str, continue_token: str = "") -> StatusError:
    """410: the asked-for revision is no longer kept."""
    return StatusError(410, Reason.EXPIRED, message, continue_token=continue_token)


def too_large(message: str) -> StatusError:
    """413: the request is larger than the server takes."""
    return StatusError(413, Reason.TOO_LARGE, message)


def unsupported_media_type(media_type: str, supported: Sequence[str]) -> StatusError:
    """415: a body in a format that is not understood."""
    message = (
        f"the body of the request was in an unknown format {media_type!r} - "
        f"accepted media types include: {', '.join(supported)}"
    )
    return StatusError(415, Reason.UNSUPPORTED_MEDIA_TYPE, message)


def not_acceptable(supported: Sequence[str]) -> StatusError:
    """406: the client accepts nothing that the server could answer with."""
    message = f"only the following media types are accepted: {', '.join(supported)}"
    return StatusError(406, Reason.NOT_ACCEPTABLE, message)


def invalid(kind: str, group: str, name: str, causes: Sequence[Cause]) -> StatusError:
    """422: the object breaks rules; each cause names a field and the rule."""
    listed = str(causes[0]) if len(causes) == 1 else "[" + ", ".join(str(c) for c in causes) + "]"
    return StatusError(
        422,
        Reason.INVALID,
        f'{_qualified(kind, group)} "{name}" is invalid: {listed}',
        name,
        group,
        kind,
        causes=causes,
    )


def too_many_requests(message: str, retry_after: int = 1) -> StatusError:
    """429: later, perhaps."""
    return StatusError(429, Reason.TOO_MANY_REQUESTS, message, retry_after=retry_after)


def internal(message: str) -> StatusError:
    """500: a fault of the server; `message` holds nothing secret."""
    return StatusError(500, Reason.INTERNAL, f"Internal error occurred: {message}")


def unavailable(message: str, retry_after: int = 1) -> StatusError:
    """503: the server, or something that it needs, is not there now."""
    return StatusError(503, Reason.SERVICE_UNAVAILABLE, message, retry_after=retry_after)


def timeout(message: str) -> StatusError:
    """504: the request was not done in time; it may have had its effect."""
    return StatusError(504, Reason.TIMEOUT, f"Timeout: {message}")
