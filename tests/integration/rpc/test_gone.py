"""What is logged of a client that is gone before it has its answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio
import pytest

from kybern.rpc.gone import expect_clients_to_go

_LOGGER = logging.getLogger("grpc._cython.cygrpc")


class _Writer:
    """A method that goes on writing when its client is gone, and notes what that raises."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.raised: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    async def stream(self, _messages: AsyncIterator[bytes], context: Any) -> None:
        self.begun.set()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            try:
                await context.write(b"too late")
            except Exception as error:
                self.raised.set_result(error)
            raise


async def _raised_by_grpc() -> BaseException:
    writer = _Writer()
    server = grpc.aio.server()
    handler: Any = grpc.stream_stream_rpc_method_handler(writer.stream)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Gone", {"Write": handler})])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stream: Any = channel.stream_stream("/test.Gone/Write")()
            await stream.write(b"")
            await asyncio.wait_for(writer.begun.wait(), 10)
            stream.cancel()
        return await asyncio.wait_for(writer.raised, 10)
    finally:
        await server.stop(None)


def _log(error: BaseException) -> None:
    try:
        raise error
    except type(error):
        _LOGGER.exception("ExecuteBatchError raised in core by servicer method [%s]", "/test.Gone/Write")


async def test_a_client_that_is_gone_is_not_logged_as_an_error(caplog: pytest.LogCaptureFixture) -> None:
    expect_clients_to_go()
    error = await _raised_by_grpc()
    with caplog.at_level(logging.INFO):
        caplog.clear()
        _log(error)
    assert caplog.records == []
    with caplog.at_level(logging.DEBUG):
        caplog.clear()
        _log(error)
    assert caplog.record_tuples == [
        (
            _LOGGER.name,
            logging.DEBUG,
            "ExecuteBatchError raised in core by servicer method [/test.Gone/Write]: the client is gone",
        )
    ]


@pytest.mark.parametrize(
    "mistake",
    [
        lambda: grpc.aio.InternalError("Failed grpc_call_start_batch: 8 with grpc_call_error value: 'TOO_MANY'"),
        lambda: ValueError('Failed "execute_batch"'),
    ],
)
def test_a_mistake_is_logged_whole(mistake: Callable[[], Exception], caplog: pytest.LogCaptureFixture) -> None:
    expect_clients_to_go()
    _log(mistake())
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info
