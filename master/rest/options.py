"""The options of a request, out of its query and (for deletions) its body. A bad value is a 400 that names it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from kybern.api import decoding
from kybern.api.errors import Cause, CauseType, StatusError, bad_request, invalid
from kybern.api.protobuf import MEDIA_TYPE as PROTOBUF
from kybern.api.protobuf import decode_protobuf
from master.apiserver.interface import Body, DeleteOptions, ListOptions, WatchOptions, WriteOptions

Query = Mapping[str, str]

_LONGEST_MANAGER = 128
_INTEGER = re.compile(r"-?[0-9]{1,18}")
_VALIDATIONS = ("", "Ignore", "Warn", "Strict")
_PROPAGATIONS = ("", "Background", "Foreground", "Orphan")
_MATCHES = ("", "Exact", "NotOlderThan")


def write_options(query: Query, user_agent: str) -> WriteOptions:
    """Options of create, update and patch.

    Raises:
        StatusError: 400 naming the parameter.
    """
    return WriteOptions(
        dry_run=_dry_run(query.get("dryRun", "")),
        field_manager=_manager(query.get("fieldManager", "")) or manager_of(user_agent),
        field_validation=_one_of(query, "fieldValidation", _VALIDATIONS),
    )


def apply_options(query: Query) -> tuple[WriteOptions, bool]:
    """Options of server-side apply, and `force`; here a manager must be named.

    Raises:
        StatusError: 400 naming the parameter, 422 without a manager.
    """
    manager = _manager(query.get("fieldManager", ""))
    if not manager:
        cause = Cause("fieldManager", "Required value: is required for apply patch", CauseType.REQUIRED)
        raise invalid("PatchOptions", "meta.k8s.io", "", [cause])
    options = WriteOptions(
        dry_run=_dry_run(query.get("dryRun", "")),
        field_manager=manager,
        field_validation=_one_of(query, "fieldValidation", _VALIDATIONS),
    )
    return options, boolean(query, "force")


def manager_of(user_agent: str) -> str:
    """The field manager of a client that names none: the first word of its user agent, as in `kubectl/v1.37`."""
    name = user_agent.partition("/")[0]
    return "".join(c for c in name if c.isprintable())[:_LONGEST_MANAGER]


def list_options(query: Query) -> ListOptions:
    """Options of a list, and of what to delete in a collection.

    Raises:
        StatusError: 400 naming the parameter, 422 for options of watches.
    """
    if "sendInitialEvents" in query:
        raise _forbidden_option("sendInitialEvents", "sendInitialEvents is forbidden for list")
    limit = integer(query, "limit") or 0
    if limit < 0:
        raise _bad("limit", query["limit"], "must not be negative")
    return ListOptions(
        labels=query.get("labelSelector", ""),
        fields=query.get("fieldSelector", ""),
        resource_version=_revision(query),
        resource_version_match=_one_of(query, "resourceVersionMatch", _MATCHES),
        limit=limit,
        continue_token=query.get("continue", ""),
    )


def watch_options(query: Query) -> WatchOptions:
    """Options of a watch.

    Raises:
        StatusError: 400 naming the parameter, 422 for combinations that mean nothing.
    """
    initial = boolean(query, "sendInitialEvents")
    match = _one_of(query, "resourceVersionMatch", _MATCHES)
    if match and "sendInitialEvents" not in query:
        raise _forbidden_option(
            "resourceVersionMatch", "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
        )
    if "sendInitialEvents" in query and match != "NotOlderThan":
        raise _forbidden_option(
            "resourceVersionMatch", "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        )
    return WatchOptions(
        labels=query.get("labelSelector", ""),
        fields=query.get("fieldSelector", ""),
        resource_version=_revision(query),
        bookmarks=boolean(query, "allowWatchBookmarks"),
        send_initial_events=initial,
    )


def watch_seconds(query: Query) -> int | None:
    """For how long to watch; None when the client has not said.

    Raises:
        StatusError: 400 naming the parameter.
    """
    seconds = integer(query, "timeoutSeconds")
    if seconds is not None and seconds < 0:
        raise _bad("timeoutSeconds", query["timeoutSeconds"], "must not be negative")
    return seconds or None


def delete_options(query: Query, body: Body) -> DeleteOptions:
    """Options of a deletion: the body's, and the query's for what the body does not say.

    Raises:
        StatusError: 400 naming the parameter, or when the body cannot be read.
    """
    told = _delete_document(body) if body.data else {}
    preconditions = told.get("preconditions") or {}
    if not isinstance(preconditions, dict):
        raise bad_request("DeleteOptions: preconditions must be an object")
    grace = told.get("gracePeriodSeconds")
    if grace is None:
        grace = integer(query, "gracePeriodSeconds")
    if grace is not None and (not isinstance(grace, int) or isinstance(grace, bool)):
        raise _bad("gracePeriodSeconds", str(grace), "must be an integer")
    if grace is not None and grace < 0:
        # What Kubernetes does with old clients' -1: the shortest that still is graceful.
        grace = 1
    return DeleteOptions(
        grace_seconds=grace,
        propagation=_propagation(told, query),
        uid=str(preconditions.get("uid") or ""),
        resource_version=str(preconditions.get("resourceVersion") or ""),
        write=WriteOptions(dry_run=_delete_dry_run(told, query)),
    )


def _delete_document(body: Body) -> dict[str, Any]:
    media_type = body.content_type.partition(";")[0].strip().lower()
    if media_type == PROTOBUF:
        document = decode_protobuf(body.data)
    elif media_type in ("application/yaml", "text/yaml"):
        document, _ = decoding.decode_yaml(body.data)
    else:
        document, _ = decoding.decode_json(body.data)
    kind = document.get("kind", "DeleteOptions")
    if kind != "DeleteOptions":
        raise bad_request(f"the body of a deletion must be DeleteOptions, not {kind}")
    return document


def _propagation(told: Mapping[str, Any], query: Query) -> str:
    value = told.get("propagationPolicy") or query.get("propagationPolicy") or ""
    if value not in _PROPAGATIONS:
        raise _bad("propagationPolicy", str(value), f"must be one of {', '.join(_PROPAGATIONS[1:])}")
    orphan = told.get("orphanDependents")
    if orphan is None and "orphanDependents" in query:
        orphan = boolean(query, "orphanDependents")
    if orphan is None:
        return str(value)
    if value:
        raise bad_request("DeleteOptions: orphanDependents and propagationPolicy must not be set at the same time")
    return "Orphan" if orphan else "Background"


def _delete_dry_run(told: Mapping[str, Any], query: Query) -> bool:
    values = told.get("dryRun") or []
    if not isinstance(values, list):
        raise bad_request("DeleteOptions: dryRun must be a list")
    return any([_dry_run(str(value)) for value in values] + [_dry_run(query.get("dryRun", ""))])


def boolean(query: Query, name: str) -> bool:
    """A switch; `name` alone (`?watch`) is on, as in Go.

    Raises:
        StatusError: 400 naming the parameter.
    """
    value = query.get(name)
    if value is None:
        return False
    if value.lower() in ("true", "1", "t", ""):
        return True
    if value.lower() in ("false", "0", "f"):
        return False
    raise _bad(name, value, "must be true or false")


def integer(query: Query, name: str) -> int | None:
    """A whole number; None when it is absent or empty.

    Raises:
        StatusError: 400 naming the parameter.
    """
    value = query.get(name)
    if not value:
        return None
    if not _INTEGER.fullmatch(value):
        raise _bad(name, value, "must be an integer")
    return int(value)


def _revision(query: Query) -> str:
    value = query.get("resourceVersion", "")
    if value and not (_INTEGER.fullmatch(value) and value[0] != "-"):
        raise _bad("resourceVersion", value, "must be a number that the server has given")
    return value


def _dry_run(value: str) -> bool:
    if value not in ("", "All"):
        raise _bad("dryRun", value, "supported values: All")
    return value == "All"


def _manager(value: str) -> str:
    if len(value) > _LONGEST_MANAGER or not value.isprintable():
        raise _bad("fieldManager", value, f"must be at most {_LONGEST_MANAGER} printable characters")
    return value


def _one_of(query: Query, name: str, choices: tuple[str, ...]) -> str:
    value = query.get(name, "")
    if value not in choices:
        raise _bad(name, value, f"supported values: {', '.join(c for c in choices if c)}")
    return value


def _bad(name: str, value: str, rule: str) -> StatusError:
    return bad_request(f"invalid value {value[:200]!r} of the parameter {name}: {rule}")


def _forbidden_option(name: str, message: str) -> StatusError:
    return invalid("ListOptions", "meta.k8s.io", "", [Cause(name, f"Forbidden: {message}", CauseType.FORBIDDEN)])
