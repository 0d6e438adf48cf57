/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The Internet checksum, RFC 1071. Sums of 16-bit words of any byte order; they may overflow into the
 * upper bits, which are folded in at the end.
 */
#ifndef VX_CHECKSUM_H
#define VX_CHECKSUM_H

#include <linux/ip.h>

/* Ones' complement, in 16 bits; 0 only if all was 0. */
static __always_inline __u16 vx_fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* Of a header without options whose checksum is 0. */
static __always_inline __u16 vx_ipv4_checksum(const struct iphdr *ip)
{
	const __u16 *words = (const void *)ip;
	__u64 sum = 0;

#pragma unroll
	for (int i = 0; i < (int)(sizeof(*ip) / 2); i++)
		sum += words[i];
	return ~vx_fold(sum);
}

#endif /* VX_CHECKSUM_H */
