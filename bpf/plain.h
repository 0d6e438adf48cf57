/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Step 1 at XDP: plain frames, which are those that need no help on their way.
 *
 * Plain is TCP or UDP over IPv4 without options or IPv6 without extension headers, no fragment, to
 * one station, behind at most one tag, with a checksum that is finished. Whatever else there is the
 * parser does not judge: vx_tc does.
 *
 * Why the checksum matters: a VM leaves it to its NIC, and a frame that XDP hands to another device
 * has nowhere to say so. Its receiver would throw it away. XDP is not told which frames these are
 * either, so it has to see it in the bytes:
 *   - A checksum that is left to the NIC has the sum of the pseudo-header in its place (virtio 1.2,
 *     5.1.6.2). Every segmented (GSO) frame has that, too, and none may be taken for a plain one.
 *   - Inside of a UDP tunnel another packet's may be left so, and all that can be said of the outer
 *     one is whether it is right as it stands. If it is, nothing was left (it covers the inner one).
 *     Without it, or in a datagram too short for a packet in it, there is nothing to see.
 */
#ifndef VX_PLAIN_H
#define VX_PLAIN_H

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include "checksum.h"
#include "dhcp.h"
#include "frame.h"
#include "guard_l3.h"
#include "parse_l3.h"

#define VX_NOT_PLAIN 1 /* a fate that is no verdict: vx_tc's */

#define VX_IPV4_PLAIN 0x45	/* version 4, header of 5 words */
#define VX_IPV4_FRAGMENT 0x3fff /* RFC 791, 3.1: MF and the offset */

/* A UDP header, and the shortest packet with a checksum of its own: IPv4 and UDP. */
#define VX_UDP_TUNNEL_BYTES (sizeof(struct udphdr) + sizeof(struct iphdr) + sizeof(struct udphdr))

#define VX_SUM_CHUNK 512  /* what bpf_csum_diff takes at a time */
#define VX_SUM_BYTES 2048 /* a longer datagram is not looked at; a power of two */

static __always_inline void *vx_xdp_data(const struct xdp_md *ctx)
{
	return (void *)(long)ctx->data;
}

static __always_inline void *vx_xdp_end(const struct xdp_md *ctx)
{
	return (void *)(long)ctx->data_end;
}

static __always_inline __u32 vx_xdp_bytes(const struct xdp_md *ctx)
{
	return ctx->data_end - ctx->data;
}

/*
 * Adds `size` bytes from `*done` on, a constant for each call: the verifier wants one for packet memory.
 * It forgets how much is done, which it would otherwise follow for each length by itself.
 */
static __always_inline bool vx_add_part(const void *at, const void *end, __u32 *done, __u32 size,
					__u64 *sum)
{
	const void *part = at + (*done & (VX_SUM_BYTES - 1));

	asm volatile("" : "+r"(part)); /* the pointer that is compared */
	if (part + size > end)
		return false;
	*sum += (__u32)bpf_csum_diff(NULL, 0, (void *)part, size, 0);
	*done += size;
	vx_forget(*done, *sum);
	return true;
}

/* The last 1 to 3 bytes, as if zeroes followed. */
static __always_inline bool vx_add_rest(const void *at, const void *end, __u32 done, __u32 bytes,
					__u64 *sum)
{
	const void *rest = at + (done & (VX_SUM_BYTES - 1));

	asm volatile("" : "+r"(rest));
	if (bytes & 2) {
		if (rest + 2 > end)
			return false;
		*sum += *(const __u16 *)rest;
		rest += 2;
	}
	if (bytes & 1) {
		if (rest + 1 > end)
			return false;
		*sum += bpf_htons(*(const __u8 *)rest << 8);
	}
	return true;
}

/* Whether `sum`, of a pseudo-header, and `bytes` bytes make a checksum that is right. */
static __always_inline bool vx_sums_up(const void *at, const void *end, __u32 bytes, __u64 sum)
{
	__u32 done = 0;

	if (bytes >= VX_SUM_BYTES)
		return false;
#pragma unroll
	for (int i = 1; i < VX_SUM_BYTES / VX_SUM_CHUNK; i++)
		if (bytes >= i * VX_SUM_CHUNK && !vx_add_part(at, end, &done, VX_SUM_CHUNK, &sum))
			return false;
#pragma unroll
	for (__u32 size = VX_SUM_CHUNK / 2; size >= 4; size /= 2)
		if (bytes & size && !vx_add_part(at, end, &done, size, &sum))
			return false;
	return vx_add_rest(at, end, done, bytes, &sum) && vx_fold(sum) == 0xffff;
}

/* `sum`: of the pseudo-header; `bytes`: of TCP's header and payload. */
static __always_inline bool vx_is_plain_tcp(const void *at, const void *end, __u32 bytes, __u64 sum)
{
	const struct tcphdr *tcp = at;

	return at + sizeof(*tcp) <= end && bytes >= sizeof(*tcp) && tcp->check != vx_fold(sum);
}

