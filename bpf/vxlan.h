/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * VXLAN (RFC 7348) in bytes; wrap.h puts frames into packets, unwrap.h takes them out again.
 *
 *   Ethernet | IPv4 or IPv6 | UDP | VXLAN | Ethernet | what the frame carries
 *
 * bpf_skb_adjust_room, by which both are done, takes IP alone, by skb->protocol. A program cannot write that; but a
 * tag that is taken out of the bytes sets it by the EtherType behind it (vx_set_protocol).
 */
#ifndef VX_VXLAN_H
#define VX_VXLAN_H

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>

#include "frame.h"

#define VX_VXLAN_PORT 4789	 /* IANA */
#define VX_VXLAN_VNI 0x08000000	 /* RFC 7348, section 5: the I flag, the VNI is valid */
#define VX_VXLAN_MARK 0x00800000 /* a reserved bit: the frame was redirected, once (README.md) */
#define VX_VXLAN_COPY 0x00400000 /* another: it was flooded, and is for one port alone: */
#define VX_VXLAN_TOKEN 0x3fff	 /* that of this token */
#define VX_VXLAN_SOURCES 0xc000	 /* 49152 and up, RFC 7348, section 5 */
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

#endif /* VX_VXLAN_H */
