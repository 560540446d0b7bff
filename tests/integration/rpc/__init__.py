"""gRPC as Kybern uses it, over real connections."""
