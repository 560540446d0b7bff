"""The stream `Objects.Write`: many independent writes, answered in the order in which they are done."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Protocol

from kybern.api import errors
from kybern.api.errors import StatusError
from kybern.pb.v1 import objects_pb2 as pb
from kybern.rpc.errors import to_message
from master.apiserver.interface import User

log = logging.getLogger(__name__)

# Writes of one stream that are under way at once; the rest waits in the client's flow control.
_PARALLEL = 256
# Answers per message: bounded by count, since an answer is as large as its object.
_BATCH = 64


class Writes(Protocol):
    """The four writes, as the door does them."""

    async def create(self, user: User, request: pb.CreateRequest) -> pb.Object:
        """Create an object."""
        ...

    async def update(self, user: User, request: pb.UpdateRequest) -> pb.Object:
        """Replace an object."""
        ...

    async def patch(self, user: User, request: pb.PatchRequest) -> pb.Object:
        """Change an object."""
        ...

    async def delete(self, user: User, request: pb.DeleteRequest) -> pb.DeleteResponse:
        """Delete an object."""
        ...


class WriteStream:
    """Serves one stream of one user."""

    def __init__(self, writes: Writes, user: User) -> None:
        self._writes = writes
        self._user = user
        self._answers: asyncio.Queue[pb.WriteResponse | None] = asyncio.Queue()

    async def run(self, requests: AsyncIterator[pb.WriteRequests]) -> AsyncGenerator[pb.WriteResponses, None]:
        """The answers to all requests, in batches; ends when the client has sent its last and all are answered."""
        reader = asyncio.create_task(self._read(requests))
        try:
            open_ended = True
            while open_ended:
                batch: list[pb.WriteResponse] = []
                answer = await self._answers.get()
                while answer is not None:
                    batch.append(answer)
                    if len(batch) >= _BATCH or self._answers.empty():
                        break
                    answer = self._answers.get_nowait()
                open_ended = answer is not None
                if batch:
                    yield pb.WriteResponses(responses=batch)
            await reader
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _read(self, requests: AsyncIterator[pb.WriteRequests]) -> None:
        limit = asyncio.Semaphore(_PARALLEL)
        try:
            async with asyncio.TaskGroup() as tasks:
                async for batch in requests:
                    for request in batch.requests:
                        await limit.acquire()
                        tasks.create_task(self._one(request, limit))
        finally:
            self._answers.put_nowait(None)

    async def _one(self, request: pb.WriteRequest, limit: asyncio.Semaphore) -> None:
        response = pb.WriteResponse(id=request.id)
        try:
            response.object.CopyFrom(await self._write(request))
        except StatusError as error:
            response.error.CopyFrom(to_message(error))
        except Exception:
            log.exception("a write failed for a reason that the API server does not know")
            response.error.CopyFrom(to_message(errors.internal("see the log of this API server")))
        finally:
            limit.release()
        self._answers.put_nowait(response)

    async def _write(self, request: pb.WriteRequest) -> pb.Object:
        match request.WhichOneof("operation"):
            case "create":
                return await self._writes.create(self._user, request.create)
            case "update":
                return await self._writes.update(self._user, request.update)
            case "patch":
                return await self._writes.patch(self._user, request.patch)
            case "delete":
                return (await self._writes.delete(self._user, request.delete)).object
            case _:
                raise errors.bad_request("the write says not what to do")
