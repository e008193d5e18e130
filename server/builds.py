"""Builds of models the operator named: one at a time, each in a child process that reports one JSON object a line.

The child is `python -m build_wasm MODEL --name NAME --models-dir DIR --progress json`, with `--refresh` for a model
that an older version built: it stays as it is when that fails. What the child prints:
{"event": "progress", "stage": str, "text": str, "fraction": float | null} and, before it fails,
{"event": "error", "message": str, "hint": str}.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from server.catalogue import Catalogue, Entry
from server.errors import ApiError

logger = logging.getLogger("webgemma.server")

State = Literal["unbuilt", "building", "ready", "failed"]

LONGEST_LINE = 1 << 20
# Streams of events last: they may not take all connections that the server has.
MOST_LISTENERS = 64
SECONDS_TO_END = 2.0


@dataclass(frozen=True)
class Event:
    """What a page is told: `progress` {stage, text, fraction}, `done` {}, `failed` {message, hint}, `unbuilt` {}."""

    kind: Literal["progress", "done", "failed", "unbuilt"]
    data: dict[str, Any] = field(default_factory=dict)


class _Channel:
    """The latest event of one model. Slow listeners skip events but never miss the last one, and nothing queues up."""

    def __init__(self) -> None:
        self.latest: Event | None = None
        self._changed = asyncio.Event()

    def publish(self, event: Event) -> None:
        self.latest = event
        self.wake()

    def wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait(self, seconds: float) -> None:
        """Return at the next event, or when the time is over."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), seconds)


class Builds:
    """Starts builds, remembers how each ended, and tells listeners about them."""

    def __init__(self, catalogue: Catalogue, command: tuple[str, ...], home: Path) -> None:
        self._catalogue = catalogue
        self._command = command
        self._home = home
        self._channels: dict[str, _Channel] = {}
        self._listeners: dict[object, _Channel] = {}
        self._building: str | None = None
        self._stale: list[str] = []
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    def state(self, entry: Entry) -> State:
        """Where the model stands."""
        if self._building == entry.name:
            return "building"
        if entry.artifact is not None:
            return "ready"
        channel = self._channels.get(entry.name)
        failed = channel is not None and channel.latest is not None and channel.latest.kind == "failed"
        return "failed" if failed else "unbuilt"

    def failure(self, entry: Entry) -> str | None:
        """Why the last build failed; None unless the state is `failed`."""
        return self._current(entry).data["message"] if self.state(entry) == "failed" else None

    def start(self, entry: Entry) -> State:
        """Start building a model unless it is ready or being built; return its state.

        Raises ApiError 403 for a model that the operator did not name, 409 while another one is being built.
        """
        state = self.state(entry)
        if state in ("ready", "building"):
            return state
        if entry.model is None:
            message = f"The server was not started with the model {entry.name!r}."
            raise ApiError(403, "not-named", message, "Name it with --model, or build it with python -m build_wasm.")
        if self._building is not None:
            raise ApiError(409, "busy", f"The model {self._building!r} is being built.", "Wait until it is done.")
        if self._closing:
            raise ApiError(503, "closing", "The server is shutting down.")
        self._begin(entry.name, entry.model)
        return "building"

    def _begin(self, name: str, model: str, refresh: bool = False) -> None:
        self._building = name
        text = "Updating the model's programs" if refresh else "Starting the build"
        self._publish(name, Event("progress", {"stage": "start", "text": text, "fraction": None}))
        self._task = asyncio.create_task(self._build(name, model, refresh))

    def refresh_stale(self) -> None:
        """Compile again, one model after the other, what an older version built. Its weights stay as they are."""
        self._stale = [e.name for e in self._catalogue.entries() if e.artifact is not None and e.artifact.stale]
        self._refresh_next()

    def _refresh_next(self) -> None:
        while self._stale and self._building is None and not self._closing:
            entry = self._catalogue.entry(self._stale.pop(0))
            if entry is not None and entry.artifact is not None and entry.artifact.stale:
                self._begin(entry.name, entry.model or entry.name, refresh=True)

    async def events(self, name: str, heartbeat: float = 15.0) -> AsyncIterator[Event | None]:
        """The model's current event, then each new one until the server closes; None now and then as a sign of life.

        With too many listeners it ends for the one who has listened longest: a page then listens again by itself.
        """
        channel = self._channels.setdefault(name, _Channel())
        listener = object()
        self._listeners[listener] = channel
        if len(self._listeners) > MOST_LISTENERS:
            self._listeners.pop(next(iter(self._listeners))).wake()
        seen: Event | None = None
        try:
            while not self._closing and listener in self._listeners:
                entry = self._catalogue.entry(name)
                if entry is None:
                    return
                event = self._current(entry)
                # Looked at again at each heartbeat: the command line may have built the model meanwhile.
                yield event if event != seen else None
                seen = event
                if self._current(entry) == event and not self._closing and listener in self._listeners:
                    await channel.wait(heartbeat)
        finally:
            self._listeners.pop(listener, None)

    def end_streams(self) -> None:
        """Let every listener's stream end, and start nothing any more."""
        self._closing = True
        for channel in self._channels.values():
            channel.wake()

    async def close(self) -> None:
        """End the streams and the build that runs."""
        self.end_streams()
        if self._task is not None and not self._task.done():
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def _current(self, entry: Entry) -> Event:
        """The event that says where the model stands now."""
        state = self.state(entry)
        if state == "ready":
            return Event("done")
        channel = self._channels.get(entry.name)
        if state == "unbuilt" or channel is None or channel.latest is None:
            return Event("unbuilt")
        return channel.latest

    def _publish(self, name: str, event: Event) -> None:
        channel = self._channels.setdefault(name, _Channel())
        before = channel.latest.data.get("stage") if channel.latest else None
        if event.kind == "progress" and event.data["stage"] != before:
            logger.info("%s: %s", name, event.data["text"] or event.data["stage"])
        channel.publish(event)

    async def _build(self, name: str, model: str, refresh: bool) -> None:
        failure: Event | None = None
        try:
            failure = await self._run(name, model, refresh)
        except OSError as error:
            failure = _failed(f"The build could not be started: {error}")
        finally:
            self._building = None
        if failure is None:
            logger.info("%s: built", name)
        else:
            logger.error("%s: %s", name, failure.data["message"])
        self._publish(name, failure or Event("done"))
        self._refresh_next()

    async def _run(self, name: str, model: str, refresh: bool) -> Event | None:
        """Run the child to its end; None when it made the artifact, else the event that says why not."""
        folder = self._catalogue.folder
        arguments = [model, "--name", name, "--models-dir", str(folder), "--progress", "json"]
        if refresh:
            arguments.append("--refresh")
        child = await asyncio.create_subprocess_exec(
            *self._command,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=LONGEST_LINE,
            env={**os.environ, "WEBGEMMA_HOME": str(self._home), "PYTHONUNBUFFERED": "1"},
            # A group of its own: Ctrl-C reaches the server alone, which then ends the child and what it started.
            start_new_session=True,
        )
        errors: deque[str] = deque(maxlen=20)
        assert child.stdout is not None
        assert child.stderr is not None
        try:
            told, _ = await asyncio.gather(self._follow(name, child.stdout), _keep_last(child.stderr, errors))
            status = await child.wait()
        finally:
            await _end(child)
        if status == 0 and self._catalogue.is_built(name):
            return None
        if told is not None:
            return told
        if status == 0:
            return _failed(f"The build ended without an artifact in {folder / name}.")
        return _failed(errors[-1] if errors else f"The build ended with exit status {status}.")

    async def _follow(self, name: str, output: asyncio.StreamReader) -> Event | None:
        """Publish the child's progress lines; return the failure that it reported, if it did."""
        failure: Event | None = None
        async for line in _lines(output):
            report = _parse(line)
            if report is None:
                logger.debug("%s: %s", name, line)
            elif report.kind == "failed":
                failure = report
            else:
                self._publish(name, report)
        return failure


