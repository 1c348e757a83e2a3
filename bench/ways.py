# SPDX-License-Identifier: Apache-2.0 OR MIT
"""The ways to compile that are compared.  Each can start from nothing at a given RTT (start), begin
a second session with what the worker still has (restart), and leave nothing behind (stop)."""

import json
import os
import select
import shutil
import socket
import subprocess
import threading
import time

from hosts import LIMIT, end, wait_for_line, write_file

WORKER_HOME = "/home/builder"


class Way:
    rust = True
    remote = True
    title = ""

    def __init__(self, hosts, jobs):
        self.hosts = hosts
        self.jobs = jobs
        self.scratch = f"{hosts.scratch}/{self.name}"
        self.processes = []  # what start() started; stop() ends the last one first
        os.makedirs(self.scratch, exist_ok=True)

    def launcher(self):
        return []

    def env(self):
        return {}

    def local_env(self):
        """With it the launcher runs everything here: for configuring."""
        return {}

    def start(self, rtt):
        pass

    def restart(self):
        """A new session; False when there is no such thing."""
        return False

    def stop(self):
        """Also after half a start."""
        while self.processes:
            end(self.processes.pop())

    def started(self, process):
        self.processes.append(process)
        return process

    def counters(self):
        return {}

    def clean(self, paths):
        for path in paths:
            if os.path.isdir(path):
                shutil.rmtree(path)
            elif os.path.exists(path):
                os.unlink(path)


class Local(Way):
    name, title, remote = "local", "local", False


class Null(Way):
    """Puts outputs back that were made before: what is left is the build tool itself."""

    name, title, remote = "null", "null launcher", False

    def launcher(self):
        return [self.hosts.tools + "/null-launcher"]

    def env(self):
        return {"NULL_STORE": self.scratch}

    def forget(self):
        for name in os.listdir(self.scratch):
            os.unlink(f"{self.scratch}/{name}")

    def remembered(self):
        return len(os.listdir(self.scratch))

    def record_env(self):
        return {"NULL_STORE": self.scratch, "NULL_RECORD": "1"}


class Distcc(Way):
    name, title, rust = "distcc", "distcc", False
    hosts_suffix = ",lzo"

    def launcher(self):
        return ["distcc"]

    def env(self):
        return {"DISTCC_DIR": self.scratch, "DISTCC_FALLBACK": "0", "DISTCC_SKIP_LOCAL_RETRY": "1",
                "DISTCC_HOSTS": f"{self.hosts.address(self.rtt, 2)}/{self.jobs}{self.hosts_suffix}"}

    def local_env(self):
        return {"DISTCC_DIR": self.scratch, "DISTCC_HOSTS": "localhost"}

    def start(self, rtt):
        self.rtt = rtt
        with open(self.scratch + "/distccd.log", "w") as log:
            self.started(self.hosts.worker(
                ["distccd", "--no-detach", "--daemon", "--allow-private", "--user", "builder",
                 "--jobs", str(self.jobs), "--log-stderr", "--log-level", "error"],
                stdout=subprocess.DEVNULL, stderr=log))
        wait_for_port(self.hosts.address(rtt, 2), 3632)


class Pump(Distcc):
    """distcc with the include server on: the build runs under `pump`."""

    name, title = "pump", "distcc pump"
    hosts_suffix = ",cpp,lzo"

    def build_prefix(self):
        return ["pump"]


