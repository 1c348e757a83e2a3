# concc: distributed compilation for every language.
# `make` builds, `make demo` shows it at work, `make check` tests it; `make help` lists the rest.

VERSION = 0.1.0

PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
DATADIR ?= $(PREFIX)/share
MANDIR ?= $(PREFIX)/share/man
SYSCONFDIR ?= $(PREFIX)/etc
DESTDIR ?=
INSTALL ?= install
PKG_CONFIG ?= pkg-config
AR ?= ar
OBJCOPY ?= objcopy
B ?= build

# Neither what installs nor what is compiled in could quote them everywhere.
$(foreach d,B DESTDIR PREFIX BINDIR DATADIR MANDIR,\
	$(if $(filter-out 1,$(words x$($(d))x)),$(error $(d)="$($(d))" has a blank: choose a path without)))

# CFLAGS and LDFLAGS are the user's; ours stand beside them.
CFLAGS ?= -O2 -g
C_STD = -std=gnu11 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -Iinclude -DCONCC_VERSION='"$(VERSION)"' \
	-DCONCC_DATADIR='"$(DATADIR)/concc"' -pthread
C_WARN = -Wall -Wextra -Wno-unused-parameter -Wstrict-prototypes -Wmissing-prototypes \
	-Wpointer-arith -Wvla -Wwrite-strings -Wno-missing-field-initializers
ifeq ($(DEVELOPER),1)
C_WARN += -Werror
endif
ifneq ($(SANITIZE),)
C_SAN = -fsanitize=$(SANITIZE) -fno-sanitize-recover=all -fno-omit-frame-pointer
endif
ifneq ($(COVERAGE),)
C_SAN += --coverage
endif
# How the sanitizers behave in our programs, which a build starts with an environment of its own.
ifneq ($(SANITIZE),)
SAN_OBJ = $(B)/test/sanitize/options.o
SAN_UNIT_OBJ = $(B)/test/sanitize/unit.o
$(SAN_OBJ) $(SAN_UNIT_OBJ): C_SAN =
endif
ALL_CFLAGS = $(C_STD) $(C_WARN) $(C_SAN) $(CFLAGS)
ALL_LDFLAGS = -pthread -Wl,--as-needed $(C_SAN) $(LDFLAGS)

ifeq ($(V),1)
Q =
say = @:
else
Q = @
say = @printf '  %-7s %s\n'
endif

pc-cflags = $(shell $(PKG_CONFIG) --cflags $(1) 2>/dev/null)
pc-libs = $(shell $(PKG_CONFIG) --libs $(1) 2>/dev/null)
pc-static-libs = $(shell $(PKG_CONFIG) --static --libs $(1) 2>/dev/null)

FUSE_CFLAGS := $(call pc-cflags,fuse3)
FUSE_LIBS := $(call pc-libs,fuse3)
SSH_CFLAGS := $(call pc-cflags,libssh2)
SSH_LIBS := $(call pc-libs,libssh2)
INIH_CFLAGS := $(call pc-cflags,inih)
INIH_LIBS := $(call pc-libs,inih)
LZ4_CFLAGS := $(call pc-cflags,liblz4)
LZ4_LIBS := $(call pc-libs,liblz4)
ZSTD_CFLAGS := $(call pc-cflags,libzstd)
ZSTD_LIBS := $(call pc-libs,libzstd)
JANSSON_CFLAGS := $(call pc-cflags,jansson)
JANSSON_LIBS := $(call pc-libs,jansson)
NCURSES_CFLAGS := $(call pc-cflags,ncursesw)
NCURSES_LIBS := $(call pc-libs,ncursesw)
CURL_CFLAGS := $(call pc-cflags,libcurl)
CURL_LIBS := $(call pc-libs,libcurl)
CRYPTO_CFLAGS := $(call pc-cflags,libcrypto)
CRYPTO_LIBS := $(call pc-libs,libcrypto)

