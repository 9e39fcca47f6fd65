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


def figure(cell: Cell, value: Callable[[Record], Any]) -> float | None:
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


FIGURES: dict[str, tuple[str, Callable[[Cell], str]]] = {
    "seconds": ("Seconds", lambda cell: in_seconds(figure(cell, lambda one: one["seconds"]))),
    "cpu": ("Processor seconds, both sides", lambda cell: in_seconds(figure(cell, lambda one: one["cpu_seconds"]))),
    "memory": (
        "Peak memory of the largest process, MiB",
        lambda cell: in_mib(figure(cell, lambda one: one["peak_memory_bytes"])),
    ),
    "sent": ("Sent over the loopback, MiB", lambda cell: in_mib(figure(cell, lambda one: one["sent_bytes"]))),
    "history": (
        "Disk that the step added beside the files, MiB, on a / on b",
        lambda cell: " / ".join(in_mib(figure(cell, lambda one, side=side: one["added_bytes"][side])) for side in (0, 1)),
    ),
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
    rounds = {record["round"] for record in steps}
    for machine in machines:
        yield f"On {machine}. The median of {len(rounds)} round{'s' * (len(rounds) != 1)}."
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
