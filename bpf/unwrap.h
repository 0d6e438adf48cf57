/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How packets of tunnels are told from others, and how the frame is taken out of one, or goes on in it.
 */
#ifndef VX_UNWRAP_H
#define VX_UNWRAP_H

#include "checksum.h"
#include "frame.h"
#include "maps.h"
#include "vxlan.h"

/* What the outside of a packet says that is VXLAN for us. */
struct vx_packet {
	__u8 sender[16];
	__u32 room; /* bytes in front of the frame's own */
	__u32 vni;
	__u32 flags;
};

/* A look from afar, for which no table is asked: whether a frame may be VXLAN. Behind IP options none is seen. */
static __always_inline bool vx_looks_like_vxlan(const struct __sk_buff *skb)
{
	const void *data = (void *)(long)skb->data;
	const void *end = (void *)(long)skb->data_end;
	const __be16 *over_ipv4 = data + ETH_HLEN + sizeof(struct iphdr) + sizeof(__be16);
	const __be16 *over_ipv6 = data + ETH_HLEN + sizeof(struct ipv6hdr) + sizeof(__be16);

	return ((void *)(over_ipv4 + 1) <= end && *over_ipv4 == bpf_htons(VX_VXLAN_PORT)) ||
	       ((void *)(over_ipv6 + 1) <= end && *over_ipv6 == bpf_htons(VX_VXLAN_PORT));
}

/* Makes the first bytes linear, for which they nearly always are. False: there are not so many. */
static __always_inline bool vx_reach(struct __sk_buff *skb, __u32 bytes)
{
	return (void *)(long)skb->data + bytes <= (void *)(long)skb->data_end ||
	       !bpf_skb_pull_data(skb, bytes);
}

/* What begins behind IP; false: it is no VXLAN. */
static __always_inline bool vx_read_udp(const struct udphdr *udp, struct vx_packet *packet)
{
	const struct vx_vxlan *vxlan = (const void *)(udp + 1);

	packet->vni = bpf_ntohl(vxlan->vni) >> 8;
	packet->flags = bpf_ntohl(vxlan->flags);
	return udp->dest == bpf_htons(VX_VXLAN_PORT) && packet->flags & VX_VXLAN_VNI;
}

/* False: it is something else, and the host's. Fragments are: VTEPs make none. */
static __always_inline bool vx_read_over_ipv4(struct __sk_buff *skb, const struct vx_overlay *here,
					      struct vx_packet *packet)
{
	const struct iphdr *ip;

	if (!vx_reach(skb, VX_ROOM_IPV4))
		return false;
	ip = (void *)(long)skb->data + ETH_HLEN;
	if ((void *)ip - ETH_HLEN + VX_ROOM_IPV4 > (void *)(long)skb->data_end ||
	    *(const __u8 *)ip != 0x45 || ip->protocol != IPPROTO_UDP ||
	    ip->frag_off & bpf_htons(0x3fff) || ip->daddr != *(const __be32 *)here->octets)
		return false;
	__builtin_memset(packet->sender, 0, sizeof(packet->sender));
	__builtin_memcpy(packet->sender, &ip->saddr, 4);
	packet->room = VX_ROOM_IPV4;
	return vx_read_udp((const void *)(ip + 1), packet);
}

static __always_inline bool vx_read_over_ipv6(struct __sk_buff *skb, const struct vx_overlay *here,
					      struct vx_packet *packet)
{
	const struct ipv6hdr *ip;

	if (!vx_reach(skb, VX_ROOM_IPV6))
		return false;
	ip = (void *)(long)skb->data + ETH_HLEN;
	if ((void *)ip - ETH_HLEN + VX_ROOM_IPV6 > (void *)(long)skb->data_end ||
	    ip->nexthdr != IPPROTO_UDP || !vx_same_address((const void *)&ip->daddr, here->octets))
		return false;
	__builtin_memcpy(packet->sender, &ip->saddr, 16);
	packet->room = VX_ROOM_IPV6;
	return vx_read_udp((const void *)(ip + 1), packet);
}

