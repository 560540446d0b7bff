"""When a leader waits for more commands before it makes an entry."""

from __future__ import annotations

import asyncio

from store.raft.gathering import WORTH_AN_ENTRY, Gathering


def gathering() -> tuple[Gathering, asyncio.Event]:
    over = asyncio.Event()
    return Gathering(over.set), over


async def test_who_is_alone_waits_for_nobody() -> None:
    one, _ = gathering()
    one.made(10.0, 1)
    assert not one.put_off(10.001, 1, 300)


async def test_the_more_come_at_once_the_longer_it_waits_for_them() -> None:
    one, _ = gathering()
    one.made(10.0, 2)
    assert [one.patience(10.001, waiting, 300) for waiting in (1, 2, 6, 14, 500)] == [0, 0.001, 0.002, 0.004, 0.004]


async def test_what_was_long_ago_counts_no_more() -> None:
    one, _ = gathering()
    one.made(10.0, 100)
    assert one.patience(10.01, 1, 300) > 0
    assert one.patience(11.0, 1, 300) == 0


async def test_much_waits_for_nothing() -> None:
    one, _ = gathering()
    one.made(10.0, 100)
    assert one.put_off(10.01, 3, 900)
    assert not one.takes(900)
    assert one.takes(WORTH_AN_ENTRY)
    assert not one.put_off(10.01, 100, WORTH_AN_ENTRY)
    one.stop()


async def test_an_entry_that_has_waited_is_made() -> None:
    one, over = gathering()
    one.made(10.0, 8)
    assert one.put_off(10.001, 1, 300)
    # Asked again meanwhile, nothing changes.
    assert one.put_off(10.002, 2, 600)
    await over.wait()
    assert one.takes(300)
    assert not one.put_off(10.003, 2, 600)
    # The next one waits anew.
    one.made(10.003, 8)
    assert one.put_off(10.004, 1, 300)
    one.stop()