def _failed(message: str, hint: str = "") -> Event:
    return Event("failed", {"message": message, "hint": hint})


def _parse(line: str) -> Event | None:
    """The event in a line of the child's output; None for anything else that it prints."""
    try:
        report = json.loads(line)
    except ValueError:
        return None
    if not isinstance(report, dict):
        return None
    if report.get("event") == "error":
        return _failed(str(report.get("message", "")), str(report.get("hint") or ""))
    if report.get("event") != "progress":
        return None
    fraction = report.get("fraction")
    return Event(
        "progress",
        {
            "stage": str(report.get("stage", "")),
            "text": str(report.get("text", "")),
            "fraction": min(1.0, max(0.0, fraction)) if isinstance(fraction, int | float) else None,
        },
    )


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    """The lines of a child's output; one longer than LONGEST_LINE is dropped."""
    while True:
        try:
            line = await stream.readline()
        except ValueError:
            continue
        if not line:
            return
        yield line.decode(errors="replace").rstrip()


async def _keep_last(stream: asyncio.StreamReader, lines: deque[str]) -> None:
    """Show the child's errors on our terminal and keep the last ones for the page."""
    async for line in _lines(stream):
        print(line, file=sys.stderr)
        if line.strip():
            lines.append(line.strip())


async def _end(child: asyncio.subprocess.Process) -> None:
    """End the child and its own children: politely, then by force."""
    if child.returncode is not None:
        return
    _signal(child, signal.SIGTERM)
    try:
        await asyncio.wait_for(child.wait(), SECONDS_TO_END)
    except TimeoutError:
        _signal(child, signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
        await child.wait()


def _signal(child: asyncio.subprocess.Process, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        if hasattr(os, "killpg"):
            os.killpg(child.pid, number)
        else:
            child.send_signal(number)
