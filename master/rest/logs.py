"""`pods/NAME/log`: what a container wrote, from its node to the client, as plain chunked text."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from aiohttp import web

from kybern.api.errors import StatusError, bad_request
from kybern.clock import Clock
from kybern.pb.v1 import node_agent_pb2 as pb
from master.apiserver.interface import Handlers, PodLocation, Target
from master.rest import options
from master.rest.connection import Sessions
from master.rest.late import LateAnswer
from master.rest.nodes import NodeAgents
from master.rest.objects import Call

_TEXT = {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-cache, private"}


class Logs:
    """The subresource `log`."""

    def __init__(self, handlers: Handlers, nodes: NodeAgents, sessions: Sessions, clock: Clock) -> None:
        self._handlers = handlers
        self._nodes = nodes
        self._sessions = sessions
        self._clock = clock

    async def log(self, call: Call) -> web.StreamResponse:
        """Stream the log to its end, or for as long as client and container last when it is followed."""
        wanted = log_request(call.query, self._clock.now())
        container = call.query.get("container", "")
        location = await self._handlers.locate(call.user, call.target, container, verb="get")
        wanted.container.CopyFrom(container_ref(call.target, location))
        answer = LateAnswer(call.request, _TEXT)
        async with self._sessions.hold(call.request):
            try:
                await self._relay(wanted, location, answer)
            except StatusError as error:
                if not answer.begun:
                    raise
                # Too late for a status: an answer that breaks off is at least not taken for the whole log.
                raise ConnectionResetError(error.message) from error
            finally:
                answer.cancel()
        await answer.begin()
        return answer.response

    async def _relay(self, wanted: pb.LogsRequest, location: PodLocation, answer: LateAnswer) -> None:
        async with self._nodes.stub(location) as stub:
            answer.begin_later()
            stream = stub.Logs(wanted)
            try:
                async for piece in stream:
                    await answer.write(piece.data)
            finally:
                stream.cancel()


def container_ref(target: Target, location: PodLocation) -> pb.ContainerRef:
    """How a node knows the container."""
    return pb.ContainerRef(
        namespace=target.namespace, pod=target.name, pod_uid=location.pod_uid, container=location.container
    )


def log_request(query: Mapping[str, str], now: datetime) -> pb.LogsRequest:
    """What part of the log is asked for.

    Raises:
        StatusError: 400 naming the parameter.
    """
    wanted = pb.LogsRequest(
        follow=options.boolean(query, "follow"),
        previous=options.boolean(query, "previous"),
        timestamps=options.boolean(query, "timestamps"),
    )
    if query.get("stream", "All") != "All":
        raise bad_request(f"invalid value {query['stream'][:200]!r} of the parameter stream: supported values: All")
    tail = _at_least(query, "tailLines", 0)
    if tail is not None:
        wanted.tail_lines = tail
    limit = _at_least(query, "limitBytes", 1)
    if limit is not None:
        wanted.limit_bytes = limit
    seconds = _at_least(query, "sinceSeconds", 1)
    moment = query.get("sinceTime")
    if seconds is not None and moment:
        raise bad_request("at most one of the parameters sinceTime and sinceSeconds may be given")
    if seconds is not None:
        wanted.since.FromMicroseconds(max(int(now.timestamp() * 1e6) - seconds * 1_000_000, 0))
    elif moment:
        wanted.since.FromMicroseconds(_microseconds(moment))
    return wanted


def _microseconds(moment: str) -> int:
    try:
        parsed = datetime.fromisoformat(moment)
    except ValueError:
        parsed = None
    if parsed is None or parsed.tzinfo is None:
        rule = "must be a time like 2026-01-02T03:04:05Z"
        raise bad_request(f"invalid value {moment[:200]!r} of the parameter sinceTime: {rule}")
    return max(int(parsed.timestamp() * 1e6), 0)


def _at_least(query: Mapping[str, str], name: str, least: int) -> int | None:
    value = options.integer(query, name)
    if value is not None and value < least:
        raise bad_request(f"invalid value {value} of the parameter {name}: must be at least {least}")
    return value
