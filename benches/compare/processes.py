"""Programs that are run, what they cost, and the network that they run in.

All of them are children of this process, directly or by adoption, so that their processor time is all counted and
nothing else is ever ended.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from threading import Timer

TICKS = os.sysconf("SC_CLK_TCK")
OWN_NETWORK = "COMPARE_OWN_NETWORK"


class Failed(Exception):
    """A tool did not do what it should."""


class TimedOut(Failed):
    """A tool took longer than it was given."""


def enter_own_network() -> bool:
    """Starts this program again where there is no network but a loopback of its own; false where that may not be."""
    if OWN_NETWORK in os.environ:
        bring_up_loopback()
        return True
    for options in (["--net"], ["--map-current-user", "--keep-caps", "--net"]):
        command = ["unshare", *options]
        if shutil.which("unshare") and not subprocess.run([*command, "true"], stderr=subprocess.DEVNULL).returncode:
            os.environ[OWN_NETWORK] = "1"
            os.execvp(command[0], [*command, sys.executable, *sys.argv])
    return False


def bring_up_loopback() -> None:
    """The loopback of a new network is down."""
    set_flags, up_and_running = 0x8914, 0x1 | 0x40
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, set_flags, struct.pack("16sh14x", b"lo", up_and_running))


def adopt_orphans() -> None:
    """Makes this process the parent of all that its children leave behind."""
    set_child_subreaper = 36
    ctypes.CDLL(None, use_errno=True).prctl(set_child_subreaper, 1, 0, 0, 0)


def loopback_bytes() -> int:
    """The bytes sent over the loopback so far, headers included, both directions."""
    for line in Path("/proc/self/net/dev").read_text().splitlines():
        if line.strip().startswith("lo:"):
            return int(line.split(":")[1].split()[8])
    return 0


def free_port() -> int:
    """A port that nobody has at this moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def is_open(port: int) -> bool:
    """Whether somebody listens there; asked of the kernel, as a connection would count as traffic."""
    for table, listening in (("tcp", "0A"), ("udp", "07")):
        for line in Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[1].endswith(f":{port:04X}") and fields[3] == listening:
                return True
    return False


def read_or_empty(path: str) -> str:
    """A file of /proc, or nothing where the process has ended."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def children(process: int) -> Iterator[int]:
    """The processes that it started and that have not been waited for."""
    try:
        threads = os.listdir(f"/proc/{process}/task")
    except OSError:
        return
    for thread in threads:
        yield from map(int, read_or_empty(f"/proc/{process}/task/{thread}/children").split())


def descendants(process: int) -> list[int]:
    """All processes below it, the lowest last."""
    found = list(children(process))
    for child in found:
        found.extend(children(child))
    return found


def cpu_seconds() -> float:
    """Processor time of all that this process has ever started."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = ended.ru_utime + ended.ru_stime
    for process in descendants(os.getpid()):
        fields = read_or_empty(f"/proc/{process}/stat").rpartition(")")[2].split()
        total += sum(map(int, fields[11:15])) / TICKS
    return total


def peak_memory(process: int) -> int:
    """The most bytes that were resident in a process at once."""
    for line in read_or_empty(f"/proc/{process}/status").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def forget_peak_memory(process: int) -> None:
    """The peak is counted from now on."""
    try:
        Path(f"/proc/{process}/clear_refs").write_text("5")
    except OSError:
        pass


def disk_bytes(path: Path) -> int:
    """The disk blocks of a file, or of a folder and all that lies in it; what has several names counts once."""
    if not os.path.lexists(path):
        return 0
    found = {}
    inside = (os.path.join(folder, name) for folder, folders, files in os.walk(path) for name in folders + files)
    for name in (path, *inside):
        try:
            entry = os.lstat(name)
        except OSError:
            continue
        found[entry.st_dev, entry.st_ino] = entry.st_blocks * 512
    return sum(found.values())


