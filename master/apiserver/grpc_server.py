"""The gRPC server of a master: kybern.v1.Objects with health and reflection."""

from __future__ import annotations

from kybern.config.models import Tls
from kybern.pb.v1 import objects_pb2_grpc
from kybern.rpc.server import RpcServer
from master.apiserver.grpc_door import SERVICE_NAME, ObjectsDoor
from master.apiserver.handlers import ApiHandlers

# An object of 1.4 MB may come as a Struct, which takes more bytes than its JSON.
_MOST_BYTES = 8 * 1024 * 1024


def grpc_server(handlers: ApiHandlers, address: str, tls: Tls) -> RpcServer:
    """The server, not started yet; `start` raises StartupError when it cannot listen."""
    server = RpcServer(address, tls, [SERVICE_NAME], max_message=_MOST_BYTES)
    objects_pb2_grpc.add_ObjectsServicer_to_server(ObjectsDoor(handlers), server.services)
    return server
