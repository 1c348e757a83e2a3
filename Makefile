# concc: distributed compilation for every language.
# `make` builds, `make demo` shows it at work, `make check` tests it; `make help` lists the rest.

VERSION = 0.1.0

PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
LIBEXECDIR ?= $(PREFIX)/libexec
MANDIR ?= $(PREFIX)/share/man
SYSCONFDIR ?= $(PREFIX)/etc
DESTDIR ?=
INSTALL ?= install
PKG_CONFIG ?= pkg-config
AR ?= ar
B ?= build

# CFLAGS and LDFLAGS are the user's; ours stand beside them.
CFLAGS ?= -O2 -g
C_STD = -std=gnu11 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -Iinclude -DCONCC_VERSION='"$(VERSION)"' \
	-DCONCC_LIBEXECDIR='"$(LIBEXECDIR)/concc"' -pthread
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

FUSE_CFLAGS := $(call pc-cflags,fuse3)
FUSE_LIBS := $(call pc-libs,fuse3)
SSH_CFLAGS := $(call pc-cflags,libssh2)
SSH_LIBS := $(call pc-libs,libssh2)
INIH_CFLAGS := $(call pc-cflags,inih)
INIH_LIBS := $(call pc-libs,inih)
LZ4_CFLAGS := $(call pc-cflags,liblz4)
LZ4_LIBS := $(call pc-libs,liblz4)
JANSSON_CFLAGS := $(call pc-cflags,jansson)
JANSSON_LIBS := $(call pc-libs,jansson)
CRYPTO_CFLAGS := $(call pc-cflags,libcrypto)
CRYPTO_LIBS := $(call pc-libs,libcrypto)

# Test helpers, one C file each.
TEST_HELPERS = $(patsubst test/lib/%.c,$(B)/test/lib/%,$(wildcard test/lib/*.c))

# One archive per folder.  A library's flags reach the one folder that uses its header.
FOLDERS = common loop conf proto job pool link digest project mirror worker wrapper front
$(B)/src/mirror/%.o: EXTRA_CFLAGS = $(FUSE_CFLAGS)
$(B)/src/link/%.o: EXTRA_CFLAGS = $(SSH_CFLAGS) $(LZ4_CFLAGS)
$(B)/src/conf/%.o: EXTRA_CFLAGS = $(INIH_CFLAGS)
$(B)/src/project/%.o $(B)/src/front/%.o: EXTRA_CFLAGS = $(JANSSON_CFLAGS)
$(B)/src/digest/%.o: EXTRA_CFLAGS = $(CRYPTO_CFLAGS)

PROGRAMS = concc-cc concc-dispatch concc-scriptify concc-worker-pool concc-project concc-worker concc

# Archives in link order: whoever needs comes before what it needs.
libs = $(foreach f,$(1),$(B)/lib$(f).a)
LIBS_concc-cc = $(call libs,wrapper job pool proto common)
LIBS_concc-dispatch = $(LIBS_concc-cc)
LIBS_concc-scriptify = $(LIBS_concc-cc)
LIBS_concc-worker-pool = $(call libs,pool common)
LIBS_concc-project = $(call libs,project link loop conf job pool proto digest common)
LIBS_concc-worker = $(call libs,worker mirror link loop job pool proto digest common)
LIBS_concc = $(call libs,front wrapper job pool proto common)
SYS_concc-project = $(JANSSON_LIBS) $(SSH_LIBS) $(INIH_LIBS) $(LZ4_LIBS) $(CRYPTO_LIBS)
SYS_concc-worker = $(FUSE_LIBS) $(LZ4_LIBS) $(CRYPTO_LIBS)
SYS_concc = $(JANSSON_LIBS)

all: $(PROGRAMS:%=$(B)/bin/%) $(B)/bin/masquerade

folder-objs = $(patsubst %.c,$(B)/%.o,$(wildcard src/$(1)/*.c))
define archive-rule
$(B)/lib$(1).a: $(call folder-objs,$(1))
	$$(say) AR $$@
	$$(Q)rm -f $$@ && $$(AR) rcs $$@ $$^
endef
$(foreach f,$(FOLDERS),$(eval $(call archive-rule,$(f))))

define program-rule
$(B)/bin/$(1): $(B)/src/cli/$(1).o $$(LIBS_$(1))
	$$(say) LINK $$@
	@mkdir -p $$(@D)
	$$(Q)$$(CC) $$(ALL_LDFLAGS) -o $$@ $$^ $$(SYS_$(1))
endef
$(foreach p,$(PROGRAMS),$(eval $(call program-rule,$(p))))

$(B)/%.o: %.c Makefile
	$(say) CC $<
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $(EXTRA_CFLAGS) -MMD -MP -c -o $@ $<

# Symlinks named like compilers, for PATH.
MASQUERADE = cc c++ gcc g++ clang clang++
$(B)/bin/masquerade: Makefile | $(B)/bin/concc-cc
	$(Q)mkdir -p $@ && for n in $(MASQUERADE); do ln -sfn ../concc-cc $@/$$n; done && touch $@

# ---- tests ----

UNIT_TESTS = $(patsubst test/unit/%.c,$(B)/test/unit/%,$(wildcard test/unit/test_*.c))
UNIT_LIBS = $(call libs,worker project wrapper mirror link loop conf job pool proto digest common)
CRITERION_LIBS = $(call pc-libs,criterion)
$(B)/test/unit/%.o: EXTRA_CFLAGS = $(call pc-cflags,criterion) -Isrc
$(B)/test/unit/%: $(B)/test/unit/%.o $(UNIT_LIBS)
	$(say) LINK $@
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $< -Wl,--start-group $(UNIT_LIBS) -Wl,--end-group \
		$(CRITERION_LIBS) $(FUSE_LIBS) $(JANSSON_LIBS) $(SSH_LIBS) $(INIH_LIBS) $(LZ4_LIBS) $(CRYPTO_LIBS)

check-unit: $(UNIT_TESTS)
	$(Q)test/run-unit $(UNIT_TESTS)

clean:
	rm -rf $(B)

.PHONY: all check-unit clean
.SECONDARY:
-include $(shell [ -d $(B) ] && find $(B) -name '*.d')
