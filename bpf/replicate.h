/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Step 18 on the overlay: a copy for each VTEP of the segment (head-end replication, RFC 7348, 4.2).
 *
 * vx_flood, which has served the members here, ends in a tail call of vx_replicate. That puts the frame into a
 * packet once, and for each VTEP writes its address and sends a clone. It visits VX_VTEP_CHUNK slots and
 * calls itself for the next ones. The state is that of a flood (flood.h), with in
 *
 *   cb[1]  0x1000: the frame is in a packet already
 *
 * Last come ports whose VMs leave. One that drains takes nothing any more, and that on the other host nothing yet: what is
 * flooded here goes there once more, marked as a copy for that port alone, from whomever it comes. The other host
 * gives it to the port until that holds, and so gets it from everybody (overlay.h).
 *
 * By which MACs a packet goes the kernel knows, and may have to ask. A redirect can leave that to it, a clone
 * cannot: it goes to the underlay device without any, and vx_out, at that device's egress, redirects it.
 */
#ifndef VX_REPLICATE_H
#define VX_REPLICATE_H

#include <linux/errno.h>

#include "flood.h"
#include "forward.h"
#include "maps.h"
#include "verdict.h"
#include "vxlan.h"
#include "wrap.h"

#define VX_CB_WRAPPED 0x1000 /* of vx_replicate's own: a flood has the priority there */

/* Where in a packet what its receiver changes is. */
#define VX_IPV4_CHECK_AT (ETH_HLEN + __builtin_offsetof(struct iphdr, check))
#define VX_IPV4_TO_AT (ETH_HLEN + __builtin_offsetof(struct iphdr, daddr))
#define VX_IPV6_TO_AT (ETH_HLEN + __builtin_offsetof(struct ipv6hdr, daddr))
#define VX_IPV4_FLAGS_AT (VX_ROOM_IPV4 - sizeof(struct vx_vxlan))
#define VX_IPV6_FLAGS_AT (VX_ROOM_IPV6 - sizeof(struct vx_vxlan))

/* Addresses a packet to a VTEP. `last`: the IPv4 address that it has. */
static __always_inline bool vx_readdress(struct __sk_buff *skb, const struct vx_overlay *here,
					 const struct vx_vtep *to, __be32 *last)
{
	__be32 next = *(const __be32 *)to->octets;
	__be32 before = *last;

	if (here->family != 4)
		return !bpf_skb_store_bytes(skb, VX_IPV6_TO_AT, (void *)to->octets, 16, 0);
	*last = next;
	return !bpf_l3_csum_replace(skb, VX_IPV4_CHECK_AT, before, next, sizeof(next)) &&
	       !bpf_skb_store_bytes(skb, VX_IPV4_TO_AT, (void *)to->octets, 4, 0);
}

/* Marks it as a copy for the port with this token. Nobody comes after those that get such a one. */
static __always_inline bool vx_mark_copy(struct __sk_buff *skb, const struct vx_overlay *here,
					 __u16 token)
{
	__be32 flags = bpf_htonl(VX_VXLAN_VNI | VX_VXLAN_MARK | VX_VXLAN_COPY | token);
	__u32 at = here->family == 4 ? VX_IPV4_FLAGS_AT : VX_IPV6_FLAGS_AT;

	return !bpf_skb_store_bytes(skb, at, &flags, sizeof(flags), 0);
}

static __always_inline __u16 vx_remote_slot(const struct vx_flood *flood, __u16 at)
{
	return at < flood->vteps ? VX_VTEP_SLOT + at : VX_LEAVING_SLOT + at - flood->vteps;
}

static __always_inline bool vx_has_left(const struct vx_flood *flood, const struct vx_port *port)
{
	return port->state == VX_PORT_DRAINING && port->handle != flood->left_out &&
	       !vx_isolated(&flood->from, port);
}

/* Whom a slot's copy is for; false: it is empty, or its member gets none. */
static __always_inline bool vx_visit_remote(const struct vx_flood *flood, __u16 slot,
					    struct vx_membership *member)
{
	struct vx_port port;

	if (!vx_find_slot(flood->segment, slot, member) || !vx_find_port(member->port, &port))
		return false;
	if (!(member->via ? vx_has_left(flood, &port) :
			    vx_may_receive(&port) && !vx_both_uplinks(&flood->from, &port)))
		return false;
	return !flood->restricted || vx_listens(flood->audience, member->port, member->counter);
}

/* By which VTEP a copy for a member goes; false: it has gone. */
static __always_inline bool vx_find_way(const struct vx_flood *flood,
					const struct vx_membership *member,
					struct vx_membership *way)
{
	*way = *member;
	return !member->via || vx_find_member(member->via, flood->segment, way);
}

static __always_inline void vx_send_copy(struct __sk_buff *skb, struct vx_flood *flood,
					 const struct vx_overlay *here,
					 const struct vx_membership *member, __be32 *last)
{
	struct vx_membership way;
	struct vx_vtep vtep;

	if (!vx_find_way(flood, member, &way) || !vx_find_vtep(way.port, &vtep) ||
	    !vx_readdress(skb, here, &vtep, last) ||
	    (member->via && !vx_mark_copy(skb, here, member->token)) ||
	    bpf_clone_redirect(skb, here->ifindex, 0) == -ENOMEM) {
		vx_count_lost_copy(member->port, flood->segment, VX_NO_DESTINATION, skb->len);
		return;
	}
	if (flood->restricted)
		vx_ask(flood->audience, member->counter);
	vx_count_sent(way.counter, skb->len);
	flood->copies++;
}

/* Puts the frame into a packet; the state says so from now on. */
static __always_inline bool vx_wrap_flood(struct __sk_buff *skb, const struct vx_flood *flood,
					  const struct vx_overlay *here)
{
	struct vx_tunnel tunnel = { .here = *here }; /* to nobody yet */
	struct vx_segment segment;

	if (skb->cb[1] & VX_CB_WRAPPED)
		return true;
	if (!vx_find_segment(flood->segment, &segment) || !vx_set_tag(skb, 0, 0))
		return false;
	tunnel.vni = segment.vni;
	return vx_wrap(skb, &tunnel);
}

/* Visits one chunk of slots. */
static __always_inline void vx_replicate_chunk(struct __sk_buff *skb, struct vx_flood *flood,
					       const struct vx_overlay *here)
{
	struct vx_membership member;
	__be32 last = 0; /* IPv4 address that the packet has now */
	__u16 slot;

	if (bpf_skb_load_bytes(skb, VX_IPV4_TO_AT, &last, sizeof(last)))
		return;
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < VX_VTEP_CHUNK; i++) {
		slot = flood->chunk * VX_VTEP_CHUNK + i;
		if (slot >= flood->remote)
			break;
		vx_keep_in_memory(&member); /* or the verifier has twice the work */
		if (vx_visit_remote(flood, vx_remote_slot(flood, slot), &member))
			vx_send_copy(skb, flood, here, &member, &last);
		vx_forget_bytes(&flood->port, 4, skb->len);
		vx_forget_bytes(here, 3, skb->len);
	}
}

/* The next chunk, with the frame in its packet. */
static __always_inline void vx_replicate_on(struct __sk_buff *skb, struct vx_flood *flood)
{
	flood->priority = VX_CB_WRAPPED;
	vx_keep_flood(skb, flood);
	bpf_tail_call_(VX_MAP(progs), skb, VX_PROG_REPLICATE);
}

#endif /* VX_REPLICATE_H */
