/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The maps by name, and the only ways to read a row.
 *
 * The agent creates the maps and puts their descriptors into the bytecode; here a map is a number
 * (FD_<name>, by -D) that stands for one. So no map is defined in C, stages in headers stay plain
 * C, and BCC's rewriter, which sees the main file only, has nothing to rewrite.
 *
 * A vx_find_… function returns whether the row is there and copies it. Two things make the copy
 * safe while the agent and other CPUs write:
 *   - An element of a hash may be freed and reused for another key between the lookup and the read.
 *     Its first word holds its own key; a mismatch is "not there". Isolation rests on it.
 *   - Rows of arrays are written in place. What must be seen together shares an aligned 8-byte word
 *     (abi.h), and each word is loaded once.
 */
#ifndef VX_MAPS_H
#define VX_MAPS_H

#include "abi.h"

#define VX_MAP(name) bpf_pseudo_fd(1, FD_##name)

#define vx_lookup(name, key) bpf_map_lookup_elem_(VX_MAP(name), key)
#define vx_update(name, key, value, flags) bpf_map_update_elem_(VX_MAP(name), key, value, flags)
#define vx_delete(name, key) bpf_map_delete_elem_(VX_MAP(name), key)

/* volatile: the word is loaded once and whole, however often its parts are used. */
static __always_inline void vx_copy_word(void *to, const void *row, __u32 offset)
{
	__u64 word = *(const volatile __u64 *)(row + offset);

	__builtin_memcpy(to + offset, &word, sizeof(word));
}

/* Rows have one to five words. No loop: the copy shall be gone before clang unrolls any. */
static __always_inline void vx_copy_row(void *to, const void *row, __u32 size)
{
	vx_copy_word(to, row, 0);
	if (size > 8)
		vx_copy_word(to, row, 8);
	if (size > 16)
		vx_copy_word(to, row, 16);
	if (size > 24)
		vx_copy_word(to, row, 24);
	if (size > 32)
		vx_copy_word(to, row, 32);
}

/* The row of a port or segment that is not there (any more) is all zeroes, its handle too. */
static __always_inline bool vx_find_port(__u16 handle, struct vx_port *port)
{
	__u32 key = handle;
	const void *row = vx_lookup(ports, &key);

	if (!row)
		return false;
	vx_copy_row(port, row, sizeof(*port));
	return handle && port->handle == handle;
}

static __always_inline bool vx_find_segment(__u16 handle, struct vx_segment *segment)
{
	__u32 key = handle;
	const void *row = vx_lookup(segments, &key);

	if (!row)
		return false;
	vx_copy_row(segment, row, sizeof(*segment));
	return handle && segment->handle == handle;
}

static __always_inline bool vx_find_device(__u32 ifindex, struct vx_device *device)
{
	const void *row = vx_lookup(devices, &ifindex);

	if (!row)
		return false;
	vx_copy_row(device, row, sizeof(*device));
	return device->ifindex == ifindex;
}

/* What a port may bring and get; members are read where they are used, each a word of its own. */
static __always_inline const volatile struct vx_limits *vx_limits_of(__u16 port)
{
	__u32 key = port;

	return vx_lookup(limits, &key);
}

static __always_inline struct vx_buckets *vx_buckets_of(__u16 port)
{
	__u32 key = port;

	return vx_lookup(buckets, &key);
}

/* What a port has learned: counters that all CPUs share. */
static __always_inline struct vx_learning *vx_learning_of(__u16 port)
{
	__u32 key = port;

	return vx_lookup(learning, &key);
}

/* What a port has told: a counter and buckets that all CPUs share. */
static __always_inline struct vx_telling *vx_telling_of(__u16 port)
{
	__u32 key = port;

	return vx_lookup(telling, &key);
}

/* To which segment a trunk port or an uplink says that frames with this VID belong. */
static __always_inline bool vx_find_vid(__u16 port, __u16 vid, struct vx_membership *found)
{
	__u32 key = (__u32)port << 16 | vid;
	const void *row = vx_lookup(vids, &key);

	if (!row)
		return false;
	vx_copy_row(found, row, sizeof(*found));
	return found->port == port && found->vid == vid;
}

/* Whether a port is in a segment, and how its frames are tagged. */
static __always_inline bool vx_find_member(__u16 port, __u16 segment, struct vx_membership *found)
{
	__u32 key = (__u32)port << 16 | segment;
	const void *row = vx_lookup(members, &key);

	if (!row)
		return false;
	vx_copy_row(found, row, sizeof(*found));
	return found->port == port && found->segment == segment;
}

/* Who has a segment's flood slot. */
static __always_inline bool vx_find_slot(__u16 segment, __u16 slot, struct vx_membership *found)
{
	__u32 key = (__u32)segment << 16 | slot;
	const void *row = vx_lookup(slots, &key);

	if (!row)
		return false;
	vx_copy_row(found, row, sizeof(*found));
	return found->segment == segment && found->slot == slot;
}

/* Key of fdb; `mac` has its first octet highest. */
static __always_inline __u64 vx_fdb_key(__u16 segment, __u64 mac)
{
	return (__u64)segment << 48 | mac;
}

/*
 * Returns the row, for its seen_ns to be refreshed, or NULL. An element that was reused for another
 * MAC of the same segment is not told apart: that frame takes a wrong turn inside its segment.
 */
