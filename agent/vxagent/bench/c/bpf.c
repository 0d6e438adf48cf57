// SPDX-License-Identifier: GPL-2.0-only
/*
 * What `vxagent bench` runs at hooks: counters at receivers, and the bare programs that are the limit of what a switch
 * at that hook could reach. A bare program knows neither MACs nor VLANs: all goes to the device in to[0].
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/udp.h>

#include "checksum.h"
#include "maps.h"

#define PORT_AT 36 /* behind Ethernet and IPv4 without options */
#define DISCARD 9  /* RFC 863: the port of all frames that count */
#define VID 10
#define HEAD 24	   /* bytes that hold both MACs and a tag */
#define MEMBERS 64 /* most devices that bench_clone sends to */

/* BCC knows it as a method of maps that it made itself. */
static long (*redirect_by_map)(void *map, __u64 key, __u64 flags) = (void *)BPF_FUNC_redirect_map;

static __always_inline void count_frame(void)
{
	__u32 key = 0;
	__u64 *count = vx_lookup(counts, &key);

	if (count)
		*count += 1;
}

/* At a receiver: takes the frames that count, and no others. */
int bench_count(struct __sk_buff *skb)
{
	__be16 port = 0;

	if (skb->protocol != bpf_htons(ETH_P_IP) ||
	    bpf_skb_load_bytes(skb, PORT_AT, &port, sizeof(port)) || port != bpf_htons(DISCARD))
		return TC_ACT_OK;
	count_frame();
	return TC_ACT_SHOT;
}

/* At a port to which nobody sends: every unicast frame that comes was flooded. */
int bench_witness(struct __sk_buff *skb)
{
	__u8 first = 1;

	bpf_skb_load_bytes(skb, 0, &first, sizeof(first));
	if (!(first & 1))
		count_frame();
	return TC_ACT_SHOT;
}

static __always_inline __u32 target(__u32 key)
{
	__u32 *ifindex = vx_lookup(to, &key);

	return ifindex ? *ifindex : 0;
}

int bench_redirect(struct __sk_buff *skb)
{
	return bpf_redirect(target(0), 0);
}

/* Past the device, into the namespace of its peer. */
int bench_redirect_peer(struct __sk_buff *skb)
{
	return bpf_redirect_peer(target(0), 0);
}

/* To every device in `to`, the last one by a redirect, which saves a copy. */
int bench_clone(struct __sk_buff *skb)
{
	__u32 ifindex = target(0);

	for (__u32 next = 1; next < MEMBERS; next++) {
		__u32 following = target(next);

		if (!following)
			break;
		bpf_clone_redirect(skb, ifindex, 0);
		ifindex = following;
	}
	return bpf_redirect(ifindex, 0);
}

/* A trunk's switch, which puts the tag on. */
int bench_tag(struct __sk_buff *skb)
{
	if (bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021Q), VID))
		return TC_ACT_SHOT;
	return bpf_redirect(target(0), 0);
}

int bench_untag(struct __sk_buff *skb)
{
	if (bpf_skb_vlan_pop(skb))
		return TC_ACT_SHOT;
	return bpf_redirect(target(0), 0);
}

/* What VXLAN over IPv4 (RFC 7348) has in front of a frame, and how the frame begins. */
struct outside {
	__u8 reserved[2]; /* what follows is aligned so */
	__u8 ethernet[ETH_HLEN];
	struct iphdr ip;
	struct udphdr udp;
	__u8 vxlan[8];
	__u8 inside[ETH_HLEN];
};

#define OUTSIDE 50
#define WRAP_FLAGS                                                                               \
	(BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L4_UDP | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | \
	 BPF_F_ADJ_ROOM_ENCAP_L2(ETH_HLEN) | BPF_F_ADJ_ROOM_ENCAP_L2_ETH)

/* A tunnel's beginning: all IP goes into packets that begin alike, with fixed MACs. */
int bench_wrap(struct __sk_buff *skb)
{
	__u32 key = 0;
	const struct outside *bytes = vx_lookup(outside, &key);
	struct outside head;
	__u32 length;

	if (!bytes)
		return TC_ACT_SHOT;
	__builtin_memcpy(&head, bytes, __builtin_offsetof(struct outside, inside));
	if (bpf_skb_load_bytes(skb, 0, head.inside, ETH_HLEN) ||
	    bpf_skb_adjust_room(skb, OUTSIDE, BPF_ADJ_ROOM_MAC, WRAP_FLAGS))
		return TC_ACT_SHOT;
	length = skb->len - ETH_HLEN;
	head.ip.tot_len = bpf_htons(length);
	head.ip.check = vx_ipv4_checksum(&head.ip);
	head.udp.len = bpf_htons(length - sizeof(head.ip));
	if (bpf_skb_store_bytes(skb, 0, head.ethernet, OUTSIDE + ETH_HLEN, 0))
		return TC_ACT_SHOT;
	return bpf_redirect(target(0), 0);
}

/* Its end. False: what came is no whole packet. */
static __always_inline bool unwrap(struct __sk_buff *skb)
{
	__u8 inside[ETH_HLEN];

	return !bpf_skb_load_bytes(skb, OUTSIDE, inside, sizeof(inside)) &&
	       !bpf_skb_adjust_room(skb, -OUTSIDE, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO) &&
	       !bpf_skb_store_bytes(skb, 0, inside, sizeof(inside), 0);
}

int bench_unwrap(struct __sk_buff *skb)
{
	return unwrap(skb) ? bpf_redirect(target(0), 0) : TC_ACT_SHOT;
}

int bench_unwrap_peer(struct __sk_buff *skb)
{
	return unwrap(skb) ? bpf_redirect_peer(target(0), 0) : TC_ACT_SHOT;
}

/*
 * A NIC whose driver can do XDP. Live frames are used again as they come back, so whoever took a tag off has changed the
 * next one, too: the head is written anew, as a NIC does. Then the device's own program runs, or the frame goes on to
 * the stack.
 */
int bench_nic(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	__u32 key = 0;
	const void *bytes = vx_lookup(head, &key);

	if (!bytes || data + HEAD > (void *)(long)ctx->data_end)
		return XDP_DROP;
	__builtin_memcpy(data, bytes, HEAD);
	bpf_tail_call_(VX_MAP(own), ctx, 0);
	return XDP_PASS;
}

int bench_xdp(struct xdp_md *ctx)
{
	return redirect_by_map((void *)VX_MAP(devmap), 0, XDP_DROP);
}
