# SPDX-License-Identifier: Apache-2.0 OR MIT
"""Makes the Markdown table of result.json: `python3 bench/report.py build/bench/result.json`.

Ratios come first and absolute figures in parentheses.  Every figure is the median of its runs.
"""

import json
import statistics
import sys

TITLES = {"local": "local", "null": "null launcher", "distcc": "distcc", "pump": "distcc pump",
          "icecream": "icecream", "sshfs": "ssh + sshfs", "concc": "**concc**", "concc-system": "**concc**, root = client"}
NONE = "-"


def main_rtt(plan):
    """Where figures that hardly depend on the RTT are taken."""
    return 1 if 1 in plan["rtt"] else plan["rtt"][0]


def median(values):
    values = list(values)
    return statistics.median(values) if values else None


def ratio(a, b):
    return None if a is None or not b else a / b


def show(value, form="{:.2f}"):
    return NONE if value is None else form.format(value)


def both(share, absolute, form):
    return NONE if share is None or absolute is None else f"{share:.2f} ({form.format(absolute)})"


class Builds:
    """The medians of one workload."""

    def __init__(self, result, name):
        self.plan = result["plan"]
        self.about = result["workloads"][name]
        self.builds = [b for b in result["builds"] if b["workload"] == name and b["status"] == 0]
        self.all = [b for b in result["builds"] if b["workload"] == name]
        self.single_runs = [s for s in result["singles"]
                            if s["workload"] == name and s["status"] == 0]

    def get(self, way, field, rtt=None, kind="warm"):
        rtt = main_rtt(self.plan) if rtt is None else rtt
        return median(b[field] for b in self.builds
                      if b["way"] == way and b["rtt"] == rtt and b["kind"] == kind)

    def single(self, way, field, rtt):
        return median(s[field] for s in self.single_runs
                      if s["way"] == way and s["rtt"] == rtt)

    # ---- the figures ----

    def above_floor_ms(self, way):
        cpu, floor = self.get(way, "client_cpu_s"), self.get("null", "client_cpu_s")
        if way == "null" or cpu is None or floor is None:
            return None
        return (cpu - floor) * 1000 / self.about["jobs"]

    def client_cpu(self, way):
        ms = self.above_floor_ms(way)
        share = ratio(ms, self.above_floor_ms("local"))
        return NONE if share is None else f"{share * 100:.1f} % ({ms:.1f} ms)"

    def single_cpu(self, way, rtt):
        cpu, floor = (self.single(w, "client_cpu_s", rtt) for w in (way, "null"))
        if way == "null" or cpu is None or floor is None:
            return NONE
        return f"{(cpu - floor) * 1000:.1f} ms"

    def worker_cpu(self, way):
        cpu, compile_ms = self.get(way, "worker_cpu_s"), self.above_floor_ms("local")
        if way in ("local", "null") or cpu is None or not compile_ms:
            return NONE
        per_job_ms = cpu * 1000 / self.about["jobs"]
        return both(per_job_ms / compile_ms, per_job_ms, "{:.0f} ms")

    def traffic(self, way, kind="warm"):
        out, back = self.get(way, "bytes_out", kind=kind), self.get(way, "bytes_in", kind=kind)
        if way in ("local", "null") or out is None:
            return NONE
        n = self.about["jobs"]
        return f"{out / n / 1000:.1f} / {back / n / 1000:.1f} KB"

    def build_wall(self, way, rtt):
        wall = self.get(way, "wall_s", rtt)
        return both(ratio(wall, self.get("local", "wall_s", rtt)), wall, "{:.1f} s")

    def single_wall(self, way, rtt):
        wall, local = self.single(way, "wall_s", rtt), self.single("local", "wall_s", rtt)
        if wall is None or local is None:
            return NONE
        if way == "null":
            return NONE
        if way == "local":
            return f"1 ({local * 1000:.0f} ms)"
        return f"{wall / local:.2f} ({(wall - local) * 1000:+.0f} ms)"

    def cold(self, way, rtt, kind="cold"):
        cold, warm = self.get(way, "wall_s", rtt, kind), self.get(way, "wall_s", rtt)
        return both(ratio(cold, warm), cold, "{:.1f} s")

    def resent(self, way):
        again, cold = (self.get(way, "bytes_out", kind=k) for k in ("second", "cold"))
        share = ratio(again, cold)
        return NONE if share is None else f"{share * 100:.1f} % ({again / 1000:.0f} KB)"

    def content_resent(self, way):
        """Contents of files alone, of which concc keeps count."""
        again, cold = (median(b["counters"]["fetched_bytes"] for b in self.builds
                              if b["way"] == way and b["rtt"] == main_rtt(self.plan)
                              and b["kind"] == k and "fetched_bytes" in b["counters"])
                       for k in ("second", "cold"))
        share = ratio(again, cold)
        return NONE if share is None else f"{share * 100:.1f} % ({again / 1000:.0f} KB)"

    def single_worker_cpu(self, way, rtt):
        cpu = self.single(way, "worker_cpu_s", rtt)
        local = self.single("local", "client_cpu_s", rtt)
        if way in ("local", "null") or cpu is None:
            return NONE
        return both(ratio(cpu, local), cpu * 1000, "{:.0f} ms")

    def per_job(self, way, names):
        """concc's own counters, of the last warm build."""
        builds = [b for b in self.builds if b["way"] == way and b["kind"] == "warm"
                  and b["rtt"] == main_rtt(self.plan) and b["counters"].get("jobs")]
        if not builds:
            return NONE
        c = builds[-1]["counters"]
        return " / ".join(f"{c[n] / c['jobs']:.1f}" for n in names)

    def identical(self, way):
        builds = [b for b in self.all if b["way"] == way]
        if way == "null" or not builds:
            return NONE
        worst = min(b["identical"] for b in builds)
        return f"{worst} of {self.about['outputs']}"


