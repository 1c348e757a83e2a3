# SPDX-License-Identifier: Apache-2.0 OR MIT
"""Outside the lab: reads the options, installs packages, fetches sources, writes plan.json.

What can't be had is left out and named in the table: a benchmark without icecream is still one.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time

WAYS = ["local", "null", "distcc", "pump", "icecream", "sshfs", "concc", "concc-system"]
WORKLOADS = ["abseil", "linux", "redis", "rust"]
HELP_STATUS = 64

PACKAGES = {
    "distcc": ["distcc"],
    "icecream": ["icecc"],
    "sshfs": ["sshfs"],
    "abseil": ["cmake", "ninja-build", "g++"],
    "linux": ["linux-source-6.1", "flex", "bison", "bc", "xz-utils"],
    "rust": ["librust-regex-dev", "librust-serde-dev", "librust-serde-derive-dev",
             "librust-serde-json-dev", "librust-toml-dev"],
}

# Of the kernel's tree, what a tinyconfig of x86 reads.
KERNEL_NOT = ["drivers/*.[ch]", "Documentation/*/*", "sound/*.[ch]", "net/*.c", "tools/testing/*",
              "arch/[a-tv-w]*/*.[chS]"]


def say(text):
    print("bench: " + text, file=sys.stderr, flush=True)


def listed(known):
    def parse(text):
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"'{name}' is none of {', '.join(known)}")
        return [name for name in known if name in names]
    return parse


def numbers(text):
    return sorted({int(n) for n in text.split(",")})


def options(args):
    p = argparse.ArgumentParser(prog="bench/run", description="Measures concc against local, "
                                "distcc, icecream and ssh + sshfs on two hosts made of namespaces.")
    p.add_argument("--no-regret", action="store_true",
                   help="another table (first option): with and without concc, slow and fast workers")
    p.add_argument("--choice", action="store_true",
                   help="another table (first option): what the choice of a place costs a job")
    p.add_argument("--quick", action="store_true",
                   help="micro and 16 objects of redis at an RTT of 1 ms, one round: minutes")
    p.add_argument("--only", type=listed(["micro"] + WORKLOADS), metavar="LIST",
                   help="of micro," + ",".join(WORKLOADS))
    p.add_argument("--ways", type=listed(WAYS), metavar="LIST", help="of " + ",".join(WAYS))
    p.add_argument("--rtt", type=numbers, metavar="LIST", help="in ms; default 0,1,5,20")
    p.add_argument("--runs", type=int, metavar="N", help="rounds; default 3")
    p.add_argument("--jobs", type=int, metavar="N", help="make -jN and slots; default 2 a core")
    return p.parse_args(args)


def make_plan(o):
    quick = o.quick
    plan = {
        "only": o.only or (["micro", "redis"] if quick else ["micro"] + WORKLOADS),
        "ways": o.ways or list(WAYS),
        "rtt": o.rtt if o.rtt is not None else ([1] if quick else [0, 1, 5, 20]),
        "runs": o.runs or (1 if quick else 3),
        "jobs": o.jobs or 2 * os.cpu_count(),
        "quick": quick,
        "missing": {},
    }
    # The floor and the yardstick are part of every table.
    plan["ways"] = [w for w in WAYS if w in plan["ways"] or w in ("local", "null")]
    return plan


# ---- packages ----

def installed(packages):
    out = subprocess.run(["dpkg-query", "-W", "-f", "${db:Status-Abbrev} ${Package} ${Version}\n"]
                         + packages, capture_output=True, text=True).stdout
    lines = [line.split() for line in out.splitlines()]
    return {f[1]: f[2] for f in lines if len(f) == 3 and f[0][1:2] == "i"}


class NoDaemons:
    """While packages are installed, none of them starts its daemon."""

    path = "/usr/sbin/policy-rc.d"

    def __enter__(self):
        self.made = not os.path.exists(self.path)
        if self.made:
            with open(self.path, "w") as f:
                f.write("#!/bin/sh\nexit 101\n")
            os.chmod(self.path, 0o755)

    def __exit__(self, *_):
        if self.made:
            os.unlink(self.path)


def install(names, log):
    wanted = sorted({p for n in names for p in PACKAGES.get(n, [])})
    missing = [p for p in wanted if p not in installed(wanted)]
    if not missing:
        return
    say("installing " + " ".join(missing))
    env = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    with NoDaemons(), open(log, "w") as f:
        subprocess.run(["apt-get", "update"], stdout=f, stderr=f, env=env)
        subprocess.run(["apt-get", "install", "-y", "--no-install-recommends"] + missing,
                       stdout=f, stderr=f, env=env)


def drop_missing(plan):
    """Leaves out what its packages can't be had for."""
    for key in ("only", "ways"):
        for name in list(plan[key]):
            wanted = PACKAGES.get(name, [])
            lacking = [p for p in wanted if p not in installed(wanted)]
            if lacking:
                leave_out(plan, key, name, "no package " + ", ".join(lacking))


