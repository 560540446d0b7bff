"""Clients that are gone before they have their answer: no news, though gRPC logs some of them as errors.

grpc.aio logs an answer that could not be written with a traceback when it learns of the failed write before it learns
that the connection has ended; the two come in any order (`_handle_exceptions` in its server.pyx.pxi).
"""

from __future__ import annotations

import logging

import grpc.aio

# What a batch of operations says that was begun and then failed, as all do when the connection ends; one that cannot
# even begin ("Failed grpc_call_start_batch") is a mistake and stays in the log.
_ENDED = 'Failed "execute_batch"'


def client_is_gone(error: BaseException | None) -> bool:
    """Whether gRPC raised this because an answer found no client any more."""
    return isinstance(error, grpc.aio.InternalError) and str(error).startswith(_ENDED)


class _Gone(logging.Filter):
    """Turns what gRPC logs of a client that is gone into one line for those who debug."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to log a record, which is changed when it is about a client that is gone."""
        if not record.exc_info or not client_is_gone(record.exc_info[1]):
            return True
        record.msg, record.args, record.exc_info = f"{record.getMessage()}: the client is gone", (), None
        record.levelno, record.levelname = logging.DEBUG, "DEBUG"
        return logging.getLogger(record.name).isEnabledFor(logging.DEBUG)


_FILTER = _Gone()


def expect_clients_to_go() -> None:
    """From now on gRPC's servers in this process log clients that are gone on DEBUG, without a traceback."""
    # A filter that is there already is not added again.
    logging.getLogger("grpc._cython.cygrpc").addFilter(_FILTER)
