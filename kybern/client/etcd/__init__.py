"""The client of kybern-store, or of a real etcd, over gRPC. See `client.EtcdClient`."""

from kybern.client.etcd.client import EtcdClient

__all__ = ["EtcdClient"]
