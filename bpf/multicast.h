/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Step 18: what a multicast frame is about: data for a group, or a message of IGMPv1-3 (RFC 1112, 2236,
 * 3376), MLDv1-2 (RFC 2710, 3810) or PIM (RFC 7761).
 *
 * A message counts as one only if those whom it is for would take it: TTL or hop limit 1, no fragment, MLD
 * from a link-local address and behind a Hop-by-Hop header, which has its Router Alert. Of a general query,
 * upon which snooping rests, also the checksum: hosts do not answer what is broken. What does not count is
 * data like any other.
 */
#ifndef VX_MULTICAST_H
#define VX_MULTICAST_H

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include "frame.h"
#include "maps.h"
#include "parse_l3.h"

enum vx_multicast_kind {
	VX_MULTICAST_OTHER = 0, /* nothing that can be joined, or not known to be */
	VX_MULTICAST_DATA,
	VX_MULTICAST_REPORT,  /* IGMPv1, IGMPv2, MLDv1: somebody is in this group */
	VX_MULTICAST_LEAVE,   /* IGMPv2, MLDv1 (Done): somebody has left it */
	VX_MULTICAST_RECORDS, /* IGMPv3, MLDv2: both, of several groups */
	VX_MULTICAST_QUERY,   /* who is in which group? */
	VX_MULTICAST_HELLO,   /* PIM: here is a router */
};

struct vx_multicast {
	__u8 octets[16]; /* of the group, as in vx_group_key */
	enum vx_multicast_kind kind;
	__u32 offset;	   /* of the message in the frame's bytes */
	__u32 end;	   /* behind it */
	__u32 family;	   /* 4 or 6 */
	__u64 response_ns; /* of a query: the time that there is for an answer */
};

/* Destination of general queries, RFC 1112, 6.4, and RFC 2464, section 7: 224.0.0.1 and ff02::1. */
#define VX_ALL_SYSTEMS_MAC 0x01005e000001ULL
#define VX_ALL_NODES_MAC 0x333300000001ULL

#define VX_GROUPS_IPV4 0xe0000000U     /* 224.0.0.0/4 */
#define VX_ALL_SYSTEMS 0xe0000001U     /* 224.0.0.1 */
#define VX_ALL_PIM_ROUTERS 0xe000000dU /* 224.0.0.13 */

#define VX_NS_PER_MS 1000000ULL

/*
 * Max Resp Code and Maximum Response Code, RFC 3376, 4.1.1, and RFC 3810, 5.1.3: a number below 2^(bits - 1), else
 * an exponent of three bits and a mantissa in front of which stands a 1.
 */
static __always_inline __u64 vx_response_units(__u32 code, __u32 bits)
{
	__u32 mantissa = 1 << (bits - 4);

	if (code < 1U << (bits - 1))
		return code;
	return (__u64)(code & (mantissa - 1) | mantissa) << ((code >> (bits - 4) & 7) + 3);
}

/* RFC 1071; `sum` of bpf_csum_diff. */
static __always_inline bool vx_is_sum_right(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum == 0xffff;
}

/* A query as of version 3; RFC 3376, 4.1. The others' end behind `group`. */
struct vx_igmp {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be32 group;
	__u8 flags;
	__u8 interval;
	__be16 sources;
};

#define VX_IGMP_BYTES 8

enum vx_igmp_type {
	VX_IGMP_QUERY = 0x11,
	VX_IGMP_V1_REPORT = 0x12,
	VX_IGMP_V2_REPORT = 0x16,
	VX_IGMP_LEAVE = 0x17,
	VX_IGMP_V3_REPORT = 0x22,
};

/* One without a source is of a switch without an address, not of a querier (RFC 4541, 2.1.1). */
static __always_inline bool vx_is_igmp_query(struct __sk_buff *skb, const struct vx_igmp *igmp,
					     const struct iphdr *ip, __u64 mac)
{
	return !igmp->group && !igmp->sources && ip->saddr && mac == VX_ALL_SYSTEMS_MAC &&
	       ip->daddr == bpf_htonl(VX_ALL_SYSTEMS) &&
	       vx_is_sum_right(bpf_csum_diff(NULL, 0, (void *)igmp, sizeof(*igmp), 0));
}

static __always_inline void vx_read_igmp(struct __sk_buff *skb, const struct iphdr *ip, __u64 mac,
					 struct vx_multicast *m)
{
	__u32 bytes = m->end - m->offset;
	struct vx_igmp igmp = {};

