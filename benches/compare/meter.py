"""What one step costs."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from threading import Event, Thread
from types import TracebackType

from processes import Processes, cpu_seconds, descendants, forget_peak_memory, loopback_bytes, peak_memory

LOOK = 0.02
"""How often the memory of processes is looked at that may be gone by the end of the step, in seconds."""


@dataclass(frozen=True)
class Cost:
    """Wall clock and processor time in seconds, the memory of the largest process, the traffic."""

    seconds: float
    cpu_seconds: float
    peak_memory_bytes: int | None
    """Unknown where a command ended before it could be looked at."""
    sent_bytes: int


class Meter:
    """Measures what happens while it is entered, or since `restart`."""

    cost: Cost

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._ended = Event()
        self._peak = 0
        self._watch = Thread(target=self._look_at_memory, daemon=True)

    def __enter__(self) -> Meter:
        os.sync()
        self._processes.peak_of_commands = 0
        for process in descendants(os.getpid()):
            forget_peak_memory(process)
        self._watch.start()
        self.restart()
        return self

    def restart(self) -> None:
        """What was before is not counted."""
        self._cpu, self._sent, self._began = cpu_seconds(), loopback_bytes(), time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        seconds = time.perf_counter() - self._began
        cpu, sent = cpu_seconds() - self._cpu, loopback_bytes() - self._sent
        self._ended.set()
        self._watch.join()
        peak = max(self._peak, self._processes.peak_of_commands)
        self.cost = Cost(round(seconds, 4), round(cpu, 3), peak or None, sent)

    def _look_at_memory(self) -> None:
        ended = False
        while not ended:
            ended = self._ended.wait(LOOK)
            self._peak = max([self._peak, *map(peak_memory, descendants(os.getpid()))])
