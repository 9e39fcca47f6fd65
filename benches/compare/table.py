"""Prints results as Markdown: one table for each figure, steps down and tools across."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from statistics import median
from typing import Any

from data import MIB
from rounds import Record
from tool import Tool

Cell = list[Record]
STEPS = {
    "first": "first sync",
    "nothing": "nothing changed",
    "change": "one file changed",
    "live": "one file changed, live",
    "overwrite": "1 MiB overwritten",
    "insert": "10 bytes inserted near the start",
    "restore": "one old version restored",
}


def figure(cell: Cell, value: Callable[[dict[str, Any]], Any]) -> float | None:
    """The median of what is known."""
    values = [value(record) for record in cell if record["good"]]
    return median(values) if values and None not in values else None


def in_mib(count: float | None) -> str:
    """Bytes, as people read them."""
    if count is None:
        return "-"
    return f"{count / MIB:.2f}" if abs(count) < 10 * MIB else f"{count / MIB:.0f}"


def in_seconds(count: float | None) -> str:
    """Seconds, to what can be told apart."""
    return "-" if count is None else f"{count:.2f}" if count < 10 else f"{count:.1f}"


def seconds_of(name: str) -> Callable[[Cell], str]:
    """The text for a field of seconds."""
    return lambda cell: in_seconds(figure(cell, lambda record: record[name]))


def mib_of(name: str) -> Callable[[Cell], str]:
    """The text for a field of bytes."""
    return lambda cell: in_mib(figure(cell, lambda record: record[name]))


def mib_of_both(name: str) -> Callable[[Cell], str]:
    """The text for a field of bytes on either side."""

    def text(cell: Cell) -> str:
        on_a = figure(cell, lambda record: record[name][0])
        on_b = figure(cell, lambda record: record[name][1])
        return f"{in_mib(on_a)} / {in_mib(on_b)}"

    return text


FIGURES: dict[str, tuple[str, Callable[[Cell], str]]] = {
    "seconds": ("Seconds", seconds_of("seconds")),
    "cpu": ("Processor seconds, both sides", seconds_of("cpu_seconds")),
    "memory": ("Peak memory of the largest process, MiB", mib_of("peak_memory_bytes")),
    "sent": ("Sent over the loopback, MiB", mib_of("sent_bytes")),
    "history": ("Disk that the step added beside the files, MiB, on a / on b", mib_of_both("added_bytes")),
}


def shown(cell: Cell, text: Callable[[Cell], str]) -> str:
    """A figure, or why there is none."""
    bad = [record for record in cell if not record["good"]]
    if not bad:
        return text(cell) if cell else ""
    if all(record.get("timed_out") for record in bad):
        return "too slow"
    return f"failed {len(bad)} of {len(cell)}"


def table(records: list[Record], tools: dict[str, type[Tool]], names: Iterable[str]) -> Iterator[str]:
    """The lines of the document."""
    machines = list(dict.fromkeys(str(record["machine"]) for record in records if "machine" in record))
    steps = [record for record in records if "step" in record]
    used = [name for name in tools if any(record["tool"] == name for record in steps)]
    rows: dict[tuple[str, str], dict[str, Cell]] = defaultdict(lambda: defaultdict(list))
    for record in steps:
        scale = "" if record["scale"] == 1 else f" at {record['scale']:g}"
        rows[f"{record['workload']}{scale}", str(record["step"])][str(record["tool"])].append(record)
    count = max((len(cell) for cells in rows.values() for cell in cells.values()), default=0)
    for machine in machines:
        yield f"On {machine}. The median of {count} round{'s' * (count != 1)}."
    for name in names:
        heading, text = FIGURES[name]
        yield from ("", f"**{heading}**", "", f"| | {' | '.join(used)} |", f"|---|{'---:|' * len(used)}")
        for (workload, step), cells in rows.items():
            yield f"| {workload}: {STEPS[step]} | {' | '.join(shown(cells[tool], text) for tool in used)} |"
    yield ""
    for name in used:
        versions = sorted({str(record["version"]) for record in steps if record["tool"] == name and record["version"]})
        yield f"- **{name}** ({', '.join(versions)}): {tools[name].how}. What to know: {tools[name].lacks}."
    failures = [record for record in steps if not record["good"]]
    if failures:
        yield "\nWhat failed:\n"
    for record in failures:
        error = " ".join(str(record["error"]).split())
        yield f"- {record['tool']}, {record['workload']}, {record['step']}, round {record['round']}: {error[:300]}"
