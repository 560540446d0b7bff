"""Logging: one line per event on standard error, as text for people or JSON for machines.

Modules log through `logging.getLogger(__name__)` and pass facts as `extra={"data": {...}}` or in the message. Secrets
are never passed: not bodies of Secrets, not tokens, not private keys.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import Any, Literal

import msgspec

LogFormat = Literal["text", "json"]

# journald and syslog understand this prefix on standard error (sd-daemon(3)).
_SYSLOG = {logging.DEBUG: "<7>", logging.INFO: "<6>", logging.WARNING: "<4>", logging.ERROR: "<3>"}


class TextFormatter(logging.Formatter):
    """`10:31:07.123 INFO  node.agent: pod started pod=default/web-1`."""

    def __init__(self, *, journal: bool = False) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        """One line, but for a traceback that follows it."""
        at = time.strftime("%H:%M:%S", time.localtime(record.created)) + f".{int(record.msecs):03d}"
        facts = "".join(f" {k}={v}" for k, v in _data(record).items())
        line = f"{at} {record.levelname:<7} {record.name}: {record.getMessage()}{facts}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        if self._journal:
            level = _SYSLOG.get(record.levelno, "<3>")
            return "\n".join(level + part for part in line.split("\n"))
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record with its data flattened into the object."""
        entry: dict[str, Any] = {
            "time": record.created,
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **{k: _plain(v) for k, v in _data(record).items()},
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(entry).decode()


class Seldom:
    """How loudly to say what may happen again and again, as when somebody is refused and comes back every second.

    A warning at first and once every `seconds`, and in between a message for those who debug. `now` is a clock in
    seconds.
    """

    # What is remembered at most: whoever makes up new names does not fill the memory.
    _MOST = 256

    def __init__(self, now: Callable[[], float], seconds: float = 60.0) -> None:
        self._now = now
        self._seconds = seconds
        # In the order in which it was said.
        self._said: dict[str, float] = {}

    def level(self, what: str) -> int:
        """The level to log `what` with now."""
        now = self._now()
        if now - self._said.get(what, float("-inf")) < self._seconds:
            return logging.DEBUG
        self._said.pop(what, None)
        self._said[what] = now
        if len(self._said) > self._MOST:
            del self._said[next(iter(self._said))]
        return logging.WARNING


def setup(level: str = "info", fmt: LogFormat = "text", *, journal: bool = False) -> None:
    """Send every logger's records of `level` and above to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if fmt == "json" else TextFormatter(journal=journal))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # These say on INFO what we log better ourselves.
    for chatty in ("aiohttp.access", "urllib3", "docker", "asyncio", "pyroute2"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))


def _data(record: logging.LogRecord) -> dict[str, Any]:
    data = getattr(record, "data", None)
    return data if isinstance(data, dict) else {}


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else str(value)