def workload_rows(result, name):
    b = Builds(result, name)
    rtts, main = result["plan"]["rtt"], main_rtt(result["plan"])
    rows = [
        ("client CPU per job above the floor, of local's", b.client_cpu, "<= 2 ms"),
        ("worker CPU, of the local compile's", b.worker_cpu, "<= 1.03"),
        ("bytes to / from the worker per job, warm", b.traffic, "<= 2 KB / outputs"),
        ("bytes to / from the worker per job, cold", lambda w: b.traffic(w, "cold"), ""),
        ("FUSE messages / round trips per job, warm",
         lambda w: b.per_job(w, ("fuse_messages", "turns")), "0 / 1"),
    ]
    for rtt in rtts:
        rows.append((f"whole warm build at {rtt} ms, of local's",
                     lambda w, r=rtt: b.build_wall(w, r), ""))
    for rtt in rtts:
        rows.append((f"one warm job at {rtt} ms, of local's",
                     lambda w, r=rtt: b.single_wall(w, r), f"<= 1.03 + {rtt} ms"))
    rows += [
        ("one warm job, client CPU above the floor", lambda w: b.single_cpu(w, main), "<= 2 ms"),
        ("one warm job, worker CPU, of local's", lambda w: b.single_worker_cpu(w, main),
         "<= 1.03"),
    ]
    for rtt in rtts:
        rows.append((f"cold build at {rtt} ms, of warm", lambda w, r=rtt: b.cold(w, r),
                     "<= 1.1" if rtt == 1 else ""))
    rows += [
        ("first build of a second session, of warm", lambda w: b.cold(w, main, "second"), ""),
        ("contents sent again in a second session, of cold", b.content_resent, "< 1 %"),
        ("all bytes to the worker in a second session, of cold", b.resent, ""),
        ("outputs identical to local's, worst build", b.identical, "all"),
    ]
    return [(f"{name}: {title}", cell, goal) for title, cell, goal in rows]


# ---- micro ----

def noop_rows(m):
    ssh = {s["rtt"]: s for s in m.get("ssh", [])}
    for n in m.get("noop", []):
        s, p, spawn = n["serial"], n["parallel"], n["spawn"]
        c, rtt, peer = n["per_job"], n["rtt"], ssh.get(n["rtt"])
        yield (f"no-op job at {rtt} ms: p50 / p99", p50_p99(s), "p50 <= 3 ms" if rtt == 0 else "",
               {"local": p50_p99(spawn), "sshfs": p50_p99(peer) if peer else NONE})
        yield (f"no-op jobs per second of client CPU at {rtt} ms: one by one / 16 at once",
               f"{1000 / s['client_cpu_ms']:.0f} / {1000 / p['client_cpu_ms']:.0f}", ">= 500",
               {"sshfs": f"{1000 / peer['client_cpu_ms']:.0f}" if peer else NONE})
        yield (f"no-op job at {rtt} ms: client / worker CPU",
               f"{s['client_cpu_ms']:.2f} / {s['worker_cpu_ms']:.2f} ms", "",
               {"local": f"{spawn['client_cpu_ms']:.2f} ms", "sshfs":
                f"{peer['client_cpu_ms']:.2f} / {peer['worker_cpu_ms']:.2f} ms" if peer else NONE})
        yield (f"no-op job at {rtt} ms: round trips, FUSE messages, bytes to / from the worker",
               f"{c['turns']:.2f}, {c['fuse_messages']:.2f}, {s['bytes_out']:.0f} / "
               f"{s['bytes_in']:.0f}", "1, 0, <= 2 KB",
               {"sshfs": f"{peer['bytes_out']:.0f} / {peer['bytes_in']:.0f}" if peer else NONE})


def p50_p99(times):
    return f"{times['p50_us'] / 1000:.2f} / {times['p99_us'] / 1000:.2f} ms"


