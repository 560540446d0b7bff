"""Which containers have begun to wait for their back-off: what the BackOff events are about. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_EVENTS = {
    "CrashLoopBackOff": "Back-off restarting failed container {name} in pod {pod}",
    "ImagePullBackOff": 'Back-off pulling image "{image}"',
}


def newly_waiting(before: Mapping[str, Any] | None, after: Mapping[str, Any], pod: str) -> Iterator[tuple[str, str]]:
    """The containers that wait now and did not before, or wait after a further attempt; with a sentence each."""
    known = {s["name"]: s for s in _entries(before or {})}
    for entry in _entries(after):
        reason = entry["state"].get("waiting", {}).get("reason", "")
        text = _EVENTS.get(reason)
        if text is None:
            continue
        old = known.get(entry["name"])
        if old is not None:
            same_reason = old["state"].get("waiting", {}).get("reason") == reason
            if same_reason and old["restartCount"] == entry["restartCount"]:
                continue
        yield entry["name"], text.format(name=entry["name"], pod=pod, image=entry["image"])


def _entries(status: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
