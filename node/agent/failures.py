"""Work on a pod that failed, and how long to wait before the next try."""

from __future__ import annotations

from datetime import datetime, timedelta

from node.agent.model import SANDBOX, VOLUMES, Failure
from node.network.interface import NetworkError
from node.runtime.interface import RuntimeFailure
from node.volumes.interface import VolumeError


class ActionError(Exception):
    """A step could not be done. `reason` is the word for the container's status."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


# Seconds before the second try, and at most; containers wait as long as when they crash.
_CONTAINERS = (10.0, 300.0)
_OTHERS = (1.0, 60.0)
# The thing that is missing may be made any moment, and asking costs little.
_CONFIG = (2.0, 60.0)


def reason_of(error: Exception) -> str:
    """The word for the status."""
    if isinstance(error, ActionError):
        return error.reason
    if isinstance(error, RuntimeFailure):
        return error.reason
    if isinstance(error, VolumeError):
        return "FailedMount"
    if isinstance(error, NetworkError):
        return "FailedCreatePodSandBox"
    return "InternalError"


def after(key: str, error: Exception, before: Failure | None, now: datetime) -> Failure:
    """The failure to remember, given the one before it."""
    count = before.count + 1 if before is not None else 1
    reason = reason_of(error)
    if key in (SANDBOX, VOLUMES) or not key.startswith("container/"):
        base, cap = _OTHERS
    elif reason in ("CreateContainerConfigError", "ErrImageNeverPull"):
        base, cap = _CONFIG
    else:
        base, cap = _CONTAINERS
    wait = min(cap, base * 2.0 ** min(count - 1, 16))
    return Failure(reason, str(error), now, now + timedelta(seconds=wait), count)
