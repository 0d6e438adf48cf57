/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How a frame is put into a tunnel's packet.
 *
 * The kernel is told of it (bpf_skb_adjust_room), so frames that stand for several, and checksums that
 * are left to a NIC, stay what they are and are finished by the underlay device.
 */
#ifndef VX_WRAP_H
#define VX_WRAP_H

#include "checksum.h"
#include "frame.h"
#include "maps.h"
#include "vxlan.h"

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

#endif /* VX_WRAP_H */
