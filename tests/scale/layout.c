// SPDX-License-Identifier: GPL-2.0-only
/*
 * Where could the FDB look a MAC up: in the kernel's hash map, or in a hash table in an array, four entries a set?
 * Each program looks LOOKUPS of the keys 0 … entries - 1 up, at random; layout_nothing only draws them.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#include "maps.h"

#define LOOKUPS 32
#define WAYS 4

struct layout_setting {
	__u32 entries;
	__u32 state; /* of the generator */
	__u64 found; /* so many of the keys were there */
	__u32 mask;  /* sets - 1, a power of two */
	__u32 unused;
};

struct layout_set {
	__u64 keys[WAYS]; /* 0: free */
	__u64 values[WAYS][2];
};

/* Xorshift (Marsaglia 2003). */
static __always_inline __u32 next_random(__u32 state)
{
	state ^= state << 13;
	state ^= state >> 17;
	return state ^ state << 5;
}

static __always_inline __u64 key_of(__u32 number)
{
	return vx_fdb_key(1, 0x020000000001ULL + number);
}

static __always_inline struct layout_setting *setting_of(void)
{
	__u32 only = 0;

	return vx_lookup(setting, &only);
}

static __always_inline __u64 in_hash(__u64 key)
{
	__u64 *row = vx_lookup(hash, &key);

	return row ? row[0] : 0;
}

static __always_inline __u64 in_sets(__u64 key, __u32 mask)
{
	__u64 hash = (key ^ key >> 33) * 0xff51afd7ed558ccdULL;
	__u32 at = hash >> 40 & mask;
	struct layout_set *set = vx_lookup(sets, &at);

	if (!set)
		return 0;
	if (set->keys[0] == key)
		return set->values[0][0];
	if (set->keys[1] == key)
		return set->values[1][0];
	if (set->keys[2] == key)
		return set->values[2][0];
	if (set->keys[3] == key)
		return set->values[3][0];
	return 0;
}

#define PROGRAM(name, lookup)                                       \
	int name(struct __sk_buff *skb)                             \
	{                                                           \
		struct layout_setting *setting = setting_of();      \
		__u32 state, entries, mask;                         \
		__u64 found = 0;                                    \
                                                                    \
		if (!setting)                                       \
			return TC_ACT_SHOT;                         \
		state = setting->state;                             \
		entries = setting->entries;                         \
		mask = setting->mask;                               \
		for (__u32 i = 0; i < LOOKUPS; i++) {               \
			__u64 key;                                  \
                                                                    \
			state = next_random(state);                 \
			key = key_of((__u64)state * entries >> 32); \
			found += lookup;                            \
		}                                                   \
		setting->state = state;                             \
		setting->found += found;                            \
		return mask ? TC_ACT_OK : TC_ACT_SHOT;              \
	}

PROGRAM(layout_nothing, key != 0)
PROGRAM(layout_hash, in_hash(key))
PROGRAM(layout_sets, in_sets(key, mask))
