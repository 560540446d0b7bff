"""New pods stay bound to a node that is lost for a while, unless they say for how long themselves."""

from __future__ import annotations

from typing import Any

from kybern.api import resources
from master.admission.request import Admission, Verb

NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"


class DefaultTolerations:
    """Adds tolerations of `seconds` for nodes that are not ready or unreachable."""

    def __init__(self, seconds: int) -> None:
        self._seconds = seconds

    async def admit(self, request: Admission) -> None:
        """Give a new pod what it does not say itself."""
        if request.verb is not Verb.CREATE or request.resource != resources.PODS or request.subresource:
            return
        assert request.document is not None  # noqa: S101 - creates have one
        spec = request.document.setdefault("spec", {})
        present = spec.get("tolerations") or []
        missing = [self._toleration(k) for k in (NOT_READY, UNREACHABLE) if not any(_tolerates(t, k) for t in present)]
        if missing:
            spec["tolerations"] = [*present, *missing]

    def _toleration(self, key: str) -> dict[str, Any]:
        return {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": self._seconds}


def _tolerates(toleration: dict[str, Any], key: str) -> bool:
    return toleration.get("key") in (key, "", None) and toleration.get("effect") in ("NoExecute", "", None)
