/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Frames of a flow (flow.h) at tc. Not all are worth it: frames that stand for several, and those of
 * inspected ports but TCP and UDP without anything special, go the long way.
 */
#ifndef VX_FLOW_TC_H
#define VX_FLOW_TC_H

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
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

	if (type < 0 || vx_is_group(f->destination) || vx_is_tpid(type) || skb->gso_size)
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

/* Steps 7 to 9 of a frame in which ARP, ND, servers and whatever is hidden cannot be. */
static __always_inline bool vx_is_simple(struct __sk_buff *skb, const struct vx_frame *f)
{
	const void *at = (void *)(long)skb->data + ETH_HLEN;
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

/* Whether the frame has a flow, and nothing of it stands against going the same way. */
static __always_inline bool vx_follow_flow(struct __sk_buff *skb, struct vx_frame *f)
{
	return vx_parse_for_flow(skb, f) && vx_recall_flow(f, skb->ifindex) &&
	       (!vx_wants_look(f) || vx_is_simple(skb, f)) && f->l3_bytes <= f->segment.mtu &&
	       !vx_is_limited_in_shadow(&f->from);
}

/* Steps 11, 15 and 16 for it. */
static __always_inline int vx_forward_flow(struct __sk_buff *skb, const struct vx_frame *f)
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

#endif /* VX_FLOW_TC_H */
