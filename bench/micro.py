# SPDX-License-Identifier: Apache-2.0 OR MIT
"""What concc's own pieces cost, without a compiler."""

import json
import os
import re
import subprocess
import time

import ways as all_ways
from hosts import LIMIT, end, read_file, say

DIR = "/srv/ws/micro"
WAITERS = 2000
FILES_EACH = 100  # a directory
IDLE_S = 3  # how long the waiters' CPU is watched


def run(bench):
    os.makedirs(DIR, exist_ok=True)
    quick = bench.plan["quick"]
    concc = all_ways.Concc(bench.hosts, bench.plan["jobs"])
    out = bench.result["micro"]
    out["wrapper"] = wrapper(bench, concc, 300 if quick else 1000)
    out["pool"] = pool(bench)
    out["handover"] = [tool(bench, "handover", str(n)) for n in (100, WAITERS)]
    out["noop"], out["ssh"] = [], []
    for rtt in (0, 1):
        bench.connect(rtt)
        concc.start(rtt)
        out["noop"].append(dict(noop(bench, concc, rtt, 300 if quick else 1000), rtt=rtt))
        if rtt == 0:
            out["waiters"] = waiters(bench, concc)
        concc.stop()
        if "sshfs" in bench.plan["ways"]:
            out["ssh"].append(dict(ssh_noop(bench, rtt, 100), rtt=rtt))
    bench.save()
    out["files"] = files(bench, concc, 200 if quick else 1000)
    bench.save()


def tool(bench, *argv):
    text = subprocess.run([f"{bench.hosts.tools}/{argv[0]}"] + list(argv[1:]), check=True,
                          stdout=subprocess.PIPE, text=True).stdout
    return json.loads(text)


def latency(bench, rtt, env, n, *job, parallel=1, way="concc"):
    """Runs a command n times in a way's group: the times, and the client's CPU for each."""
    command = [bench.hosts.tools + "/latency", "-j", str(parallel), "-w", "5", str(n)]
    m = bench.hosts.measure(way, rtt, command + list(job), cwd=DIR, env=dict(os.environ, **env),
                            stdout=subprocess.PIPE, text=True)
    times = json.loads(m["output"])
    runs = n + 5
    times.update(client_cpu_ms=m["client_cpu_s"] * 1000 / runs,
                 worker_cpu_ms=m["worker_cpu_s"] * 1000 / runs,
                 bytes_out=m["bytes_out"] / runs, bytes_in=m["bytes_in"] / runs)
    return times


def wrapper(bench, concc, n):
    """What the wrapper itself adds to a command that runs here."""
    env = concc.local_env()
    say("micro: the wrapper alone")
    return {"plain": latency(bench, 0, env, n, "true"),
            "wrapped": latency(bench, 0, env, n, "concc-cc", "true")}


def pool(bench):
    say("micro: pool")
    text = subprocess.run([bench.hosts.tools + "/pool", "64", "64", "20000"], check=True,
                          stdout=subprocess.PIPE, text=True).stdout
    times = [float(t) for t in re.findall(r"([\d.]+) us", text)]
    return {"open_us": times[0], "whole_us": times[1]}


def noop(bench, concc, rtt, n):
    say(f"micro: no-op jobs at RTT {rtt} ms")
    env = concc.env()
    job = ["concc-dispatch", "true"]
    latency(bench, rtt, env, 10, *job)
    before = concc.counters()
    serial = latency(bench, rtt, env, n, *job)
    after = concc.counters()
    per_job = {k: (after[k] - before[k]) / max(1, after["jobs"] - before["jobs"])
               for k in ("turns", "fuse_messages", "bytes_out", "bytes_in", "lists")}
    local = latency(bench, rtt, env, n, "true")
    parallel = latency(bench, rtt, env, n, *job, parallel=16)
    return {"serial": serial, "parallel": parallel, "spawn": local, "per_job": per_job,
            "jobs": after["jobs"] - before["jobs"], "n": n}


def ssh_noop(bench, rtt, n):
    """The same by OpenSSH's shared connection, for comparison."""
    say(f"micro: no-op jobs by ssh at RTT {rtt} ms")
    ssh = all_ways.Sshfs(bench.hosts, bench.plan["jobs"])
    ssh.start(rtt)
    try:
        return latency(bench, rtt, {}, n, *ssh.job("true"), way="sshfs")
    finally:
        ssh.stop()


