/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What DHCP messages say of leases: DHCPv4 by RFC 2131 and RFC 2132, DHCPv6 by RFC 9915.
 *
 * Servers lease by DHCPACK and REPLY, clients give back by RELEASE and DECLINE; what a client asks for
 * gives it nothing. A DHCPNAK names no address, so it ends no lease. A message that is cut off, or
 * has more than VX_MAX_DHCP_OPTIONS options, says nothing.
 *
 * vx_lease is a program of its own: vx_walk would be too much for the verifier. It runs when vx_walk has
 * decided, and ends as vx_walk would have: skb->cb is as for a flood (flood.h), which follows; with
 * VX_CB_SENT the frame has been counted and its redirect is prepared. The flood is not by way of
 * vx_snoop, which would be a tail call too many: the group of all servers, ff02::1:2, is everybody's.
 */
#ifndef VX_LEASE_H
#define VX_LEASE_H

#include <linux/if_ether.h>
#include <linux/ipv6.h>

#include "dhcp.h"
#include "flood.h"
#include "frame.h"
#include "guard_l3.h"
#include "lease_row.h"
#include "parse.h"

#define VX_MAX_DHCP_OPTIONS 64 /* bounds the loops; a message of 1,500 bytes has room for more */

/* DHCPv4 */

/* RFC 2131, section 2, as far as it is of use, and where its options begin. */
struct vx_bootp {
	__u8 operation;
	__u8 hardware;
	__u8 hardware_bytes;
	__u8 hops;
	__be32 transaction;
	__be16 seconds;
	__be16 flags;
	__be32 client_ip; /* ciaddr */
	__be32 your_ip;	  /* yiaddr */
	__be32 server_ip;
	__be32 relay_ip;
	__u8 mac[ETH_ALEN]; /* chaddr */
	__u16 unused;
};

#define VX_BOOTP_BYTES 236
#define VX_BOOTREPLY 2
#define VX_HARDWARE_ETHERNET 1
#define VX_DHCP_COOKIE 0x63825363 /* RFC 2131, section 3, in front of the options */

/* RFC 2132: codes of options, and types of messages (9.6). */
enum vx_dhcp_option {
	VX_OPTION_PAD = 0,
	VX_OPTION_REQUESTED_IP = 50,
	VX_OPTION_LEASE_TIME = 51,
	VX_OPTION_OVERLOAD = 52,
	VX_OPTION_TYPE = 53,
	VX_OPTION_END = 255,
};

enum vx_dhcp_type {
	VX_DHCPDECLINE = 4,
	VX_DHCPACK = 5,
	VX_DHCPRELEASE = 7,
};

/* What the options say. */
struct vx_dhcp_options {
	__be32 requested;
	__be32 seconds;
	__u8 type;
};

/* Keeps an option's value if it is of use; false: it is not as it has to be. */
static __always_inline bool vx_keep_option(struct __sk_buff *skb, __u32 offset, __u8 code,
					   __u8 length, struct vx_dhcp_options *options)
{
	switch (code) {
	case VX_OPTION_TYPE:
		return length == 1 && !bpf_skb_load_bytes(skb, offset, &options->type, 1);
	case VX_OPTION_LEASE_TIME:
		return length == 4 && !bpf_skb_load_bytes(skb, offset, &options->seconds, 4);
	case VX_OPTION_REQUESTED_IP:
		return length == 4 && !bpf_skb_load_bytes(skb, offset, &options->requested, 4);
	case VX_OPTION_OVERLOAD: /* there are more of them, somewhere else */
		return false;
	default:
		return true;
	}
}

/* False: they do not end as they have to. */
static __always_inline bool vx_read_dhcp_options(struct __sk_buff *skb, __u64 offset, __u32 end,
						 struct vx_dhcp_options *options)
{
	__u64 unknown = bpf_ktime_get_coarse_ns();
	__u8 code;
	__u8 length;

#pragma clang loop unroll(disable)
	for (int i = 0; i < VX_MAX_DHCP_OPTIONS; i++) {
		if (offset >= end || bpf_skb_load_bytes(skb, offset, &code, 1))
			return false;
		if (code == VX_OPTION_END)
			return true;
		offset++;
		if (code == VX_OPTION_PAD)
			continue;
		if (bpf_skb_load_bytes(skb, offset, &length, 1) ||
		    !vx_keep_option(skb, offset + 1, code, length, options))
			return false;
		offset += 1 + length;
		vx_forget(offset, unknown);
	}
	return false;
}

