/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Step 12: who has an address is answered from the neighbours map, and nobody else is asked.
 *
 * Asked is by a broadcast ARP request (RFC 826) or a neighbour solicitation to a group (RFC 4861,
 * 4.3). It is turned into the answer in place and goes back to its port, in the tag that it came
 * with. What does not look exactly as hosts ask, or has no answer here, goes on and is flooded: the
 * hosts know best what to make of it. So does what is said rather than asked: gratuitous ARP, ARP
 * probes (RFC 5227) and DAD (RFC 4862, 5.4) are for everybody to hear.
 *
 * The MAC that an answer goes to is the frame's source. Where the message names another one (a
 * bridge or a bond behind the port), whom to answer is the owner's to decide.
 *
 * An answered frame is not learned from. Its sender asked in order to send.
 */
#ifndef VX_ANSWER_H
#define VX_ANSWER_H

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ipv6.h>

#include "forward.h"
#include "frame.h"
#include "guard_l3.h"
#include "maps.h"
#include "parse_l3.h"
#include "rate.h"
#include "tag.h"

#define VX_ARP_ETHERNET 1 /* RFC 826: hardware type */
#define VX_ARP_REQUEST 1
#define VX_ARP_REPLY 2

struct vx_arp_message {
	struct vx_arp sender;
	__u8 target_mac[ETH_ALEN]; /* of a request: anything */
	__be32 target_ip;
} __attribute__((packed));

#define VX_ND_HOPS 255 /* RFC 4861, 7.1.1: no router has had it */
#define VX_NS_OPTIONS 2
#define VX_ND_SOURCE_MAC 1 /* option types, 4.6.1 */
#define VX_ND_TARGET_MAC 2
#define VX_NA_SOLICITED 0x40000000 /* 4.4 */
#define VX_NA_OVERRIDE 0x20000000

/*
 * A neighbour solicitation or advertisement, RFC 4861, 4.3 and 4.4. Room for the options that hosts
 * ask with, a source link-layer address and a nonce (RFC 3971, 5.3.2) of the usual size.
 *
 * The checksum covers all from the addresses on; what is not there is 0 and adds nothing to it.
 */
struct vx_nd_message {
	struct ipv6hdr ip;
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be32 flags;
	struct in6_addr target;
	struct vx_nd_option options[VX_NS_OPTIONS];
};

#define VX_ND_FIXED_BYTES __builtin_offsetof(struct vx_nd_message, options)
#define VX_ND_CHECKED_FROM __builtin_offsetof(struct vx_nd_message, ip.saddr)
#define VX_NA_BYTES (VX_ND_FIXED_BYTES + sizeof(struct vx_nd_option))

static __always_inline bool vx_asks_by_arp(const struct vx_frame *f,
					   const struct vx_arp_message *arp)
{
	const struct vx_arp *sender = &arp->sender;

	return sender->hardware == bpf_htons(VX_ARP_ETHERNET) &&
	       sender->protocol == bpf_htons(ETH_P_IP) && sender->mac_bytes == ETH_ALEN &&
	       sender->ip_bytes == sizeof(arp->target_ip) &&
	       sender->operation == bpf_htons(VX_ARP_REQUEST) &&
	       vx_mac_of(sender->sender_mac) == f->source && sender->sender_ip &&
	       sender->sender_ip != arp->target_ip;
}

static __always_inline bool vx_read_arp(struct __sk_buff *skb, const struct vx_frame *f,
					struct vx_arp_message *arp)
{
	return f->destination == VX_BROADCAST &&
	       !bpf_skb_load_bytes(skb, f->l3, arp, sizeof(*arp)) && vx_asks_by_arp(f, arp);
}

static __always_inline void vx_put_mac(__u8 *octets, __u64 mac)
{
#pragma unroll
	for (int i = 0; i < ETH_ALEN; i++)
		octets[i] = mac >> (8 * (ETH_ALEN - 1 - i));
}

static __always_inline void vx_make_arp_reply(const struct vx_frame *f, struct vx_arp_message *arp,
					      __u64 mac)
{
	__be32 target = arp->target_ip;

	arp->target_ip = arp->sender.sender_ip;
	vx_put_mac(arp->target_mac, f->source);
	arp->sender.sender_ip = target;
	vx_put_mac(arp->sender.sender_mac, mac);
	arp->sender.operation = bpf_htons(VX_ARP_REPLY);
}

