"""How services are added to a server: without what gRPC makes every call pay for it, and behind admission if need be.

gRPC's own services, health and reflection, ask nobody who they are.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import grpc
import grpc.aio

Context = grpc.aio.ServicerContext[Any, Any]
# Ends the call with an error when its certificate is not admitted.
Admit = Callable[[Context], Awaitable[None]]


class GenericServices:
    """Stands for a server where generated code adds a servicer to it; with `admit` its methods are behind that.

    Methods are not made known to gRPC's core by name, as generated code would do: grpc.aio then waits for calls of each
    such method by itself, and every call of any method pays for every one of them. An interceptor, the usual way to
    admit, would cost each call of every service too.
    """

    def __init__(self, server: grpc.aio.Server, admit: Admit | None) -> None:
        self._server = server
        self._admit = admit

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Serve these methods."""
        self._server.add_generic_rpc_handlers([_Behind(handler, self._admit) for handler in handlers])

    def add_registered_method_handlers(self, _service: str, _handlers: Mapping[str, Any]) -> None:
        """Not done: what is generic serves them."""


class _Behind(grpc.GenericRpcHandler):
    """A service, its methods behind `admit`."""

    def __init__(self, service: grpc.GenericRpcHandler, admit: Admit | None) -> None:
        self._service = service
        self._admit = admit

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The method's handler; None when it is not of this service."""
        handler: Any = self._service.service(handler_call_details)
        if handler is None or self._admit is None:
            return handler
        coders = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        match bool(handler.request_streaming), bool(handler.response_streaming):
            case False, False:
                return grpc.unary_unary_rpc_method_handler(_guarded(handler.unary_unary, self._admit), **coders)
            case False, True:
                return grpc.unary_stream_rpc_method_handler(_guarded(handler.unary_stream, self._admit), **coders)
            case True, False:
                return grpc.stream_unary_rpc_method_handler(_guarded(handler.stream_unary, self._admit), **coders)
            case _:
                return grpc.stream_stream_rpc_method_handler(_guarded(handler.stream_stream, self._admit), **coders)


def _guarded(behaviour: Callable[[Any, Context], Any], admit: Admit) -> Callable[[Any, Context], Any]:
    if inspect.isasyncgenfunction(behaviour):

        async def answers(request: Any, context: Context) -> AsyncIterator[Any]:
            await admit(context)
            async for answer in behaviour(request, context):
                yield answer

        return answers

    async def answer(request: Any, context: Context) -> Any:
        await admit(context)
        return await behaviour(request, context)

    return answer