static __always_inline void vx_set_ipv4_lease(const struct vx_frame *f, __be32 address,
					      const struct vx_holder *holder, __u32 seconds)
{
	struct vx_neighbour_key key = { .segment = f->segment.handle, .family = 4 };

	__builtin_memcpy(key.octets, &address, sizeof(address));
	if (address)
		vx_set_lease(f, &key, holder, seconds);
}

/* Without a lease time it is for ever, like BOOTP. The answer to an INFORM gives no address. */
static __always_inline void vx_follow_dhcpv4(struct __sk_buff *skb, const struct vx_frame *f,
					     const struct vx_dhcp *dhcp)
{
	struct vx_dhcp_options options = { .seconds = VX_FOR_EVER };
	struct vx_holder holder = { .mac = f->source, .port = f->from.handle };
	struct vx_bootp bootp;
	__be32 cookie;

	if (bpf_skb_load_bytes(skb, dhcp->offset, &bootp, sizeof(bootp)) ||
	    bpf_skb_load_bytes(skb, dhcp->offset + VX_BOOTP_BYTES, &cookie, sizeof(cookie)) ||
	    cookie != bpf_htonl(VX_DHCP_COOKIE) ||
	    !vx_read_dhcp_options(skb, dhcp->offset + VX_BOOTP_BYTES + sizeof(cookie), dhcp->end,
				  &options))
		return;
	if (!dhcp->reply) {
		if (options.type == VX_DHCPRELEASE)
			vx_set_ipv4_lease(f, bootp.client_ip, &holder, 0);
		else if (options.type == VX_DHCPDECLINE)
			vx_set_ipv4_lease(f, options.requested, &holder, 0);
		return;
	}
	if (options.type == VX_DHCPACK && bootp.operation == VX_BOOTREPLY &&
	    bootp.hardware == VX_HARDWARE_ETHERNET && bootp.hardware_bytes == ETH_ALEN &&
	    vx_find_holder(f, vx_mac_of(bootp.mac), &holder))
		vx_set_ipv4_lease(f, bootp.your_ip, &holder, bpf_ntohl(options.seconds));
}

/* DHCPv6 */

/* RFC 9915, 7.3 and 21. */
enum vx_dhcpv6_type {
	VX_DHCPV6_REPLY = 7,
	VX_DHCPV6_RELEASE = 8,
	VX_DHCPV6_DECLINE = 9,
};

enum vx_dhcpv6_option_code {
	VX_OPTION_IA_NA = 3,
	VX_OPTION_IA_TA = 4,
	VX_OPTION_IAADDR = 5,
};

struct vx_dhcpv6_option {
	__be16 code;
	__be16 length; /* of what follows */
};

/* RFC 9915, 21.6, in front of further options. */
struct vx_iaaddr {
	struct in6_addr address;
	__be32 preferred;
	__be32 valid; /* seconds */
};

#define VX_DHCPV6_HEAD 4 /* RFC 9915, section 8: type and transaction id, in front of the options */
#define VX_IA_NA_BYTES 12 /* 21.4: IAID, T1, T2, in front of further options */
#define VX_IA_TA_BYTES 4  /* 21.5: IAID */

/*
 * Bytes from an option's content to the next one. Options of an IA follow its own members directly
 * and are followed by those behind the IA: stepping into it, all are in one row.
 */
static __always_inline __u32 vx_dhcpv6_step(__u16 code, __u16 length)
{
	switch (code) {
	case VX_OPTION_IA_NA:
		return VX_IA_NA_BYTES;
	case VX_OPTION_IA_TA:
		return VX_IA_TA_BYTES;
	default:
		return length;
	}
}

#define VX_MAX_IAADDRS 8 /* that one message can lease or end */

/* Where the addresses of a message are, in the frame's bytes. */
struct vx_iaaddrs {
	__u64 count;
	__u32 offsets[VX_MAX_IAADDRS];
};