def leave_out(plan, key, name, why):
    plan[key].remove(name)
    plan["missing"][name] = why
    say(f"{name} is left out: {why}")


def check_pump(plan):
    if "pump" not in plan["ways"]:
        return
    if not shutil.which("pump"):
        leave_out(plan, "ways", "pump", "no pump in PATH")
        return
    env = dict(os.environ, DISTCC_HOSTS="127.0.0.1,cpp,lzo")
    try:
        rc = subprocess.run(["pump", "true"], env=env, capture_output=True, timeout=20).returncode
    except subprocess.TimeoutExpired:
        rc = -1
    if rc != 0:
        leave_out(plan, "ways", "pump", "the pump in PATH does not work here")


# ---- sources ----

def fetch_debian(repo, package):
    cache = os.path.join(cache_dir(), "concc-test", "sources")
    tree = os.path.join(cache, package)
    if os.path.isdir(tree):
        return tree
    say("fetching the source of " + package)
    os.makedirs(cache, exist_ok=True)
    with open(tree + ".log", "w") as log:
        rc = subprocess.run([repo + "/test/lib/fetch-source", package, cache],
                            stdout=log, stderr=log).returncode
    return tree if rc == 0 else None


def unpack_kernel():
    archive = "/usr/src/linux-source-6.1.tar.xz"
    version = installed(["linux-source-6.1"])["linux-source-6.1"]
    tree = os.path.join(cache_dir(), "concc-bench", "linux-" + version)
    if os.path.isdir(tree):
        return tree
    say("unpacking the kernel's source")
    temp = tree + ".new"
    shutil.rmtree(temp, ignore_errors=True)
    os.makedirs(temp)
    rc = subprocess.run(["tar", "-xf", archive, "-C", temp, "--strip-components=1"]
                        + ["--exclude=*/" + e for e in KERNEL_NOT]).returncode
    if rc != 0:
        return None
    os.rename(temp, tree)
    return tree


def cache_dir():
    return os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")


def fetch_sources(plan, repo):
    fetch = {
        "abseil": lambda: fetch_debian(repo, "abseil"),
        "redis": lambda: fetch_debian(repo, "redis"),
        "linux": unpack_kernel,
        "rust": lambda: "/usr/share/cargo/registry" if shutil.which("cargo") else None,
    }
    plan["sources"] = {}
    for name in [n for n in plan["only"] if n in fetch]:
        plan["sources"][name] = fetch[name]()
        if not plan["sources"][name]:
            leave_out(plan, "only", name, "its source can't be had")


# ---- what was measured ----

def first_line(*cmd):
    try:
        out = subprocess.run(cmd, capture_output=True, text=True)
    except FileNotFoundError:
        return "?"
    return ((out.stdout or out.stderr).splitlines() or ["?"])[0]


def cpu_name():
    with open("/proc/cpuinfo") as f:
        names = [line.split(":")[1].strip() for line in f if line.startswith("model name")]
    return names[0] if names else os.uname().machine


def versions(repo, out):
    git = ["git", "-C", repo]
    commit = first_line(*git, "describe", "--always", "--dirty", "--abbrev=10")
    packages = installed(["distcc", "icecc", "sshfs", "openssh-server", "linux-source-6.1"])
    return {
        "date": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        "load": f"{os.getloadavg()[0]:.1f}",
        "commit": commit,
        "concc": first_line(os.path.dirname(out) + "/bin/concc", "--version"),
        "kernel": os.uname().release,
        "cpu": f"{os.cpu_count()} x {cpu_name()}",
        "gcc": first_line("gcc", "--version"),
        "rustc": first_line("rustc", "--version"),
        **packages,
    }


def main():
    repo, out = sys.argv[1:3]
    try:
        o = options(sys.argv[3:])
    except SystemExit as e:
        sys.exit(HELP_STATUS if e.code == 0 else 2)
    plan = make_plan(o)
    os.makedirs(out, exist_ok=True)
    install(plan["only"] + plan["ways"], out + "/apt.log")
    drop_missing(plan)
    check_pump(plan)
    fetch_sources(plan, repo)
    plan["versions"] = versions(repo, out)
    with open(out + "/plan.json", "w") as f:
        json.dump(plan, f, indent=1)


main()
