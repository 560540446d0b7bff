from collections.abc import Callable

class FAIL_REASON:
    SUCCESS: int

class SyncObjConf:
    def __init__(
        self,
        *,
        autoTick: bool = ...,
        appendEntriesUseBatch: bool = ...,
        dynamicMembershipChange: bool = ...,
        appendEntriesPeriod: float = ...,
        appendEntriesBatchSizeBytes: int = ...,
        raftMinTimeout: float = ...,
        raftMaxTimeout: float = ...,
        leaderFallbackTimeout: float = ...,
        connectionTimeout: float = ...,
        journalFile: str | None = ...,
        fullDumpFile: str | None = ...,
        onStateChanged: Callable[[int, int], None] | None = ...,
    ) -> None: ...
