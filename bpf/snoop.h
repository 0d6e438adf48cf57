/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Step 18: what messages of IGMP, MLD and PIM say about the port that they come from. Written to groups,
 * listening and queriers; RFC 4541 has the rules.
 *
 * A group's sources are not looked at: who wants one of them gets the group.
 *
 * What cannot be noted costs nobody a frame: the port just counts as not settled and gets all groups for as
 * long as the row would have lasted. So do a VM that joins more than its share (a bucket for each place, which
 * is full with VX_JOINS rows and fills within the life of a row: twice as many at most), a map that is full,
 * and a report of more than VX_MAX_RECORDS.
 */
#ifndef VX_SNOOP_H
#define VX_SNOOP_H

#include "flood.h"
#include "groups.h"
#include "maps.h"
#include "multicast.h"
#include "rate.h"

#define VX_JOINS 256
#define VX_JOINS_UPLINK 4096
#define VX_JOINS_TICKS (VX_MEMBERSHIP_NS * VX_TICKS_PER_NS)

#define VX_MAX_RECORDS 64

#define VX_REPORT_REFRESH_NS 1000000000ULL /* a row is written at most once a second */

/* The place that a message comes from. */
struct vx_speaker {
	__u16 segment;
	__u16 port;
	__u32 uplink; /* 0 or 1 */
	__u64 now_ns;
	struct vx_listening *listening;
};

static __always_inline void vx_unsettle(const struct vx_speaker *from,
					const struct vx_group_key *key)
{
	bool family = key->family == 6;

	*(volatile __u64 *)&from->listening->settled_ns[family] = from->now_ns + VX_MEMBERSHIP_NS;
	__sync_fetch_and_add(&from->listening->refused, 1);
}

static __always_inline bool vx_write_group(const struct vx_speaker *from,
					   const struct vx_group_key *key, __u64 expires_ns)
{
	struct vx_group group = {
		.segment = key->segment,
		.port = key->port,
		.family = key->family,
		.since_ns = from->listening->since_ns,
		.expires_ns = expires_ns,
	};

	__builtin_memcpy(group.octets, key->octets, sizeof(group.octets));
	return !vx_update(groups, (void *)key, &group, BPF_ANY);
}

static __always_inline void vx_join(const struct vx_speaker *from, const struct vx_group_key *key)
{
	__u64 ticks = VX_JOINS_TICKS / (from->uplink ? VX_JOINS_UPLINK : VX_JOINS);
	__u64 expires_ns = from->now_ns + VX_MEMBERSHIP_NS;
	struct vx_group group;

	if (vx_find_group(key, from->listening->since_ns, &group)) {
		if (group.expires_ns + VX_REPORT_REFRESH_NS > expires_ns)
			return;
	} else if (!vx_take(&from->listening->joins, ticks, VX_JOINS_TICKS)) {
		vx_unsettle(from, key);
		return;
	}
	if (!vx_write_group(from, key, expires_ns))
		vx_unsettle(from, key);
}

/*
 * Somebody has left, perhaps not the last behind this port: the querier asks for others, who then have
 * VX_LEAVE_NS to say so.
 */
static __always_inline void vx_leave(const struct vx_speaker *from, const struct vx_group_key *key)
{
	__u64 expires_ns = from->now_ns + VX_LEAVE_NS;
	struct vx_group group;

	if (vx_find_group(key, from->listening->since_ns, &group) && group.expires_ns > expires_ns)
		vx_write_group(from, key, expires_ns);
}

/* RFC 3376, 4.2.12, and RFC 3810, 5.2.12. */
enum vx_record_type {
	VX_MODE_IS_INCLUDE = 1,
	VX_MODE_IS_EXCLUDE = 2,
	VX_CHANGE_TO_INCLUDE = 3,
	VX_CHANGE_TO_EXCLUDE = 4,
	VX_ALLOW_NEW_SOURCES = 5,
	VX_BLOCK_OLD_SOURCES = 6,
};

/* What a record begins with, before the group: RFC 3376, 4.2.4, and RFC 3810, 5.2.4. */
struct vx_record {
	__u8 type;
	__u8 auxiliary; /* words of 32 bits behind the sources */
	__be16 sources;
};

/* To include no source is to leave. To block some is to keep others: unknown which, so it says nothing. */
static __always_inline void vx_take_record(const struct vx_speaker *from,
					   const struct vx_group_key *key,
					   const struct vx_record *record)
{
	switch (record->type) {
	case VX_MODE_IS_INCLUDE:
	case VX_CHANGE_TO_INCLUDE:
		if (!record->sources) {
			vx_leave(from, key);
			return;
		}
		break;
	case VX_ALLOW_NEW_SOURCES:
		if (!record->sources)
			return;
		break;
	case VX_MODE_IS_EXCLUDE:
	case VX_CHANGE_TO_EXCLUDE:
		break;
	default:
		return;
	}
	vx_join(from, key);
}

/* Groups that are never pruned are not noted (multicast.h). */
static __always_inline bool vx_is_prunable(const struct vx_group_key *key)
{
	if (key->family == 4)
		return key->octets[0] >> 4 == 0xe &&
		       (key->octets[0] != 0xe0 || key->octets[1] || key->octets[2]);
	return key->octets[0] == 0xff && (key->octets[1] & 0xf) > 2;
}

