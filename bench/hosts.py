# SPDX-License-Identifier: Apache-2.0 OR MIT
"""The two hosts of the lab, seen from the client: starting programs, and what they cost."""

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time

LIMIT = 60  # seconds: the failing end of each wait
IN_GROUP = 'echo 0 >"$0" && exec "$@"'


def say(text):
    print("bench: " + text, file=sys.stderr, flush=True)


def write_file(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        f.write(text)


def append_file(path, text):
    with open(path, "a") as f:
        f.write(text)


def read_file(path):
    with open(path) as f:
        return f.read()


def descendants(pid):
    try:
        children = read_file(f"/proc/{pid}/task/{pid}/children").split()
    except OSError:
        return []
    return [int(c) for c in children] + [d for c in children for d in descendants(int(c))]


def end(process):
    """Ends a program started here with all that it started, and waits until it is gone."""
    if process is None or process.poll() is not None:
        return
    for pid in descendants(process.pid) + [process.pid]:
        signal_quietly(pid, signal.SIGTERM)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        for pid in descendants(process.pid) + [process.pid]:
            signal_quietly(pid, signal.SIGKILL)
        process.wait(LIMIT)


def signal_quietly(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def wait_for_line(process, text):
    """Reads the process's stdout until a line has the text."""
    deadline = time.monotonic() + LIMIT
    seen = b""
    while text.encode() not in seen:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
            raise RuntimeError(f"no '{text}' within {LIMIT} s: {seen[-300:]!r}")
        chunk = os.read(process.stdout.fileno(), 65536)
        if not chunk:
            raise RuntimeError(f"ended without '{text}': {seen[-300:]!r}")
        seen += chunk


class Hosts:
    def __init__(self, tools, groups, worker_init, scratch):
        self.tools = tools  # the directory of bench/*.c, built
        self.groups = groups
        self.worker_init = worker_init
        self.scratch = scratch
        self.lines = {}  # RTT in ms: the delay line's process
        os.makedirs(scratch, exist_ok=True)

    # ---- programs ----

    def group(self, name):
        path = f"{self.groups}/{name}"
        os.makedirs(path, exist_ok=True)
        return path

    def _in_group(self, name, argv):
        return ["sh", "-c", IN_GROUP, self.group(name) + "/cgroup.procs"] + argv

    def client(self, argv, way="other", **kw):
        return subprocess.Popen(self._in_group("client/" + way, argv),
                                stdin=kw.pop("stdin", subprocess.DEVNULL), **kw)

    def worker(self, argv, **kw):
        enter = ["nsenter", "-t", str(self.worker_init), "-m", "-n", "-p", "-u", "-i", "--"]
        return subprocess.Popen(self._in_group("worker", enter + argv),
                                stdin=kw.pop("stdin", subprocess.DEVNULL), **kw)

    def on_worker(self, *argv):
        """Runs a command as the worker's root; its failure is the caller's."""
        p = self.worker(list(argv), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        out, _ = p.communicate(timeout=LIMIT)
        if p.returncode != 0:
            raise RuntimeError(f"on the worker: {' '.join(argv)}: {out}")
        return out

    @contextlib.contextmanager
    def keep_busy(self, n, argv, cwd):
        """Runs the command over and over, n at a time, at the worker's expense."""
        loop = ["sh", "-c", 'while :; do "$@"; done', "sh"]
        loops = [subprocess.Popen(self._in_group("worker", loop + argv), cwd=cwd,
                                  stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL) for _ in range(n)]
        try:
            yield
        finally:
            for process in loops:
                end(process)

    def worker_mounts(self):
        """The worker's mounts; poll() tells when they change."""
        init_children = read_file(f"/proc/{self.worker_init}/task/{self.worker_init}/children")
        return open(f"/proc/{init_children.split()[0]}/mounts")

    def wait_for_mount(self, path):
        deadline = time.monotonic() + LIMIT
        with self.worker_mounts() as f:
            poll = select.poll()
            poll.register(f, select.POLLPRI | select.POLLERR)
            while f" {path} " not in f.read():
                left = deadline - time.monotonic()
                if left <= 0 or not poll.poll(left * 1000):
                    raise RuntimeError(f"no mount at {path} on the worker within {LIMIT} s")
                f.seek(0)

    # ---- the cable ----

    def host(self, rtt):
        return "w1" if rtt == 0 else f"rtt{rtt}"

    def address(self, rtt, end):
        return f"10.77.1.{end}" if rtt == 0 else f"10.78.{rtt}.{end}"

    def connect(self, rtt):
        """The lab's own cable has no length; others are TUN devices with a delay line between."""
        if rtt == 0 or rtt in self.lines:
            return
        name = self.host(rtt)
        line = subprocess.Popen([self.tools + "/delay-line", str(rtt * 1000),
                                 str(self.worker_init), name], stdout=subprocess.PIPE)
        self.lines[rtt] = line
        wait_for_line(line, "ready")
        enter = ["nsenter", "-t", str(self.worker_init), "-n", "--"]
        for end_number, prefix in ((1, []), (2, enter)):
            address = self.address(rtt, end_number) + "/24"
            subprocess.run(prefix + ["ip", "addr", "add", address, "dev", name], check=True)
            subprocess.run(prefix + ["ip", "link", "set", name, "up", "mtu", "1500",
                                     "txqueuelen", "10000"], check=True)
        self._name_for_ssh(rtt, name)

    def _name_for_ssh(self, rtt, name):
        address = self.address(rtt, 2)
        ssh = os.environ["HOME"] + "/.ssh/"
        append_file(ssh + "config", f"Host {name}\n\tHostName {address}\n\tUser builder\n")
        key = read_file(os.environ["LAB"] + "/keys/host.pub").split()
        append_file(ssh + "known_hosts", f"{address} {key[0]} {key[1]}\n")

    def rtt_ms(self, rtt, times=8):
        """The shortest TCP handshake: what the cable's length really is."""
        shortest = float("inf")
        for _ in range(times):
            from_s = time.monotonic()
            socket.create_connection((self.address(rtt, 2), 22), LIMIT).close()
            shortest = min(shortest, time.monotonic() - from_s)
        return shortest * 1000

    def disconnect_all(self):
        for line in self.lines.values():
            end(line)
        self.lines = {}

    # ---- what it costs ----

    def cpu_s(self, name):
        """CPU time that a group and those below it have used, the ended processes' too."""
        path = self.group(name)
        if os.path.exists(path + "/cpuacct.usage"):
            return int(read_file(path + "/cpuacct.usage")) / 1e9
        stat = dict(line.split() for line in read_file(path + "/cpu.stat").splitlines())
        return int(stat["usage_usec"]) / 1e6

    def bytes(self, rtt):
        """To and from the worker, as the device counts them: headers of all layers included."""
        for line in read_file("/proc/net/dev").splitlines():
            name, _, rest = line.partition(":")
            if name.strip() == self.host(rtt):
                f = rest.split()
                return int(f[8]), int(f[0])
        raise RuntimeError("no device " + self.host(rtt))

    def memory_kb(self, name):
        """Peak resident size of each program that runs in the group, the largest of its kind."""
        peak = {}
        for path, _, _ in os.walk(self.group(name)):
            for pid in read_file(path + "/cgroup.procs").split():
                try:
                    status = dict(line.split(":", 1) for line in
                                  read_file(f"/proc/{pid}/status").splitlines() if ":" in line)
                except OSError:
                    continue
                if "VmHWM" in status:
                    program = status["Name"].strip()
                    kb = int(status["VmHWM"].split()[0])
                    peak[program] = max(kb, peak.get(program, 0))
        return peak

    def measure(self, way, rtt, argv, timeout=600, **kw):
        """Runs a command on the client as part of a way; returns the costs and the exit status."""
        client, worker = self.cpu_s("client/" + way), self.cpu_s("worker")
        out, back = self.bytes(rtt)
        from_s = time.monotonic()
        process = self.client(argv, way, start_new_session=True, **kw)
        try:
            text = process.communicate(timeout=timeout)[0]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            text = process.communicate()[0]
        wall = time.monotonic() - from_s
        out_now, back_now = self.bytes(rtt)
        return {"wall_s": wall, "client_cpu_s": self.cpu_s("client/" + way) - client,
                "worker_cpu_s": self.cpu_s("worker") - worker, "bytes_out": out_now - out,
                "bytes_in": back_now - back, "status": process.returncode, "output": text}