static __always_inline bool vx_is_dhcp_port(__be16 port)
{
	return port == bpf_htons(VX_DHCP_SERVER) || port == bpf_htons(VX_DHCP_CLIENT) ||
	       port == bpf_htons(VX_DHCPV6_SERVER) || port == bpf_htons(VX_DHCPV6_CLIENT);
}

/* DHCP is not: step 9 and leases want to see it. */
static __always_inline bool vx_is_plain_udp(const void *at, const void *end, __u32 bytes, __u64 sum)
{
	const struct udphdr *udp = at;

	if (at + sizeof(*udp) > end || bytes != bpf_ntohs(udp->len) || bytes < sizeof(*udp) ||
	    vx_is_dhcp_port(udp->source) || vx_is_dhcp_port(udp->dest) ||
	    udp->check == vx_fold(sum))
		return false;
	return bytes < VX_UDP_TUNNEL_BYTES || (udp->check && vx_sums_up(at, end, bytes, sum));
}

static __always_inline bool vx_is_plain_l4(__u8 protocol, const void *at, const void *end,
					   __u32 bytes, __u64 sum)
{
	if (bytes > end - at)
		return false;
	sum += bpf_htons(protocol) + bpf_htons(bytes);
	if (protocol == IPPROTO_TCP)
		return vx_is_plain_tcp(at, end, bytes, sum);
	return protocol == IPPROTO_UDP && vx_is_plain_udp(at, end, bytes, sum);
}

static __always_inline bool vx_is_plain_ipv4(const void *at, const void *end)
{
	const struct iphdr *ip = at;

	at += sizeof(*ip);
	return at <= end && *(const __u8 *)ip == VX_IPV4_PLAIN &&
	       !(ip->frag_off & bpf_htons(VX_IPV4_FRAGMENT)) &&
	       vx_is_plain_l4(ip->protocol, at, end, bpf_ntohs(ip->tot_len) - sizeof(*ip),
			      (__u64)ip->saddr + ip->daddr);
}

static __always_inline bool vx_is_plain_ipv6(const void *at, const void *end)
{
	const struct ipv6hdr *ip = at;
	const __be32 *addresses = (const void *)&ip->saddr; /* and daddr behind it */
	__u64 sum = 0;

	at += sizeof(*ip);
	if (at > end || ip->version != 6)
		return false;
#pragma unroll
	for (int i = 0; i < 8; i++)
		sum += addresses[i];
	return vx_is_plain_l4(ip->nexthdr, at, end, bpf_ntohs(ip->payload_len), sum);
}

/*
 * Fills what is parsed of a plain frame: the members in front of those that vx_begin zeroes. All of
 * its tags are in its bytes.
 */
static __always_inline int vx_parse_plain_ethernet(const struct xdp_md *ctx, struct vx_frame *f)
{
	const void *at = vx_xdp_data(ctx);
	const void *end = vx_xdp_end(ctx);
	const struct vx_tag *tag = at + ETH_HLEN;
	__u64 tail;

	if ((const void *)tag > end)
		return VX_NOT_PLAIN;
	f->destination = bpf_ntohll(*(const __be64 *)at) >> 16;
	tail = bpf_ntohll(*(const __be64 *)(at + ETH_ALEN));
	f->source = tail >> 16;
	f->ethertype = tail;
	f->bytes = vx_xdp_bytes(ctx);
	f->l3 = ETH_HLEN;
	f->tpid = 0;
	f->tci = 0;
	f->tag_in_data = false;
	f->followed_by_tag = false;
	if (vx_is_group(f->destination))
		return VX_NOT_PLAIN;
	if (f->ethertype == ETH_P_8021Q) {
		if ((const void *)(tag + 1) > end)
			return VX_NOT_PLAIN;
		f->tpid = ETH_P_8021Q;
		f->tci = bpf_ntohs(tag->tci);
		if (!(f->tci & VX_TCI_VID))
			return VX_NOT_PLAIN;
		f->ethertype = bpf_ntohs(tag->type);
		f->l3 += VX_TAG_BYTES;
	}
	f->l3_bytes = f->bytes - f->l3;
	return VX_GO_ON;
}

/* What follows, of a frame of which that is parsed. It is the dearer half, for the checksum. */
static __always_inline int vx_parse_plain_l3(const struct xdp_md *ctx, const struct vx_frame *f)
{
	const void *at = vx_xdp_data(ctx) + ETH_HLEN + (f->tpid ? VX_TAG_BYTES : 0);
	const void *end = vx_xdp_end(ctx);

	if (f->ethertype == ETH_P_IP)
		return vx_is_plain_ipv4(at, end) ? VX_GO_ON : VX_NOT_PLAIN;
	if (f->ethertype == ETH_P_IPV6)
		return vx_is_plain_ipv6(at, end) ? VX_GO_ON : VX_NOT_PLAIN;
	return VX_NOT_PLAIN;
}

#endif /* VX_PLAIN_H */
