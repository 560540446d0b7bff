"""Health and reflection for some certificates alone: gRPC's own services ask nobody who they are."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

Context = grpc.aio.ServicerContext[Any, Any]
# Ends the call with an error when its certificate is not admitted.
Admit = Callable[[Context], Awaitable[None]]

# Names of gRPC's own services begin so.
_GRPC = "/grpc."


class AdmitToGrpcServices(grpc.aio.ServerInterceptor):
    """Calls `admit` before every method of gRPC's own services. A server's own services see to themselves.

    Those are the busy ones, and what is in front of a method costs on every call.
    """

    def __init__(self, admit: Admit) -> None:
        self._admit = admit

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The method's handler, behind `admit` when it is of gRPC's own services."""
        handler = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith(_GRPC):
            return handler
        coders = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        match bool(handler.request_streaming), bool(handler.response_streaming):
            case False, False:
                return grpc.unary_unary_rpc_method_handler(self._behind(handler.unary_unary), **coders)
            case False, True:
                return grpc.unary_stream_rpc_method_handler(self._behind(handler.unary_stream), **coders)
            case True, False:
                return grpc.stream_unary_rpc_method_handler(self._behind(handler.stream_unary), **coders)
            case _:
                return grpc.stream_stream_rpc_method_handler(self._behind(handler.stream_stream), **coders)

    def _behind(self, behaviour: Callable[[Any, Context], Any]) -> Callable[[Any, Context], Any]:
        if inspect.isasyncgenfunction(behaviour):

            async def answers(request: Any, context: Context) -> AsyncIterator[Any]:
                await self._admit(context)
                async for answer in behaviour(request, context):
                    yield answer

            return answers

        async def answer(request: Any, context: Context) -> Any:
            await self._admit(context)
            return await behaviour(request, context)

        return answer
