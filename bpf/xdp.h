/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What is different at XDP: a frame has no metadata, it leaves by a map of devices, and until it is
 * certain that it does, it has to stay as it came (README.md).
 *
 * The frame's way out is looked up before anything is charged, learned or counted. From there on it
 * can only be sent, or dropped for a rate. The order of these effects is that of the steps.
 */
#ifndef VX_XDP_H
#define VX_XDP_H

#include <linux/if_ether.h>

#include "flow.h"
#include "forward.h"
#include "frame.h"
#include "guard_l3.h"
#include "learn.h"
#include "maps.h"
#include "plain.h"
#include "rate.h"
#include "verdict.h"

#define VX_ADDRESS_BYTES (2 * ETH_ALEN)

/* Step 7. Nothing of a plain frame is hidden; ARP and ND, of step 8, are no plain frames. */
static __always_inline bool vx_may_use_plain_source(const struct xdp_md *ctx,
						    const struct vx_frame *f)
{
	const void *ip = vx_xdp_data(ctx) + ETH_HLEN + (f->tpid ? VX_TAG_BYTES : 0);

	if (f->ethertype == ETH_P_IP)
		return ip + sizeof(struct iphdr) <= vx_xdp_end(ctx) &&
		       vx_may_use_ipv4(f, ((const struct iphdr *)ip)->saddr);
	return ip + sizeof(struct ipv6hdr) <= vx_xdp_end(ctx) &&
	       vx_may_use_ipv6(f, &((const struct ipv6hdr *)ip)->saddr);
}

static __always_inline int vx_guard_plain_ip(const struct xdp_md *ctx, const struct vx_frame *f)
{
	if (f->from.flags & VX_PORT_ADDRESSES && !vx_may_use_plain_source(ctx, f))
		return VX_NOT_PLAIN;
	return VX_GO_ON;
}

/*
 * What is vx_tc's although nobody refuses it: a receiver or sender that has to be looked for, and in
 * shadow a rate, which would have to let pass what it counts.
 */
static __always_inline int vx_leave_to_tc(const struct vx_frame *f)
{
	if (!f->known || !f->to.handle || !vx_may_receive(&f->to) ||
	    vx_both_uplinks(&f->from, &f->to) || vx_is_news(f))
		return VX_NOT_PLAIN;
	return vx_is_limited_in_shadow(&f->from) ? VX_NOT_PLAIN : VX_GO_ON;
}

/* Takes the tag off the frame's bytes. */
static __always_inline bool vx_pop_tag(struct xdp_md *ctx)
{
	__u64 *data = vx_xdp_data(ctx);
	__u64 head;
	__u32 rest;

	if ((void *)data + ETH_HLEN + VX_TAG_BYTES > vx_xdp_end(ctx))
		return false;
	head = *data;
	rest = *(__u32 *)(data + 1);
	*(__u64 *)((void *)data + VX_TAG_BYTES) = head;
	*(__u32 *)((void *)data + VX_TAG_BYTES + sizeof(head)) = rest;
	return !bpf_xdp_adjust_head(ctx, VX_TAG_BYTES);
}

/* Puts one on. False: there is no room in front of the frame, which is as it was. */
static __always_inline bool vx_push_tag(struct xdp_md *ctx, __u16 tci)
{
	__u64 *data;
	__u64 head;
	__u32 rest;

	if (bpf_xdp_adjust_head(ctx, -VX_TAG_BYTES))
		return false;
	data = vx_xdp_data(ctx);
	if ((void *)data + ETH_HLEN + VX_TAG_BYTES > vx_xdp_end(ctx))
		return false;
	head = *(__u64 *)((void *)data + VX_TAG_BYTES);
	rest = *(__u32 *)((void *)data + VX_TAG_BYTES + sizeof(head));
	*data = head;
	*(__u32 *)(data + 1) = rest;
	*(__be32 *)((void *)data + VX_ADDRESS_BYTES) = bpf_htonl(ETH_P_8021Q << 16 | tci);
	return true;
}

/* As vx_set_tag; false: the frame is as it was. */
static __always_inline bool vx_set_tag_at_xdp(struct xdp_md *ctx, const struct vx_frame *f)
{
	__be16 *tci = vx_xdp_data(ctx) + ETH_HLEN;

	if (!f->tpid)
		return !f->copy.vid || vx_push_tag(ctx, f->copy.vid);
	if (!f->copy.vid)
		return vx_pop_tag(ctx);
	if ((void *)(tci + 1) > vx_xdp_end(ctx))
		return false;
	*tci = bpf_htons(f->copy.vid | (f->tci & VX_TCI_PRIORITY));
	return true;
}

/*
 * Steps 11, 13 and 15. A plain frame is to a known station, so no storm limit is asked. Of two rates the
 * first is paid when the second refuses.
 */
static __always_inline int vx_charge_plain(const struct vx_frame *f)
{
	struct vx_load load = {
		.frames = 1,
		.bytes = f->bytes - (f->tpid ? VX_TAG_BYTES : 0),
	};
	int fate;

	if (f->from.flags & VX_PORT_LIMITED_IN) {
		fate = vx_charge_arrival(f, &load);
		if (fate)
			return fate;
	}
	if (f->sender.row) /* of a flow there is none, and nothing due */
		vx_refresh(f);
	return vx_take_departure(&f->to, &load, f->copy.vid) ? VX_GO_ON : vx_drop(VX_RATE_LIMITED);
}

/* Where the receiver's device takes frames from XDP, the frame goes there; else it is vx_tc's. */
static __always_inline int vx_finish_plain(struct xdp_md *ctx, struct vx_frame *f)
{
	int fate;

	if (bpf_redirect_map((void *)VX_MAP(xdp_devices), f->receiver, XDP_PASS) != XDP_REDIRECT ||
	    !vx_set_tag_at_xdp(ctx, f))
		return XDP_PASS;
	fate = vx_charge_plain(f);
	if (fate) {
		vx_count_drop(f, vx_fate_reason(fate), VX_DROP_FRAME);
		return XDP_DROP;
	}
	vx_count_frame(f->counter, VX_FORWARDED, f->bytes, 1);
	vx_count_sent(f->copy.counter, vx_xdp_bytes(ctx));
	return XDP_REDIRECT;
}

#endif /* VX_XDP_H */
