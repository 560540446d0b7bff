"""Connections to node agents: one per node, kept while it is used and a little longer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
import grpc.aio

from kybern.api.errors import Reason, StatusError
from kybern.config.models import Tls
from kybern.pb.v1 import node_agent_pb2_grpc
from kybern.rpc.credentials import open_channel
from kybern.rpc.errors import from_rpc
from master.apiserver.interface import PodLocation

_CONNECT_SECONDS = 5.0
_IDLE_SECONDS = 60.0


@dataclass(slots=True)
class _Entry:
    channel: grpc.aio.Channel
    stub: node_agent_pb2_grpc.NodeAgentAsyncStub
    users: int = 0
    timer: asyncio.TimerHandle | None = None


class NodeAgents:
    """Channels by address. All calls of a node share one; `tls` is the master's certificate as a client."""

    def __init__(self, tls: Tls, opener: Callable[[str, Tls], grpc.aio.Channel] = open_channel) -> None:
        self._tls = tls
        self._opener = opener
        self._entries: dict[str, _Entry] = {}
        self._closing: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def stub(self, location: PodLocation) -> AsyncIterator[node_agent_pb2_grpc.NodeAgentAsyncStub]:
        """The agent of a node. Failures of its calls leave the block as the StatusErrors that they stand for.

        Raises:
            StatusError: 502 when the node does not answer.
        """
        address = location.agent_address
        entry = self._entries.get(address)
        if entry is None:
            channel = self._opener(address, self._tls)
            entry = self._entries[address] = _Entry(channel, node_agent_pb2_grpc.NodeAgentStub(channel))
        entry.users += 1
        if entry.timer is not None:
            entry.timer.cancel()
            entry.timer = None
        try:
            await _connected(entry.channel, location)
            yield entry.stub
        except grpc.aio.AioRpcError as error:
            raise as_status(error, location) from None
        finally:
            entry.users -= 1
            if not entry.users:
                loop = asyncio.get_running_loop()
                entry.timer = loop.call_later(_IDLE_SECONDS, self._drop, address, entry)

    def _drop(self, address: str, entry: _Entry) -> None:
        if self._entries.get(address) is entry and not entry.users:
            del self._entries[address]
            task = asyncio.ensure_future(entry.channel.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Close every connection."""
        entries = list(self._entries.values())
        self._entries.clear()
        for entry in entries:
            if entry.timer is not None:
                entry.timer.cancel()
        await asyncio.gather(*(entry.channel.close() for entry in entries), *self._closing)


def as_status(error: grpc.aio.AioRpcError, location: PodLocation) -> StatusError:
    """What a failed call of a node agent means to a client of the API."""
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        return _silent(location, error.details() or "")
    return from_rpc(error)


async def _connected(channel: grpc.aio.Channel, location: PodLocation) -> None:
    """Wait for a new connection: without that, a first attempt that is slow would fail the call at once."""
    if channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY:
        return
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            await channel.channel_ready()
    except TimeoutError:
        raise _silent(location, f"no connection within {_CONNECT_SECONDS:.0f} s") from None


def _silent(location: PodLocation, why: str) -> StatusError:
    message = f"the agent of node {location.node} at {location.agent_address} does not answer: {why}"
    # Not a 503 with a time to try again after: kubectl would do that in silence, ten times.
    return StatusError(502, Reason.INTERNAL, message)
