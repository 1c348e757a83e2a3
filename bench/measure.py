# SPDX-License-Identifier: Apache-2.0 OR MIT
"""Inside the lab, on the client: measures what plan.json says, writes result.json and result.md.

All ways are up at once and take turns, so that what else this machine does hits all of them alike.
Each has a control group of its own on the client; while one builds the others are idle.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
import traceback

import micro
import report
import ways as all_ways
import workloads as all_workloads
from hosts import Hosts, say, write_file

FLOOR_RUNS = 3  # of the null launcher, for one of the others
SINGLES, SINGLES_QUICK = 9, 5  # times one job alone is run


class Bench:
    def __init__(self, out, hosts, plan):
        self.out = out
        self.hosts = hosts
        self.plan = plan
        self.result = {"plan": plan, "workloads": {}, "builds": [], "singles": [], "memory": [],
                       "micro": {}, "rtt_ms": {}, "notes": []}
        self.ways = [all_ways.ALL[n](hosts, plan["jobs"]) for n in plan["ways"]]

    def note(self, text):
        say(text)
        self.result["notes"].append(text)

    def connect(self, rtt):
        self.hosts.connect(rtt)
        if str(rtt) not in self.result["rtt_ms"]:
            self.result["rtt_ms"][str(rtt)] = round(self.hosts.rtt_ms(rtt), 2)

    # ---- one build ----

    def build(self, workload, way, rtt, kind, number):
        way.clean(workload.clean_list(way.name))
        before = way.counters()
        argv = getattr(way, "build_prefix", list)() + workload.build(way.name, way.launcher())
        log = f"{self.out}/logs/{workload.name}-{way.name}-{rtt}-{kind}.log"
        os.makedirs(os.path.dirname(log), exist_ok=True)
        with open(log, "w") as f, self.surroundings(workload, way):
            m = self.hosts.measure(way.name, rtt, argv, env=dict(os.environ, **way.env()),
                                   cwd=workload.dir, stdout=f, stderr=f)
        after = way.counters()
        m.update(workload=workload.name, way=way.name, rtt=rtt, kind=kind, round=number,
                 identical=workload.identical(way.name),
                 counters={k: v - before.get(k, 0) for k, v in after.items()})
        del m["output"]
        self.result["builds"].append(m)
        say(f"{workload.name} rtt {rtt} {kind} {way.name}: {m['wall_s']:.2f} s, client "
            f"{m['client_cpu_s']:.2f} s, worker {m['worker_cpu_s']:.2f} s CPU, "
            f"{m['identical']}/{len(workload.reference)} identical")
        if m["status"] != 0:
            self.note(f"{workload.name} with {way.name} at RTT {rtt} ms ({kind}) failed with "
                      f"{m['status']}; see {os.path.relpath(log, self.out)}")

    def surroundings(self, workload, way):
        """A build tool costs more while compilers use the same caches, so the floor has them too."""
        if way.name != "null":
            return contextlib.nullcontext()
        return self.hosts.keep_busy(self.plan["jobs"], workload.single("local", []),
                                    workload.single_dir("local"))

    # ---- one workload ----

    def make_reference(self, workload):
        """The build that the null launcher remembers is a local one: it says what is right."""
        null = self.ways[1]
        for way in self.ways:
            if workload.rust and not way.rust:
                continue
            workload.configure(way.name, way.launcher(), way.local_env())
        null.forget()
        log = all_workloads.run(workload.build("null", null.launcher()), workload.dir,
                                null.record_env())
        workload.learn("null", null.remembered(), log)

    def start_ways(self, workload, rtt):
        started = []
        for way in self.ways:
            if workload.rust and not way.rust:
                continue
            if self.try_way(way, way.start, rtt):
                started.append(way)
            else:
                self.try_way(way, way.stop)
        return started

    def try_way(self, way, step, *args):
        try:
            step(*args)
            return True
        except Exception:  # a peer's trouble must not end the run of the others
            traceback.print_exc()
            self.note(f"{way.name}: {step.__name__} failed: {sys.exc_info()[1]}")
            return False

    def cold_builds(self, workload, active, rtt):
        """From nothing; at one RTT several times, and again with what the worker still has."""
        is_main = rtt == report.main_rtt(self.plan)
        for number in range(self.plan["runs"] if is_main else 1):
            for way in [w for w in active if w.remote]:
                if number > 0:
                    way.stop()
                    way.start(rtt)
                self.build(workload, way, rtt, "cold", number)
                if is_main and way.restart():
                    self.build(workload, way, rtt, "second", number)

    def singles(self, workload, active, rtt):
        times = SINGLES_QUICK if self.plan["quick"] else SINGLES
        for number in range(-1, times):  # the first one warms up
            for way in active:
                self.single(workload, way, rtt, number)

    def single(self, workload, way, rtt, number):
        command = workload.single(way.name, way.launcher())
        way.clean(workload.single_outputs(way.name))
        m = self.hosts.measure(way.name, rtt, [self.hosts.tools + "/latency", "1"] + command,
                               cwd=workload.single_dir(way.name), text=True,
                               env=dict(os.environ, **way.env()), stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL)
        if number < 0:
            return
        m["wall_s"] = json.loads(m.pop("output"))["wall_us"] / 1e6
        m.update(workload=workload.name, way=way.name, rtt=rtt, round=number)
        self.result["singles"].append(m)

    def memory(self, workload, active, rtt):
        for way in active:
            self.result["memory"].append({
                "workload": workload.name, "way": way.name, "rtt": rtt,
                "client_kb": self.hosts.memory_kb("client/" + way.name)})
        self.result["memory"].append({"workload": workload.name, "way": "worker", "rtt": rtt,
                                      "worker_kb": self.hosts.memory_kb("worker")})

    def at_rtt(self, workload, rtt):
        self.connect(rtt)
        active = self.start_ways(workload, rtt)
        try:
            self.cold_builds(workload, active, rtt)
            for number in range(self.plan["runs"]):
                for way in active:
                    # The floor is subtracted from everything, and costs next to nothing.
                    for _ in range(FLOOR_RUNS if way.name == "null" else 1):
                        self.build(workload, way, rtt, "warm", number)
            self.singles(workload, active, rtt)
            self.memory(workload, active, rtt)
        finally:
            for way in active:
                self.try_way(way, way.stop)

    def workload(self, name):
        workload = all_workloads.ALL[name](self.plan["sources"][name], self.plan["jobs"],
                                           self.plan["quick"])
        say(f"{name}: preparing")
        try:
            workload.prepare()
            self.make_reference(workload)
            self.result["workloads"][name] = {
                "jobs": workload.n_jobs, "outputs": len(workload.reference),
                "language": workload.language, "about": workload.about(),
                "sample": workload.sample}
            for rtt in self.plan["rtt"]:
                self.at_rtt(workload, rtt)
        finally:
            workload.remove()

    # ---- all ----

    def save(self):
        write_file(self.out + "/result.json", json.dumps(self.result, indent=1))
        write_file(self.out + "/result.md", report.markdown(self.result))

    def run(self):
        started = time.monotonic()
        if "micro" in self.plan["only"]:
            micro.run(self)
        for name in [n for n in self.plan["only"] if n != "micro"]:
            try:
                self.workload(name)
            except Exception:
                traceback.print_exc()
                self.note(f"{name} could not be measured: {sys.exc_info()[1]}")
            self.save()
        self.result["seconds"] = round(time.monotonic() - started)
        self.save()


def main():
    out, groups, worker_init, scratch = sys.argv[1:5]
    with open(out + "/plan.json") as f:
        plan = json.load(f)
    hosts = Hosts(out, groups, int(worker_init), scratch)
    bench = Bench(out, hosts, plan)
    try:
        bench.run()
    finally:
        hosts.disconnect_all()
    with open(out + "/result.md") as f:
        print(f.read())


main()