def pool_rows(m):
    w = m["wrapper"]
    start = w["wrapped"]["p50_us"] - w["plain"]["p50_us"]
    cpu = w["wrapped"]["client_cpu_ms"] - w["plain"]["client_cpu_ms"]
    yield ("wrapper before a local command: wall p50, CPU", f"{start / 1000:.2f} ms, {cpu:.2f} ms",
           "< 1 ms")
    yield ("pool, 64 x 64: acquire + release, alone / with open and close",
           f"{m['pool']['open_us']:.0f} / {m['pool']['whole_us']:.0f} us", "<= 100 us")
    for h in m["handover"]:
        yield (f"pool: hand-over of a slot, {h['waiters']} waiting: p50 / p99", p50_p99(h),
               "< 1 ms")
    if "waiters" in m:
        x = m["waiters"]
        yield f"{x['waiting']} waiting wrappers: client CPU", f"{x['cpu_ms_per_s']:.2f} ms/s", "0"
        yield ("a waiting wrapper: peak resident / proportional size",
               f"{x['rss_kb'] / 1000:.1f} / {x['pss_kb'] / 1000:.1f} MB", "<= 2 MB")
        yield ("all of them then run a no-op job", f"{x['drain_s']:.1f} s, {x['failed']} failed",
               "0 failed")


def micro_rows(m):
    """Title, concc's cell, goal, and the cells of other ways."""
    if not m:
        return []
    rows = list(noop_rows(m)) + [r + ({},) for r in pool_rows(m)]
    rows += [r + ({},) for r in files_rows(m.get("files"))]
    return [("micro: " + r[0],) + r[1:] for r in rows]


def files_rows(f):
    if not f or "rss_kb" not in f["listed"]:
        return []
    listed, read = f["listed"], f["read"]
    return [(f"project server, {f['n']} files listed / read: resident size",
             f"{listed['rss_kb'] / 1000:.0f} / {read.get('rss_kb', 0) / 1000:.0f} MB", "<= 100 MB"),
            (f"{f['n']} files listed / read: time, bytes to the worker",
             f"{listed['wall_s']:.1f} s, {listed['bytes_out'] / 1e6:.1f} MB / "
             f"{read['wall_s']:.1f} s, {read['bytes_out'] / 1e6:.1f} MB", "")]


# ---- memory ----

# The worker's programs have one control group; whose they are their names tell.
WORKER_PROGRAMS = {"distcc": ["distccd"], "pump": ["distccd"], "icecream": ["iceccd"],
                   "sshfs": ["sshd", "sshfs"], "concc": ["sshd", "concc-worker"],
                   "concc-system": ["sshd", "concc-worker"]}


def peaks(result, way, field):
    peak = {}
    for m in result["memory"]:
        for program, kb in m.get(field, {}).items() if m["way"] == way else []:
            peak[program] = max(kb, peak.get(program, 0))
    return peak


def memory_cell(peak):
    return ", ".join(f"{p} {kb / 1000:.1f}" for p, kb in sorted(peak.items())) or NONE


def memory_rows(result):
    far = peaks(result, "worker", "worker_kb")
    yield "client: peak resident size of what stays, MB", lambda w: memory_cell(
        peaks(result, w, "client_kb"))
    yield "worker: peak resident size of what stays, MB", lambda w: memory_cell(
        {p: far[p] for p in WORKER_PROGRAMS.get(w, []) if p in far})


# ---- the table ----

def heading(result):
    plan = result["plan"]
    v = plan["versions"]
    peers = ", ".join(f"{p} {v[p]}" for p in ("distcc", "icecc", "sshfs", "openssh-server")
                      if p in v)
    lines = [f"**{v['concc']}**, commit {v['commit']}, {v['date']} UTC, "
             f"in {result.get('seconds', 0) // 60} min, load {v['load']} when it began",
             "", f"{v['cpu']}, shared by client and worker; Linux {v['kernel']}; {v['gcc']}; "
             f"{v['rustc']}; {peers}.",
             f"-j{plan['jobs']}, {plan['jobs']} slots, medians of {plan['runs']} runs; what no RTT is "
             f"named for: at {main_rtt(plan)} ms. Whole builds share the machine's cores "
             "between client and worker, so CPU and counts tell more than their wall times.",
             "", "RTT, and the shortest TCP handshake: " + ", ".join(
                 f"{rtt}: {ms:.2f} ms" for rtt, ms in result["rtt_ms"].items()) + "."]
    for name, w in result["workloads"].items():
        lines.append(f"- {name}: {w['jobs']} {w['language']} compiles, {w['about']}; the one job "
                     f"is {w['sample']}")
    lines += [f"- not measured: {name}, {why}" for name, why in plan["missing"].items()]
    lines += ["- " + n.replace("\n", " ") for n in result["notes"]]
    return lines


def line(cells):
    return "| " + " | ".join(cells) + " |"


def markdown(result):
    ways = result["plan"]["ways"]
    lines = heading(result) + ["", line(["figure"] + [TITLES[w] for w in ways] + ["goal"]),
                               "|" + "---|" * (len(ways) + 2)]
    for name in result["workloads"]:
        for title, cell, goal in workload_rows(result, name):
            lines.append(line([title] + [cell(w) for w in ways] + [goal]))
    for title, cell in memory_rows(result) if result["memory"] else []:
        lines.append(line([title] + [cell(w) for w in ways] + [""]))
    for title, cell, goal, others in micro_rows(result["micro"]):
        cells = dict(others, concc=cell)
        lines.append(line([title] + [cells.get(w, NONE) for w in ways] + [goal]))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    with open(sys.argv[1]) as f:
        print(markdown(json.load(f)))
