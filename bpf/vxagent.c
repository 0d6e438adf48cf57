// SPDX-License-Identifier: GPL-2.0-only
/*
 * The switch's programs. Each reads as the list of its stages; the numbers are the steps of a frame
 * in README.md, whose order is normative.
 */
#include <linux/bpf.h>

#include "abi.h"
#include "announce.h"
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
#include "hop.h"
#include "learn.h"
#include "lease.h"
#include "overlay.h"
#include "parse.h"
#include "parse_l3.h"
#include "plain.h"
#include "rate.h"
#include "replicate.h"
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

	if (vx_looks_like_vxlan(skb) && vx_is_underlay(skb->ifindex))
		bpf_tail_call_(VX_MAP(progs), skb, VX_PROG_TUNNEL);
	if (vx_follow_flow(skb, f))
		return vx_finish(skb, f, vx_forward_flow(skb, f));

	if (vx_is_underlay(skb->ifindex))
		bpf_tail_call_(VX_MAP(progs), skb, VX_PROG_TUNNEL);
	else
		bpf_tail_call_(VX_MAP(progs), skb, VX_PROG_WALK);
	vx_count_undelivered(0, 0, vx_frame_bytes(skb));
	return TC_ACT_SHOT;
}

/*
 * Called by vx_tc for what comes by the underlay device: step 0. What is no other host's frame is as
 * if this program was not there.
 */
int vx_tunnel(struct __sk_buff *skb)
{
	struct vx_frame frame;
	struct vx_frame *f = &frame;
	struct vx_packet packet;
	bool ours = vx_is_packet(skb, &packet);
	int fate;

	vx_keep_in_memory(f);

	if (ours && vx_follow_tunneled(skb, f, &packet))
		return vx_finish(skb, f,
				 vx_take_out(skb, f, &packet) ?: vx_forward_flow_here(skb, f));

	__builtin_memset(f, 0, sizeof(*f));
	vx_note_epoch(f);
	if (!ours || !vx_is_tunneled(skb, f, &packet)) {
		bpf_tail_call_(VX_MAP(progs), skb, VX_PROG_WALK);
		vx_count_undelivered(0, 0, vx_frame_bytes(skb));
		return TC_ACT_SHOT;
	}
	fate = vx_admit(f, &packet) ?: vx_pass_on(skb, f, &packet);
	if (fate)
		return vx_finish(skb, f, fate);

	fate = vx_take_out(skb, f, &packet) ?:
	       vx_parse(skb, f) ?:			/* 1 */
	       vx_forget_tags(f) ?:
	       vx_keep_inside(f) ?:			/* 2, 3 */
	       vx_guard_address(f) ?:			/* 4 */
	       vx_note_epoch(f) ?:
	       vx_find_sender(f) ?:
	       vx_forget_sender(f) ?:
	       vx_resolve_inside(f) ?:			/* 10 */
	       vx_forget_receiver(f) ?:
	       vx_keep_tagged(f) ?:			/* 3 */
	       vx_learn(f) ?:				/* 13 */
	       vx_keep_apart(f) ?:			/* 14 */
	       vx_limit_size(f) ?:			/* 15 */
	       vx_limit_departure(skb, f) ?:		/* 15 */
	       vx_limit_unknown(f) ?:			/* 17 */
	       vx_note_dhcp(skb, f) ?:
	       vx_forward_here(skb, f) ?:		/* 16 */
	       vx_start_flood(skb, f);			/* 18 */

	if (vx_fate_verdict(fate) == VX_FORWARDED)
		vx_keep_flow(f, vx_tunnel_device(&packet), vx_tunnel_place(&packet));
	return vx_tell_lease(skb, f, vx_finish_inside(skb, f, fate));
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
	       vx_hear_vm(skb, f) ?:
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
	       vx_flood_after_vm(f) ?:
	       vx_note_dhcp(skb, f) ?:
	       vx_lift_tag(skb, f) ?:
	       vx_forward(skb, f) ?:				/* 16 */
	       vx_start_flood(skb, f);				/* 18 */

	if (vx_fate_verdict(fate) == VX_FORWARDED)
		vx_keep_flow(f, skb->ifindex, f->tci & VX_TCI_VID);
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
	if (flood.remote)
		return vx_flood_vteps(skb, &flood);
	return vx_send_last(skb, &flood);
}

/* Called by vx_flood and by itself, for those who get their copies elsewhere. One run is one chunk of them. */
int vx_replicate(struct __sk_buff *skb)
{
	struct vx_overlay here;
	struct vx_flood flood;

	if (!vx_recall_flood(skb, &flood) || !vx_find_overlay(&here) ||
	    !vx_wrap_flood(skb, &flood, &here))
		return TC_ACT_SHOT;
	vx_replicate_chunk(skb, &flood, &here);
	vx_count_copies(flood.counter, flood.copies);
	if (++flood.chunk * VX_VTEP_CHUNK < flood.remote)
		vx_replicate_on(skb, &flood);
	return TC_ACT_SHOT; /* clones went out */
}

/*
 * tc egress of the underlay device: packets of vx_replicate have no MACs yet. All others are the host's, and
 * go on.
 */
int vx_out(struct __sk_buff *skb)
{
	const __u32 *macs = (void *)(long)skb->data;

	if ((void *)macs + ETH_HLEN > (void *)(long)skb->data_end)
		return TC_ACT_UNSPEC;
	if (macs[0] | macs[1] | macs[2]) {
		if (vx_asks_hop(skb))
			vx_note_hop(skb);
		return TC_ACT_UNSPEC;
	}
	return vx_redirect_neigh(skb->ifindex, NULL, 0, 0);
}

/* Run by the agent alone, on a frame that leaves by the device whose ifindex is in skb->mark. */
int vx_say(struct __sk_buff *skb)
{
	bpf_clone_redirect(skb, skb->mark, 0);
	return TC_ACT_SHOT;
}

/* Run by the agent alone, on a struct vx_carried: tc, so with bottom halves off, as those that count. */
int vx_carry(struct __sk_buff *skb)
{
	struct vx_carried carried;

	if (!bpf_skb_load_bytes(skb, 0, &carried, sizeof(carried)))
		vx_add_carried(&carried);
	return TC_ACT_SHOT;
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
	const struct vx_flow *flow;
	int action;

	vx_keep_in_memory(f);

	if (vx_parse_plain_ethernet(ctx, f)) /* 1, 2 */
		return XDP_PASS;
	flow = vx_find_flow(f, ctx->ingress_ifindex, f->tci & VX_TCI_VID);
	if ((flow && flow->to_flags & VX_PORT_VTEP) || vx_parse_plain_l3(ctx, f))
		return XDP_PASS;
	if (vx_recall_flow(f, flow)) {
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
		vx_keep_flow(f, ctx->ingress_ifindex, f->tci & VX_TCI_VID);
	return action;
}