# One archive per folder.  A library's flags reach the one folder that uses its header.
FOLDERS = common loop conf proto record schedule job pool link digest cache tree project doctor mirror sandbox worker plain wrapper view front
$(B)/src/mirror/%.o: EXTRA_CFLAGS = $(FUSE_CFLAGS)
$(B)/src/link/%.o: EXTRA_CFLAGS = $(SSH_CFLAGS) $(LZ4_CFLAGS) $(ZSTD_CFLAGS)
$(B)/src/conf/%.o: EXTRA_CFLAGS = $(INIH_CFLAGS)
$(B)/src/project/%.o $(B)/src/worker/%.o $(B)/src/front/%.o $(B)/src/doctor/%.o: EXTRA_CFLAGS = $(JANSSON_CFLAGS)
$(B)/src/view/%.o: EXTRA_CFLAGS = $(JANSSON_CFLAGS) $(NCURSES_CFLAGS)
$(B)/src/digest/%.o: EXTRA_CFLAGS = $(CRYPTO_CFLAGS)
$(B)/src/cache/%.o: EXTRA_CFLAGS = $(CURL_CFLAGS)

PROGRAMS = concc-cc concc-dispatch concc-scriptify concc-worker-pool concc-project concc-worker concc-plain concc

# Archives in link order: whoever needs comes before what it needs.
libs = $(foreach f,$(1),$(B)/lib$(f).a)
LIBS_concc-cc = $(call libs,wrapper record job pool schedule proto common)
LIBS_concc-dispatch = $(LIBS_concc-cc)
LIBS_concc-scriptify = $(LIBS_concc-cc)
LIBS_concc-worker-pool = $(call libs,pool schedule common)
LIBS_concc-project = $(call libs,doctor project tree cache link loop conf record job pool schedule proto digest common)
LIBS_concc-worker = $(call libs,worker sandbox mirror link loop conf job pool schedule proto digest common)
LIBS_concc-plain = $(call libs,plain link loop job proto digest common)
LIBS_concc = $(call libs,front view wrapper cache record conf job pool schedule proto digest common)
# Started thousands of times: without a dynamic loader they cost a fifth less.  STATIC= turns it off.
ifeq ($(SANITIZE)$(COVERAGE),)
STATIC ?= -static
endif
SYS_concc-cc = $(STATIC)
SYS_concc-dispatch = $(STATIC)
# And without glibc's start, which asks the processor for its caches: in a virtual machine each cpuid
# goes to the hypervisor, so that a program which does nothing takes 0.7 ms of CPU time, with musl 0.15.
# WRAPPER_CC= builds them as all others.
ifeq ($(origin WRAPPER_CC) $(STATIC),undefined -static)
WRAPPER_CC := $(if $(filter $(shell musl-gcc -dumpmachine 2>/dev/null),$(shell $(CC) -dumpmachine)),musl-gcc)
endif
ifneq ($(WRAPPER_CC),)
WRAPPERS = concc-cc concc-dispatch
$(foreach p,$(WRAPPERS),$(eval CC_$(p) = $(WRAPPER_CC)))
$(foreach p,$(WRAPPERS),$(eval IN_$(p) = musl/))
LIBS_concc-cc := $(LIBS_concc-cc:$(B)/%=$(B)/musl/%)
LIBS_concc-dispatch := $(LIBS_concc-cc)
endif
SYS_concc-project = $(JANSSON_LIBS) $(CURL_LIBS) $(SSH_LIBS) $(INIH_LIBS) $(LZ4_LIBS) $(ZSTD_LIBS) $(CRYPTO_LIBS) -lm
# One file to copy: it runs on any distribution of the architecture, with whatever C library.  What the
# linker warns of are look-ups by name that the worker never makes (a home directory without HOME).
ifneq ($(STATIC),)
SYS_concc-worker = $(STATIC) -Wl,--no-warnings $(call pc-static-libs,fuse3 liblz4 libzstd jansson libcrypto inih)
# A quarter of it is for debuggers only, and not for the wire: that goes where gdb looks for it, bin/.debug.
# There is no other copy with symbols, since by its hash a host is known to have it already.
DEBUG_concc-worker = $(B)/bin/.debug/concc-worker.debug
else
SYS_concc-worker = $(FUSE_LIBS) $(INIH_LIBS) $(LZ4_LIBS) $(ZSTD_LIBS) $(JANSSON_LIBS) $(CRYPTO_LIBS)
endif
SYS_concc-plain = $(SSH_LIBS) $(LZ4_LIBS) $(ZSTD_LIBS) $(CRYPTO_LIBS)
SYS_concc = $(JANSSON_LIBS) $(NCURSES_LIBS) $(INIH_LIBS) $(CRYPTO_LIBS)

all: $(PROGRAMS:%=$(B)/bin/%)

