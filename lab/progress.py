"""Shows what is being done and how long each step took: a spinner on a terminal, a line per step elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape

from lab.errors import LabError


class Progress:
    """Steps, one after the other, on standard error."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._begun = time.monotonic()
        self._note: Console | None = None
        self.steps: list[tuple[str, float]] = []

    @property
    def seconds(self) -> float:
        """Since this object was made."""
        return time.monotonic() - self._begun

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Show a step while it lasts, and its time once it is done."""
        began = time.monotonic()
        if self._console.is_terminal:
            with self._console.status(escape(title)):
                yield
        else:
            self._console.print(f"... {escape(title)}", soft_wrap=True)
            yield
        took = time.monotonic() - began
        self.steps.append((title, took))
        self._console.print(f"[green]✓[/green] {escape(title)} [dim]({took:.1f} s)[/dim]", soft_wrap=True)

    def say(self, text: str) -> None:
        """A line within a step."""
        self._console.print(f"  {escape(text)}", style="dim", soft_wrap=True)


def require_root(what: str, user: int) -> None:
    """Check that the effective user may do this.

    Raises:
        LabError: when it is not root.
    """
    if user != 0:
        raise LabError(f"{what} needs root: it makes network namespaces", "run it with sudo")
