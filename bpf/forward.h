/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Steps 10 and 14 to 17: the receiver of a frame, and whether it may and can have it.
 */
#ifndef VX_FORWARD_H
#define VX_FORWARD_H

#include "frame.h"
#include "guard.h"
#include "maps.h"
#include "tag.h"

/* A holding port receives already, for the VM that is about to resume. */
static __always_inline bool vx_may_receive(const struct vx_port *port)
{
	return port->ifindex && (port->state == VX_PORT_UP || port->state == VX_PORT_HOLDING);
}

/* Ports that never exchange a frame, whoever sends it: two isolated ones. */
static __always_inline bool vx_isolated(const struct vx_port *a, const struct vx_port *b)
{
	return a->flags & b->flags & VX_PORT_ISOLATED;
}

/* From an uplink only to local ports: no loops through the physical network (split horizon). */
static __always_inline bool vx_both_uplinks(const struct vx_port *a, const struct vx_port *b)
{
	return a->flags & b->flags & VX_PORT_UPLINK;
}

/* Whether a port is in the segment now (its FDB entry may be stale), and how its copy is tagged. */
static __always_inline bool vx_address_copy(const struct vx_frame *f, const struct vx_port *port,
					    struct vx_copy *copy)
{
	struct vx_membership member;

	copy->ifindex = port->ifindex;
	copy->peer = port->flags & VX_PORT_PEER;
	copy->vid = 0;
	copy->counter = port->counter;
	if (port->segment == f->segment.handle)
		return true;
	if (!vx_find_member(port->handle, f->segment.handle, &member))
		return false;
	copy->vid = member.vid;
	copy->counter = member.counter;
	return true;
}

/* Step 10, without a side effect: what is known about the receiver. */
static __always_inline int vx_resolve(struct vx_frame *f)
{
	struct vx_station receiver;
	__u64 origin;

	if (vx_is_group(f->destination))
		return VX_GO_ON;
	vx_find_station(f, f->destination, &receiver);
	if (!receiver.live)
		return VX_GO_ON;
	f->known = true;
	f->receiver = receiver.entry.port;
	origin = receiver.entry.origin;
	vx_forget(origin, f->now_ns); /* or it would go on with each origin by itself */
	f->receiver_origin = origin;
	f->receiver_seen_ns = receiver.entry.seen_ns;
	if (!vx_find_port(f->receiver, &f->to) || !vx_address_copy(f, &f->to, &f->copy))
		f->to.handle = 0;
	return VX_GO_ON;
}

/* The rest of step 3, now that it is known how the frame would leave. */
static __always_inline int vx_keep_tagged(const struct vx_frame *f)
{
	if (f->followed_by_tag && f->to.handle && !f->copy.vid)
		return vx_drop(VX_VLAN_DENIED);
	return VX_GO_ON;
}

/* Step 14. */
static __always_inline int vx_keep_apart(const struct vx_frame *f)
{
	if (!f->known)
		return VX_GO_ON;
	if (f->receiver == f->from.handle)
		return vx_drop(VX_HAIRPIN);
	if (vx_isolated(&f->from, &f->to))
		return vx_drop(VX_ISOLATED);
	return VX_GO_ON;
}

/* Step 15, for floods as well. */
static __always_inline int vx_limit_size(const struct vx_frame *f)
{
	if (f->l3_bytes > f->segment.mtu)
		return vx_drop(VX_MTU_EXCEEDED);
	return VX_GO_ON;
}

/* Step 17: group addresses are always flooded. */
static __always_inline int vx_limit_unknown(const struct vx_frame *f)
{
	if (!f->known && !vx_is_group(f->destination) && f->segment.flags & VX_SEGMENT_DROP_UNKNOWN)
		return vx_drop(VX_UNKNOWN_UNICAST);
	return VX_GO_ON;
}

/* Step 16. Changes the frame's tag; vx_send has the rest, once the frame is counted. */
static __always_inline int vx_forward(struct __sk_buff *skb, const struct vx_frame *f)
{
	if (!f->known)
		return VX_GO_ON;
	if (!f->to.handle || !vx_may_receive(&f->to) || vx_both_uplinks(&f->from, &f->to) ||
	    !vx_set_tag(skb, f->copy.vid, f->tci & VX_TCI_PRIORITY))
		return vx_drop(VX_NO_DESTINATION);
	return VX_FATE(VX_FORWARDED, VX_REASON_NONE);
}

#define VX_PACKET_HOST 0 /* PACKET_HOST; BCC hides <linux/if_packet.h> */

/*
 * Hands the frame to a port's device and returns what the program has to return.
 *
 * bpf_redirect_peer delivers straight into the other namespace. On older kernels the packet type
 * stays what it was on this side, "for another host", and that other side would throw it away.
 */
static __always_inline int vx_send(struct __sk_buff *skb, const struct vx_copy *copy)
{
	if (!copy->peer)
		return bpf_redirect(copy->ifindex, 0);
	bpf_skb_change_type(skb, VX_PACKET_HOST);
	return bpf_redirect_peer(copy->ifindex, 0);
}

#endif /* VX_FORWARD_H */