# Of folder $(1), below $(B)/$(2).
folder-objs = $(patsubst %.c,$(B)/$(2)%.o,$(wildcard src/$(1)/*.c))
define archive-rule
$(B)/$(2)lib$(1).a: $(call folder-objs,$(1),$(2))
	$$(say) AR $$@
	$$(Q)rm -f $$@ && $$(AR) rcs $$@ $$^
endef
$(foreach f,$(FOLDERS),$(eval $(call archive-rule,$(f))))
$(foreach f,$(FOLDERS),$(eval $(call archive-rule,$(f),musl/)))

# Beside it and renamed: a build may be using the one that is replaced, and a shell that is told to run
# a file which the linker has only begun takes it for an empty script.
define program-rule
$(B)/bin/$(1): $(B)/$$(IN_$(1))src/cli/$(1).o $$(SAN_OBJ) $$(LIBS_$(1))
	$$(say) LINK $$@
	@mkdir -p $$(@D)
	$$(Q)$$(or $$(CC_$(1)),$$(CC)) $$(ALL_LDFLAGS) -o $$@.new $$^ $$(SYS_$(1)) $$(call split-debug,$$(DEBUG_$(1)),$$@.new) && \
		mv $$@.new $$@
endef
split-debug = $(if $(1),&& mkdir -p $(dir $(1)) && $(OBJCOPY) --only-keep-debug $(2) $(1) && chmod 644 $(1) && \
	$(OBJCOPY) --strip-all --add-gnu-debuglink=$(1) $(2))
$(foreach p,$(PROGRAMS),$(eval $(call program-rule,$(p))))

$(B)/%.o: %.c Makefile
	$(say) CC $<
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $(EXTRA_CFLAGS) -MMD -MP -c -o $@ $<

# musl comes without the kernel's headers.
KERNEL_HEADERS = linux/stat.h asm/unistd.h asm-generic/types.h
$(B)/musl/include: Makefile
	@mkdir -p $@
	$(Q)for h in $(KERNEL_HEADERS); do \
		at=$$(echo "#include <$$h>" | $(CC) -M -x c - | tr ' ' '\n' | grep "/$$h$$") && \
			ln -sfn "$${at%/*}" "$@/$${h%/*}" || exit 1; \
	done
	@touch $@

$(B)/musl/%.o: %.c Makefile | $(B)/musl/include
	$(say) CC $<
	@mkdir -p $(@D)
	$(Q)$(WRAPPER_CC) $(ALL_CFLAGS) -isystem $(B)/musl/include -MMD -MP -c -o $@ $<

# Has these files in it, as they are.
$(B)/src/view/assets.o: $(addprefix src/view/report.,html css js)

# Where it is to be installed is compiled in here, so another PREFIX makes it anew.
$(B)/src/sandbox/refusal.o: $(B)/installed-paths
$(B)/installed-paths: FORCE
	@mkdir -p $(@D)
	@echo '$(DATADIR)' | cmp -s - $@ || echo '$(DATADIR)' >$@
FORCE:

# ---- what must be there first ----

# ssh itself, whose configuration and known hosts are asked for, is what it needs to run.
DEPS = gcc g++ make pkg-config libssh2-1-dev libfuse3-dev libinih-dev liblz4-dev libzstd-dev libssl-dev \
	libcurl4-openssl-dev libjansson-dev libncurses-dev openssh-client musl-tools
TEST_DEPS = $(DEPS) libcriterion-dev openssh-server mandoc iproute2 util-linux procps \
	strace python3 perl jq ninja-build cmake clang dpkg-dev git slurmctld slurmd slurm-client munge \
	sshfs podman catatonit runc netavark lintian rpm debhelper zsh fish man-db binutils lld patch acl attr ccache nginx-light chromium tmux openssl protobuf-compiler clang-format clang-tidy cppcheck shellcheck libclang-rt-14-dev mmdebstrap
# Only where the machine has no Rust of its own.
ifeq ($(shell command -v cargo 2>/dev/null),)
TEST_DEPS += cargo rustc
endif
# What the rows of `make first-try` need besides: 3 GB.
FIRST_TRY_DEPS = autoconf automake libtool meson debhelper flex bison bc libelf-dev linux-source-6.1 linux-headers-amd64 \
	gcc-aarch64-linux-gnu libc6-dev-arm64-cross gfortran gnat golang-go ghc ocaml-nox kotlin openjdk-17-jdk-headless \
	imagemagick texlive-latex-base latexmk ruby php-cli qtbase5-dev-tools librust-cc-dev python3-dev python3-setuptools python3-wheel python3-pip \
	nasm yasm ldc gdc gcc-avr avr-libc valac nim scons qt5-qmake premake4 libboost-tools-dev ocaml-dune verilator r-base-core bear swig \
	elixir scala ant octave fp-compiler python3-sphinx doxygen sccache distcc python3-pytest cython3 esbuild tox maven
# Others' packages of Node.js have npm and the headers; Debian's have parts.
ifeq ($(wildcard /usr/include/node/node_api.h),)
FIRST_TRY_DEPS += nodejs npm libnode-dev
endif
FIRST_TRY_DEPS += node-typescript

# And crates for the cargo workspaces of bench/.
BENCH_DEPS = librust-clap-dev librust-clap-derive-dev librust-futures-dev librust-itertools-dev librust-nom-dev \
	librust-rayon-dev librust-regex-dev librust-serde-dev librust-serde-derive-dev librust-serde-json-dev \
	librust-thiserror-dev librust-toml-dev librust-url-dev
# And those of `make check-kubernetes`.
KUBERNETES_DEPS = golang-1.19-go dpkg-dev runc openssl jq iproute2 gcc libc6-dev

# Asks for nothing, and touches nothing when all is there.
define install-missing
@missing=$$(dpkg-query -W -f '$${db:Status-Abbrev} $${Package}\n' $(1) 2>/dev/null | \
	awk '$$1 ~ /^.i/ { print $$NF }' | sort -u > $(B)/.installed; \
	printf '%s\n' $(1) | sort -u | comm -23 - $(B)/.installed | tr '\n' ' '); \
if [ -n "$$missing" ]; then \
	echo "Installing from Debian's packages: $$missing"; \
	if [ "$$(id -u)" = 0 ]; then sudo=; else sudo=sudo; fi; \
	log=$(B)/apt.log; \
	if ! { $$sudo apt-get update && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y \
		--no-install-recommends $$missing; } > $$log 2>&1; then \
		tail -n 20 $$log; echo "concc: these packages could not be installed; see $$log"; exit 1; \
	fi; \
fi
endef

deps:
	@mkdir -p $(B)
	$(call install-missing,$(DEPS))

test-deps:
	@mkdir -p $(B)
	$(call install-missing,$(TEST_DEPS))

bench-deps: test-deps
	$(call install-missing,$(BENCH_DEPS))

# The second make reads what pkg-config says now that the packages are there.
demo: deps
	$(Q)$(MAKE) --no-print-directory all
	$(Q)test/demo $(B)

# ---- tests ----

UNIT_TESTS = $(patsubst test/unit/%.c,$(B)/test/unit/%,$(wildcard test/unit/test_*.c))
ALL_ARCHIVES = $(call libs,front view plain worker sandbox doctor project tree cache wrapper mirror link loop conf record job pool schedule proto digest common)
UNIT_LIBS = $(ALL_ARCHIVES)
ifneq ($(TEST),)
UNIT_TESTS := $(TEST:%=$(B)/test/unit/test_%)
UNIT_LIBS := $(call libs,$(shell test/folders-of $(TEST:%=test/unit/test_%.c)))
endif
ALL_LIBS = $(FUSE_LIBS) $(JANSSON_LIBS) $(CURL_LIBS) $(NCURSES_LIBS) $(SSH_LIBS) $(INIH_LIBS) $(LZ4_LIBS) $(ZSTD_LIBS) $(CRYPTO_LIBS) -lm
$(B)/test/%.o: EXTRA_CFLAGS = -Isrc
$(B)/test/unit/%.o: EXTRA_CFLAGS = $(call pc-cflags,criterion) -Isrc
$(B)/test/unit/%: $(B)/test/unit/%.o $(B)/test/unit/forked.o $(SAN_UNIT_OBJ) $(UNIT_LIBS)
	$(say) LINK $@
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $< $(B)/test/unit/forked.o $(SAN_UNIT_OBJ) -Wl,--start-group $(UNIT_LIBS) -Wl,--end-group \
		$(call pc-libs,criterion) $(ALL_LIBS)

# Small programs that the tests run: one C file each.
TEST_HELPERS = $(patsubst %.c,$(B)/%,$(wildcard test/lib/*.c test/hostile/*.c test/first-try/*.c test/records/*.c test/slowfs/*.c))
$(TEST_HELPERS): $(B)/test/%: $(B)/test/%.o $(SAN_OBJ) $(ALL_ARCHIVES)
	$(say) LINK $@
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $< $(SAN_OBJ) -Wl,--start-group $(ALL_ARCHIVES) -Wl,--end-group $(ALL_LIBS)

# Fuzz targets, built as programs that replay files; `make fuzz` builds them with libFuzzer.
FUZZ = $(patsubst test/fuzz/fuzz_%.c,%,$(wildcard test/fuzz/fuzz_*.c))
FUZZ_SECONDS ?= 60
$(B)/test/fuzz/fuzz_%: $(B)/test/fuzz/fuzz_%.o $(B)/test/fuzz/replay.o $(ALL_ARCHIVES)
	$(say) LINK $@
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $< $(B)/test/fuzz/replay.o -Wl,--start-group $(ALL_ARCHIVES) \
		-Wl,--end-group $(ALL_LIBS)

fuzz: test-deps
	$(Q)$(MAKE) --no-print-directory B=$(B)/fuzz CC=clang \
		SANITIZE=address,undefined,fuzzer-no-link fuzz-run

fuzz-run: $(ALL_ARCHIVES) $(FUZZ:%=$(B)/test/fuzz/fuzz_%.o)
	$(Q)for t in $(FUZZ); do \
		$(CC) $(ALL_LDFLAGS) -fsanitize=fuzzer -o $(B)/test/fuzz/fuzz_$$t $(B)/test/fuzz/fuzz_$$t.o \
			-Wl,--start-group $(ALL_ARCHIVES) -Wl,--end-group $(ALL_LIBS) || exit 1; \
		mkdir -p $(B)/corpus/$$t; \
		$(B)/test/fuzz/fuzz_$$t -max_total_time=$(FUZZ_SECONDS) -timeout=10 $(B)/corpus/$$t \
			test/fuzz/corpus/$$t || exit 1; \
	done

# A project server of another version of the protocol, for those who meet one after an upgrade.
ifeq ($(OTHER),)
$(B)/test/other/bin/concc-project: $(B)/bin/concc-project
	$(Q)$(MAKE) --no-print-directory B=$(B)/test/other CFLAGS='-O0 -DPROTO_VERSION=9999' OTHER=1 $@
endif

test-programs: all $(B)/test/other/bin/concc-project $(UNIT_TESTS) $(TEST_HELPERS) $(FUZZ:%=$(B)/test/fuzz/fuzz_%)

# Everything, and one line at the end: N passed, N failed, N skipped.
check: test-deps
	$(Q)$(MAKE) --no-print-directory -j$$(nproc) test-programs
	$(Q)$(MAKE) --no-print-directory -j$$(nproc) B=$(B)/asan $(ASAN_FLAGS) sanitized-programs
	$(Q)$(MAKE) --no-print-directory -j$$(nproc) B=$(B)/tsan $(TSAN_FLAGS) all
	$(Q)CONCC_BUILD=$(abspath $(B)) CONCC_SANITIZED='$(SANITIZED)' CONCC_RACES='build-lua fd-leak stop' \
		test/run-all

# What `make check` runs with ASan and UBSan too, besides the fuzzers' inputs: decoders, and what
# decides by them.  The others take longer: check-sanitize-unit has them all.
SANITIZED ?= announce cache caller commit conf env hash_cache home host_slots input link loop map missing output plain \
	names policy push script shown store str verdict workspace
ASAN_FLAGS = SANITIZE=address,undefined CFLAGS='-O1 -g'
sanitized-programs: $(SANITIZED:%=$(B)/test/unit/test_%) $(FUZZ:%=$(B)/test/fuzz/fuzz_%)

# TEST=policy: that one alone, with no more built than it needs.
check-unit: test-deps
	$(Q)$(MAKE) --no-print-directory $(if $(TEST),$(UNIT_TESTS),test-programs)
	$(Q)test/run-unit $(UNIT_TESTS)

# Tests once more, with what only a sanitizer sees: unit tests, the fuzzers' inputs, and those of the
# integration tests that SANITIZE_TESTS names.
SANITIZE_TESTS ?= lab build-lua root-client hostile-worker hostile-client faults-worker
check-sanitize: check-sanitize-unit
	$(Q)CONCC_BUILD=$(abspath $(B))/asan test/run-integration \
		$(SANITIZE_TESTS:%=test/integration/%.sh)

check-sanitize-unit: test-deps
	$(Q)$(MAKE) --no-print-directory -j$$(nproc) B=$(B)/asan $(ASAN_FLAGS) sanitize-run

sanitize-run: test-programs
	$(Q)test/run-unit $(UNIT_TESTS)
	$(Q)for t in $(FUZZ); do \
		ASAN_OPTIONS=abort_on_error=1 $(B)/test/fuzz/fuzz_$$t test/fuzz/corpus/$$t || exit 1; done

# Threads have races of their own.  Criterion dies under TSan, so it is the programs themselves that
# run with it: `make check` has two of these tests.
RACES_TESTS ?= build-lua cargo coherence exit-codes fd-leak stop
check-races: test-deps
	$(Q)$(MAKE) --no-print-directory -j$$(nproc) B=$(B)/tsan $(TSAN_FLAGS) all
	$(Q)CONCC_BUILD=$(abspath $(B))/tsan test/run-integration $(RACES_TESTS:%=test/integration/%.sh)

TSAN_FLAGS = SANITIZE=thread CFLAGS='-O1 -g'

.PHONY: sanitized-programs check-sanitize check-sanitize-unit sanitize-run check-races

check-integration: test-deps
	$(Q)$(MAKE) --no-print-directory $(if $(TEST),all $(TEST_HELPERS),test-programs)
	$(Q)CONCC_BUILD=$(abspath $(B)) test/run-integration $(TEST:%=test/integration/%.sh)

# The tests that take an hour or more, longer than in `make check`.
SOAK_BUILDS ?= 50
SOAK_STEPS ?= 100000
SOAK_PRINTS ?= 20000
SOAK_ROUNDS ?= 180m
soak: test-deps
	$(Q)$(MAKE) --no-print-directory test-programs
	$(Q)CONCC_BUILD=$(abspath $(B)) CONCC_TEST_SOAK=1 CONCC_CHAOS_BUILDS=$(SOAK_BUILDS) \
		test/run-integration test/integration/chaos.sh
	$(Q)CONCC_BUILD=$(abspath $(B)) CONCC_TEST_SOAK=1 STEPS=$(SOAK_STEPS) CONCC_TEST_ONLY=random \
		test/run-integration test/integration/coherence.sh
	$(Q)CONCC_BUILD=$(abspath $(B)) CONCC_TEST_SOAK=1 STEPS=$(SOAK_PRINTS) \
		test/run-integration test/integration/printing.sh
	$(Q)CONCC_BUILD=$(abspath $(B)) CONCC_TEST_SOAK=1 STEPS=$$(($(SOAK_STEPS) / 10)) ROUNDS=10 \
		test/run-integration test/integration/cache-any-model.sh
	$(Q)CONCC_BUILD=$(abspath $(B)) CONCC_TEST_SOAK=1 ROUNDS=$$(($(SOAK_STEPS) / 500)) \
		test/run-integration test/integration/cache-races.sh
	$(Q)CONCC_BUILD=$(abspath $(B)) CONCC_TEST_SOAK=1 CONCC_DAYS_ROUNDS=$(SOAK_ROUNDS) \
		test/run-integration test/integration/days.sh

# What a person tries first, with every language: needs large packages and a quarter of an hour.
first-try: test-deps
	$(call install-missing,$(FIRST_TRY_DEPS))
	$(Q)$(MAKE) --no-print-directory test-programs
	$(Q)CONCC_BUILD=$(abspath $(B)) CONCC_TEST_LONG=1 test/integration/first-try.sh --page $(CURDIR)/doc/first-try.md

# The images of docker/: needs a network, and minutes.
check-images: test-deps
	$(Q)$(MAKE) --no-print-directory all
	$(Q)test/images

# examples/kubernetes on a node that is brought up here: needs root, and at first a network, 3 GB and a quarter of an
# hour; what it made stays in $CONCC_TEST_KUBERNETES, or build/kubernetes.
check-kubernetes: test-deps
	$(call install-missing,$(KUBERNETES_DEPS))
	$(Q)$(MAKE) --no-print-directory all
	$(Q)test/kubernetes/check

# Against the other ways to compile elsewhere; see bench/README.md.  Needs root, and most of an hour.
# BENCH: options of bench/run.
bench: bench-deps
	$(Q)$(MAKE) --no-print-directory all $(TEST_HELPERS)
	$(Q)bench/run $(BENCH)

# ---- code quality ----

C_FILES = $(wildcard src/*/*.[ch] include/concc/*.h test/*/*.[ch] bench/*.[ch])

format: test-deps
	clang-format -i $(C_FILES)

format-check: test-deps
	clang-format --dry-run -Werror $(C_FILES)

lint: man-lint
	$(Q)$(MAKE) --no-print-directory lint-run

lint-run: all
	$(Q)ARCHIVES="$(call libs,$(FOLDERS))" CC="$(CC)" CFLAGS="$(C_STD) $(FUSE_CFLAGS) $(JANSSON_CFLAGS) $(NCURSES_CFLAGS)" test/lint

man-lint: test-deps
	$(Q)mandoc -T lint -W warning $(wildcard man/*.[1-8])

# What gcov says of files that it can't write to from within a sandbox fails tests of what jobs say.
coverage:
	$(Q)$(MAKE) --no-print-directory B=$(B)/coverage COVERAGE=1 CFLAGS='-O0 -g' check-unit || \
		echo 'concc: coverage of those tests that passed:'
	$(Q)cd $(B)/coverage && find . -name '*.gcda' -path '*/src/*' -exec gcov -n {} + | \
		awk '/^File .src/ { f = $$2 } /^Lines/ && f { print $$2, f; f = "" }'

# ---- installing ----

MAN_PAGES = $(wildcard man/*.[1-8])

# Where each shell looks by itself.
COMPLETIONS = $(addprefix $(DESTDIR)$(DATADIR)/,bash-completion/completions/concc zsh/site-functions/_concc \
	fish/vendor_completions.d/concc.fish)

# For `man -k`; a package's files are indexed when it is installed.
define index-manual
$(if $(DESTDIR),,@if command -v mandb >/dev/null; then mandb -q $(MANDIR) 2>/dev/null || true; fi)
endef

install: all
	$(INSTALL) -d $(DESTDIR)$(BINDIR)
	$(INSTALL) -m 755 $(PROGRAMS:%=$(B)/bin/%) $(DESTDIR)$(BINDIR)
	$(INSTALL) -d $(DESTDIR)$(DATADIR)/concc/apparmor
	sed 's|@BINDIR@|$(BINDIR)|' dist/apparmor/concc-worker >$(DESTDIR)$(DATADIR)/concc/apparmor/concc-worker
	$(INSTALL) -d $(dir $(COMPLETIONS))
	for c in $(COMPLETIONS); do case $$c in \
		*/_concc) f=zsh ;; *.fish) f=fish ;; *) f=bash ;; esac; \
		$(INSTALL) -m 644 dist/completions/concc.$$f $$c || exit 1; done
	for m in $(MAN_PAGES); do d=$(DESTDIR)$(MANDIR)/man$${m##*.}; \
		$(INSTALL) -d $$d && $(INSTALL) -m 644 $$m $$d || exit 1; done
	$(index-manual)

uninstall:
	rm -f $(PROGRAMS:%=$(DESTDIR)$(BINDIR)/%)
	rm -rf $(DESTDIR)$(DATADIR)/concc
	rm -f $(COMPLETIONS)
	for m in $(MAN_PAGES); do \
		rm -f $(DESTDIR)$(MANDIR)/man$${m##*.}/$${m##*/}; done
	$(index-manual)
	@find $(DESTDIR)$(MANDIR) -name '*.[1-8]*' -type f 2>/dev/null | grep -q . || \
		rm -f $(DESTDIR)$(MANDIR)/index.db $(DESTDIR)$(MANDIR)/CACHEDIR.TAG

DIST = $(B)/concc-$(VERSION).tar.gz
dist:
	@mkdir -p $(B)
	git archive --prefix=concc-$(VERSION)/ -o $(DIST) HEAD

# The archive builds; what it builds installs, elsewhere than it was built for, works, and goes again.
distcheck: deps dist
	$(Q)d=$$(mktemp -d) && trap 'rm -rf "$$d"' EXIT && tar -xzf $(DIST) -C $$d && \
		$(MAKE) -C $$d/concc-$(VERSION) all && test/installed $$d/concc-$(VERSION)

# ---- packages ----

# Whose packages they are.
PACKAGER ?= The concc authors <concc@example.org>
empty =
blank = $(empty) $(empty)
comma = ,
# The sources of the last commit, with what is in dist/debian filled in.
DEB = $(B)/deb/concc-$(VERSION)
deb:
	@mkdir -p $(B)
	$(call install-missing,$(DEPS) git dpkg-dev debhelper)
	$(Q)rm -rf $(B)/deb && mkdir -p $(B)/deb && git archive --prefix=concc-$(VERSION)/ HEAD | tar -x -C $(B)/deb
	$(Q)cp -a $(DEB)/dist/debian $(DEB)/debian && cd $(DEB)/debian && \
		sed -i 's/@DEPS@/$(subst $(blank),$(comma) ,$(strip $(filter-out gcc g++ make,$(DEPS))))/' control && \
		sed -i 's/@PACKAGER@/$(PACKAGER)/' control changelog && \
		sed -i "s/@VERSION@/$(VERSION)/; s/@DATE@/$$(git -C $(CURDIR) log -1 --format=%aD)/" changelog && \
		sed -n '/^Permission/,$$p' ../LICENSE-MIT | sed 's/^$$/./; s/^/ /' >mit && \
		sed -i -e '/@MIT@/{r mit' -e 'd}' copyright && rm mit
	$(Q)cd $(DEB) && env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL -u B dpkg-buildpackage -b -us -uc >../log 2>&1 || \
		{ tail -n 30 ../log; exit 1; }
	@ls $(B)/deb/*.deb

# For distributions with RPMs; rpmbuild of any distribution.  Where packages are of another kind, rpm knows
# of none that is installed.
RPM_STATIC ?=
rpm: dist
	$(if $(shell command -v dpkg-query),$(call install-missing,$(DEPS) git rpm))
	$(Q)rm -rf $(B)/rpm && mkdir -p $(B)/rpm/SOURCES && cp $(DIST) $(B)/rpm/SOURCES/
	$(Q)sed 's/@VERSION@/$(VERSION)/; s/@STATIC@/$(RPM_STATIC)/' dist/concc.spec >$(B)/rpm/concc.spec
	$(Q)nodeps=$$(rpm -q rpm >/dev/null 2>&1 || echo --nodeps); \
		env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL -u B rpmbuild -bb $$nodeps $(RPMFLAGS) --define '_topdir $(abspath $(B))/rpm' \
		$(B)/rpm/concc.spec >$(B)/rpm/log 2>&1 || { tail -n 30 $(B)/rpm/log; exit 1; }
	@ls $(B)/rpm/RPMS/*/*.rpm

clean:
	rm -rf $(B)

help:
	@echo 'make                build into $(B)/bin'
	@echo 'make demo           install what is missing, build, and watch concc build itself on workers'
	@echo 'make check          install what the tests need and run them all'
	@echo 'make soak           what takes hours: SOAK_BUILDS=$(SOAK_BUILDS) SOAK_STEPS=$(SOAK_STEPS) SOAK_PRINTS=$(SOAK_PRINTS) SOAK_ROUNDS=$(SOAK_ROUNDS)'
	@echo 'make first-try      what a person tries first, with every language, into doc/first-try.md'
	@echo 'make bench          measure against distcc, icecream and sshfs (bench/README.md)'
	@echo 'make check-unit TEST=policy, check-integration TEST=counts    one or more of them'
	@echo 'make check-unit, check-integration, check-images, check-kubernetes, check-sanitize, check-races, fuzz, lint, man-lint, format, format-check, coverage'
	@echo 'make deb, rpm       packages: client, worker, documents'
	@echo 'make install, uninstall, dist (into $(B)), distcheck, clean'
	@echo 'V=1 shows commands; DEVELOPER=1 makes warnings errors; SANITIZE=address,undefined'
	@echo 'PREFIX=$(PREFIX) DESTDIR= B=$(B)'

.PHONY: deb rpm check-images check-kubernetes first-try all deps test-deps bench-deps demo test-programs check check-unit check-integration soak fuzz fuzz-run bench \
	format format-check lint lint-run man-lint coverage install uninstall dist distcheck clean help FORCE
.SECONDARY:
-include $(shell [ -d $(B) ] && find $(B) \( -path $(B)/examples -o -path $(B)/deb -o -path $(B)/rpm \) -prune -o \
	-type f -name '*.d' -print)