# ---- many that wait ----

def waiters(bench, concc):
    """All slots are taken while 2000 wrappers wait; then they are given back."""
    say(f"micro: {WAITERS} waiting wrappers")
    hosts, env = bench.hosts, dict(os.environ, **concc.env())
    tokens = [allocate(env) for _ in range(bench.plan["jobs"])]
    process = hosts.client([hosts.tools + "/latency", "-j", str(WAITERS), str(WAITERS),
                            "concc-dispatch", "true"], "concc", stdout=subprocess.PIPE, env=env,
                           cwd=DIR)
    try:
        reached = wait_for_waiters(concc)
        idle = hosts.cpu_s("client/concc")
        time.sleep(IDLE_S)  # the figure is CPU per time
        idle = hosts.cpu_s("client/concc") - idle
        memory = wrapper_memory(hosts)
        from_s = time.monotonic()
        for token in tokens:
            subprocess.run(["concc-worker-pool", "release", token], env=env, check=True)
        out, _ = process.communicate(timeout=600)
        drain = time.monotonic() - from_s
    finally:
        end(process)
    return dict(waiting=reached, cpu_ms_per_s=idle * 1000 / IDLE_S, drain_s=drain,
                failed=json.loads(out)["failed"], **memory)


def allocate(env):
    text = subprocess.run(["concc-worker-pool", "allocate", "--owner", str(os.getpid())], env=env,
                          check=True, stdout=subprocess.PIPE, text=True).stdout
    return text.split()[-1]


def wait_for_waiters(concc):
    """The kernel tells nobody who waits for a lock, so this asks until all do."""
    deadline = time.monotonic() + LIMIT
    waiting = 0
    while waiting < WAITERS and time.monotonic() < deadline:
        waiting = concc.status().get("waiting", 0)
        time.sleep(0.1)
    return waiting


def wrapper_memory(hosts):
    """Peak resident and proportional size of the waiting wrappers, in KB."""
    peak, proportional = [], []
    for pid in read_file(hosts.group("client/concc") + "/cgroup.procs").split():
        try:
            if read_file(f"/proc/{pid}/comm").strip() != "concc-dispatch":
                continue
            peak.append(field(f"/proc/{pid}/status", "VmHWM"))
            if len(proportional) < 50:
                proportional.append(field(f"/proc/{pid}/smaps_rollup", "Pss"))
        except OSError:
            continue
    return {"rss_kb": max(peak, default=0),
            "pss_kb": sum(proportional) / max(1, len(proportional))}


def field(path, name):
    for line in read_file(path).splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    return 0


# ---- a large tree ----

def files(bench, concc, n_dirs):
    """The project server's memory when many files are listed, and when all were read."""
    say(f"micro: {n_dirs * FILES_EACH} served files")
    for d in range(n_dirs):
        os.makedirs(f"{DIR}/files/{d}")
        for f in range(FILES_EACH):
            with open(f"{DIR}/files/{d}/file{f}.h", "w") as out:
                out.write(f"#define FILE_{d}_{f} {d * FILES_EACH + f}\n")
    rtt = 0
    concc.start(rtt)
    try:
        listed = one_job(bench, concc, rtt, "find files -type f -size +9")
        read = one_job(bench, concc, rtt, "find files -type f -exec cat {} + | wc -c")
    finally:
        concc.stop()
        subprocess.run(["rm", "-rf", DIR + "/files"], check=True)
    return {"n": n_dirs * FILES_EACH, "listed": listed, "read": read}


def one_job(bench, concc, rtt, script):
    m = bench.hosts.measure("concc", rtt, ["concc-dispatch", "sh", "-c", script], cwd=DIR,
                            env=dict(os.environ, **concc.env()), stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True)
    if m["status"] != 0:
        bench.note(f"micro: '{script}' failed: {m['output'][-300:]}")
    pid = concc.status().get("pid")
    kb = {"rss_kb": field(f"/proc/{pid}/status", "VmRSS"),
          "peak_kb": field(f"/proc/{pid}/status", "VmHWM")} if pid else {}
    workers = bench.hosts.memory_kb("worker")
    del m["output"]
    return dict(m, worker_kb=workers, counters=concc.counters(), **kb)
