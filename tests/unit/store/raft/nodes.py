"""A whole node that is not started: without disk, peers and loop."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

from kybern.config.models import StoreConfig, Tls
from store.raft.node import RaftNode

_FILE = Path("/nonexistent")


def unstarted_node() -> RaftNode:
    """The only member of its group."""
    return RaftNode(unstarted_config(), transport=Mock())


def unstarted_config() -> StoreConfig:
    """Its configuration."""
    return StoreConfig(
        name="s1",
        data_dir=_FILE,
        client_address="127.0.0.1:1",
        peer_address="127.0.0.1:2",
        members={"s1": "127.0.0.1:2"},
        clients={},
        tls=Tls(_FILE, _FILE, _FILE),
    )