static __always_inline bool vx_read_outside(struct __sk_buff *skb, const struct vx_overlay *here,
					    struct vx_packet *packet)
{
	if (skb->vlan_present)
		return false;
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return here->family == 4 && vx_read_over_ipv4(skb, here, packet);
	return skb->protocol == bpf_htons(ETH_P_IPV6) && here->family == 6 &&
	       vx_read_over_ipv6(skb, here, packet);
}

/* Sends a packet on from here, marked. Its inside, and its UDP port, stay. */
static __always_inline bool vx_forward_packet(struct __sk_buff *skb, const struct vx_overlay *here,
					      const struct vx_vtep *to)
{
	union {
		struct vx_over_ipv4 ipv4;
		struct vx_over_ipv6 ipv6;
	} head;

	if (here->family == 4) {
		if (bpf_skb_load_bytes(skb, 0, head.ipv4.macs, VX_ROOM_IPV4))
			return false;
		head.ipv4.ip.ttl = here->ttl;
		__builtin_memcpy(&head.ipv4.ip.saddr, here->octets, 4);
		__builtin_memcpy(&head.ipv4.ip.daddr, to->octets, 4);
		head.ipv4.ip.check = 0;
		head.ipv4.ip.check = vx_ipv4_checksum(&head.ipv4.ip);
		head.ipv4.vxlan.flags |= bpf_htonl(VX_VXLAN_MARK);
		return !bpf_skb_store_bytes(skb, 0, head.ipv4.macs, VX_ROOM_IPV4, 0);
	}
	if (bpf_skb_load_bytes(skb, 0, head.ipv6.macs, VX_ROOM_IPV6))
		return false;
	head.ipv6.ip.hop_limit = here->ttl;
	__builtin_memcpy(&head.ipv6.ip.saddr, here->octets, 16);
	__builtin_memcpy(&head.ipv6.ip.daddr, to->octets, 16);
	head.ipv6.vxlan.flags |= bpf_htonl(VX_VXLAN_MARK);
	return !bpf_skb_store_bytes(skb, 0, head.ipv6.macs, VX_ROOM_IPV6, 0);
}

#define VX_INSIDE_IPV4 (1ULL << 7) /* BPF_F_ADJ_ROOM_DECAP_L3_IPV4, Linux 6.3 */

/*
 * Takes the room away. The kernel wants to leave a whole IP header of the outside's kind, which ARP is too short for
 * over IPv6: it is told of IPv4 or, where it knows nothing of that, the frame is padded; it refuses the
 * latter for packets that a host on this very machine has made.
 */
static __always_inline bool vx_strip_room(struct __sk_buff *skb, __u32 room)
{
	__u32 least = room + ETH_HLEN + sizeof(struct ipv6hdr);

	if (room == VX_ROOM_IPV6 && skb->len < least) {
		if (!bpf_skb_adjust_room(skb, -(__s32)room, BPF_ADJ_ROOM_MAC, VX_INSIDE_IPV4))
			return true;
		if (bpf_skb_change_tail(skb, least, 0))
			return false;
	}
	return !bpf_skb_adjust_room(skb, -(__s32)room, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO);
}

/* Where the frame in a packet begins; NULL: it has no whole Ethernet header. */
static __always_inline const struct vx_ethernet *vx_inside_of(struct __sk_buff *skb,
							      const struct vx_packet *packet)
{
	__u32 room = packet->room & VX_ROOM_MASK;
	const struct vx_ethernet *inside;

	if (!vx_reach(skb, room + sizeof(*inside)))
		return NULL;
	inside = (void *)(long)skb->data + room;
	asm volatile("" : "+r"(inside)); /* the pointer that is compared */
	return (void *)(inside + 1) <= (void *)(long)skb->data_end ? inside : NULL;
}

/* Takes the frame out of the packet. False: it has no whole Ethernet header, or is in between. */
static __always_inline bool vx_unwrap(struct __sk_buff *skb, const struct vx_packet *packet)
{
	const struct vx_ethernet *header = vx_inside_of(skb, packet);
	struct vx_ethernet inside __attribute__((aligned(8)));

	if (!header)
		return false;
	inside = *header;
	if (!vx_strip_room(skb, packet->room) ||
	    bpf_skb_store_bytes(skb, 0, &inside, sizeof(inside), 0))
		return false;
	return skb->protocol == inside.type || vx_set_protocol(skb);
}

#endif /* VX_UNWRAP_H */