	if (m->end > skb->len || m->end < m->offset || bytes < VX_IGMP_BYTES ||
	    bpf_skb_load_bytes(skb, m->offset, &igmp, VX_IGMP_BYTES))
		return;
	switch (igmp.type) {
	case VX_IGMP_QUERY:
		m->kind = VX_MULTICAST_OTHER; /* so that all that it may concern can answer */
		if (bytes != VX_IGMP_BYTES &&
		    (bytes != sizeof(igmp) ||
		     bpf_skb_load_bytes(skb, m->offset, &igmp, sizeof(igmp))))
			return;
		if (!vx_is_igmp_query(skb, &igmp, ip, mac))
			return;
		m->kind = VX_MULTICAST_QUERY;
		/* In tenths of a second; version 1 has 0 and means ten seconds (RFC 2236, section 4). */
		m->response_ns =
			(igmp.code ? vx_response_units(igmp.code, 8) : 100) * 100 * VX_NS_PER_MS;
		return;
	case VX_IGMP_V1_REPORT:
	case VX_IGMP_V2_REPORT:
		if (m->kind == VX_MULTICAST_DATA && igmp.group == ip->daddr)
			m->kind = VX_MULTICAST_REPORT;
		return;
	case VX_IGMP_LEAVE:
		m->kind = VX_MULTICAST_LEAVE;
		__builtin_memcpy(m->octets, &igmp.group, sizeof(igmp.group));
		return;
	case VX_IGMP_V3_REPORT:
		m->kind = VX_MULTICAST_RECORDS;
		return;
	}
}

#define VX_PIM_HELLO 0x20 /* version 2, type 0: RFC 7761, 4.9 */

static __always_inline void vx_read_pim(struct __sk_buff *skb, struct vx_multicast *m)
{
	__u8 type;

	if (!bpf_skb_load_bytes(skb, m->offset, &type, sizeof(type)) && type == VX_PIM_HELLO)
		m->kind = VX_MULTICAST_HELLO;
}

/* 224.0.0.0/24 is never pruned (RFC 4541, 2.1.2): hosts need not report these groups. */
static __always_inline void vx_read_ipv4(struct __sk_buff *skb, __u64 mac, struct vx_multicast *m)
{
	struct iphdr ip;
	__u32 group;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
		return;
	group = bpf_ntohl(ip.daddr);
	if (ip.version != 4 || ip.ihl * 4 < sizeof(ip) || (group & 0xf0000000) != VX_GROUPS_IPV4)
		return;
	m->family = 4;
	m->kind = group >> 8 == VX_GROUPS_IPV4 >> 8 ? VX_MULTICAST_OTHER : VX_MULTICAST_DATA;
	__builtin_memcpy(m->octets, &ip.daddr, sizeof(ip.daddr));
	m->offset = ETH_HLEN + ip.ihl * 4;
	m->end = ETH_HLEN + bpf_ntohs(ip.tot_len);
	if (ip.ttl != 1 || ip.frag_off & bpf_htons(0x3fff))
		return;
	if (ip.protocol == IPPROTO_IGMP)
		vx_read_igmp(skb, &ip, mac, m);
	else if (ip.protocol == IPPROTO_PIM && group == VX_ALL_PIM_ROUTERS)
		vx_read_pim(skb, m);
}

/* A query as of version 2; RFC 3810, 5.1. The others' end behind `group`. */
struct vx_mld {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be16 delay;
	__be16 reserved;
	struct in6_addr group;
	__u8 flags;
	__u8 interval;
	__be16 sources;
};

#define VX_MLD_BYTES 24

enum vx_mld_type {
	VX_MLD_QUERY = 130,
	VX_MLD_V1_REPORT = 131,
	VX_MLD_DONE = 132,
	VX_MLD_V2_REPORT = 143,
};

struct vx_mld_pseudo { /* RFC 8200, 8.1 */
	__be32 bytes;
	__be32 next;
};

static __always_inline bool vx_is_mld_query(const struct vx_mld *mld, const struct ipv6hdr *ip,
					    __u64 mac, __u32 bytes)
{
	struct vx_mld_pseudo pseudo = { .bytes = bpf_htonl(bytes),
					.next = bpf_htonl(IPPROTO_ICMPV6) };
	__u32 sum;

	if (!vx_is_unspecified(&mld->group) || mld->sources || mac != VX_ALL_NODES_MAC ||
	    vx_is_unspecified(&ip->saddr))
		return false;
	sum = bpf_csum_diff(NULL, 0, (void *)&ip->saddr, 2 * sizeof(ip->saddr), 0);
	sum = bpf_csum_diff(NULL, 0, (void *)&pseudo, sizeof(pseudo), sum);
	return vx_is_sum_right(bpf_csum_diff(NULL, 0, (void *)mld, sizeof(*mld), sum));
}

