# SPDX-License-Identifier: Apache-2.0 OR MIT
"""What is built.  A workload has one output tree per way, so that no way sees another's commands,
and a clean build means that its outputs are removed: the rest of the tree stays as it is."""

import glob
import hashlib
import os
import re
import shlex
import shutil
import subprocess

from hosts import write_file

WS = "/srv/ws"


def run(argv, cwd, env=None):
    p = subprocess.run(argv, cwd=cwd, env=dict(os.environ, **(env or {})), stdin=subprocess.DEVNULL,
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if p.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)} in {cwd}:\n{p.stdout[-2000:]}")
    return p.stdout


def digest(path):
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


class Workload:
    rust = False
    sample = None  # the one object of "one warm job"

    def __init__(self, source, jobs, quick):
        self.source = source
        self.jobs = jobs
        self.quick = quick  # fewer objects
        self.dir = f"{WS}/{self.name}"
        self.reference = {}  # path of an output below the tree: digest of the local compile
        self.n_jobs = 0  # compiles of one build

    def tree(self, way):
        return f"{self.dir}/{way}"

    def copy_source(self):
        os.makedirs(self.dir, exist_ok=True)
        shutil.copytree(self.source, self.dir + "/source", symlinks=True)

    def outputs(self, way):
        """The objects there are, relative to the way's tree."""
        tree = self.tree(way)
        return sorted(os.path.relpath(p, tree) for p in
                      glob.glob(tree + "/**/*.o", recursive=True))

    def learn(self, way, n_jobs, log):
        """Takes the way's outputs for the right ones; log is what its build printed."""
        self.reference = {p: digest(f"{self.tree(way)}/{p}") for p in self.outputs(way)}
        self.n_jobs = n_jobs

    def identical(self, way):
        tree = self.tree(way)
        return sum(os.path.exists(f"{tree}/{p}") and digest(f"{tree}/{p}") == d
                   for p, d in self.reference.items())

    def clean_list(self, way):
        """What is removed before a build: paths below WS."""
        return [f"{self.tree(way)}/{p}" for p in self.reference]

    def single_dir(self, way):
        return self.tree(way)

    def single_outputs(self, way):
        """Removed before each: what is there already with the same bytes need not travel."""
        return [f"{self.tree(way)}/{self.sample}"]

    def remove(self):
        shutil.rmtree(self.dir, ignore_errors=True)


class Abseil(Workload):
    name, language = "abseil", "C++"
    target = "absl/strings/libabsl_strings.a"
    sample = "absl/strings/CMakeFiles/strings.dir/charconv.cc.o"

    def prepare(self):
        self.copy_source()

    def configure(self, way, launcher, env):
        os.makedirs(self.tree(way))
        run(["cmake", "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_CXX_STANDARD=17",
             "-DABSL_PROPAGATE_CXX_STD=ON", "-DBUILD_TESTING=OFF",
             "-DCMAKE_CXX_COMPILER_LAUNCHER=" + ";".join(launcher), self.dir + "/source"],
            self.tree(way), env)

    def build(self, way, launcher):
        return ["ninja", "-C", self.tree(way), f"-j{self.jobs}", self.target]

    def single(self, way, launcher):
        text = run(["ninja", "-t", "commands", self.sample], self.tree(way))
        return shlex.split(text.splitlines()[-1])

    def about(self):
        return "what libabsl_strings.a needs, -O3, CMake and Ninja"


class Linux(Workload):
    name, language = "linux", "C"
    objects = {
        "kernel/time": "hrtimer timekeeping timer posix-stubs clocksource tick-common",
        "kernel/irq": "chip handle irqdesc manage",
        "lib": "bitmap idr iov_iter maple_tree radix-tree rbtree vsprintf xarray string kobject",
        "mm": "filemap gup memory mmap page_alloc percpu rmap shmem slab_common vmalloc vmscan "
              "workingset",
        "fs": "dcache exec file inode libfs namei namespace pipe read_write splice super xattr",
    }
    sample = "mm/memory.o"

    def targets(self):
        return [f"{d}/{n}.o" for d, names in self.objects.items() for n in names.split()]

    def prepare(self):
        self.copy_source()
        os.makedirs(self.tree("made"))
        for target in ("tinyconfig", "prepare"):
            run(self.make_command("made", [], [target]), self.dir)

    def configure(self, way, launcher, env):
        shutil.copytree(self.tree("made"), self.tree(way), symlinks=True)
        # Kbuild compares commands, and CC is part of them: some is made again.
        run(self.make_command(way, launcher, ["prepare"]), self.dir, env)

    def make_command(self, way, launcher, targets):
        cc = " ".join(launcher + ["gcc"])
        return ["make", "-C", self.dir + "/source", "O=" + self.tree(way), f"-j{self.jobs}",
                "CC=" + cc, "HOSTCC=gcc"] + targets

    def outputs(self, way):
        return [t for t in self.targets() if os.path.exists(f"{self.tree(way)}/{t}")]

    def build(self, way, launcher):
        return self.make_command(way, launcher, self.targets())

    def single(self, way, launcher):
        d, name = os.path.split(self.sample)
        with open(f"{self.tree(way)}/{d}/.{name}.cmd") as f:
            line = f.readline()
        return shlex.split(re.sub(r"^(saved)?cmd_\S+ := ", "", line).split(" ; ")[0])

    def about(self):
        return "of a tinyconfig's kernel/ lib/ mm/ fs/, -Os"


