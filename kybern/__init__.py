"""What every part of Kybern speaks: the API's kinds, the wire contract, clients and small shared modules."""

__version__ = "0.1.0"
