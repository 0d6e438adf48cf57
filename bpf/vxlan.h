/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * VXLAN (RFC 7348) in bytes: how a frame is put into a tunnel's packet and taken out again.
 *
 *   Ethernet | IPv4 or IPv6 | UDP | VXLAN | Ethernet | what the frame carries
 *
 * The kernel is told of it (bpf_skb_adjust_room), so frames that stand for several, and checksums that
 * are left to a NIC, stay what they are and are finished by the underlay device.
 *
 * That helper takes IP alone, by skb->protocol. A program cannot write that; but a tag that is taken out
 * of the bytes sets it by the EtherType behind it (vx_set_protocol).
 */
#ifndef VX_VXLAN_H
#define VX_VXLAN_H

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>

#include "checksum.h"
#include "frame.h"
#include "maps.h"

#define VX_VXLAN_PORT 4789	 /* IANA */
#define VX_VXLAN_VNI 0x08000000	 /* RFC 7348, section 5: the I flag, the VNI is valid */
#define VX_VXLAN_MARK 0x00800000 /* a reserved bit: the frame was redirected, once (README.md) */
#define VX_VXLAN_COPY \
	0x00400000 /* another: it was flooded, and is a copy for the port of this token: */
#define VX_VXLAN_TOKEN 0x00003fff
#define VX_VXLAN_SOURCES 0xc000	     /* 49152 and up, RFC 7348, section 5 */
#define VX_IPV4_DONT_FRAGMENT 0x4000 /* RFC 7348, 4.3: a VTEP must not fragment */
#define VX_DSCP 0xfc		     /* RFC 2474; the two bits below are ECN's (RFC 3168) */

struct vx_vxlan {
	__be32 flags;
	__be32 vni; /* << 8 */
};

/* A frame's own header. */
struct vx_ethernet {
	__u8 macs[2 * ETH_ALEN];
	__be16 type;
};

/*
 * What is in front of a frame's own bytes, and what these begin with; from `macs` on. The two in front of them align what
 * follows, as the verifier wants it on the stack.
 */
struct vx_over_ipv4 {
	__be16 reserved;
	__u8 macs[2 * ETH_ALEN];
	__be16 type;
	struct iphdr ip;
	struct udphdr udp;
	struct vx_vxlan vxlan;
	struct vx_ethernet inside;
};

struct vx_over_ipv6 {
	__be16 reserved;
	__u8 macs[2 * ETH_ALEN];
	__be16 type;
	struct ipv6hdr ip;
	struct udphdr udp;
	struct vx_vxlan vxlan;
	struct vx_ethernet inside;
};

/* RFC 7348, 4.3 and 5: 50 bytes more on the wire, 70 over IPv6. */
#define VX_ROOM_IPV4 (__builtin_offsetof(struct vx_over_ipv4, inside) - sizeof(__be16))
#define VX_ROOM_IPV6 (__builtin_offsetof(struct vx_over_ipv6, inside) - sizeof(__be16))

#define VX_ROOM_MASK 0x7f /* for the verifier, which wants to know that a room is small */

/* Bytes that are in front of the frame in the packet that it was put into. */
static __always_inline __u32 vx_room(const struct __sk_buff *skb)
{
	return skb->protocol == bpf_htons(ETH_P_IP) ? VX_ROOM_IPV4 : VX_ROOM_IPV6;
}

/* A tunnel, and all that one frame wants of it. */
struct vx_tunnel {
	struct vx_overlay here;
	struct vx_vtep to;
	__u64 macs[2]; /* zeroes: left to whoever knows the next hop */
	__u32 vni;
	__u16 port; /* UDP source port: of one flow always the same */
	__u8 tos;
	bool marked;
};

/*
 * Makes skb->protocol what the EtherType in the bytes is. The first tag goes into skb->vlan_tci, the
 * second pushes it into the bytes; taken out of them again, it leaves the EtherType that follows.
 */
static __always_inline bool vx_set_protocol(struct __sk_buff *skb)
{
	return !bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021Q), 1) &&
	       !bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021Q), 1) && !bpf_skb_vlan_pop(skb) &&
	       !bpf_skb_vlan_pop(skb);
}