class Redis(Workload):
    name, language = "redis", "C"
    objects = ("adlist quicklist ae anet dict sds zmalloc networking util object db rdb t_string "
               "t_list t_set t_hash config aof pubsub multi sort intset syncio bio rio rax bitops "
               "geo expire evict latency listpack")
    sample = "src/dict.o"
    settings = ["MALLOC=libc", "OPTIMIZATION=-O2", "DEBUG="]

    def targets(self):
        targets = [n + ".o" for n in self.objects.split()]
        return targets[:16] if self.quick else targets

    def prepare(self):
        self.copy_source()
        # The first make builds what Redis brings along, and cleans.
        run(["make", "-C", self.dir + "/source/src", f"-j{self.jobs}"] + self.settings
            + ["adlist.o"], self.dir)
        os.unlink(self.dir + "/source/src/adlist.o")

    def configure(self, way, launcher, env):
        shutil.copytree(self.dir + "/source", self.tree(way), symlinks=True)

    def outputs(self, way):
        return ["src/" + t for t in self.targets()
                if os.path.exists(f"{self.tree(way)}/src/{t}")]

    def build(self, way, launcher):
        return ["make", "-C", self.tree(way) + "/src", f"-j{self.jobs}",
                "CC=" + " ".join(launcher + ["gcc"])] + self.settings + self.targets()

    def single(self, way, launcher):
        target = os.path.basename(self.sample)
        text = run(["make", "-C", self.tree(way) + "/src", "-n", "-W", target[:-1] + "c", "V=1",
                    "CC=" + " ".join(launcher + ["gcc"])] + self.settings + [target], self.dir)
        line = [t for t in text.splitlines() if " -c " in t and target in t][-1]
        return shlex.split(line)

    def single_dir(self, way):
        return self.tree(way) + "/src"

    def about(self):
        return "of redis/src, -O2, make"


class Rust(Workload):
    name, language, rust = "rust", "Rust", True
    crates = ("regex regex-syntax memchr serde serde_derive syn quote proc-macro2 unicode-ident "
              "serde_json itoa ryu toml indexmap hashbrown autocfg")
    crate = sample = "regex_syntax"
    manifest = """[package]
name = "bench"
version = "0.1.0"
edition = "2021"

[dependencies]
regex = { version = "1", default-features = false, features = ["std", "unicode"] }
serde = { version = "1", features = ["derive"] }
serde_json = "1"
toml = "0.5"
"""
    vendored = """[source.crates-io]
replace-with = "vendored"

[source.vendored]
directory = "vendor"
"""
    main = 'fn main() {\n\tprintln!("{}", serde_json::json!({"a": 1}));\n}\n'

    def prepare(self):
        for crate in self.crates.split():
            for path in glob.glob(f"{self.source}/{crate}-[0-9]*"):
                shutil.copytree(path, f"{self.dir}/vendor/{os.path.basename(path)}")
        write_file(self.dir + "/Cargo.toml", self.manifest)
        write_file(self.dir + "/.cargo/config.toml", self.vendored)
        write_file(self.dir + "/src/main.rs", self.main)

    def configure(self, way, launcher, env):
        os.makedirs(self.tree(way), exist_ok=True)

    def learn(self, way, n_jobs, log):
        super().learn(way, n_jobs, log)
        line = re.search(r"`\S+ (rustc --crate-name " + self.crate + r" .*)`", log).group(1)
        self.single_command = [a.replace(self.tree(way), "@TREE@") for a in shlex.split(line)]

    def single(self, way, launcher):
        return launcher + [a.replace("@TREE@", self.tree(way)) for a in self.single_command]

    def single_outputs(self, way):
        return glob.glob(f"{self.tree(way)}/debug/deps/*{self.crate}-*")

    def single_dir(self, way):
        return glob.glob(f"{self.dir}/vendor/{self.crate.replace('_', '-')}-[0-9]*")[0]

    def build(self, way, launcher):
        return ["env", "CARGO_TARGET_DIR=" + self.tree(way),
                "RUSTC_WRAPPER=" + (launcher[0] if launcher else ""),
                "CARGO_INCREMENTAL=0",
                "cargo", "build", "--offline", "-v", f"-j{self.jobs}",
                "--manifest-path", self.dir + "/Cargo.toml"]

    def outputs(self, way):
        tree = self.tree(way)
        return sorted(os.path.relpath(p, tree) for p in
                      glob.glob(tree + "/debug/deps/*.rlib") + glob.glob(tree + "/debug/deps/*.so"))

    def clean_list(self, way):
        return [self.tree(way) + "/debug"]

    def about(self):
        return "crates of Debian's librust packages, debug profile, cargo"


ALL = {w.name: w for w in (Abseil, Linux, Redis, Rust)}
