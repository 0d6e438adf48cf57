/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * By which MACs a packet goes to a VTEP.
 *
 * The kernel says: bpf_redirect_neigh asks its routes and neighbours, which is a tenth of all that a packet costs. So
 * it is asked now and then. A packet that goes that way is marked, in cb[4]; vx_out, at the egress of the underlay device,
 * sees by which MACs it leaves and keeps them. Packets of the next VX_HOP_NS have them from here.
 *
 * Nothing else is ever kept, so what the kernel changes its mind about is followed that much later, and a VTEP
 * whose next hop it does not find is its business with every packet.
 *
 * (bpf_fib_lookup would tell at once, but only on a device that forwards IP: FWD_DISABLED.)
 */
#ifndef VX_HOP_H
#define VX_HOP_H

#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include "maps.h"

#define VX_HOP_NS 100000000ULL
#define VX_CB_ASKS 0x76780000 /* the port of the VTEP is in the lower half */

/* Fills the MACs of a packet to a VTEP, or zeroes, and returns whether they are known now. */
static __always_inline bool vx_recall_hop(__u16 port, __u64 now_ns, __u64 *macs)
{
	const volatile struct vx_hop *row = vx_hop_of(port);
	bool known = row && now_ns < row->until_ns && row->epoch == vx_epoch_of(0);
	__u64 number = known;

	macs[0] = known ? row->macs[0] : 0;
	macs[1] = known ? row->macs[1] : 0;
	/* Or the verifier would go on with both cases by itself. */
	vx_forget(macs[0], now_ns);
	vx_forget(macs[1], now_ns);
	vx_forget(number, now_ns);
	return number;
}

static __always_inline void vx_ask_hop(struct __sk_buff *skb, __u16 port)
{
	skb->cb[4] = VX_CB_ASKS | port;
}

static __always_inline bool vx_asks_hop(const struct __sk_buff *skb)
{
	return (skb->cb[4] & 0xffff0000) == VX_CB_ASKS;
}

/* Whether a packet is for a VTEP. */
static __always_inline bool vx_is_for(const struct __sk_buff *skb, const struct vx_vtep *vtep)
{
	const void *at = (void *)(long)skb->data + ETH_HLEN;
	const void *end = (void *)(long)skb->data_end;

	if (vtep->family == 4) {
		const struct iphdr *ip = at;

		return skb->protocol == bpf_htons(ETH_P_IP) && at + sizeof(*ip) <= end &&
		       ip->daddr == *(const __be32 *)vtep->octets;
	}
	return skb->protocol == bpf_htons(ETH_P_IPV6) && at + sizeof(struct ipv6hdr) <= end &&
	       vx_same_address((const void *)&((const struct ipv6hdr *)at)->daddr, vtep->octets);
}

/* Keeps by which MACs a packet leaves that asks. Words of others in cb look like that at most by chance. */
static __always_inline void vx_note_hop(const struct __sk_buff *skb)
{
	__u16 port = skb->cb[4];
	__u64 epoch = vx_epoch_of(0); /* in front of all lookups */
	struct vx_hop *row = vx_hop_of(port);
	const __u8 *macs = (void *)(long)skb->data;
	struct vx_vtep vtep;

	if (!row || !vx_find_vtep(port, &vtep) || !vx_is_for(skb, &vtep) ||
	    (void *)(macs + ETH_HLEN) > (void *)(long)skb->data_end)
		return;
	row->macs[0] = *(const __u64 *)macs;
	row->macs[1] = *(const __u32 *)(macs + 8);
	row->epoch = epoch;
	row->until_ns = bpf_ktime_get_coarse_ns() + VX_HOP_NS;
}

#endif /* VX_HOP_H */