/* The same, of a frame whose EtherType is written anew. */
static __always_inline bool vx_pass_for(struct __sk_buff *skb, __be16 type)
{
	return !bpf_skb_store_bytes(skb, 2 * ETH_ALEN, &type, sizeof(type), 0) &&
	       vx_set_protocol(skb);
}

static __always_inline bool vx_is_ip(__be16 protocol)
{
	return protocol == bpf_htons(ETH_P_IP) || protocol == bpf_htons(ETH_P_IPV6);
}

/*
 * What the outside of a packet says of its inside: the UDP port, by which the fabric tells flows apart,
 * and DSCP. ECN stays out of it: what the fabric would mark there nobody could bring back (RFC 6040, 4.1,
 * compatibility mode).
 */
static __always_inline void vx_describe_inside(struct __sk_buff *skb,
					       const struct vx_ethernet *inside,
					       struct vx_tunnel *tunnel)
{
	const void *at = (void *)(long)skb->data + ETH_HLEN;
	const void *end = (void *)(long)skb->data_end;
	const __u32 *words = at;
	__u64 hash;

	hash = (*(const __u16 *)(inside->macs + 4) ^ *(const __u32 *)(inside->macs + 8)) *
	       0x9e3779b97f4a7c15ULL;
	tunnel->tos = 0;
	if (inside->type == bpf_htons(ETH_P_IP) && at + sizeof(struct iphdr) + 4 <= end) {
		const struct iphdr *ip = at;

		tunnel->tos = ip->tos & VX_DSCP;
		hash ^= (words[3] ^ ip->protocol) * 0xc2b2ae3d27d4eb4fULL;
		hash += words[4] * 0x165667b19e3779f9ULL;
		/* Of fragments only the first has ports: it is to go the way of the others. */
		if (!(ip->frag_off & bpf_htons(0x3fff)))
			hash ^= words[5] * 0x9e3779b97f4a7c15ULL;
	} else if (inside->type == bpf_htons(ETH_P_IPV6) &&
		   at + sizeof(struct ipv6hdr) + 4 <= end) {
		const struct ipv6hdr *ip = at;

		tunnel->tos = bpf_ntohs(*(const __be16 *)at) >> 4 & VX_DSCP;
		hash ^= (words[5] ^ words[4] ^ ip->nexthdr) * 0xc2b2ae3d27d4eb4fULL;
		hash += (words[9] ^ words[8]) * 0x165667b19e3779f9ULL;
		if (ip->nexthdr == IPPROTO_TCP || ip->nexthdr == IPPROTO_UDP)
			hash ^= words[10] * 0x9e3779b97f4a7c15ULL;
	}
	hash ^= hash >> 29;
	tunnel->port = VX_VXLAN_SOURCES | (hash * 0xbf58476d1ce4e5b9ULL >> 50);
}

static __always_inline void vx_fill_udp(struct udphdr *udp, struct vx_vxlan *vxlan,
					const struct vx_tunnel *tunnel, __u32 bytes)
{
	udp->source = bpf_htons(tunnel->port);
	udp->dest = bpf_htons(VX_VXLAN_PORT);
	udp->len = bpf_htons(bytes);
	udp->check = 0; /* RFC 7348, section 5; over IPv6 RFC 6935 */
	vxlan->flags = bpf_htonl(VX_VXLAN_VNI | (tunnel->marked ? VX_VXLAN_MARK : 0));
	vxlan->vni = bpf_htonl(tunnel->vni << 8);
}

static __always_inline bool vx_write_over_ipv4(struct __sk_buff *skb, struct vx_over_ipv4 *head,
					       const struct vx_tunnel *tunnel)
{
	__u32 bytes = skb->len - ETH_HLEN;

	__builtin_memcpy(head->macs, tunnel->macs, sizeof(head->macs));
	head->type = bpf_htons(ETH_P_IP);
	*(__u8 *)&head->ip = 0x45;
	head->ip.tos = tunnel->tos;
	head->ip.tot_len = bpf_htons(bytes);
	head->ip.id = 0; /* RFC 6864, 4.1: nothing is ever put together */
	head->ip.frag_off = bpf_htons(VX_IPV4_DONT_FRAGMENT);
	head->ip.ttl = tunnel->here.ttl;
	head->ip.protocol = IPPROTO_UDP;
	head->ip.check = 0;
	__builtin_memcpy(&head->ip.saddr, tunnel->here.octets, 4);
	__builtin_memcpy(&head->ip.daddr, tunnel->to.octets, 4);
	head->ip.check = vx_ipv4_checksum(&head->ip);
	vx_fill_udp(&head->udp, &head->vxlan, tunnel, bytes - sizeof(head->ip));
	return !bpf_skb_store_bytes(skb, 0, head->macs, VX_ROOM_IPV4 + sizeof(head->inside), 0);
}

