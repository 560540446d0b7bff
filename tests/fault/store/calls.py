"""One unary call to one member, made once."""

from __future__ import annotations

from typing import Any, TypeVar

import grpc.aio
from google.protobuf.message import Message

R = TypeVar("R", bound=Message)


async def unary(
    channel: grpc.aio.Channel, method: str, request: Message, response: type[R], seconds: float, *, wait: bool = False
) -> R:
    """The answer; with `wait`, a member that cannot be reached is tried until the time is over.

    Raises:
        AioRpcError: when the member refuses, or does not answer in time.
    """
    call: grpc.aio.UnaryUnaryMultiCallable[Any, R] = channel.unary_unary(
        method,
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=response.FromString,
    )
    return await call(request, timeout=seconds, wait_for_ready=wait)
