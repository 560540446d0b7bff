"""Work that someone at a terminal waits for, and what they are asked."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

import typer
from rich.console import Console

from kybern.cli.status import shown

T = TypeVar("T")


def run(what: str, work: Coroutine[Any, Any, T]) -> T:
    """Do something, and say what is waited for when it takes longer; what it returns or raises."""

    async def run() -> T:
        async with shown(what, Console(stderr=True)):
            return await work

    return asyncio.run(run())


def asked(question: str) -> str:
    """What is typed, which is nothing when nobody can."""
    typer.echo(question, nl=False, err=True)
    return sys.stdin.readline().strip()
