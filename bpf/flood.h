/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Step 18: a copy for every other member of the segment; VTEPs, which have slots of their own, come last
 * (replicate.h).
 *
 * vx_walk ends in a tail call of vx_flood, which visits VX_CHUNK slots of the segment and calls
 * itself for the next ones: the kernel allows 33 tail calls, one of which is vx_walk's and one may be vx_snoop's, and the
 * verifier about a thousand rounds of such a loop. A member keeps its slot as long as it is one, so members that come and go
 * meanwhile neither lose nor double a neighbour's copy.
 *
 * Every copy but the last is a clone; the last is the frame itself. Which one is the last is known
 * only when the next is found or there is none, so one member is always pending.
 *
 * Between two runs the state is in skb->cb, five words that belong to whoever has the frame in tc.
 * Both programs come from one build and call each other through a progs map of their own: the words
 * may change with any build.
 *
 *   cb[0]  port << 16 | segment of the sender
 *   cb[1]  pending VID << 16 | priority (PCP, DEI: 0xf000) | vx_audience says who gets it (0x0200) |
 *          followed by a tag (0x0100) | chunk
 *   cb[2]  ifindex of the pending member; 0: none
 *   cb[3]  its index into traffic
 *   cb[4]  the sender's index into traffic
 *
 * And in skb->tc_index, ^ the sender's, the port that gets no copy: 0 as a rule.
 */
#ifndef VX_FLOOD_H
#define VX_FLOOD_H

#include <linux/errno.h>

#include "forward.h"
#include "frame.h"
#include "groups.h"
#include "maps.h"
#include "rate.h"
#include "tag.h"
#include "verdict.h"

#define VX_CB_CHUNK 0x00ff
#define VX_CB_FOLLOWED_BY_TAG 0x0100
#define VX_CB_AUDIENCE 0x0200
#define VX_CB_SENT 0x0400 /* it is no flood (lease.h) */

struct vx_flood {
	__u16 port; /* the sender's */
	__u16 segment;
	__u32 counter;
	__u16 chunk;
	__u16 priority;
	bool followed_by_tag;
	bool restricted; /* the audience says who gets it; else everybody does */
	bool by_vlan;	 /* VX_SEGMENT_BY_VLAN */
	bool reserved;
	const struct vx_audience *audience;
	struct vx_copy pending; /* ifindex 0: none */

	/* Not carried over: read anew in every run. */
	struct vx_port from;
	struct vx_load load;
	__u16 left_out; /* a port that gets no copy */
	__u16 slots;
	__u16 vteps;  /* slots of VTEPs, which get copies after all others */
	__u16 remote; /* these, and behind them those of ports whose VMs leave */
	__u32 copies;
};

static __always_inline void vx_keep_flood(struct __sk_buff *skb, const struct vx_flood *flood)
{
	skb->cb[0] = (__u32)flood->port << 16 | flood->segment;
	skb->cb[1] = (__u32)flood->pending.vid << 16 | flood->priority | flood->chunk |
		     (flood->followed_by_tag ? VX_CB_FOLLOWED_BY_TAG : 0) |
		     (flood->restricted ? VX_CB_AUDIENCE : 0);
	skb->cb[2] = flood->pending.ifindex;
	skb->cb[3] = flood->pending.counter;
	skb->cb[4] = flood->counter;
}

/* Returns only when there is no program to call. */
static __always_inline void vx_call_flood(struct __sk_buff *skb, const struct vx_flood *flood)
{
	vx_keep_flood(skb, flood);
	bpf_tail_call_(VX_MAP(progs), skb, VX_PROG_FLOOD);
}

/* The members here are served; those elsewhere follow. Returns only when there is no program to call. */
static __always_inline void vx_call_replicate(struct __sk_buff *skb, struct vx_flood *flood)
{
	flood->pending.ifindex = 0; /* there: for all VTEPs */
	flood->priority = 0;
	flood->chunk = 0;
	vx_keep_flood(skb, flood);
	bpf_tail_call_(VX_MAP(progs), skb, VX_PROG_REPLICATE);
}

