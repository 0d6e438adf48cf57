/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Steps 10 and 14 to 17: the receiver of a frame, and whether it may and can have it.
 */
#ifndef VX_FORWARD_H
#define VX_FORWARD_H

#include "frame.h"
#include "guard.h"
#include "hop.h"
#include "maps.h"
#include "tag.h"
#include "wrap.h"

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

/*
 * From an uplink or a VTEP only to local ports: no loops through the physical network (split horizon).
 * Between the two kinds frames go where both are members of the segment, which is on one host alone.
 */
static __always_inline bool vx_both_uplinks(const struct vx_port *a, const struct vx_port *b)
{
	return a->flags & b->flags & VX_PORT_UPLINK && !((a->flags ^ b->flags) & VX_PORT_VTEP);
}

/* Whether a port is in the segment now (its FDB entry may be stale), and how its copy is tagged. */
static __always_inline bool vx_address_copy(const struct vx_frame *f, const struct vx_port *port,
					    struct vx_copy *copy)
{
	struct vx_membership member;

	copy->ifindex = port->ifindex;
	copy->peer = port->flags & VX_PORT_PEER;
	copy->tunnel = port->flags & VX_PORT_VTEP;
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

/*
 * Where a VM that migrates is just now. On the host that it leaves all goes to the other one, from
 * whomever it comes. On the one where it is awaited, what is marked is for its port; all else still goes to
 * where it is.
 */
static __always_inline void vx_follow_vm(struct vx_frame *f, const struct vx_fdb_entry *entry)
{
	f->redirected = entry->flags & VX_FDB_REDIRECT;
	f->arriving = f->marked && !f->redirected;
	if (!f->arriving)
		f->receiver = entry->via;
}

/*
 * What a VM that leaves still sends would teach the fabric that it is here. Where the segment goes by tunnels, the
 * fabric finds it behind the host that bridges, wherever it is.
 */
static __always_inline bool vx_leaves_by_vlan(const struct vx_frame *f)
{
	return f->segment.flags & VX_SEGMENT_BY_VLAN && f->sender.live &&
	       f->sender.entry.flags & VX_FDB_REDIRECT && f->sender.entry.port == f->from.handle;
}

/* So it leaves by the host to which the VM migrates. */
static __always_inline void vx_send_after_vm(struct vx_frame *f)
{
	f->redirected = true;
	f->receiver = f->sender.entry.via;
	if (!vx_find_port(f->receiver, &f->to) || !vx_address_copy(f, &f->to, &f->copy))
		f->to.handle = 0;
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
	if (receiver.entry.via)
		vx_follow_vm(f, &receiver.entry);
	if (!vx_find_port(f->receiver, &f->to) || !vx_address_copy(f, &f->to, &f->copy))
		f->to.handle = 0;
	if (vx_leaves_by_vlan(f) && f->to.handle &&
	    (f->to.flags & (VX_PORT_UPLINK | VX_PORT_VTEP)) == VX_PORT_UPLINK)
		vx_send_after_vm(f);
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
	if (f->redirected)
		return f->marked ? vx_drop(VX_LOOP) : VX_GO_ON;
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

/*
 * What everybody shall have, of a VM that leaves: the host to which it migrates floods it, and by the fabric
 * it comes back for those who are here.
 */
static __always_inline int vx_flood_after_vm(struct vx_frame *f)
{
	if (f->known || f->followed_by_tag || !vx_leaves_by_vlan(f))
		return VX_GO_ON;
	f->known = true;
	vx_send_after_vm(f);
	return VX_GO_ON;
}

/* Puts a frame without a tag into the tunnel to its receiver, a VTEP. */
static __always_inline bool vx_send_into_tunnel(struct __sk_buff *skb, struct vx_frame *f)
{
	struct vx_tunnel tunnel = {};
	struct vx_segment segment;

	/* A flow does not keep the VNI. */
	if (!vx_find_vtep(f->receiver, &tunnel.to) || !vx_find_overlay(&tunnel.here) ||
	    !vx_find_segment(f->segment.handle, &segment))
		return false;
	tunnel.vni = segment.vni;
	tunnel.marked = f->redirected;
	f->addressed = vx_recall_hop(f->receiver, f->now_ns, tunnel.macs);
	if (!f->addressed)
		vx_ask_hop(skb, f->receiver);
	return vx_wrap(skb, &tunnel);
}

/* Split horizon, which ends where a VM does not stay. */
static __always_inline bool vx_is_turned_back(const struct vx_frame *f)
{
	return !f->redirected && vx_both_uplinks(&f->from, &f->to);
}

/* A port that is in standby takes nothing but what its VM has missed where it left. */
static __always_inline bool vx_may_await(const struct vx_frame *f)
{
	return f->arriving && f->to.ifindex && f->to.state == VX_PORT_STANDBY;
}

/*
 * Step 16. Changes the frame's tag, or puts it into a tunnel; vx_send has the rest, once the frame is
 * counted.
 */
static __always_inline int vx_forward(struct __sk_buff *skb, struct vx_frame *f)
{
	if (!f->known)
		return VX_GO_ON;
	if (!f->to.handle || !vx_may_receive(&f->to) || vx_is_turned_back(f) ||
	    !vx_set_tag(skb, f->copy.vid, f->tci & VX_TCI_PRIORITY) ||
	    (f->copy.tunnel && !vx_send_into_tunnel(skb, f)))
		return vx_drop(VX_NO_DESTINATION);
	return VX_FATE(VX_FORWARDED, VX_REASON_NONE);
}

/* The same for a frame from a VTEP, which never goes into a tunnel again. */
static __always_inline int vx_forward_here(struct __sk_buff *skb, const struct vx_frame *f)
{
	if (!f->known)
		return VX_GO_ON;
	if (!f->to.handle || !(vx_may_receive(&f->to) || vx_may_await(f)) || f->copy.tunnel ||
	    !vx_set_tag(skb, f->copy.vid, 0))
		return vx_drop(VX_NO_DESTINATION);
	return VX_FATE(VX_FORWARDED, VX_REASON_NONE);
}

/* BCC 0.26 declares it without the flags. The kernel's tables say by which MACs. */
static int (*vx_redirect_neigh)(__u32 ifindex, void *next_hop, int bytes,
				__u64 flags) = (void *)BPF_FUNC_redirect_neigh;

#define VX_PACKET_HOST 0 /* PACKET_HOST; BCC hides <linux/if_packet.h> */

/*
 * Hands the frame to a port's device and returns what the program has to return.
 *
 * bpf_redirect_peer delivers straight into the other namespace. On older kernels the packet type
 * stays what it was on this side, "for another host", and that other side would throw it away.
 */
static __always_inline int vx_send(struct __sk_buff *skb, const struct vx_frame *f)
{
	const struct vx_copy *copy = &f->copy;

	if (copy->tunnel && !f->addressed)
		return vx_redirect_neigh(copy->ifindex, NULL, 0, 0);
	if (!copy->peer)
		return bpf_redirect(copy->ifindex, 0);
	bpf_skb_change_type(skb, VX_PACKET_HOST);
	return bpf_redirect_peer(copy->ifindex, 0);
}

#endif /* VX_FORWARD_H */
