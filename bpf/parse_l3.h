/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Step 1, continued: from IP headers to what the guards of steps 7 to 9 (guard_l3.h) ask for.
 *
 * A frame is inspected when its port has locks or is not trusted. Nothing is read of others. What a
 * guard will want and the frame has not is malformed; what a fragment or a chain of headers keeps
 * out of reach is noted as hidden, and the guards' to judge.
 */
#ifndef VX_PARSE_L3_H
#define VX_PARSE_L3_H

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include "frame.h"

/* Used for stacked tags in the field, beside IEEE's 0x8100 and 0x88a8. */
#define VX_TPID_9100 0x9100
#define VX_TPID_9200 0x9200
#define VX_TPID_9300 0x9300

/* A tag in the frame's bytes, from behind its TPID. */
struct vx_tag {
	__be16 tci;
	__be16 type; /* of what follows */
};

static __always_inline bool vx_is_tpid(__u16 type)
{
	switch (type) {
	case ETH_P_8021Q:
	case ETH_P_8021AD:
	case VX_TPID_9100:
	case VX_TPID_9200:
	case VX_TPID_9300:
		return true;
	default:
		return false;
	}
}

/*
 * Where `size` bytes of the frame can be read: in the frame where it is linear, which headers nearly
 * always are, else in `copy`. NULL: they run past the end. About 4 ns less than a load by helper.
 */
static __always_inline const void *vx_at(struct __sk_buff *skb, __u32 offset, void *copy,
					 __u32 size)
{
	const void *at = (void *)(long)skb->data;

	if (offset < ETH_FRAME_LEN) { /* the verifier wants a limit */
		at += offset;
		asm volatile("" : "+r"(at)); /* and the pointer that was compared */
		if (at + size <= (void *)(long)skb->data_end)
			return at;
	}
	return bpf_skb_load_bytes(skb, offset, copy, size) ? NULL : copy;
}

/* Finds the L4 header; false: a header that leads there runs past the end, or cannot be. */
static __always_inline bool vx_find_l4_in_ipv4(struct __sk_buff *skb, __u32 offset,
					       struct vx_l4 *l4)
{
	struct iphdr copy;
	const struct iphdr *ip = vx_at(skb, offset, &copy, sizeof(copy));
	__u16 fragment;

	if (!ip)
		return false;
	fragment = bpf_ntohs(ip->frag_off);
	l4->offset = offset + ip->ihl * 4; /* RFC 791, 3.1: in words of 32 bits */
	l4->end = offset + bpf_ntohs(ip->tot_len);
	l4->protocol = ip->protocol;
	l4->later = fragment & 0x1fff; /* RFC 791, 3.1: the offset, and in front of it MF */
	l4->fragment = fragment & 0x3fff;
	return ip->ihl * 4 >= sizeof(copy);
}

/*
 * IPv6 extension headers, by IANA's registry of them (RFC 7045, section 4), but ESP, behind which
 * nothing can be read, and those for experiments. What a host does not know it does not skip
 * either (RFC 8200, section 4), so any other number is an L4 protocol.
 */
static __always_inline bool vx_is_extension(__u8 header)
{
	switch (header) {
	case IPPROTO_HOPOPTS:
	case IPPROTO_ROUTING:
	case IPPROTO_FRAGMENT:
	case IPPROTO_AH:
	case IPPROTO_DSTOPTS:
	case IPPROTO_MH:
	case 139: /* HIP, RFC 7401 */
	case 140: /* Shim6, RFC 5533 */
		return true;
	default:
		return false;
	}
}

/* What they have in common, and what a Fragment header has in its place (RFC 8200, 4.5). */
struct vx_extension {
	__u8 next;
	__u8 length;
	__be16 fragment; /* offset in units of 8 bytes << 3 | M */
};

/* RFC 8200, 4.2: in units of 8 bytes, the first not counted; AH (RFC 4302, 2.2): of 4, but two. */
static __always_inline __u32 vx_extension_bytes(__u8 header, __u8 length)
{
	switch (header) {
	case IPPROTO_FRAGMENT:
		return 8;
	case IPPROTO_AH:
		return (length + 2) * 4;
	default:
		return (length + 1) * 8;
	}
}

#define VX_MAX_EXTENSIONS 8 /* bounds the loop; nothing sends as many */

/*
 * The same for IPv6. Too many headers, or a first fragment that ends in the middle of them, hide
 * the L4 header; RFC 7112 has hosts drop the latter.
 */
static __always_inline bool vx_find_l4_in_ipv6(struct __sk_buff *skb, __u32 offset,
					       struct vx_l4 *l4)
{
	struct ipv6hdr copy;
	const struct ipv6hdr *ip = vx_at(skb, offset, &copy, sizeof(copy));
	struct vx_extension extension;

	if (!ip)
		return false;
	l4->offset = offset + sizeof(copy);
	/* 0 is a jumbogram's (RFC 2675); behind a Hop-by-Hop header Linux then takes all that is there. */
	l4->end = ip->payload_len ? l4->offset + bpf_ntohs(ip->payload_len) : skb->len;
	l4->protocol = ip->nexthdr;
#pragma clang loop unroll(disable)
	for (int i = 0; i < VX_MAX_EXTENSIONS; i++) {
		if (!vx_is_extension(l4->protocol))
			return true;
		if (bpf_skb_load_bytes(skb, l4->offset, &extension, sizeof(extension))) {
			l4->hidden = l4->fragment;
			return l4->hidden;
		}
		if (l4->protocol == IPPROTO_FRAGMENT) {
			l4->fragment = true;
			l4->later = bpf_ntohs(extension.fragment) & 0xfff8;
		}
		l4->offset += vx_extension_bytes(l4->protocol, extension.length);
		l4->protocol = extension.next;
		if (l4->later)
			return true;
	}
	l4->hidden = vx_is_extension(l4->protocol);
	return true;
}

