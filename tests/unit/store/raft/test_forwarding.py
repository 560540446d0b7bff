"""When a follower gives its callers' commands to the leader."""

from __future__ import annotations

import asyncio
from unittest.mock import Mock

from store.raft import messages
from tests.unit.store.raft.nodes import unstarted_node


async def test_a_leader_that_has_given_up_is_not_asked_in_every_turn() -> None:
    node = unstarted_node()
    raft = node._raft = Mock(leader="s2", term=3)
    clock = node._clock = Mock(monotonic=Mock(return_value=10.0))
    send = node._transport.send = Mock(return_value=True)  # type: ignore[method-assign]
    node._running = True
    node._proposals.submit(b"command", 20.0, asyncio.get_running_loop().create_future())
    node._forward(raft)
    assert send.call_count == 1
    for _ in range(3):
        node.on_message("s2", messages.ForwardRefused(3, 1, 1))
        node._forward(raft)
    assert send.call_count == 1
    # Its followers do not know yet that it leads no more; it may lead again.
    clock.monotonic.return_value = 10.2
    node._forward(raft)
    assert send.call_count == 2
    node.on_message("s2", messages.ForwardRefused(3, 2, 1))
    raft.leader, raft.term = "s3", 4
    node._forward(raft)
    assert [call.args[0] for call in send.call_args_list] == ["s2", "s2", "s3"]
