"""Only the names that Kybern uses."""

from typing import Any

NLM_F_REQUEST: int
NLM_F_ACK: int
NLM_F_DUMP: int
NLM_F_REPLACE: int
NLM_F_EXCL: int
NLM_F_CREATE: int

class nlmsg(dict[str, Any]):
    data: bytearray
    def __init__(self, data: bytes | bytearray | None = ..., offset: int = ...) -> None: ...
    def reset(self) -> None: ...
    def encode(self) -> None: ...
    def decode(self) -> None: ...
    def get_attr(self, attr: str, default: Any = ...) -> Any: ...
