"""Errors and the Status objects that carry them."""

from __future__ import annotations

import pytest

from kybern.api import errors
from kybern.api.errors import Cause, StatusError, from_document

ALL = [
    (errors.bad_request("no"), 400, "BadRequest", "no"),
    (errors.unauthorized(), 401, "Unauthorized", "Unauthorized"),
    (errors.forbidden("pods", "", "x", 'User "u" cannot get'), 403, "Forbidden", 'pods "x" is forbidden: User "u" cannot get'),
    (errors.forbidden("deployments", "apps", "", "no"), 403, "Forbidden", "deployments.apps is forbidden: no"),
    (errors.not_found("deployments", "apps", "x"), 404, "NotFound", 'deployments.apps "x" not found'),
    (errors.no_such_path(), 404, "NotFound", "the server could not find the requested resource"),
    (errors.method_not_allowed("patch", "nodes"), 405, "MethodNotAllowed", 'patch is not supported on resources of kind "nodes"'),
    (errors.not_acceptable(["a/b"]), 406, "NotAcceptable", "only the following media types are accepted: a/b"),
    (errors.already_exists("pods", "", "x"), 409, "AlreadyExists", 'pods "x" already exists'),
    (errors.modified("pods", "", "x"), 409, "Conflict", 'Operation cannot be fulfilled on pods "x": the object has been modified; please apply your changes to the latest version and try again'),
    (errors.expired("too old", "tok"), 410, "Expired", "too old"),
    (errors.too_large("much"), 413, "RequestEntityTooLarge", "much"),
    (errors.unsupported_media_type("x/y", ["a/b"]), 415, "UnsupportedMediaType", "the body of the request was in an unknown format 'x/y' - accepted media types include: a/b"),
    (errors.invalid("Pod", "", "x", [Cause("spec.a", "bad")]), 422, "Invalid", 'Pod "x" is invalid: spec.a: bad'),
    (errors.invalid("Deployment", "apps", "x", [Cause("a", "b"), Cause("", "c")]), 422, "Invalid", 'Deployment.apps "x" is invalid: [a: b, c]'),
    (errors.too_many_requests("later", 3), 429, "TooManyRequests", "later"),
    (errors.internal("oops"), 500, "InternalError", "Internal error occurred: oops"),
    (errors.unavailable("down"), 503, "ServiceUnavailable", "down"),
    (errors.timeout("slow"), 504, "Timeout", "Timeout: slow"),
]  # fmt: skip


@pytest.mark.parametrize(("error", "code", "reason", "message"), ALL, ids=lambda v: v if isinstance(v, int) else None)
def test_errors(error: StatusError, code: int, reason: str, message: str) -> None:
    assert (error.code, error.reason, error.message, str(error)) == (code, reason, message, message)
    document = error.document()
    assert (document["kind"], document["apiVersion"], document["status"]) == ("Status", "v1", "Failure")
    assert (document["code"], document["reason"], document["message"]) == (code, reason, message)
    back = from_document(document)
    assert back.document() == document
    assert back.transient is error.transient is (code in (429, 500, 503, 504))


def test_details() -> None:
    error = errors.invalid("Pod", "", "x", [Cause("spec.a", "bad")])
    assert error.document()["details"] == {
        "name": "x",
        "kind": "Pod",
        "causes": [{"reason": "FieldValueInvalid", "message": "bad", "field": "spec.a"}],
    }
    assert errors.too_many_requests("later", 3).document()["details"] == {"retryAfterSeconds": 3}
    assert errors.expired("old", "tok").document()["metadata"] == {"continue": "tok"}


def test_a_foreign_status() -> None:
    error = from_document({"kind": "Status", "message": "odd"}, 418)
    assert (error.code, error.message) == (418, "odd")


def test_errors_can_be_kept_in_sets() -> None:
    first, second = errors.bad_request("no"), errors.bad_request("no")
    assert len({first, second, first}) == 2
