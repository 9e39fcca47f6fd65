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
    """The kind of file system that a folder is on, and what makes it unlike most people's."""
    best, device, kind, options = "", "", "unknown", ""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        mounted_device, mounted, *rest = line.split()
        if f"{path.resolve()}/".startswith(f"{mounted.rstrip('/')}/") and len(mounted) >= len(best):
            best, device, kind, options = mounted, mounted_device, rest[0], rest[1]
    remarks = [option for option in options.split(",") if option in ("discard", "sync", "dirsync")]
    if kind == "ext4" and not has_journal(device):
        remarks.append("no journal")
    return f"{kind} ({', '.join(remarks)})" if remarks else kind


def has_journal(device: str) -> bool:
    """Whether an ext4 has a journal; where the kernel does not say, it has, as nearly all have."""
    try:
        return "data=" in Path(f"/proc/fs/ext4/{Path(device).resolve().name}/options").read_text()
    except OSError:
        return True


def describe(scratch: Path) -> str:
    """One line."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    cores = len(os.sched_getaffinity(0))
    return (
        f"{value('/proc/cpuinfo', 'model name', ':')}, {cores} cores, {memory:.0f} GiB of memory, "
        f"Linux {platform.release()}, {value('/etc/os-release', 'PRETTY_NAME', '=')}, {file_system(scratch)}"
    )
