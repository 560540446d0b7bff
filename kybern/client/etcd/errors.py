"""What a failed call means: try elsewhere, or tell the caller."""

from __future__ import annotations

import grpc
import grpc.aio

from kybern.client.store import StoreRefused, StoreUnavailable

# The member, not the request, is in trouble: another member may answer.
_TRY_ELSEWHERE = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.ABORTED,
    }
)
_BY_NUMBER = {code.value[0]: code for code in grpc.StatusCode}

# etcd's texts, where the code alone does not tell.
COMPACTED_TEXT = "required revision has been compacted"
NO_LEADER_TEXT = "etcdserver: no leader"
OUTCOME_FORGOTTEN_TEXT = "the outcome of this call is no longer kept"
LEASE_EXISTS_TEXT = "etcdserver: lease already exists"

# gRPC's own text for a call that found no connection to be sent on.
_NOT_CONNECTED_TEXT = "failed to connect to all addresses"

# Asks a member that has lost its leader to say so instead of waiting.
REQUIRE_LEADER = (("hasleader", "true"),)


def code_of(number: int) -> grpc.StatusCode:
    """The status code with a number."""
    return _BY_NUMBER.get(number, grpc.StatusCode.UNKNOWN)


def elsewhere(code: grpc.StatusCode) -> bool:
    """Whether another member may answer what this one did not."""
    return code in _TRY_ELSEWHERE


def to_caller(code: grpc.StatusCode, text: str) -> StoreUnavailable | StoreRefused:
    """The exception for an error that no other member would answer differently."""
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED or elsewhere(code) or OUTCOME_FORGOTTEN_TEXT in text:
        return StoreUnavailable(text)
    return StoreRefused(text)


def surely_not_done(text: str) -> bool:
    """Whether a call that failed with this text can have had no effect: unsent, or refused before anything else."""
    # etcd looks for a leader before it does anything.
    return text == NO_LEADER_TEXT or text.startswith(_NOT_CONNECTED_TEXT)


def details(error: grpc.aio.AioRpcError) -> str:
    """The text of a failed call."""
    return error.details() or error.code().name
