"""Puts tools through the steps of workloads, round by round, and compares both sides after each step."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from http.client import HTTPException
from pathlib import Path
from random import uniform
from subprocess import SubprocessError, run

from data import CHANGES, Manifest, Workload, differences, digest, make, pick
from meter import Meter
from processes import Failed, Processes, TimedOut
from tool import Tool

Record = dict[str, object]


@dataclass
class Plan:
    """What is measured, and where."""

    tools: list[type[Tool]]
    workloads: list[Workload]
    rounds: int
    scale: float
    limit: float
    """Seconds that a step may take."""
    scratch: Path
    own_network: bool
    write: Callable[[Record], None]
    given_up: set[tuple[str, str]] = field(default_factory=set)
    """What ran out of time in an earlier round."""


def measure(plan: Plan) -> bool:
    """All rounds; whether every step worked."""
    manifests = {}
    for workload in plan.workloads:
        say(f"making {workload.name}")
        manifests[workload.name] = make(workload, plan.scale, source(plan, workload))
    good = True
    for number in range(1, plan.rounds + 1):
        for workload in plan.workloads:
            for kind in plan.tools:
                if (kind.name, workload.name) not in plan.given_up:
                    good &= Course(plan, kind, workload, number).run(manifests[workload.name])
    return good


def source(plan: Plan, workload: Workload) -> Path:
    """Where the data lies that tools get copies of."""
    return plan.scratch / "data" / workload.name


def say(what: str) -> None:
    """Tells whoever waits."""
    print(time.strftime("%H:%M:%S"), what, file=sys.stderr, flush=True)


class Course:
    """One tool on one workload in one round, from nothing to the last step."""

    def __init__(self, plan: Plan, kind: type[Tool], workload: Workload, number: int) -> None:
        self.plan, self.kind, self.workload, self.number = plan, kind, workload, number
        self.place = plan.scratch / "tool"
        self.version = ""

    def run(self, manifest: Manifest) -> bool:
        """Goes through the steps until one fails; whether none did."""
        self.manifest = dict(manifest)
        self.place.mkdir()
        processes = Processes(self.place, self.plan.limit)
        step = "first"
        try:
            self.tool = self.kind(self.place, processes)
            run(["cp", "-a", source(self.plan, self.workload), self.tool.a.tree], check=True)
            self.tool.prepare()
            self.version = self.tool.version()
            for step in self.workload.steps:
                if self.applies(step):
                    self.one(step)
        except (Failed, OSError, SubprocessError, HTTPException, LookupError, StopIteration, ValueError) as error:
            if isinstance(error, TimedOut):
                self.plan.given_up.add((self.kind.name, self.workload.name))
            self.record(step, error=f"{type(error).__name__}: {error}", timed_out=isinstance(error, TimedOut))
            return False
        finally:
            processes.stop_all()
            remove(self.place)
        return True

    def applies(self, step: str) -> bool:
        """Whether the tool has such a step."""
        return self.tool.watches if step == "live" else self.tool.restores if step == "restore" else True

    def one(self, step: str) -> None:
        """Measures a step, and proves that it did what it should."""
        kept_before = self.tool.kept_bytes()
        meter = Meter(self.tool.processes)
        getattr(self, f"step_{step}", self.step_change)(meter, step)
        if step != "restore":
            self.compare(self.tool.a.tree, self.tool.own_names, "a")
            self.compare_other_side()
        cost = meter.cost
        kept = self.tool.kept_bytes()
        sent = cost.sent_bytes if self.plan.own_network and self.tool.over_network else None
        self.record(
            step,
            **{**asdict(cost), "sent_bytes": sent},
            kept_bytes=kept,
            added_bytes=[after - before for after, before in zip(kept, kept_before)],
        )
        if step == "first":
            self.tool.settle()

    def step_first(self, meter: Meter, _: str) -> None:
        """From nothing."""
        with meter:
            self.tool.first()

    def step_nothing(self, meter: Meter, _: str) -> None:
        """With nothing to do."""
        with meter:
            self.tool.sync(None)

    def step_change(self, meter: Meter, step: str) -> None:
        """A change that is on disk before the clock starts."""
        self.tool.note_version()
        path = self.changed = pick(self.manifest, step, self.number)
        self.old = self.manifest[path]
        self.change(step, path)
        with meter:
            self.tool.sync(path)

    def change(self, step: str, path: str) -> None:
        """Changes a file on `a`, and what both sides shall hold."""
        file = self.tool.a.tree / path
        CHANGES[step](file, f"{step} in round {self.number}")
        self.manifest[path] = digest(file)

    def step_live(self, meter: Meter, step: str) -> None:
        """A change that nobody tells the tool of; the clock starts when the file is closed."""
        path = next(path for path in self.candidates(step) if path != getattr(self, "changed", None))
        arrives = self.tool.b.tree / path
        self.tool.start_watching()
        try:
            with meter:
                # No tool's own rhythm shall meet that of the rounds.
                time.sleep(uniform(0.5, 1.5))
                self.change(step, path)
                size = (self.tool.a.tree / path).stat().st_size
                meter.restart()
                self.tool.processes.wait(
                    lambda: shows(arrives, size, self.manifest[path]), f"{path} to arrive", every=0.002
                )
            self.tool.processes.wait_until_calm(longest=10)
        finally:
            self.tool.stop_watching()

    def candidates(self, step: str) -> Iterator[str]:
        """Files that may be changed."""
        for attempt in range(100):
            yield pick(self.manifest, step, self.number, attempt)

    def step_restore(self, meter: Meter, _: str) -> None:
        """The version of a file before its last change."""
        self.tool.prepare_restore()
        with meter:
            restored = self.tool.restore(self.changed)
        if digest(restored) != self.old:
            raise Failed(f"{self.changed} is not what it was")
        for side in (self.tool.a, self.tool.b):
            if restored.is_relative_to(side.tree):
                self.manifest[self.changed] = self.old
                self.compare(side.tree, self.tool.own_names, "the side that was restored")

    def compare_other_side(self) -> None:
        """What arrived, or, where there is no other folder, what can be taken out again."""
        if self.tool.two_sided:
            self.compare(self.tool.b.tree, self.tool.own_names, "b")
            return
        with empty_folder(self.tool.scratch / "unpacked") as unpacked:
            self.tool.unpack_newest(unpacked)
            self.compare(unpacked, frozenset(), "the repository")

    def compare(self, tree: Path, own_names: frozenset[str], where: str) -> None:
        """Every file by its content."""
        found = differences(tree, self.manifest, own_names)
        if found:
            raise Failed(f"{where} differs in {len(found)}: {'; '.join(found[:3])}")

    def record(self, step: str, **more: object) -> None:
        """One line of the results."""
        record: Record = {
            "tool": self.kind.name,
            "version": self.version,
            "workload": self.workload.name,
            "scale": self.plan.scale,
            "round": self.number,
            "step": step,
            "good": "error" not in more,
            **more,
        }
        said = f"{more['seconds']} s" if record["good"] else f"FAILED: {more['error']}"
        say(f"round {self.number}, {self.workload.name}, {self.kind.name}, {step}: {said}")
        self.plan.write(record)


def shows(file: Path, size: int, content: bytes) -> bool:
    """Whether a file has this content; looked at closely only if it has its size."""
    try:
        return file.stat().st_size == size and digest(file) == content
    except OSError:
        return False


@contextmanager
def empty_folder(path: Path) -> Iterator[Path]:
    """A folder that is gone afterwards."""
    path.mkdir()
    try:
        yield path
    finally:
        remove(path)


def remove(folder: Path) -> None:
    """Removes a folder, also what its owner may not write to."""
    for inside, _, _ in os.walk(folder):
        os.chmod(inside, 0o700)
    shutil.rmtree(folder)
