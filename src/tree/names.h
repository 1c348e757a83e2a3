/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#ifndef CONCC_TREE_NAMES_H
#define CONCC_TREE_NAMES_H

/*
 * The names of one directory and what each stands for.  A container: it looks at no disk and knows
 * no tree.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "concc/digest.h"

struct dir;

enum ent_flags {
	ENT_RACY = 1 << 0,    /* its bytes were read so soon that the next change may not show */
	ENT_DIRTY = 1 << 1,   /* on dir->dirty */
	ENT_WRITTEN = 1 << 2, /* bytes may have changed though the stat is the same */
	ENT_GONE = 1 << 3,    /* was removed meanwhile: what is there now is another file */
	ENT_PENDING = 1 << 4, /* on dir->pending */
	ENT_LINKED = 1 << 5,  /* one of dir->linked stands for it */
	ENT_SEEN = 1 << 6,    /* met in the scan that is running */
	ENT_TOLD = 1 << 7,    /* some of the bytes that it had went out, while it is racy */
	ENT_RENEWED = 1 << 8, /* its bytes may be others than those of the versions that count as it */
};

#define CLAIM_NONE UINT16_MAX

/* A digest of a version's bytes, and who says so: a worker's word counts for that worker only. */
struct known {
	struct digest digest;
	uint16_t claimed_by; /* peer, or CLAIM_NONE when we hashed it */
};

/* Some 80 bytes with its name: a million of them are served at times, so its hash is not kept. */
struct ent {
	union {
		struct known *known; /* ENTRY_FILE: NULL when not known; owned */
		char *target;	     /* ENTRY_SYMLINK; owned */
		struct dir *child;   /* ENTRY_DIR: its snapshot, NULL when there is none */
	};
	uint64_t ino; /* with the device folded in */
	uint64_t size;
	uint64_t version;
	int64_t mtime_s, ctime_s;
	uint32_t mtime_ns, ctime_ns;
	uint32_t nlink;
	uint32_t relinked;  /* see ent_content_version() */
	uint32_t order;	    /* among the names of its directory */
	uint16_t mode : 12; /* the permission bits */
	uint16_t type : 4;  /* enum entry_type */
	uint16_t flags;	    /* enum ent_flags */
	uint8_t name_len;
	char name[]; /* no padding before it */
};

/*
 * Since this version nothing is known to have changed but its number of links: who asks for one of
 * these gets the bytes that it has now.  Never older than it was.
 */
static inline uint64_t ent_content_version(const struct ent *e)
{
	return e->version - e->relinked;
}

/* Names of one directory: open addressing, linear probing. */
struct names {
	struct ent **slots;
	uint32_t cap, n;
	uint32_t next_order; /* of who comes next: behind all others */
};

#define NAMES_INIT ((struct names){0})

/* The name's entry, or NULL.  seed: the same in all calls; names come from outside, and may be made
 * to collide for a seed that is known. */
struct ent *names_find(const struct names *s, uint32_t seed, const char *name, size_t len);
/* The name (of at most PROTO_NAME_MAX bytes) that is not there yet: ENTRY_ABSENT. */
struct ent *names_add(struct names *s, uint32_t seed, const char *name, size_t len);
/* Frees e, which is in s. */
void names_remove(struct names *s, uint32_t seed, struct ent *e);
/* *it is 0 at first; NULL at the end.  Nothing may be added or removed meanwhile. */
struct ent *names_next(const struct names *s, uint32_t *it);
/* The name is behind all that are there now. */
void names_put_last(struct names *s, struct ent *e);
/* All s->n of them in their order: to be freed. */
struct ent **names_in_order(const struct names *s);
void names_release(struct names *s);
/* Frees what e owns; its type is to be set anew. */
void ent_release(struct ent *e);

#endif
