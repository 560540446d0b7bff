"""The admission chain: every write passes every plugin, in order; each may change the object or refuse it."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Protocol

from kybern.config.models import Cluster
from master.admission.namespaces import NamespaceLifecycle
from master.admission.node_restriction import NodeRestriction
from master.admission.request import Admission
from master.admission.service_accounts import ServiceAccounts
from master.admission.tolerations import DefaultTolerations
from master.apiserver.lookup import Lookup


class Plugin(Protocol):
    """One concern of admission."""

    async def admit(self, request: Admission) -> None:
        """Change the object, or refuse the write by raising a StatusError."""
        ...


class Chain:
    """Runs plugins in order."""

    def __init__(self, plugins: Sequence[Plugin]) -> None:
        self._plugins = plugins

    async def admit(self, request: Admission) -> None:
        """Let a write pass all plugins.

        Raises:
            StatusError: a plugin refuses it.
        """
        for plugin in self._plugins:
            await plugin.admit(request)


def standard(lookup: Lookup, cluster: Cluster, rng: Random) -> Chain:
    """The chain of an API server."""
    return Chain(
        [
            NamespaceLifecycle(lookup),
            NodeRestriction(),
            ServiceAccounts(lookup, rng),
            DefaultTolerations(cluster.default_toleration_seconds),
        ]
    )