/* RFC 1071, with the pseudo-header of RFC 8200, 8.1. Of a message that is right it is 0. */
static __always_inline __u16 vx_nd_checksum(struct vx_nd_message *nd)
{
	__u32 sum = bpf_csum_diff(NULL, 0, (void *)nd + VX_ND_CHECKED_FROM,
				  sizeof(*nd) - VX_ND_CHECKED_FROM,
				  nd->ip.payload_len + bpf_htons(IPPROTO_ICMPV6));

	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* Whether an option, if it is the sender's MAC, is the frame's source. */
static __always_inline bool vx_from_source(const struct vx_frame *f,
					   const struct vx_nd_option *option)
{
	return option->type != VX_ND_SOURCE_MAC || vx_mac_of(option->mac) == f->source;
}

/* Reads the options and says whether they are what hosts ask with: none, or 8 or 16 bytes. */
static __always_inline bool vx_read_options(struct __sk_buff *skb, const struct vx_frame *f,
					    struct vx_nd_message *nd)
{
	__u32 bytes = bpf_ntohs(nd->ip.payload_len) + sizeof(nd->ip) - VX_ND_FIXED_BYTES;
	struct vx_nd_option *options = nd->options;

	if (!bytes)
		return true;
	if (bytes == 8)
		return !bpf_skb_load_bytes(skb, f->l3 + VX_ND_FIXED_BYTES, options, 8) &&
		       options[0].length == 1 && vx_from_source(f, &options[0]);
	if (bytes != 16 || bpf_skb_load_bytes(skb, f->l3 + VX_ND_FIXED_BYTES, options, 16) ||
	    !vx_from_source(f, &options[0]))
		return false;
	return options[0].length == 2 ||
	       (options[0].length == 1 && options[1].length == 1 && vx_from_source(f, &options[1]));
}

/* RFC 4861, 7.1.1, and 2.3 for the group: ff02::1:ff00:0/104 with the last 24 bits of the target. */
static __always_inline bool vx_asks_by_nd(const struct vx_nd_message *nd)
{
	const __be32 *group = nd->ip.daddr.in6_u.u6_addr32;
	const __be32 *target = nd->target.in6_u.u6_addr32;

	return nd->ip.version == 6 && nd->ip.nexthdr == IPPROTO_ICMPV6 &&
	       nd->ip.hop_limit == VX_ND_HOPS && nd->type == VX_ND_NS && !nd->code &&
	       group[0] == bpf_htonl(0xff020000) && !group[1] && group[2] == bpf_htonl(1) &&
	       group[3] == (target[3] | bpf_htonl(0xff000000)) &&
	       nd->target.in6_u.u6_addr8[0] != 0xff && nd->ip.saddr.in6_u.u6_addr8[0] != 0xff &&
	       !vx_is_unspecified(&nd->ip.saddr);
}

static __always_inline bool vx_read_nd(struct __sk_buff *skb, const struct vx_frame *f,
				       struct vx_nd_message *nd)
{
	return !bpf_skb_load_bytes(skb, f->l3, nd, VX_ND_FIXED_BYTES) && vx_asks_by_nd(nd) &&
	       vx_read_options(skb, f, nd) && !vx_nd_checksum(nd);
}

/* RFC 4861, 7.2.4. R stays 0: who may be a router is not named (agent/vxagent/core/neighbours.py). */
static __always_inline void vx_make_advertisement(struct vx_nd_message *nd, __u64 mac)
{
	nd->ip.priority = 0;
	__builtin_memset(nd->ip.flow_lbl, 0, sizeof(nd->ip.flow_lbl));
	nd->ip.payload_len = bpf_htons(VX_NA_BYTES - sizeof(nd->ip));
	nd->ip.daddr = nd->ip.saddr;
	nd->ip.saddr = nd->target;
	nd->type = VX_ND_NA;
	nd->flags = bpf_htonl(VX_NA_SOLICITED | VX_NA_OVERRIDE);
	nd->options[0].type = VX_ND_TARGET_MAC;
	nd->options[0].length = 1;
	vx_put_mac(nd->options[0].mac, mac);
	__builtin_memset(&nd->options[1], 0, sizeof(nd->options[1]));
	nd->checksum = 0;
	nd->checksum = vx_nd_checksum(nd);
}

/*
 * The MAC that an answer names, or 0: that of somebody else, whom the asker's frames may and can reach
 * just now.
 */
static __always_inline __u64 vx_mac_for(const struct vx_frame *f, struct vx_neighbour_key *key)
{
	struct vx_neighbour owner;
	struct vx_port port;
	struct vx_copy copy;

	key->segment = f->segment.handle;
	if (!vx_find_neighbour(key, f->now_ns, &owner) || owner.port == f->from.handle ||
	    !vx_find_port(owner.port, &port) || !vx_may_receive(&port) ||
	    vx_isolated(&f->from, &port) || !vx_address_copy(f, &port, &copy))
		return 0;
	return owner.mac;
}

/*
 * Sends the frame back from `mac`, with `bytes` bytes of L3 of which the first `size` are new. The
 * kernel may refuse the new length; up to then the frame is as it came. The answer is a copy that the
 * asker's port gets, at the price of one.
 */
static __always_inline int vx_reply(struct __sk_buff *skb, struct vx_frame *f, __u64 mac,
				    void *message, __u32 size, __u32 bytes)
{
	struct vx_load load = { .frames = 1, .bytes = ETH_HLEN + bytes };
	__u16 vid = f->tci & VX_TCI_VID;
	__u8 macs[2 * ETH_ALEN];

	if (f->l3 + bytes != skb->len && bpf_skb_change_tail(skb, f->l3 + bytes, 0))
		return VX_GO_ON;
	if (!vx_take_departure(&f->from, &load, vid))
		return vx_drop(VX_RATE_LIMITED);
	vx_put_mac(macs, f->source);
	vx_put_mac(macs + ETH_ALEN, mac);
	if (vx_lift_tag(skb, f) || !vx_set_tag(skb, vid, f->tci & VX_TCI_PRIORITY) ||
	    bpf_skb_store_bytes(skb, 0, macs, sizeof(macs), 0) ||
	    bpf_skb_store_bytes(skb, ETH_HLEN, message, size, BPF_F_RECOMPUTE_CSUM))
		return vx_drop(VX_NO_DESTINATION);
	f->copy.ifindex = f->from.ifindex;
	f->copy.counter = f->counter;
	f->copy.peer = f->from.flags & VX_PORT_PEER;
	f->copy.tunnel = false;
	return VX_FATE(VX_REPLIED, VX_REASON_NONE);
}

/* Turns a request into the reply. The MAC that answers, or 0: nobody does. */
static __always_inline __u64 vx_answer_arp(struct __sk_buff *skb, const struct vx_frame *f,
					   struct vx_arp_message *arp)
{
	struct vx_neighbour_key key = { .family = 4 };
	__u64 mac;

	if (!vx_read_arp(skb, f, arp))
		return 0;
	__builtin_memcpy(key.octets, &arp->target_ip, sizeof(arp->target_ip));
	mac = vx_mac_for(f, &key);
	if (mac)
		vx_make_arp_reply(f, arp, mac);
	return mac;
}

/* The same for a solicitation, all of whose bytes are 0 beforehand. */
static __always_inline __u64 vx_answer_nd(struct __sk_buff *skb, const struct vx_frame *f,
					  struct vx_nd_message *nd)
{
	struct vx_neighbour_key key = { .family = 6 };
	__u64 mac;

	if (!vx_read_nd(skb, f, nd))
		return 0;
	__builtin_memcpy(key.octets, &nd->target, sizeof(nd->target));
	mac = vx_mac_for(f, &key);
	if (mac)
		vx_make_advertisement(nd, mac);
	return mac;
}

/* What follows an ARP message stays: the padding of a frame of 60 bytes. */
static __always_inline int vx_answer_question(struct __sk_buff *skb, struct vx_frame *f)
{
	union {
		struct vx_arp_message arp;
		struct vx_nd_message nd;
	} message = {};
	__u32 size = VX_NA_BYTES;
	__u32 bytes = VX_NA_BYTES;
	__u64 mac;

	if (f->ethertype == ETH_P_ARP) {
		mac = vx_answer_arp(skb, f, &message.arp);
		size = sizeof(message.arp);
		bytes = skb->len - f->l3;
	} else {
		mac = vx_answer_nd(skb, f, &message.nd);
	}
	return mac ? vx_reply(skb, f, mac, &message, size, bytes) : VX_GO_ON;
}

/* Step 12. The first test spares known unicast all of it, the second whoever has no neighbours. */
static __always_inline int vx_answer(struct __sk_buff *skb, struct vx_frame *f)
{
	if (!vx_is_group(f->destination) || !(f->segment.flags & VX_SEGMENT_NEIGHBOURS) ||
	    vx_is_uplink(&f->from) || f->followed_by_tag || skb->gso_size ||
	    !(f->ethertype == ETH_P_ARP || f->ethertype == ETH_P_IPV6))
		return VX_GO_ON;
	return vx_answer_question(skb, f);
}

#endif /* VX_ANSWER_H */