/* False: the options do not end where the message does. */
static __always_inline bool vx_find_iaaddrs(struct __sk_buff *skb, const struct vx_dhcp *dhcp,
					    struct vx_iaaddrs *found)
{
	__u64 unknown = bpf_ktime_get_coarse_ns();
	__u64 offset = dhcp->offset + VX_DHCPV6_HEAD;
	struct vx_dhcpv6_option option;
	__u16 code, length;
	__u64 at;

#pragma clang loop unroll(disable)
	for (int i = 0; i < VX_MAX_DHCP_OPTIONS; i++) {
		if (offset >= dhcp->end)
			break;
		if (bpf_skb_load_bytes(skb, offset, &option, sizeof(option)))
			return false;
		code = bpf_ntohs(option.code);
		length = bpf_ntohs(option.length);
		offset += sizeof(option);
		if (code == VX_OPTION_IAADDR) {
			if (length < sizeof(struct vx_iaaddr) || found->count >= VX_MAX_IAADDRS)
				return false;
			at = found->count++;
			vx_limit(at, VX_MAX_IAADDRS);
			found->offsets[at] = offset;
			vx_forget(found->count, unknown);
		}
		offset += vx_dhcpv6_step(code, length);
		vx_forget(offset, unknown);
	}
	return offset == dhcp->end;
}

static __always_inline void vx_set_ipv6_lease(struct __sk_buff *skb, const struct vx_frame *f,
					      __u32 offset, const struct vx_holder *holder,
					      bool reply)
{
	struct vx_neighbour_key key = { .segment = f->segment.handle, .family = 6 };
	struct vx_iaaddr ia;

	if (bpf_skb_load_bytes(skb, offset, &ia, sizeof(ia)))
		return;
	__builtin_memcpy(key.octets, &ia.address, sizeof(ia.address));
	vx_set_lease(f, &key, holder, reply ? bpf_ntohl(ia.valid) : 0);
}

static __always_inline void vx_follow_dhcpv6(struct __sk_buff *skb, const struct vx_frame *f,
					     const struct vx_dhcp *dhcp)
{
	struct vx_holder holder = { .mac = f->source, .port = f->from.handle };
	struct vx_iaaddrs found = {};
	__u8 type;

	if (bpf_skb_load_bytes(skb, dhcp->offset, &type, 1))
		return;
	if (dhcp->reply ? type != VX_DHCPV6_REPLY || !vx_find_holder(f, f->destination, &holder) :
			  type != VX_DHCPV6_RELEASE && type != VX_DHCPV6_DECLINE)
		return;
	if (!vx_find_iaaddrs(skb, dhcp, &found))
		return;
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < VX_MAX_IAADDRS && i < found.count; i++)
		vx_set_ipv6_lease(skb, f, found.offsets[i], &holder, dhcp->reply);
}

/* The tag, if any, is in skb->vlan_tci by now. */
static __always_inline void vx_follow_leases(struct __sk_buff *skb)
{
	__u32 begin = skb->cb[2];
	struct vx_frame frame = { .l3 = begin + ETH_HLEN, .now_ns = bpf_ktime_get_coarse_ns() };
	struct vx_frame *f = &frame;
	struct vx_ethernet head __attribute__((aligned(8)));
	struct vx_dhcp dhcp;

	if (bpf_skb_load_bytes(skb, begin, &head, sizeof(head)))
		return;
	f->destination = vx_mac_of(head.macs);
	f->source = vx_mac_of(head.macs + ETH_ALEN);
	f->ethertype = bpf_ntohs(head.type);
	if (!vx_find_port(skb->cb[0] >> 16, &f->from) ||
	    !vx_find_segment(skb->cb[0] & 0xffff, &f->segment) || !vx_find_dhcp(skb, f, &dhcp))
		return;
	if (f->ethertype == ETH_P_IP)
		vx_follow_dhcpv4(skb, f, &dhcp);
	else
		vx_follow_dhcpv6(skb, f, &dhcp);
}

/* The last of vx_walk, which has come to this action. A flood has gone on already. */
static __always_inline int vx_tell_lease(struct __sk_buff *skb, const struct vx_frame *f,
					 int action)
{
	if (f->dhcp && action == TC_ACT_REDIRECT) {
		skb->cb[0] = (__u32)f->from.handle << 16 | f->segment.handle;
		skb->cb[1] = VX_CB_SENT;
		skb->cb[2] = f->copy.tunnel ? vx_room(skb) :
					      0; /* where the message's frame begins */
		bpf_tail_call_(VX_MAP(progs), skb, VX_PROG_LEASE);
	}
	return action;
}

#endif /* VX_LEASE_H */