class Icecream(Way):
    name, title, rust = "icecream", "icecream", False
    near_envs, far_envs = "/srv/icecream", "/run/icecream"  # where its own user gets to

    def launcher(self):
        return ["icecc"]

    def env(self):
        return {"ICECC_PREFERRED_HOST": "w1"}

    def local_env(self):
        return {"ICECC": "no"}

    def start(self, rtt):
        self.rtt = rtt
        self._new_environments()
        self.started(self.hosts.client(
            ["icecc-scheduler", "-n", "bench", "-l", self.scratch + "/scheduler.log", "-v"],
            self.name, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        wait_for_port("127.0.0.1", 8765)
        self._daemon(self.hosts.worker, "w1", self.far_envs, self.jobs)
        self._daemon(lambda argv, **kw: self.hosts.client(argv, self.name, **kw), "client",
                     self.near_envs, 1, "--no-remote")

    def _daemon(self, start, name, envs, slots, *more):
        p = self.started(start(
            ["iceccd", "-n", "bench", "-s", self.hosts.address(self.rtt, 1), "-N", name,
             "-m", str(slots), "-u", "icecc", "-b", envs, "-vv"] + list(more),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
        wait_for_line(p, "Connected to scheduler")
        drain(p.stdout, f"{self.scratch}/iceccd-{name}.log")

    def _new_environments(self):
        make = "rm -rf {0} && install -d -o icecc {0}"
        self.hosts.on_worker("sh", "-c", make.format(self.far_envs))
        subprocess.run(["sh", "-c", make.format(self.near_envs)], check=True)

    def stop(self):
        super().stop()
        self.hosts.on_worker("rm", "-rf", self.far_envs, "/run/icecc")
        shutil.rmtree(self.near_envs, ignore_errors=True)


class Sshfs(Way):
    """OpenSSH's shared connection runs the commands; the worker mounts the client's files by sshfs,
    whose SFTP server runs on the client and reaches it over ssh."""

    name, title = "sshfs", "ssh + sshfs"
    options = "passive,dir_cache=yes,kernel_cache,idmap=none"
    mount = "/srv/ws"

    def launcher(self):
        return [self.hosts.tools + "/ssh-launcher"]

    def job(self, *command):
        """Any command on the worker."""
        return ["ssh", "-S", self.socket, self.hosts.host(self.rtt), "--"] + list(command)

    def env(self):
        return {"BENCH_SSH_HOST": self.hosts.host(self.rtt), "BENCH_SSH_SOCKET": self.socket}

    def local_env(self):
        return {}

    def start(self, rtt):
        self.rtt = rtt
        self.socket = self.scratch + "/socket"
        self.hosts.on_worker("install", "-d", "-o", "builder", self.mount)
        self._connect()

    def _connect(self):
        host = self.hosts.host(self.rtt)
        # Returns when the connection is there; the master stays in the background.
        master = self.hosts.client(["ssh", "-f", "-N", "-M", "-S", self.socket, host], self.name,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if master.wait(LIMIT) != 0:
            raise RuntimeError("no ssh connection to " + host)
        here, there = socket.socketpair()
        with here, there, open(self.scratch + "/sshfs.log", "w") as log:
            self.started(self.hosts.client(["/usr/lib/openssh/sftp-server"], self.name,
                                           stdin=here, stdout=here))
            self.started(self.hosts.client(
                self.job("sshfs", "-f", "-o", self.options, ":" + self.mount, self.mount),
                self.name, stdin=there, stdout=there, stderr=log))
        self.hosts.wait_for_mount(self.mount)

    def _disconnect(self):
        super().stop()
        subprocess.run(["ssh", "-S", self.socket, "-O", "exit", "x"], stdin=subprocess.DEVNULL,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.hosts.on_worker("sh", "-c", f"! mountpoint -q {self.mount} || umount -l {self.mount}")

    def restart(self):
        self._disconnect()
        self._connect()
        return True

    def stop(self):
        self._disconnect()
        self.hosts.on_worker("rmdir", self.mount)

    def clean(self, paths):
        """Through the mount: sshfs would not learn of removals on the client for 20 s."""
        text = "\0".join(paths).encode()
        subprocess.run(self.job("xargs", "-0", "rm", "-rf", "--"), input=text, check=True,
                       stdout=subprocess.DEVNULL)


class Concc(Way):
    """Both hosts have the compilers, as the others need it."""

    name, title = "concc", "**concc**"
    root = "worker"

    def launcher(self):
        return ["concc-cc"]

    def env(self):
        """A project server of its own: its configuration counts when it starts, and one serves all who find it."""
        return {"CONCC_CONFIG": self.scratch + "/concc.ini", "CONCC_LOG": "warn",
                "CONCC_RUNTIME_DIR": "/srv/run-" + self.name, "CONCC_CACHE_DIR": "/srv/cache-" + self.name}

    def local_env(self):
        return dict(self.env(), CONCC_DISABLE="1")

    def start(self, rtt, workspace="/srv/ws"):
        rust = os.environ.get("LAB_RUST", "")  # not in this host's ~/.rustup
        toolchain = f"toolchain = {rust}" if rust not in ("", "/usr") else ""
        write_file(self.scratch + "/concc.ini", f"""[concc]
workspace = {workspace}
{toolchain}

[worker w1]
address = ssh://{self.hosts.host(rtt)}
program = /mnt/bin/concc-worker
slots = {self.jobs}
root = {self.root}
""")
        shutil.rmtree(self.env()["CONCC_CACHE_DIR"], ignore_errors=True)
        self.hosts.on_worker("rm", "-rf", WORKER_HOME + "/.cache")

    def _concc(self, *args):
        return subprocess.run(["concc"] + list(args), env=dict(os.environ, **self.env()),
                              stdin=subprocess.DEVNULL, capture_output=True, text=True)

    def restart(self):
        self.stop()
        return True

    def stop(self):
        state = self.status()
        self._concc("stop")
        if "pid" in state:
            wait_until_gone(state["pid"])

    def status(self):
        p = self._concc("status", "--json")
        try:
            return json.loads(p.stdout)
        except ValueError:
            return {}

    def counters(self):
        names = ("jobs", "failed", "fuse_messages", "turns", "bytes_out", "bytes_in", "lists",
                 "fetched_files", "fetched_bytes")
        state = self.status()
        workers = state.get("workers", [])
        sums = {n: sum(w.get(n, 0) for w in workers) for n in names}
        return dict(sums, local=state.get("local", 0), retried=state.get("retried", 0),
                    server_cpu_us=state.get("cpu_us", 0))


class ConccSystem(Concc):
    """Jobs see the client's system: the worker needs no compiler.  A cold build fetches that, too."""

    name, title = "concc-system", "**concc**, the client's system"
    root = "client"


def wait_until_gone(pid):
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    with os.fdopen(fd) as f:
        if not select.select([f], [], [], LIMIT)[0]:
            raise RuntimeError(f"process {pid} is still there after {LIMIT} s")


def wait_for_port(address, port):
    """No event tells that a foreign daemon listens; what it takes is not measured."""
    deadline = time.monotonic() + LIMIT
    while True:
        try:
            socket.create_connection((address, port), LIMIT).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def drain(stream, log):
    """Reads the rest of a daemon's output, so that it never waits for us."""
    def copy():
        with stream, open(log, "wb") as f:
            shutil.copyfileobj(stream, f)
    threading.Thread(target=copy, daemon=True).start()


ALL = {w.name: w for w in (Local, Null, Distcc, Pump, Icecream, Sshfs, Concc, ConccSystem)}
