/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Flows: what steps 3 to 17 said of a frame is said of the next one between the same two stations
 * without asking again.
 *
 * A flow is a pair of MACs, on a device, with a tag; what is kept is that its frames are forwarded,
 * and how. Nothing else is ever kept. `flows` has one row for each CPU and hash, and whoever comes
 * last has it: no two programs write a row at once, and there is nothing to clear.
 *
 * A row counts as long as all is as it was when it was made:
 *   - `epochs` has a number for all that the agent decides (0) and one for each segment, for MACs
 *     that moved there. Whoever changes a table changes it first and then raises the number; who
 *     makes a row has read the numbers before the tables. They only rise, so their sum will do.
 *   - What goes by the clock ends with `until_ns`: the sender's entry has to be refreshed, or the
 *     receiver's may have aged out.
 * What a frame brings itself is looked at each time: its size, its rates, and what guards want to
 * see of IP. If any of that is not plainly in order, or costs something that a flow does not know
 * of, the frame goes the long way, and is as if there were no flow.
 */
#ifndef VX_FLOW_H
#define VX_FLOW_H

#include <linux/if_ether.h>

#include "forward.h"
#include "frame.h"
#include "guard.h"
#include "learn.h"
#include "maps.h"

/* In front of all lookups, and again, for what the segment has learned, in front of the FDB's. */
static __always_inline int vx_note_epoch(struct vx_frame *f)
{
	f->epoch += vx_epoch_of(f->segment.handle);
	return VX_GO_ON;
}

/* `place` is the VID; or, as `ifindex`, what overlay.h has instead. */
static __always_inline __u64 vx_flow_destination(const struct vx_frame *f, __u16 place)
{
	return f->destination << 16 | place;
}

/* By multiplication, whose upper bits depend on all bits (Knuth, 6.4). */
static __always_inline struct vx_flow *vx_flow_of(__u64 destination, __u64 source, __u32 ifindex)
{
	__u64 hash =
		(destination ^ (source + ifindex) * 0x9e3779b97f4a7c15ULL) * 0xc2b2ae3d27d4eb4fULL;
	__u32 key = hash >> (64 - VX_FLOW_BITS);

	return vx_lookup(flows, &key);
}

/* Whether a tag, if there is one, says which segment: a flow does not tell other kinds apart. */
static __always_inline bool vx_has_flow_tag(const struct vx_frame *f)
{
	return !f->tpid || (f->tpid == ETH_P_8021Q && f->tci & VX_TCI_VID);
}

/* The flow of a frame whose MACs and tag are parsed, whether or not it counts any more; or NULL. */
static __always_inline const struct vx_flow *vx_find_flow(const struct vx_frame *f, __u32 ifindex,
							  __u16 place)
{
	__u64 destination = vx_flow_destination(f, place);
	const struct vx_flow *flow = vx_flow_of(destination, f->source, ifindex);

	if (!flow || flow->destination != destination || flow->source != f->source ||
	    flow->ifindex != ifindex)
		return NULL;
	return flow;
}

/*
 * Fills what the stages from step 11 on, and the guards of step 7, go by. False: the flow does not count, and
 * f is for the long way.
 */
static __always_inline bool vx_recall_flow(struct vx_frame *f, const struct vx_flow *flow)
{
	if (!flow)
		return false;
	f->now_ns = bpf_ktime_get_coarse_ns();
	if (f->now_ns >= flow->until_ns ||
	    flow->epoch != vx_epoch_of(0) + vx_epoch_of(flow->segment))
		return false;
	f->counter = flow->counter;
	f->from.handle = flow->port;
	f->from.flags = flow->flags;
	f->segment.handle = flow->segment;
	f->segment.mtu = flow->mtu;
	f->segment.flags = flow->segment_flags;
	f->sender.row = NULL; /* nothing is to be learned */
	f->known = true;
	f->redirected = false; /* no such flow is kept */
	f->receiver = flow->receiver;
	f->to.handle = flow->receiver;
	f->to.flags = flow->to_flags;
	f->copy.ifindex = flow->to_ifindex;
	f->copy.counter = flow->to_counter;
	f->copy.vid = flow->vid;
	f->copy.peer = flow->to_flags & VX_PORT_PEER;
	f->copy.tunnel = flow->to_flags & VX_PORT_VTEP;
	f->addressed = false;
	return true;
}

/* In shadow a rate has to let pass what it counts. */
static __always_inline bool vx_is_limited_in_shadow(const struct vx_port *from)
{
	return from->flags & VX_PORT_SHADOW && from->flags & VX_PORT_LIMITED_IN;
}

#define VX_NO_END (~0ULL >> 1)

/* When the sender's entry is due to be refreshed; it may have been a moment ago. */
static __always_inline __u64 vx_refresh_due(const struct vx_frame *f)
{
	__u64 due = f->sender.entry.seen_ns + VX_REFRESH_NS;

	if (f->sender.entry.origin != VX_FDB_LEARNED)
		return VX_NO_END;
	return (__s64)(f->now_ns - due) < 0 ? due : f->now_ns + VX_REFRESH_NS;
}

/* When the receiver's entry will have aged out, unless it is seen again. */
static __always_inline __u64 vx_receiver_expires(const struct vx_frame *f)
{
	__u32 only = 0;
	const volatile struct vx_settings *settings = vx_lookup(settings, &only);
	__u64 ageing_ns = settings ? settings->ageing_ns : 0;

	if (f->receiver_origin != VX_FDB_LEARNED || !ageing_ns)
		return VX_NO_END;
	return f->receiver_seen_ns + ageing_ns;
}

/*
 * Keeps what was said of a frame that is forwarded now. What a guard found fault with, in shadow, has
 * to be found, and counted, each time.
 */
static __always_inline void vx_keep_flow(const struct vx_frame *f, __u32 ifindex, __u16 place)
{
	__u64 destination = vx_flow_destination(f, place);
	struct vx_flow *flow;
	__u64 due, expires;

	if (!vx_has_flow_tag(f) || vx_is_news(f) || f->shadowed || f->redirected || f->marked)
		return;
	flow = vx_flow_of(destination, f->source, ifindex);
	if (!flow)
		return;
	due = vx_refresh_due(f);
	expires = vx_receiver_expires(f);
	flow->destination = destination;
	flow->source = f->source;
	flow->epoch = f->epoch;
	flow->until_ns = due < expires ? due : expires;
	flow->ifindex = ifindex;
	flow->counter = f->counter;
	flow->to_ifindex = f->copy.ifindex;
	flow->to_counter = f->copy.counter;
	flow->port = f->from.handle;
	flow->receiver = f->receiver;
	flow->segment = f->segment.handle;
	flow->vid = f->copy.vid;
	flow->flags = f->from.flags;
	flow->to_flags = f->to.flags;
	flow->mtu = f->segment.mtu;
	flow->segment_flags = f->segment.flags;
}

#endif /* VX_FLOW_H */
