"""Who waits for an answer can be cancelled at any moment, that in which the answer comes included."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import Mock

import pytest

from kybern.client.etcd.pipe import PipeClient
from kybern.pb.v1 import store_pipe_pb2 as pb


async def test_a_cancellation_in_the_moment_of_the_answer_counts() -> None:
    endpoints: Any = Mock()
    client = PipeClient(endpoints)
    client._runner = asyncio.create_task(asyncio.sleep(30))
    call = asyncio.create_task(client.swap(pb.Swap(key=b"a"), 10.0))
    # It has begun, and waits.
    for _ in range(3):
        await asyncio.sleep(0)
    client._answered(pb.PipeReply(id=1, swap=pb.SwapReply(revision=2, succeeded=True)))
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await client.close()