/*
 * The port that gets no copy, whatever else: the sender's, or one that awaits the VM that has sent this elsewhere, and would
 * hear itself. What an uplink or a VTEP brings is for none of its kind anyway.
 */
static __always_inline __u16 vx_left_out(const struct vx_frame *f)
{
	if (vx_is_uplink(&f->from) && f->sender.live && f->sender.entry.flags & VX_FDB_LISTED)
		return f->sender.entry.port;
	return f->from.handle;
}

/*
 * The last stage of vx_walk. Does not return; without a flood program nobody can take the frame. Multicast goes
 * by way of vx_snoop where it follows IGMP and MLD; without that program everybody gets it.
 */
static __always_inline int vx_start_flood(struct __sk_buff *skb, const struct vx_frame *f)
{
	struct vx_flood flood = {
		.port = f->from.handle,
		.segment = f->segment.handle,
		.counter = f->counter,
		.priority = f->tci & VX_TCI_PRIORITY,
		.followed_by_tag = f->followed_by_tag,
	};

	skb->tc_index = vx_left_out(f) ^ f->from.handle;
	vx_keep_flood(skb, &flood);
	if (f->dhcp)
		bpf_tail_call_(VX_MAP(progs), skb, VX_PROG_LEASE);
	if (f->segment.flags & VX_SEGMENT_GROUPS && vx_is_group(f->destination))
		bpf_tail_call_(VX_MAP(progs), skb, VX_PROG_SNOOP);
	bpf_tail_call_(VX_MAP(progs), skb, VX_PROG_FLOOD);
	return vx_drop(VX_NO_DESTINATION);
}

/* Slots of ports whose VMs leave. */
static __always_inline __u64 vx_leaving_slots(const struct vx_segment *segment)
{
	return segment->flags & VX_SEGMENT_LEAVING ? VX_MAX_LEAVING : 0;
}

/* False: the sender or its segment went away between two runs; the flood ends. */
static __always_inline bool vx_recall_flood(struct __sk_buff *skb, struct vx_flood *flood)
{
	struct vx_segment segment;
	__u32 word = skb->cb[1];
	__u64 vteps;

	flood->port = skb->cb[0] >> 16;
	flood->segment = skb->cb[0] & 0xffff;
	flood->pending.vid = word >> 16;
	flood->priority = word & VX_TCI_PRIORITY;
	flood->followed_by_tag = word & VX_CB_FOLLOWED_BY_TAG;
	flood->chunk = word & VX_CB_CHUNK;
	flood->pending.ifindex = skb->cb[2];
	flood->pending.counter = skb->cb[3];
	flood->counter = skb->cb[4];
	flood->copies = 0;
	flood->left_out = flood->port ^ skb->tc_index;
	flood->reserved = false;
	if (!vx_find_port(flood->port, &flood->from) || !vx_find_segment(flood->segment, &segment))
		return false;
	flood->slots = segment.slots;
	flood->by_vlan = segment.flags & VX_SEGMENT_BY_VLAN;
	vteps = flood->from.flags & VX_PORT_VTEP || flood->followed_by_tag || flood->by_vlan ?
			0 :
			segment.vteps;
	vx_forget(vteps, skb->len);
	flood->vteps = vteps;
	vteps += flood->followed_by_tag ? 0 : vx_leaving_slots(&segment);
	vx_forget(vteps, skb->len);
	flood->remote = vteps;
	flood->restricted = word & VX_CB_AUDIENCE;
	flood->audience = vx_audience_here();
	return flood->audience; /* there is one for every CPU */
}

/*
 * Split horizon ends for what a VM that leaves sends by the host to which it migrates: where a segment is a VLAN
 * between hosts nothing else comes from a VTEP.
 */
static __always_inline void vx_open_horizon(const struct __sk_buff *skb, struct vx_flood *flood)
{
	__u64 flags = flood->from.flags;

	if (flags & VX_PORT_VTEP && flood->by_vlan)
		flags = 0;
	vx_forget(flags, skb->len);
	flood->from.flags = flags;
}

