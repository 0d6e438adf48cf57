// SPDX-License-Identifier: GPL-2.0-only
/*
 * The switch's programs. Each reads as the list of its stages; the numbers are the steps of a frame
 * in README.md, whose order is normative.
 */
#include <linux/bpf.h>

#include "abi.h"
#include "answer.h"
#include "classify.h"
#include "dhcp.h"
#include "flood.h"
#include "flow.h"
#include "flow_tc.h"
#include "forward.h"
#include "frame.h"
#include "guard.h"
#include "guard_l3.h"
#include "learn.h"
#include "lease.h"
#include "parse.h"
#include "parse_l3.h"
#include "plain.h"
#include "rate.h"
#include "snoop.h"
#include "tag.h"
#include "verdict.h"
#include "xdp.h"

/* tc ingress of ports and uplinks, by tcx or clsact. Most frames have a flow. */
int vx_tc(struct __sk_buff *skb)
{
	struct vx_frame frame;
	struct vx_frame *f = &frame;

	vx_keep_in_memory(f);

	if (vx_follow_flow(skb, f))
		return vx_finish(skb, f, vx_forward_flow(skb, f));

	bpf_tail_call_(VX_MAP(progs), skb, VX_PROG_WALK);
	vx_count_undelivered(0, 0, vx_frame_bytes(skb));
	return TC_ACT_SHOT;
}

/* Called by vx_tc for all others. The first stage that decides is the last. */
int vx_walk(struct __sk_buff *skb)
{
	struct vx_frame frame = {};
	struct vx_frame *f = &frame;
	int fate;

	vx_keep_in_memory(f);

	fate = vx_note_epoch(f) ?:
	       vx_arrive(f, skb->ifindex, vx_frame_bytes(skb)) ?:
	       vx_parse(skb, f) ?:				/* 1 */
	       vx_forget_tags(f) ?:
	       vx_enforce(f, vx_parse_l3(skb, f)) ?:		/* 1 */
	       vx_forget_headers(f) ?:
	       vx_keep_link_local(f) ?:				/* 2 */
	       vx_classify(f) ?:				/* 3 */
	       vx_guard_address(f) ?:				/* 4 */
	       vx_guard_state(f) ?:				/* 4a */
	       vx_note_epoch(f) ?:
	       vx_enforce(f, vx_guard_mac(f)) ?:		/* 5, 6 */
	       vx_enforce(f, vx_guard_ip(skb, f)) ?:		/* 7 */
	       vx_enforce(f, vx_guard_neighbour(skb, f)) ?:	/* 8 */
	       vx_enforce(f, vx_guard_server(f)) ?:		/* 9 */
	       vx_forget_sender(f) ?:
	       vx_resolve(f) ?:					/* 10 */
	       vx_forget_receiver(f) ?:
	       vx_keep_tagged(f) ?:				/* 3 */
	       vx_enforce(f, vx_limit_arrival(skb, f)) ?:	/* 11 */
	       vx_answer(skb, f) ?:				/* 12 */
	       vx_learn(f) ?:					/* 13 */
	       vx_keep_apart(f) ?:				/* 14 */
	       vx_limit_size(f) ?:				/* 15 */
	       vx_limit_departure(skb, f) ?:			/* 15 */
	       vx_limit_unknown(f) ?:				/* 17 */
	       vx_note_dhcp(skb, f) ?:
	       vx_lift_tag(skb, f) ?:
	       vx_forward(skb, f) ?:				/* 16 */
	       vx_start_flood(skb, f);				/* 18 */

	if (vx_fate_verdict(fate) == VX_FORWARDED)
		vx_keep_flow(f, skb->ifindex);
	return vx_tell_lease(skb, f, vx_finish(skb, f, fate));
}

/* Called by vx_walk for a DHCP message that goes on, to one port or, by way of vx_flood, to all. */
int vx_lease(struct __sk_buff *skb)
{
	vx_follow_leases(skb);
	if (skb->cb[1] & VX_CB_SENT)
		return TC_ACT_REDIRECT;
	bpf_tail_call_(VX_MAP(progs), skb, VX_PROG_FLOOD);
	vx_count_undelivered(skb->cb[0] >> 16, skb->cb[0] & 0xffff, vx_frame_bytes(skb));
	return TC_ACT_SHOT;
}

/* Called by vx_walk in front of vx_flood, for multicast that follows IGMP and MLD. */
int vx_snoop(struct __sk_buff *skb)
{
	vx_follow_groups(skb);
	bpf_tail_call_(VX_MAP(progs), skb, VX_PROG_FLOOD);
	vx_count_undelivered(skb->cb[0] >> 16, skb->cb[0] & 0xffff, vx_frame_bytes(skb));
	return TC_ACT_SHOT;
}

/* Called by vx_walk, vx_lease, vx_snoop and by itself, with its state in skb->cb. One run is one chunk of the flood. */
int vx_flood(struct __sk_buff *skb)
{
	__u32 bytes = vx_frame_bytes(skb);
	struct vx_flood flood;
	bool whole = vx_resume_flood(skb, &flood) && vx_flood_chunk(skb, &flood);

	if (!flood.chunk)
		vx_count_frame(flood.counter, VX_FLOODED, bytes, flood.copies);
	else
		vx_count_copies(flood.counter, flood.copies);
	if (!whole)
		return TC_ACT_SHOT;
	if (++flood.chunk * VX_CHUNK < flood.slots)
		vx_call_flood(skb, &flood);
	return vx_send_last(skb, &flood);
}

/*
 * XDP, in front of vx_tc on the same device: finishes plain frames of stations that are known, by the
 * same stages. Whatever a stage says but to go on means that vx_tc decides: the frame is passed up,
 * untouched and uncounted.
 */
int vx_xdp(struct xdp_md *ctx)
{
	struct vx_frame frame;
	struct vx_frame *f = &frame;
	int action;

	vx_keep_in_memory(f);

	if (vx_parse_plain(ctx, f)) /* 1, 2 */
		return XDP_PASS;
	if (vx_recall_flow(f, ctx->ingress_ifindex)) {
		if (vx_guard_plain_ip(ctx, f) ?: vx_limit_size(f)) /* 7, 15 */
			return XDP_PASS;
		if (vx_is_limited_in_shadow(&f->from))
			return XDP_PASS;
		return vx_finish_plain(ctx, f);
	}

	vx_begin(f);
	if (vx_note_epoch(f) ?:
	    vx_arrive(f, ctx->ingress_ifindex, f->bytes) ?:
	    vx_classify(f) ?:			/* 3 */
	    vx_guard_address(f) ?:		/* 4 */
	    vx_guard_state(f) ?:		/* 4a */
	    vx_note_epoch(f) ?:
	    vx_guard_mac(f) ?:			/* 5, 6 */
	    vx_guard_plain_ip(ctx, f) ?:	/* 7 */
	    vx_resolve(f) ?:			/* 10 */
	    vx_keep_apart(f) ?:			/* 14 */
	    vx_limit_size(f) ?:			/* 15 */
	    vx_leave_to_tc(f))
		return XDP_PASS;

	action = vx_finish_plain(ctx, f); /* 11, 13, 15, 16 */
	if (action == XDP_REDIRECT)
		vx_keep_flow(f, ctx->ingress_ifindex);
	return action;
}
