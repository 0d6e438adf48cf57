/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Step 4a, before it drops: a VM that has arrived says so.
 *
 * When a VM goes on behind a port that has waited for it, its hypervisor or itself tells the segment where
 * it is now: by RARP (RFC 903), gratuitous ARP (RFC 5227, section 3) or an unsolicited NA (RFC 4861, 7.2.6). A port
 * that holds its frames becomes one that is up, at once and by this program, whether or not the agent lives;
 * that frame is the first to go on. Of one in standby, whose VM nobody has said to be leaving, the agent is
 * told.
 */
#ifndef VX_ANNOUNCE_H
#define VX_ANNOUNCE_H

#include <linux/if_ether.h>

#include "answer.h"
#include "frame.h"
#include "guard.h"
#include "learn.h"
#include "maps.h"
#include "tell.h"

#define VX_ETH_P_RARP 0x8035

static __always_inline bool vx_is_gratuitous(struct __sk_buff *skb, const struct vx_frame *f)
{
	struct vx_arp_message arp;

	return !bpf_skb_load_bytes(skb, f->l3, &arp, sizeof(arp)) &&
	       arp.sender.sender_ip == arp.target_ip;
}

static __always_inline bool vx_is_announcement(struct __sk_buff *skb, const struct vx_frame *f)
{
	switch (f->ethertype) {
	case VX_ETH_P_RARP:
		return true;
	case ETH_P_ARP:
		return vx_is_gratuitous(skb, f);
	case ETH_P_IPV6:
		return f->nd == VX_ND_NA;
	default:
		return false;
	}
}

/* Whether the sender is a VM of the port's own. */
static __always_inline bool vx_is_own(struct vx_frame *f)
{
	struct vx_station sender;

	f->now_ns = bpf_ktime_get_coarse_ns();
	vx_find_station(f, f->source, &sender);
	return vx_lists(f, &sender);
}

/* The agent writes the same row, and the same into it once it knows. */
static __always_inline void vx_come_up(struct vx_frame *f)
{
	__u32 key = f->from.handle;
	volatile struct vx_port *row = vx_lookup(ports, &key);

	if (row)
		row->state = VX_PORT_UP;
	vx_raise_epoch(f->segment.handle, 1);
	f->from.state = VX_PORT_UP;
}

static __always_inline int vx_hear_vm(struct __sk_buff *skb, struct vx_frame *f)
{
	bool holds = f->from.state == VX_PORT_HOLDING;

	if (!(holds || f->from.state == VX_PORT_STANDBY) || !vx_is_group(f->destination) ||
	    !vx_is_announcement(skb, f) || !vx_is_own(f))
		return VX_GO_ON;
	vx_tell(f, VX_EVENT_ANNOUNCED, f->from.handle, 0);
	if (holds)
		vx_come_up(f);
	return VX_GO_ON;
}

#endif /* VX_ANNOUNCE_H */
