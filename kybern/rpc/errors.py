"""A StatusError on gRPC: a status code with a kybern.v1.Status in its details, and back."""

from __future__ import annotations

from typing import Any, NoReturn

import grpc
import grpc.aio
from google.protobuf import any_pb2
from google.rpc import code_pb2, status_pb2
from grpc_status import rpc_status

from kybern.api.errors import Cause, Reason, StatusError
from kybern.pb.v1 import status_pb2 as kybern_status

_CODES: dict[str, int] = {
    Reason.BAD_REQUEST: code_pb2.INVALID_ARGUMENT,
    Reason.INVALID: code_pb2.INVALID_ARGUMENT,
    Reason.UNAUTHORIZED: code_pb2.UNAUTHENTICATED,
    Reason.FORBIDDEN: code_pb2.PERMISSION_DENIED,
    Reason.NOT_FOUND: code_pb2.NOT_FOUND,
    Reason.METHOD_NOT_ALLOWED: code_pb2.UNIMPLEMENTED,
    Reason.ALREADY_EXISTS: code_pb2.ALREADY_EXISTS,
    Reason.CONFLICT: code_pb2.ABORTED,
    Reason.GONE: code_pb2.OUT_OF_RANGE,
    Reason.EXPIRED: code_pb2.OUT_OF_RANGE,
    Reason.TOO_LARGE: code_pb2.INVALID_ARGUMENT,
    Reason.UNSUPPORTED_MEDIA_TYPE: code_pb2.INVALID_ARGUMENT,
    Reason.TOO_MANY_REQUESTS: code_pb2.RESOURCE_EXHAUSTED,
    Reason.SERVICE_UNAVAILABLE: code_pb2.UNAVAILABLE,
    Reason.TIMEOUT: code_pb2.DEADLINE_EXCEEDED,
}
# For answers that carry no kybern.v1.Status: gRPC itself failed, or another server spoke.
_REASONS: dict[grpc.StatusCode, tuple[int, Reason]] = {
    grpc.StatusCode.UNAVAILABLE: (503, Reason.SERVICE_UNAVAILABLE),
    grpc.StatusCode.DEADLINE_EXCEEDED: (504, Reason.TIMEOUT),
    grpc.StatusCode.CANCELLED: (503, Reason.SERVICE_UNAVAILABLE),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (429, Reason.TOO_MANY_REQUESTS),
    grpc.StatusCode.NOT_FOUND: (404, Reason.NOT_FOUND),
    grpc.StatusCode.PERMISSION_DENIED: (403, Reason.FORBIDDEN),
    grpc.StatusCode.UNAUTHENTICATED: (401, Reason.UNAUTHORIZED),
    grpc.StatusCode.INVALID_ARGUMENT: (400, Reason.BAD_REQUEST),
    grpc.StatusCode.ALREADY_EXISTS: (409, Reason.ALREADY_EXISTS),
    grpc.StatusCode.ABORTED: (409, Reason.CONFLICT),
    grpc.StatusCode.FAILED_PRECONDITION: (409, Reason.CONFLICT),
    grpc.StatusCode.OUT_OF_RANGE: (410, Reason.EXPIRED),
    grpc.StatusCode.UNIMPLEMENTED: (405, Reason.METHOD_NOT_ALLOWED),
}


def to_message(error: StatusError) -> kybern_status.Status:
    """The wire form of an error."""
    details = kybern_status.StatusDetails(
        name=error.name,
        group=error.group,
        kind=error.kind,
        uid=error.uid,
        causes=[
            kybern_status.StatusCause(reason=str(c.reason), message=c.message, field=c.field) for c in error.causes
        ],
        retry_after_seconds=error.retry_after,
    )
    return kybern_status.Status(code=error.code, reason=str(error.reason), message=error.message, details=details)


def from_message(status: kybern_status.Status) -> StatusError:
    """The error that a wire form stands for."""
    details = status.details
    return StatusError(
        code=status.code,
        reason=status.reason,
        message=status.message,
        name=details.name,
        group=details.group,
        kind=details.kind,
        uid=details.uid,
        causes=[Cause(c.field, c.message, c.reason) for c in details.causes],
        retry_after=details.retry_after_seconds,
    )


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: StatusError, code: int | None = None) -> NoReturn:
    """End a call with an error; `code` (of `google.rpc.code_pb2`) where the error's reason does not say it."""
    detail = any_pb2.Any()
    detail.Pack(to_message(error))
    if code is None:
        code = _CODES.get(error.reason, code_pb2.INTERNAL)
    status = rpc_status.to_status(status_pb2.Status(code=code, message=error.message, details=[detail]))
    await context.abort(status.code, status.details, trailing_metadata=status.trailing_metadata)


def from_rpc(error: grpc.aio.AioRpcError) -> StatusError:
    """The error that a failed call stands for."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            rich = status_pb2.Status.FromString(value)
            for detail in rich.details:
                status = kybern_status.Status()
                if detail.Unpack(status):
                    return from_message(status)
    code, reason = _REASONS.get(error.code(), (500, Reason.INTERNAL))
    return StatusError(code, reason, error.details() or error.code().name)