static __always_inline void vx_read_mld(struct __sk_buff *skb, const struct ipv6hdr *ip, __u64 mac,
					struct vx_multicast *m)
{
	__u32 bytes = m->end - m->offset;
	struct vx_mld mld = {};

	/* What RECORDS begin with is shorter, 8 bytes, but nobody sends a report without a record. */
	if (m->end > skb->len || m->end < m->offset || bytes < VX_MLD_BYTES ||
	    bpf_skb_load_bytes(skb, m->offset, &mld, VX_MLD_BYTES))
		return;
	switch (mld.type) {
	case VX_MLD_QUERY:
		m->kind = VX_MULTICAST_OTHER;
		if (bytes != VX_MLD_BYTES &&
		    (bytes != sizeof(mld) || bpf_skb_load_bytes(skb, m->offset, &mld, sizeof(mld))))
			return;
		if (!vx_is_mld_query(&mld, ip, mac, bytes))
			return;
		m->kind = VX_MULTICAST_QUERY;
		/* Milliseconds; version 1 has no exponent (RFC 2710, 3.4). */
		m->response_ns = (bytes == VX_MLD_BYTES ?
					  bpf_ntohs(mld.delay) :
					  vx_response_units(bpf_ntohs(mld.delay), 16)) *
				 VX_NS_PER_MS;
		return;
	case VX_MLD_V1_REPORT:
		if (m->kind == VX_MULTICAST_DATA &&
		    vx_same_address((const void *)&mld.group, m->octets))
			m->kind = VX_MULTICAST_REPORT;
		return;
	case VX_MLD_DONE:
		m->kind = VX_MULTICAST_LEAVE;
		__builtin_memcpy(m->octets, &mld.group, sizeof(mld.group));
		return;
	case VX_MLD_V2_REPORT:
		m->kind = VX_MULTICAST_RECORDS;
		return;
	}
}

/* fe80::/10, or :: of a host whose own address is not yet known to be free (RFC 3590, section 4). */
static __always_inline bool vx_may_speak_mld(const struct ipv6hdr *ip)
{
	return vx_is_fe80(&ip->saddr) || vx_is_unspecified(&ip->saddr);
}

/*
 * Scopes up to link-local are never pruned: ND and what else the link itself needs is there (RFC 4291, 2.7;
 * RFC 4541, section 3, asks it of ff02::1 alone).
 */
static __always_inline void vx_read_ipv6(struct __sk_buff *skb, __u64 mac, struct vx_multicast *m)
{
	struct vx_extension options;
	struct ipv6hdr ip;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
		return;
	if (ip.version != 6 || ip.daddr.in6_u.u6_addr8[0] != 0xff)
		return;
	m->family = 6;
	m->kind = (ip.daddr.in6_u.u6_addr8[1] & 0xf) <= 2 ? VX_MULTICAST_OTHER : VX_MULTICAST_DATA;
	__builtin_memcpy(m->octets, &ip.daddr, sizeof(ip.daddr));
	m->offset = ETH_HLEN + sizeof(ip);
	m->end = m->offset + bpf_ntohs(ip.payload_len);
	if (ip.hop_limit != 1)
		return;
	if (ip.nexthdr == IPPROTO_PIM) {
		vx_read_pim(skb, m);
		return;
	}
	if (ip.nexthdr != IPPROTO_HOPOPTS || !vx_may_speak_mld(&ip) ||
	    bpf_skb_load_bytes(skb, m->offset, &options, sizeof(options)) ||
	    options.next != IPPROTO_ICMPV6)
		return;
	m->offset += vx_extension_bytes(IPPROTO_HOPOPTS, options.length);
	vx_read_mld(skb, &ip, mac, m);
}

/* For vx_flood: the classifying tag is out of the way, and no other one follows. */
static __always_inline void vx_read_multicast(struct __sk_buff *skb, struct vx_multicast *m)
{
	struct ethhdr ethernet;
	__u64 mac;

	if (bpf_skb_load_bytes(skb, 0, &ethernet, sizeof(ethernet)))
		return;
	mac = bpf_ntohll(*(__be64 *)&ethernet) >> 16;
	if (ethernet.h_proto == bpf_htons(ETH_P_IP) && mac >> 23 == 0x01005e000000ULL >> 23)
		vx_read_ipv4(skb, mac, m);
	else if (ethernet.h_proto == bpf_htons(ETH_P_IPV6) && mac >> 32 == 0x3333)
		vx_read_ipv6(skb, mac, m);
}

#endif /* VX_MULTICAST_H */
