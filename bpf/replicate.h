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

#define VX_CB_WRAPPED 0x1000 /* of vx_replicate's own: a flood has the priority there */

/* Where in a packet what its receiver changes is. */
#define VX_IPV4_CHECK_AT (ETH_HLEN + __builtin_offsetof(struct iphdr, check))
#define VX_IPV4_TO_AT (ETH_HLEN + __builtin_offsetof(struct iphdr, daddr))
#define VX_IPV6_TO_AT (ETH_HLEN + __builtin_offsetof(struct ipv6hdr, daddr))

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

/* Whom a slot's copy goes to; false: it is empty, or its VTEP gets none. */
static __always_inline bool vx_visit_vtep(const struct vx_flood *flood, __u16 slot,
					  struct vx_membership *member)
{
	struct vx_port port;

	return vx_find_slot(flood->segment, VX_VTEP_SLOT + slot, member) &&
	       vx_find_port(member->port, &port) && vx_may_receive(&port) &&
	       !vx_both_uplinks(&flood->from, &port) &&
	       (!flood->restricted || vx_listens(flood->audience, member->port, member->counter));
}

static __always_inline void vx_send_copy(struct __sk_buff *skb, struct vx_flood *flood,
					 const struct vx_overlay *here,
					 const struct vx_membership *member, __be32 *last)
{
	struct vx_vtep vtep;

	if (!vx_find_vtep(member->port, &vtep) || !vx_readdress(skb, here, &vtep, last) ||
	    bpf_clone_redirect(skb, here->ifindex, 0) == -ENOMEM) {
		vx_count_lost_copy(member->port, flood->segment, VX_NO_DESTINATION, skb->len);
		return;
	}
	if (flood->restricted)
		vx_ask(flood->audience, member->counter);
	vx_count_sent(member->counter, skb->len);
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
		if (slot >= flood->vteps)
			break;
		vx_keep_in_memory(&member); /* or the verifier has twice the work */
		if (vx_visit_vtep(flood, slot, &member))
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
