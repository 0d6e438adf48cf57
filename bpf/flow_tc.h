/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Frames of a flow (flow.h) at tc. Not all are worth it: those that stand for several but TCP, and those of inspected
 * ports but TCP and UDP, without anything special, go the long way.
 */
#ifndef VX_FLOW_TC_H
#define VX_FLOW_TC_H

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include "flow.h"
#include "forward.h"
#include "frame.h"
#include "guard_l3.h"
#include "parse.h"
#include "plain.h"
#include "rate.h"
#include "tag.h"

/* What a parse would fill of a frame whose only tag, if it has one, is in skb->vlan_tci. */
static __always_inline bool vx_parse_for_flow(struct __sk_buff *skb, struct vx_frame *f)
{
	int type = vx_parse_ethernet(skb, f);

	if (type < 0 || vx_is_group(f->destination) || vx_is_tpid(type))
		return false;
	f->tpid = skb->vlan_present ? bpf_ntohs(skb->vlan_proto) : 0;
	f->tci = skb->vlan_present ? skb->vlan_tci : 0;
	f->tag_in_data = false;
	f->followed_by_tag = false;
	f->ethertype = type;
	f->bytes = vx_frame_bytes(skb);
	f->l3_bytes = skb->len - ETH_HLEN;
	f->shadowed = false;
	f->dhcp = false;
	return vx_has_flow_tag(f);
}

static __always_inline bool vx_is_simple_l4(__u8 protocol, const void *at, const void *end)
{
	const struct udphdr *udp = at;

	if (protocol == IPPROTO_TCP)
		return true;
	return protocol == IPPROTO_UDP && at + sizeof(*udp) <= end &&
	       !vx_is_dhcp_port(udp->source) && !vx_is_dhcp_port(udp->dest);
}

/*
 * Steps 7 to 9 of a frame in which ARP, ND, servers and whatever is hidden cannot be. It begins at
 * `room`.
 */
static __always_inline bool vx_is_simple(struct __sk_buff *skb, const struct vx_frame *f,
					 __u32 room)
{
	const void *at = (void *)(long)skb->data + (room & VX_ROOM_MASK) + ETH_HLEN;
	const void *end = (void *)(long)skb->data_end;
	bool locked = f->from.flags & VX_PORT_ADDRESSES;

	if (f->ethertype == ETH_P_IP) {
		const struct iphdr *ip = at;

		at += sizeof(*ip);
		return at <= end && *(const __u8 *)ip == VX_IPV4_PLAIN &&
		       !(ip->frag_off & bpf_htons(VX_IPV4_FRAGMENT)) &&
		       vx_is_simple_l4(ip->protocol, at, end) &&
		       (!locked || vx_may_use_ipv4(f, ip->saddr));
	}
	if (f->ethertype == ETH_P_IPV6) {
		const struct ipv6hdr *ip = at;

		at += sizeof(*ip);
		return at <= end && vx_is_simple_l4(ip->nexthdr, at, end) &&
		       (!locked || vx_may_use_ipv6(f, &ip->saddr));
	}
	return false;
}

/* Whether something of it could be for a guard, or say something of leases. */
static __always_inline bool vx_wants_look(const struct vx_frame *f)
{
	return vx_is_inspected(&f->from) || f->segment.flags & VX_SEGMENT_LEASES;
}

/*
 * Step 15 of a frame that stands for several, by its largest segment. Only TCP behind nothing special is
 * found to fit, and where no rate has to be charged for all of its headers.
 */
static __always_inline bool vx_fits_segmented(struct __sk_buff *skb, const struct vx_frame *f,
					      __u32 room)
{
	const void *at = (void *)(long)skb->data + (room & VX_ROOM_MASK) + ETH_HLEN;
	const void *end = (void *)(long)skb->data_end;
	__u32 bytes = sizeof(struct iphdr);
	const struct tcphdr *tcp;

	if (f->from.flags & VX_PORT_LIMITED_IN || f->to.flags & VX_PORT_LIMITED_OUT)
		return false;
	if (f->ethertype == ETH_P_IP) {
		if (at + sizeof(struct iphdr) > end || *(const __u8 *)at != VX_IPV4_PLAIN ||
		    ((const struct iphdr *)at)->protocol != IPPROTO_TCP)
			return false;
	} else {
		bytes = sizeof(struct ipv6hdr);
		if (f->ethertype != ETH_P_IPV6 || at + sizeof(struct ipv6hdr) > end ||
		    ((const struct ipv6hdr *)at)->nexthdr != IPPROTO_TCP)
			return false;
	}
	tcp = at + bytes;
	return (void *)(tcp + 1) <= end && bytes + tcp->doff * 4 + skb->gso_size <= f->segment.mtu;
}

static __always_inline bool vx_fits(struct __sk_buff *skb, const struct vx_frame *f, __u32 room)
{
	return skb->gso_size ? vx_fits_segmented(skb, f, room) : f->l3_bytes <= f->segment.mtu;
}

/* Whether the frame has a flow, and nothing of it stands against going the same way. */
static __always_inline bool vx_follow_parsed(struct __sk_buff *skb, struct vx_frame *f,
					     __u32 ifindex, __u16 place, __u32 room)
{
	return vx_recall_flow(f, vx_find_flow(f, ifindex, place)) &&
	       (!vx_wants_look(f) || vx_is_simple(skb, f, room)) && vx_fits(skb, f, room) &&
	       !vx_is_limited_in_shadow(&f->from);
}

static __always_inline bool vx_follow_flow(struct __sk_buff *skb, struct vx_frame *f)
{
	return vx_parse_for_flow(skb, f) &&
	       vx_follow_parsed(skb, f, skb->ifindex, f->tci & VX_TCI_VID, 0);
}

/* Steps 11, 15 and 16 for it; to a device of this host. */
static __always_inline int vx_forward_flow_here(struct __sk_buff *skb, const struct vx_frame *f)
{
	struct vx_load load = { .frames = 1, .bytes = skb->len };
	int fate = VX_GO_ON;

	if (f->from.flags & VX_PORT_LIMITED_IN)
		fate = vx_charge_arrival(f, &load);
	if (!fate && !vx_take_departure(&f->to, &load, f->copy.vid))
		fate = vx_drop(VX_RATE_LIMITED);
	if (!fate && !vx_set_tag(skb, f->copy.vid, f->tci & VX_TCI_PRIORITY))
		fate = vx_drop(VX_NO_DESTINATION);
	return fate ?: VX_FATE(VX_FORWARDED, VX_REASON_NONE);
}

/* The same, to a VTEP as well. */
static __always_inline int vx_forward_flow(struct __sk_buff *skb, struct vx_frame *f)
{
	int fate = vx_forward_flow_here(skb, f);

	if (f->copy.tunnel && vx_fate_verdict(fate) == VX_FORWARDED && !vx_send_into_tunnel(skb, f))
		fate = vx_drop(VX_NO_DESTINATION);
	return fate;
}

#endif /* VX_FLOW_TC_H */