static __always_inline struct vx_fdb_entry *vx_find_fdb(__u16 segment, __u64 mac,
							struct vx_fdb_entry *entry)
{
	__u64 key = vx_fdb_key(segment, mac);
	struct vx_fdb_entry *row = vx_lookup(fdb, &key);

	if (!row)
		return NULL;
	vx_copy_row(entry, row, sizeof(*entry));
	return entry->segment == segment ? row : NULL;
}

static __always_inline bool vx_same_address(const __u8 *a, const __u8 *b)
{
	const __u32 *left = (const void *)a;
	const __u32 *right = (const void *)b;

	return !((left[0] ^ right[0]) | (left[1] ^ right[1]) | (left[2] ^ right[2]) |
		 (left[3] ^ right[3]));
}

static __always_inline bool vx_find_overlay(struct vx_overlay *overlay)
{
	__u32 only = 0;
	const void *row = vx_lookup(overlay, &only);

	if (!row)
		return false;
	vx_copy_row(overlay, row, sizeof(*overlay));
	return overlay->ifindex;
}

/* Where a port's tunnels end. */
static __always_inline bool vx_find_vtep(__u16 port, struct vx_vtep *found)
{
	__u32 key = port;
	const void *row = vx_lookup(vteps, &key);

	if (!row)
		return false;
	vx_copy_row(found, row, sizeof(*found));
	return port && found->port == port;
}

/* Who sends from there; `address` is 16 octets. */
static __always_inline bool vx_find_tunnel(const __u8 *address, struct vx_vtep *found)
{
	const void *row = vx_lookup(tunnels, (void *)address);

	if (!row)
		return false;
	vx_copy_row(found, row, sizeof(*found));
	return vx_same_address(found->octets, address);
}

static __always_inline bool vx_find_vni(__u32 vni, struct vx_vni *found)
{
	const void *row = vx_lookup(vnis, &vni);

	if (!row)
		return false;
	vx_copy_row(found, row, sizeof(*found));
	return found->vni == vni;
}

/* What programs remember counts as long as this is what it was before they asked the tables (flow.h). */
static __always_inline __u64 vx_epoch_of(__u16 segment)
{
	__u32 key = segment;
	const volatile __u64 *epoch = vx_lookup(epochs, &key);

	return epoch ? *epoch : 0;
}

static __always_inline struct vx_hop *vx_hop_of(__u16 vtep)
{
	__u32 key = vtep;

	return vx_lookup(hops, &key);
}

/* How often a MAC of the FDB has moved of late. */
static __always_inline bool vx_find_moves(__u64 key, struct vx_moves *found)
{
	const void *row = vx_lookup(moves, &key);

	if (!row)
		return false;
	vx_copy_row(found, row, sizeof(*found));
	return found->key == key;
}

static __always_inline const struct vx_first *vx_first_of(__u16 port)
{
	__u32 key = port;

	return vx_lookup(first, &key);
}

/* Whether a port lists an address, for itself and in a prefix. */
static __always_inline bool vx_has_address(const struct vx_address_key *key)
{
	const volatile struct vx_address *row = vx_lookup(addresses, (void *)key);

	return row && row->port == key->port;
}

static __always_inline bool vx_has_prefix(const struct vx_address_key *key)
{
	const volatile struct vx_address *row = vx_lookup(prefixes, (void *)key);

	return row && row->port == key->port;
}

/* Who has an address; the caller has `now_ns`, by which a lease has run out or not. */
static __always_inline bool vx_find_neighbour(const struct vx_neighbour_key *key, __u64 now_ns,
					      struct vx_neighbour *found)
{
	const void *row = vx_lookup(neighbours, (void *)key);

	if (!row)
		return false;
	vx_copy_row(found, row, sizeof(*found));
	return found->segment == key->segment && found->family == key->family &&
	       vx_same_address(found->octets, key->octets) &&
	       (!found->expires_ns || found->expires_ns > now_ns);
}

/* Who has joined a group, of a place that began at `since_ns`, whether or not it has run out. */
static __always_inline bool vx_find_group(const struct vx_group_key *key, __u64 since_ns,
					  struct vx_group *found)
{
	const void *row = vx_lookup(groups, (void *)key);

	if (!row)
		return false;
	vx_copy_row(found, row, sizeof(*found));
	return found->segment == key->segment && found->port == key->port &&
	       found->family == key->family && vx_same_address(found->octets, key->octets) &&
	       found->since_ns == since_ns;
}

/* Members of the two that follow are words of their own, read and written where they are used. */
static __always_inline struct vx_listening *vx_listening_of(__u32 counter)
{
	return vx_lookup(listening, &counter);
}

static __always_inline struct vx_queriers *vx_queriers_of(__u16 segment)
{
	__u32 key = segment;

	return vx_lookup(queriers, &key);
}

struct vx_audience; /* groups.h */

static __always_inline struct vx_audience *vx_audience_here(void)
{
	__u32 only = 0;

	return vx_lookup(audience, &only);
}

/* How many leases a port holds, and how many it could not have (arrays of u64 by port handle). */
static __always_inline __s64 *vx_leases_of(__u16 port)
{
	__u32 key = port;

	return vx_lookup(leases, &key);
}

static __always_inline __u64 *vx_refused_of(__u16 port)
{
	__u32 key = port;

	return vx_lookup(leases_refused, &key);
}

#endif /* VX_MAPS_H */