/* The same for vx_flood, which also weighs the frame. */
static __always_inline bool vx_resume_flood(struct __sk_buff *skb, struct vx_flood *flood)
{
	if (!vx_recall_flood(skb, flood))
		return false;
	vx_open_horizon(skb, flood);
	return vx_weigh_again(skb, flood->followed_by_tag, &flood->load);
}

/* Whom a slot's copy goes to; false: the slot is empty, or its member gets none. */
static __always_inline bool vx_visit_slot(const struct __sk_buff *skb, const struct vx_flood *flood,
					  __u16 slot, struct vx_copy *copy)
{
	struct vx_membership member;
	struct vx_port port;

	if (!vx_find_slot(flood->segment, slot, &member) || member.port == flood->left_out ||
	    !vx_find_port(member.port, &port))
		return false;
	if (!vx_may_receive(&port) || vx_isolated(&flood->from, &port) ||
	    vx_both_uplinks(&flood->from, &port))
		return false;
	if (flood->followed_by_tag && !member.vid)
		return false;
	if (flood->restricted && !vx_listens(flood->audience, member.port, member.counter))
		return false;
	if (!vx_take_departure(&port, &flood->load, member.vid)) {
		vx_count_lost_copy(port.handle, flood->segment, VX_RATE_LIMITED,
				   vx_copy_bytes(skb, member.vid));
		return false;
	}
	if (flood->restricted)
		vx_ask(flood->audience, member.counter);
	copy->ifindex = port.ifindex;
	copy->counter = member.counter;
	copy->vid = member.vid;
	copy->peer = false; /* bpf_clone_redirect has no such thing; a flood treats all alike */
	return true;
}

/*
 * Sends a clone to the pending member. What the device does with it (full, down, gone) shows in the
 * device's own statistics, as after a redirect, whose end no program sees: it counts as sent. When
 * there is no memory for a clone, nothing was.
 *
 * False: the frame's tag is lost, nobody may get the frame any more.
 */
static __always_inline bool vx_send_clone(struct __sk_buff *skb, struct vx_flood *flood)
{
	if (!vx_set_tag(skb, flood->pending.vid, flood->priority))
		return false;
	if (bpf_clone_redirect(skb, flood->pending.ifindex, 0) == -ENOMEM)
		return true;
	vx_count_sent(flood->pending.counter, vx_frame_bytes(skb));
	flood->copies++;
	return true;
}

/* Sends the frame itself to the pending member, if there is one. */
static __always_inline int vx_send_last(struct __sk_buff *skb, struct vx_flood *flood)
{
	if (!flood->pending.ifindex || !vx_set_tag(skb, flood->pending.vid, flood->priority))
		return TC_ACT_SHOT;
	vx_count_sent(flood->pending.counter, vx_frame_bytes(skb));
	vx_count_copies(flood->counter, 1);
	return bpf_redirect(flood->pending.ifindex, 0);
}

/* All members here but the pending one have theirs; it gets a clone, and the VTEPs what is left. */
static __always_inline int vx_flood_vteps(struct __sk_buff *skb, struct vx_flood *flood)
{
	__u32 before = flood->copies;

	if (flood->pending.ifindex && !vx_send_clone(skb, flood))
		return TC_ACT_SHOT;
	vx_count_copies(flood->counter, flood->copies - before);
	vx_call_replicate(skb, flood);
	return TC_ACT_SHOT;
}

/* Visits one chunk of slots; false: the frame must be dropped. */
static __always_inline bool vx_flood_chunk(struct __sk_buff *skb, struct vx_flood *flood)
{
	struct vx_copy next;
	__u16 slot;

	vx_forget_bytes(&flood->port, 4, skb->len); /* to reserved */
	/* Not unrolled: the body is long, and the verifier follows a bounded loop. */
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < VX_CHUNK; i++) {
		slot = flood->chunk * VX_CHUNK + i;
		if (slot >= flood->slots)
			break;
		if (!vx_visit_slot(skb, flood, slot, &next))
			continue;
		if (flood->pending.ifindex && !vx_send_clone(skb, flood))
			return false;
		flood->pending = next;
	}
	return true;
}

#endif /* VX_FLOOD_H */
