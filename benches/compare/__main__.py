"""Compares foldersync with what people would use in its place, on the same data in the same run.

    python3 benches/compare tools
    python3 benches/compare run --out results.jsonl
    python3 benches/compare table results.jsonl

For each step of each workload it measures wall clock and processor time, the memory of the largest process, the bytes
that went over the loopback, and the disk that is taken beside the files themselves. After each step it hashes every
file on both sides; a step after which they differ is a failure and has no figure. README.md beside this file says what
the steps are, and what the figures do not tell.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from archivers import Bup, Git, GitAnnex, Restic
from data import WORKLOADS
from machine import describe
from processes import adopt_orphans, enter_own_network
from rounds import Plan, Record, measure, remove, say
from synchronizers import Foldersync, FoldersyncByPath, Rclone, Rsync, RsyncByPath, Unison
from syncthing import Syncthing
from table import FIGURES, table
from tool import Tool

TOOLS: dict[str, type[Tool]] = {
    kind.name: kind
    for kind in (
        Foldersync, FoldersyncByPath, Rsync, RsyncByPath, Unison, Syncthing, Git, GitAnnex, Rclone, Bup, Restic
    )
}  # fmt: skip


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    program = os.environ.get("FOLDERSYNC", "target/release/foldersync")
    for name, what in (("tools", "what is installed, and how to install the rest"), ("run", "measure")):
        command = commands.add_parser(name, help=what)
        command.add_argument("--foldersync", type=Path, default=Path(program), metavar="PROGRAM", help=program)
    run = command
    run.add_argument("--tools", default="all", metavar="NAMES", help=f"some of {','.join(TOOLS)}")
    run.add_argument("--workloads", default="all", metavar="NAMES", help=f"some of {','.join(WORKLOADS)}")
    run.add_argument("--scale", type=float, default=1.0, help="share of the data, such as 0.02 for a trial")
    run.add_argument("--rounds", type=int, default=3, help="how often, all tools in each round (3)")
    run.add_argument("--limit", type=float, default=900.0, help="seconds that a command may take (900)")
    run.add_argument("--out", type=Path, help="add the results to this file, a JSON document a line")
    run.add_argument("--scratch", type=Path, help="where to make the scratch directory (the temporary one)")
    show = commands.add_parser("table", help="print results as Markdown")
    show.add_argument("results", type=Path, nargs="+")
    show.add_argument("--figures", default="all", metavar="NAMES", help=f"some of {','.join(FIGURES)}")
    return parser.parse_args()


def chosen(names: str, all_of: list[str]) -> list[str]:
    """Names that were given, or all."""
    found = all_of if names == "all" else names.split(",")
    wrong = [name for name in found if name not in all_of]
    if wrong:
        raise SystemExit(f"unknown: {', '.join(wrong)}; there are {', '.join(all_of)}")
    return found


def list_tools() -> None:
    """Prints what is there, and the command that brings the rest."""
    for kind in TOOLS.values():
        missing = kind.missing()
        print(f"{kind.name:16} {'not found: ' + ', '.join(missing) if missing else 'installed'}")
    packages = sorted({package for kind in TOOLS.values() for package in kind.packages})
    print(f"\napt-get install --no-install-recommends {' '.join(packages)}")


def installed(names: list[str]) -> list[type[Tool]]:
    """The tools that can be run; the others are named."""
    for name in names:
        if missing := TOOLS[name].missing():
            say(f"SKIPPED: {name}, as {', '.join(missing)} is not installed")
    return [TOOLS[name] for name in names if not TOOLS[name].missing()]


def writer(out: Path | None) -> Callable[[Record], None]:
    """Adds records to a file, or prints them."""

    def add(record: Record) -> None:
        with open(str(out), "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    return add if out else lambda record: print(json.dumps(record), flush=True)


def run(options: argparse.Namespace, own_network: bool) -> bool:
    """Measures; whether all went well."""
    tools = installed(chosen(options.tools, list(TOOLS)))
    workloads = [WORKLOADS[name] for name in chosen(options.workloads, list(WORKLOADS))]
    if not own_network:
        say("no network of one's own here, so what is sent remains unknown")
    write = writer(options.out)
    scratch = Path(tempfile.mkdtemp(prefix="compare-", dir=options.scratch)).resolve()
    try:
        write({"machine": describe(scratch)})
        plan = Plan(tools, workloads, options.rounds, options.scale, options.limit, scratch, own_network, write)
        return measure(plan)
    finally:
        remove(scratch)


def read(files: list[Path]) -> list[Record]:
    """Results, in their order."""
    return [json.loads(line) for file in files for line in file.read_text().splitlines() if line]


def main() -> int:
    """Runs a command; its exit code."""
    options = arguments()
    if options.command == "table":
        print("\n".join(table(read(options.results), TOOLS, chosen(options.figures, list(FIGURES)))))
        return 0
    # Commands run in other folders than this.
    FoldersyncByPath.use(Path(shutil.which(options.foldersync) or options.foldersync).absolute())
    if options.command == "tools":
        list_tools()
        return 0
    own_network = enter_own_network()
    adopt_orphans()
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, lambda number, _: sys.exit(128 + number))
    return 0 if run(options, own_network) else 1


if __name__ == "__main__":
    sys.exit(main())