class Processes:
    """The commands and daemons of one tool."""

    def __init__(self, logs: Path, limit: float) -> None:
        self.logs = logs
        self.limit = limit
        self.peak_of_commands = 0
        self.daemons: list[subprocess.Popen[bytes]] = []

    def run(
        self,
        command: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        accepted: tuple[int, ...] = (0,),
    ) -> str:
        """Runs a command to its end; what it printed."""
        with tempfile.TemporaryFile(dir=self.logs) as output, tempfile.TemporaryFile(dir=self.logs) as errors:
            child = subprocess.Popen(
                command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=errors
            )
            late = self._wait(child)
            output.seek(0)
            errors.seek(0)
            printed, said = (file.read().decode(errors="replace") for file in (output, errors))
        if late:
            raise TimedOut(f"longer than {self.limit:.0f} s: {shlex.join(command)[:200]}")
        if child.returncode not in accepted:
            raise Failed(f"exit {child.returncode} of {shlex.join(command)[:200]}: {(said + printed)[-800:]}")
        return printed

    def _wait(self, child: subprocess.Popen[bytes]) -> bool:
        """Waits for a command, and takes down its memory; whether it had to be ended."""
        late: list[bool] = []

        def end() -> None:
            late.append(True)
            send(signal.SIGKILL, [child.pid, *descendants(child.pid)])

        timer = Timer(self.limit, end)
        timer.start()
        try:
            _, status, usage = os.wait4(child.pid, 0)
        except BaseException:
            end()
            raise
        finally:
            timer.cancel()
        child.returncode = os.waitstatus_to_exitcode(status)
        # A new process starts with the peak of this one, which says nothing of the command. The kernel rounds.
        if usage.ru_maxrss > resource.getrusage(resource.RUSAGE_SELF).ru_maxrss + 1024:
            self.peak_of_commands = max(self.peak_of_commands, usage.ru_maxrss * 1024)
        return bool(late)

    def start(self, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Starts a daemon."""
        with open(self.logs / f"{Path(command[0]).name}.log", "ab") as log:
            daemon = subprocess.Popen(
                command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.daemons.append(daemon)
        return daemon

    def stop(self, daemon: subprocess.Popen[bytes]) -> None:
        """Ends a daemon and what it started."""
        self.daemons.remove(daemon)
        end_all(lambda: [process for process in (daemon.pid, *descendants(daemon.pid)) if daemon.poll() is None])

    def stop_all(self) -> None:
        """Ends all daemons, and all that commands left running."""
        for daemon in reversed(self.daemons[:]):
            self.stop(daemon)
        end_all(orphans)

    def wait(self, done: Callable[[], bool], what: str, every: float = 0.01) -> None:
        """Looks again and again until it is so."""
        began = time.monotonic()
        while not done():
            for daemon in self.daemons:
                if daemon.poll() is not None:
                    raise Failed(f"{daemon.args!r:.100} ended with {daemon.returncode}")
            if time.monotonic() - began > self.limit:
                raise TimedOut(f"longer than {self.limit:.0f} s: {what}")
            time.sleep(every)

    def wait_until_calm(self, longest: float = 120.0) -> None:
        """Until the daemons have done next to nothing for two seconds."""
        calm, began = 0, time.monotonic()
        while calm < 2 and time.monotonic() - began < longest:
            before = cpu_seconds()
            time.sleep(1)
            calm = calm + 1 if cpu_seconds() - before < 0.05 else 0


def orphans() -> list[int]:
    """What commands left running; what of it has ended is let go."""
    running = []
    for process in children(os.getpid()):
        try:
            if os.waitpid(process, os.WNOHANG)[0] == 0:
                running.append(process)
        except ChildProcessError:
            pass
    return [below for process in running for below in (process, *descendants(process))]


def send(what: signal.Signals, processes: Sequence[int]) -> None:
    """Sends a signal; who has ended already needs none."""
    for process in processes:
        try:
            os.kill(process, what)
        except ProcessLookupError:
            pass


def end_all(remaining: Callable[[], list[int]]) -> None:
    """Asks processes to end, and ends those that do not."""
    for what, patience in ((signal.SIGTERM, 15.0), (signal.SIGKILL, 5.0)):
        processes = remaining()
        send(what, processes)
        limit = time.monotonic() + patience
        while processes and time.monotonic() < limit:
            time.sleep(0.02)
            processes = remaining()
