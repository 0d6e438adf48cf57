/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * DHCP messages that say something of leases, told apart by who sends them and to which UDP port.
 *
 * Servers are believed where they may be: on an uplink, and on a port that is trusted. The VM of a
 * port that is held to its leases can only end its own. Nothing is looked at in segments without
 * such a port. vx_walk notes a message and hands it to vx_lease (lease.h) when all is decided, so one
 * that is dropped says nothing.
 *
 * A message in fragments, behind a second tag or behind extension headers is none.
 */
#ifndef VX_DHCP_H
#define VX_DHCP_H

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ipv6.h>
#include <linux/udp.h>

#include "frame.h"
#include "guard_l3.h"
#include "parse_l3.h"

/* UDP ports to which servers answer; those from which they do are in guard_l3.h. */
#define VX_DHCP_CLIENT 68
#define VX_DHCPV6_CLIENT 546

/* A DHCP message in a frame. */
struct vx_dhcp {
	__u32 offset; /* in the frame's bytes */
	__u32 end;    /* of the IP packet, in the same bytes */
	bool reply;   /* a server's; else a client's */
};

/* By the UDP ports, and by who may say so. False: it is nothing of the kind. */
static __always_inline bool vx_is_dhcp(struct __sk_buff *skb, const struct vx_frame *f,
				       struct vx_dhcp *dhcp, __u16 server, __u16 client)
{
	struct udphdr copy;
	const struct udphdr *udp = vx_at(skb, dhcp->offset, &copy, sizeof(copy));

	if (!udp || dhcp->end > skb->len) /* a host drops what is cut off */
		return false;
	dhcp->offset += sizeof(copy);
	dhcp->reply = udp->source == bpf_htons(server) && udp->dest == bpf_htons(client);
	if (dhcp->reply)
		return f->from.flags & (VX_PORT_UPLINK | VX_PORT_TRUSTED);
	return udp->dest == bpf_htons(server) && f->from.flags & VX_PORT_SNOOPED;
}

static __always_inline bool vx_find_dhcpv4(struct __sk_buff *skb, const struct vx_frame *f,
					   struct vx_dhcp *dhcp)
{
	struct vx_l4 l4 = {};

	if (!vx_find_l4_in_ipv4(skb, f->l3, &l4) || l4.protocol != IPPROTO_UDP || l4.fragment)
		return false;
	dhcp->offset = l4.offset;
	dhcp->end = l4.end;
	return vx_is_dhcp(skb, f, dhcp, VX_DHCP_SERVER, VX_DHCP_CLIENT);
}

static __always_inline bool vx_find_dhcpv6(struct __sk_buff *skb, const struct vx_frame *f,
					   struct vx_dhcp *dhcp)
{
	struct ipv6hdr copy;
	const struct ipv6hdr *ip = vx_at(skb, f->l3, &copy, sizeof(copy));

	if (!ip || ip->nexthdr != IPPROTO_UDP)
		return false;
	dhcp->offset = f->l3 + sizeof(copy);
	dhcp->end = dhcp->offset + bpf_ntohs(ip->payload_len);
	return vx_is_dhcp(skb, f, dhcp, VX_DHCPV6_SERVER, VX_DHCPV6_CLIENT);
}

static __always_inline bool vx_find_dhcp(struct __sk_buff *skb, const struct vx_frame *f,
					 struct vx_dhcp *dhcp)
{
	if (f->ethertype == ETH_P_IP)
		return vx_find_dhcpv4(skb, f, dhcp);
	return f->ethertype == ETH_P_IPV6 && vx_find_dhcpv6(skb, f, dhcp);
}

/* The frame goes on as it would; whoever sends it does so by vx_lease. */
static __always_inline int vx_note_dhcp(struct __sk_buff *skb, struct vx_frame *f)
{
	struct vx_dhcp dhcp;

	if (f->segment.flags & VX_SEGMENT_LEASES && !f->shadowed &&
	    f->from.flags & (VX_PORT_UPLINK | VX_PORT_TRUSTED | VX_PORT_SNOOPED))
		f->dhcp = vx_find_dhcp(skb, f, &dhcp);
	return VX_GO_ON;
}

#endif /* VX_DHCP_H */
