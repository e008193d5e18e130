"""How long a client may keep a connection without using it, and how many there may be at once."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

# 64 browsers with the six connections that each has. A download takes a socket and a file, and most systems allow a
# process 1024 of them.
MOST_CONNECTIONS = 400


class PatientProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, which by itself waits for ever for a request's end and for a reader who does not read.

    Whoever was only slow goes on where the connection ended, by Range.
    """

    seconds_to_ask = 30.0  # from the connection, or the last answer, to a whole request
    seconds_to_read = 120.0  # without a byte taken from an answer
    check_every = 5.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start to watch the connection."""
        super().connection_made(transport)
        self._since = self.loop.time()
        self._unread, self._was_answering = 0, False
        self._watch: asyncio.TimerHandle | None = self.loop.call_later(self.check_every, self._check)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the watch."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        super().connection_lost(exc)

    def _check(self) -> None:
        now, unread = self.loop.time(), self.transport.get_write_buffer_size()
        answering = self.cycle is not None and not self.cycle.response_complete
        taken = answering and (unread == 0 or unread != self._unread)
        if taken or (self._was_answering and not answering):
            self._since = now
        self._unread, self._was_answering = unread, answering
        if now - self._since > (self.seconds_to_read if answering else self.seconds_to_ask):
            self.transport.abort()
            return
        self._watch = self.loop.call_later(self.check_every, self._check)