static __always_inline bool vx_write_over_ipv6(struct __sk_buff *skb, struct vx_over_ipv6 *head,
					       const struct vx_tunnel *tunnel)
{
	__u32 bytes = skb->len - ETH_HLEN - sizeof(head->ip);

	__builtin_memcpy(head->macs, tunnel->macs, sizeof(head->macs));
	head->type = bpf_htons(ETH_P_IPV6);
	*(__be32 *)&head->ip = bpf_htonl(6 << 28 | tunnel->tos << 20);
	head->ip.payload_len = bpf_htons(bytes);
	head->ip.nexthdr = IPPROTO_UDP;
	head->ip.hop_limit = tunnel->here.ttl;
	__builtin_memcpy(&head->ip.saddr, tunnel->here.octets, 16);
	__builtin_memcpy(&head->ip.daddr, tunnel->to.octets, 16);
	vx_fill_udp(&head->udp, &head->vxlan, tunnel, bytes);
	return !bpf_skb_store_bytes(skb, 0, head->macs, VX_ROOM_IPV6 + sizeof(head->inside), 0);
}

/* Copies a frame's own header from where it begins. */
static __always_inline bool vx_read_ethernet(const struct __sk_buff *skb, struct vx_ethernet *to)
{
	const void *data = (void *)(long)skb->data;

	if (data + sizeof(*to) > (void *)(long)skb->data_end)
		return false;
	__builtin_memcpy(to, data, sizeof(*to));
	return true;
}

/*
 * Makes room for a packet's outside. FIXED_GSO: what a frame is cut into keeps its size; that it fits is what a
 * segment's MTU is for.
 *
 * A frame that is in a tunnel of its VM's already (skb->encapsulation: of a container's) the kernel does not put into
 * another one (EALREADY). It gets the room alone; one that stands for several is lost, for nobody could cut it right.
 */
static __always_inline bool vx_make_room(struct __sk_buff *skb, __u32 room, __u64 family)
{
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L4_UDP |
		      BPF_F_ADJ_ROOM_ENCAP_L2(ETH_HLEN) | BPF_F_ADJ_ROOM_ENCAP_L2_ETH | family;
	__be16 outside = bpf_htons(room == VX_ROOM_IPV4 ? ETH_P_IP : ETH_P_IPV6);

	if (!vx_is_ip(skb->protocol) && !vx_pass_for(skb, bpf_htons(ETH_P_IP)))
		return false;
	if (!bpf_skb_adjust_room(skb, room, BPF_ADJ_ROOM_MAC, flags))
		return true;
	return !skb->gso_size && vx_pass_for(skb, outside) &&
	       !bpf_skb_adjust_room(skb, room, BPF_ADJ_ROOM_MAC, 0);
}

/*
 * Puts a frame without a tag into a packet. False: it is as it was, or somewhere in between, and must be
 * dropped.
 */
static __always_inline bool vx_wrap(struct __sk_buff *skb, struct vx_tunnel *tunnel)
{
	union {
		struct vx_over_ipv4 ipv4;
		struct vx_over_ipv6 ipv6;
	} head;

	if (tunnel->here.family == 4) {
		if (!vx_read_ethernet(skb, &head.ipv4.inside))
			return false;
		vx_describe_inside(skb, &head.ipv4.inside, tunnel);
		return vx_make_room(skb, VX_ROOM_IPV4, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4) &&
		       vx_write_over_ipv4(skb, &head.ipv4, tunnel);
	}
	if (!vx_read_ethernet(skb, &head.ipv6.inside))
		return false;
	vx_describe_inside(skb, &head.ipv6.inside, tunnel);
	return vx_make_room(skb, VX_ROOM_IPV6, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6) &&
	       vx_write_over_ipv6(skb, &head.ipv6, tunnel);
}

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

#endif /* VX_VXLAN_H */