/* Or clang counts down from `count`, and the loop has no limit that the verifier can see. */
#define vx_keep_limit(count) asm volatile("" : "+r"(count))

/* Where the record at `offset` ends, 0: not within the message; `width` is that of an address. */
static __always_inline __u32 vx_read_record(struct __sk_buff *skb, __u32 offset, __u32 end,
					    __u32 width, struct vx_record *record)
{
	if (bpf_skb_load_bytes(skb, offset, record, sizeof(*record)))
		return 0;
	offset += sizeof(*record) + width + bpf_ntohs(record->sources) * width +
		  record->auxiliary * 4;
	return offset <= end ? offset : 0;
}

/* One record that does not end where it should makes all of them doubtful. */
static __always_inline bool vx_are_records(struct __sk_buff *skb, __u32 offset, __u32 end,
					   __u32 width, __u32 count)
{
	struct vx_record record;

#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < VX_MAX_RECORDS; i++) {
		vx_keep_limit(count);
		if (i >= count)
			break;
		offset = vx_read_record(skb, offset, end, width, &record);
		if (!offset)
			return false;
	}
	return true;
}

#define VX_RECORDS_BYTES 8 /* in front of the first; RFC 3376, 4.2, and RFC 3810, 5.2 */

static __always_inline void vx_take_records(struct __sk_buff *skb, const struct vx_multicast *m,
					    const struct vx_speaker *from, struct vx_group_key *key,
					    __u32 width)
{
	__u32 offset = m->offset + VX_RECORDS_BYTES;
	struct vx_record record;
	__be16 number;
	__u32 count;
	__u32 next;

	if (bpf_skb_load_bytes(skb, offset - sizeof(number), &number, sizeof(number)))
		return;
	count = bpf_ntohs(number);
	if (count > VX_MAX_RECORDS) {
		vx_unsettle(from, key);
		return;
	}
	if (!vx_are_records(skb, offset, m->end, width, count))
		return;
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < VX_MAX_RECORDS; i++) {
		vx_keep_limit(count);
		if (i >= count)
			break;
		next = vx_read_record(skb, offset, m->end, width, &record);
		if (!next || bpf_skb_load_bytes(skb, offset + sizeof(record), key->octets, width))
			return;
		offset = next;
		if (vx_is_prunable(key))
			vx_take_record(from, key, &record);
	}
}

/* A query that finds nobody to be querier begins anew: who was asked before may have changed since. */
static __always_inline void vx_take_query(const struct vx_speaker *from, __u32 family)
{
	volatile struct vx_queriers *queriers = vx_queriers_of(from->segment);

	if (!queriers)
		return;
	if (queriers->until_ns[family] <= from->now_ns)
		queriers->began_ns[family] = from->now_ns;
	queriers->until_ns[family] = from->now_ns + VX_QUERIER_NS;
}

static __always_inline void vx_hear(struct __sk_buff *skb, const struct vx_multicast *m,
				    const struct vx_speaker *from)
{
	struct vx_group_key key = { .segment = from->segment,
				    .port = from->port,
				    .family = m->family };

	__builtin_memcpy(key.octets, m->octets, sizeof(key.octets));
	switch (m->kind) {
	case VX_MULTICAST_REPORT:
		vx_join(from, &key);
		return;
	case VX_MULTICAST_LEAVE:
		vx_leave(from, &key);
		return;
	case VX_MULTICAST_RECORDS:
		if (m->family == 4)
			vx_take_records(skb, m, from, &key, sizeof(struct in_addr));
		else
			vx_take_records(skb, m, from, &key, sizeof(struct in6_addr));
		return;
	case VX_MULTICAST_QUERY:
		vx_take_query(from, m->family == 6);
		/* fall through */
	case VX_MULTICAST_HELLO:
		*(volatile __u64 *)&from->listening->router_ns[m->family == 6] =
			from->now_ns + VX_QUERIER_NS;
		return;
	default:
		return;
	}
}

/*
 * Between vx_walk and vx_flood, whose state in skb->cb it finds and leaves: takes note of what the frame says
 * about its sender, and finds out who is to have it.
 */
static __always_inline void vx_follow_groups(struct __sk_buff *skb)
{
	struct vx_audience *audience = vx_audience_here();
	struct vx_multicast m = {};
	struct vx_speaker from = {
		.segment = skb->cb[0] & 0xffff,
		.port = skb->cb[0] >> 16,
		.listening = vx_listening_of(skb->cb[4]),
	};
	struct vx_port port;

	if (!audience || !from.listening || !vx_find_port(from.port, &port))
		return;
	from.uplink = vx_is_uplink(&port);
	from.now_ns = bpf_ktime_get_coarse_ns();
	if (!(skb->cb[1] & VX_CB_FOLLOWED_BY_TAG))
		vx_read_multicast(skb, &m);
	vx_forget_bytes(&from, 3, skb->len); /* to uplink */
	vx_forget_bytes(&m, 5, skb->len);    /* to family */
	vx_hear(skb, &m, &from);
	vx_find_audience(&m, from.segment, from.now_ns, audience);
	skb->cb[1] |= VX_CB_AUDIENCE;
}

#endif /* VX_SNOOP_H */
