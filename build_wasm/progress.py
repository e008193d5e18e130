"""What a build tells while it runs: a live bar on a terminal, plain lines in a pipe, JSON lines for the server."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, TextIO

Mode = Literal["auto", "rich", "plain", "json"]
MIN_SECONDS = 0.2  # between two events of one stage


@dataclass(frozen=True)
class Event:
    """stage: "checkpoint", "weights", "compile", "files" or "done"; done of total in some unit, total 0 if unknown."""

    stage: str
    done: int
    total: int
    text: str

    @property
    def fraction(self) -> float | None:
        return self.done / self.total if self.total else None


Reporter = Callable[[Event], None]


class Progress(AbstractContextManager["Progress"]):
    """A Reporter that is closed at the end. Calling it is cheap: events that come too fast are dropped."""

    def __init__(self) -> None:
        self._stage, self._text, self._last = "", "", 0.0

    def __call__(self, event: Event) -> None:
        """Show the event if it is news: another stage, the end of one, or some time after the one before."""
        now = time.monotonic()
        fresh = event.stage != self._stage or (event.total and event.done >= event.total)
        if not fresh and now - self._last < MIN_SECONDS:
            return
        self._last = now
        self.show(event, event.stage != self._stage)
        self._stage, self._text = event.stage, event.text

    def show(self, event: Event, new_stage: bool) -> None:
        """Show one event."""
        raise NotImplementedError

    def fail(self, message: str, hint: str) -> None:
        """Show why the build ended without an artifact."""
        print(f"error: {message}" + (f"\n{hint}" if hint else ""), file=sys.stderr)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class PlainProgress(Progress):
    """A line at the start of each stage, and one for every further tenth of it."""

    def __init__(self, out: TextIO) -> None:
        super().__init__()
        self._out, self._tenth = out, 0

    def show(self, event: Event, new_stage: bool) -> None:
        tenth = int(10 * (event.fraction or 0))
        if new_stage or tenth > self._tenth or (event.fraction is None and event.text != self._text):
            percent = "" if event.fraction is None else f" {100 * event.fraction:3.0f} %"
            print(f"{event.stage}:{percent} {event.text}", file=self._out, flush=True)
            self._tenth = tenth


class JsonProgress(Progress):
    """One JSON object a line: {"event": "progress", stage, done, total, fraction, text}, or {"event": "error", ...}."""

    def __init__(self, out: TextIO) -> None:
        super().__init__()
        self._out = out

    def show(self, event: Event, new_stage: bool) -> None:
        self._line(
            event="progress",
            stage=event.stage,
            done=event.done,
            total=event.total,
            fraction=event.fraction,
            text=event.text,
        )

    def fail(self, message: str, hint: str) -> None:
        self._line(event="error", message=message, hint=hint)

    def _line(self, **fields: object) -> None:
        print(json.dumps(fields), file=self._out, flush=True)


class RichProgress(Progress):
    """A live bar with the time left."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        super().__init__()
        self._bars = Bars(
            TextColumn("[bold]{task.fields[stage]:10}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}", markup=False),
            console=Console(stderr=True),
        )
        self._bars.start()
        self._task: int | None = None

    def show(self, event: Event, new_stage: bool) -> None:
        from rich.progress import TaskID

        if new_stage or self._task is None:
            if self._task is not None:
                self._bars.update(TaskID(self._task), total=1, completed=1)
            self._task = self._bars.add_task(event.text, total=event.total or None, stage=event.stage)
        self._bars.update(TaskID(self._task), total=event.total or None, completed=event.done, description=event.text)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._task is not None:
            from rich.progress import TaskID

            self._bars.update(TaskID(self._task), total=1, completed=1)
        self._bars.stop()


def make_progress(mode: Mode) -> Progress:
    """The Progress for a mode; "auto" is rich on a terminal, else plain."""
    if mode == "json":
        return JsonProgress(sys.stdout)
    if mode == "rich" or (mode == "auto" and sys.stderr.isatty()):
        return RichProgress()
    return PlainProgress(sys.stdout)


def size_text(count: float) -> str:
    """A number of bytes as the chat page writes it: "3.4 MB", in decimal units."""
    for unit in ("B", "kB", "MB"):
        if count < 999.5:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"
