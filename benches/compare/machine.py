"""Describes the machine that figures are from."""

from __future__ import annotations

import os
import platform
from pathlib import Path

GIB = 1024**3


def value(file: str, name: str, separator: str) -> str:
    """What a file of the system says of something."""
    for line in Path(file).read_text().splitlines():
        key, found, said = line.partition(separator)
        if found and key.strip() == name:
            return said.strip().strip('"')
    return "unknown"


def file_system(path: Path) -> str:
    """The kind of file system that a folder is on."""
    best, kind = "", "unknown"
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mounted, type_of, *_ = line.split()
        if f"{path.resolve()}/".startswith(f"{mounted.rstrip('/')}/") and len(mounted) >= len(best):
            best, kind = mounted, type_of
    return kind


def describe(scratch: Path) -> str:
    """One line."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    return (
        f"{value('/proc/cpuinfo', 'model name', ':')}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB of memory, "
        f"Linux {platform.release()}, {value('/etc/os-release', 'PRETTY_NAME', '=')}, {file_system(scratch)}"
    )