/* :: */
static __always_inline bool vx_is_unspecified(const struct in6_addr *address)
{
	const __be32 *words = address->in6_u.u6_addr32;

	return !(words[0] | words[1] | words[2] | words[3]);
}

/* fe80::/10, RFC 4291, 2.5.6 */
static __always_inline bool vx_is_fe80(const struct in6_addr *address)
{
	return (address->in6_u.u6_addr32[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
}

static __always_inline bool vx_is_inspected(const struct vx_port *from)
{
	return !(from->flags & VX_PORT_UPLINK) &&
	       (from->flags & (VX_PORT_LOCKS | VX_PORT_TRUSTED)) != VX_PORT_TRUSTED;
}

#define VX_MAX_TAGS 8 /* as many as Linux looks behind (VLAN_MAX_DEPTH) */

/*
 * Looks behind the second tag and all that follow: a host takes a priority tag, VID 0, off wherever
 * it finds one. With still more tags everything is hidden.
 */
static __always_inline bool vx_skip_tags(struct __sk_buff *skb, struct vx_frame *f)
{
	struct vx_tag tag;

#pragma clang loop unroll(disable)
	for (int i = 0; i < VX_MAX_TAGS; i++) {
		if (bpf_skb_load_bytes(skb, f->l3 - VX_TAG_BYTES, &tag, sizeof(tag)))
			return false;
		f->ethertype = bpf_ntohs(tag.type);
		if (!vx_is_tpid(f->ethertype))
			return true;
		f->l3 += VX_TAG_BYTES;
	}
	f->l4.hidden = true;
	return true;
}

/* ICMPv6 types of ND and the bytes in front of its options, RFC 4861, section 4. */
enum vx_nd_type {
	VX_ND_RS = 133,
	VX_ND_RA = 134,
	VX_ND_NS = 135,
	VX_ND_NA = 136,
	VX_ND_REDIRECT = 137,
};

static __always_inline __u32 vx_nd_bytes(__u8 type)
{
	switch (type) {
	case VX_ND_RS:
		return 8;
	case VX_ND_RA:
		return 16;
	case VX_ND_NS:
	case VX_ND_NA:
		return 24;
	case VX_ND_REDIRECT:
		return 40;
	default:
		return 0;
	}
}

#define VX_L4_BYTES 8 /* of a UDP header; no ICMPv6 message of use is shorter */

/*
 * Reads what UDP and ICMPv6 begin with. A first fragment must have it within the packet's own end:
 * in the bytes behind, a sender may put what it wants to be seen.
 */
static __always_inline bool vx_parse_l4(struct __sk_buff *skb, struct vx_frame *f)
{
	bool icmpv6 = f->ethertype == ETH_P_IPV6 && f->l4.protocol == IPPROTO_ICMPV6;
	__u64 copy;
	const __be16 *head;
	__u8 type;

	if (f->l4.hidden || f->l4.later || !(icmpv6 || f->l4.protocol == IPPROTO_UDP))
		return true;
	if (f->l4.fragment && f->l4.offset + VX_L4_BYTES > f->l4.end) {
		f->l4.hidden = true;
		return true;
	}
	head = vx_at(skb, f->l4.offset, &copy, VX_L4_BYTES);
	if (!head)
		return false;
	if (!icmpv6) {
		f->udp_source = bpf_ntohs(*head);
		return true;
	}
	type = bpf_ntohs(*head) >> 8;
	if (!vx_nd_bytes(type))
		return true;
	f->nd = type;
	return !(f->from.flags & VX_PORT_LOCKS) || f->l4.offset + vx_nd_bytes(type) <= skb->len;
}

#define VX_ARP_BYTES 28 /* RFC 826, of IPv4 over Ethernet */

static __always_inline bool vx_parse_ip(struct __sk_buff *skb, struct vx_frame *f)
{
	switch (f->ethertype) {
	case ETH_P_IP:
		return vx_find_l4_in_ipv4(skb, f->l3, &f->l4) && vx_parse_l4(skb, f);
	case ETH_P_IPV6:
		return vx_find_l4_in_ipv6(skb, f->l3, &f->l4) && vx_parse_l4(skb, f);
	case ETH_P_ARP:
		return !(f->from.flags & VX_PORT_LOCKS) || f->l3 + VX_ARP_BYTES <= skb->len;
	default:
		return true;
	}
}

static __always_inline int vx_parse_l3(struct __sk_buff *skb, struct vx_frame *f)
{
	if (!vx_is_inspected(&f->from))
		return VX_GO_ON;
	if ((!f->followed_by_tag || vx_skip_tags(skb, f)) && vx_parse_ip(skb, f))
		return VX_GO_ON;
	/* In shadow the frame goes on: what was read of it says nothing to the guards. */
	f->ethertype = 0;
	f->nd = 0;
	return vx_drop(VX_MALFORMED);
}

#endif /* VX_PARSE_L3_H */
