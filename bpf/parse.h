/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Step 1: from bytes to struct vx_frame.
 *
 * The parser is total: either it has filled all of its members, or the frame is malformed, because
 * a header that must be read runs past its end. What is behind the Ethernet header and its tags is
 * read by parse_l3.h and, for the guards, guard_l3.h; no other stage reads the frame's bytes.
 *
 * Where tags are: in front of tc the kernel moves an outer tag of TPID 0x8100 or 0x88a8 from the
 * bytes to skb->vlan_tci, unless one is there already. A VM behind a veth can set both; its frame
 * then has a second tag in its bytes. Other TPIDs always stay in the bytes.
 */
#ifndef VX_PARSE_H
#define VX_PARSE_H

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include "frame.h"
#include "parse_l3.h"

/*
 * Fills the MACs and returns the EtherType, or -1.
 *
 * Two 8-byte loads instead of fourteen of one byte: the destination with two octets of the source,
 * then the source with the EtherType. They are unaligned, which BPF's verifier allows on x86-64 and
 * arm64 (CONFIG_HAVE_EFFICIENT_UNALIGNED_ACCESS).
 */
static __always_inline int vx_parse_ethernet(struct __sk_buff *skb, struct vx_frame *f)
{
	void *data = (void *)(long)skb->data;
	void *end = (void *)(long)skb->data_end;
	__u64 tail;

	/* In front of tc these bytes are linear: eth_type_trans() has pulled them. */
	if (data + ETH_HLEN > end)
		return -1;
	f->destination = bpf_ntohll(*(__be64 *)data) >> 16;
	tail = bpf_ntohll(*(__be64 *)(data + ETH_ALEN));
	f->source = tail >> 16;
	return tail & 0xffff;
}

/* <linux/skbuff.h> GSO_BY_FRAGS: the segments (of SCTP) are as large as they happen to be. */
#define VX_GSO_BY_FRAGS 0xffff

/*
 * Bytes of L3 of the largest frame that the kernel will cut from a GSO frame whose L3 begins at
 * `offset`; -1: a header runs past the end. It is what skb_gso_network_seglen() computes, which a
 * program cannot call.
 *
 * Nor can it read gso_type. Where a frame may be of two types the lower result stands, so that none
 * is dropped that would fit: tunnels are measured without their inner headers, and UDP over IPv4
 * with a gso_size that is a multiple of 8 as what old guests send (VIRTIO_NET_HDR_GSO_UDP), where
 * the kernel makes fragments and gso_size includes the UDP header.
 */
static __always_inline int vx_parse_gso(struct __sk_buff *skb, __u32 offset)
{
	__u32 size = skb->gso_size;
	struct vx_l4 l4 = {};
	struct tcphdr tcp;
	__be16 type;

	if (size == VX_GSO_BY_FRAGS)
		return 0;
	if (bpf_skb_load_bytes(skb, offset - sizeof(type), &type, sizeof(type)))
		return -1;
	if (type == bpf_htons(ETH_P_IP)) {
		if (!vx_find_l4_in_ipv4(skb, offset, &l4))
			return -1;
	} else if (type == bpf_htons(ETH_P_IPV6)) {
		if (!vx_find_l4_in_ipv6(skb, offset, &l4))
			return -1;
	} else {
		return size;
	}
	size += l4.offset - offset;
	if (l4.protocol == IPPROTO_TCP) {
		if (bpf_skb_load_bytes(skb, l4.offset, &tcp, sizeof(tcp)))
			return -1;
		return size + tcp.doff * 4; /* RFC 9293, 3.1: in words of 32 bits */
	}
	if (l4.protocol == IPPROTO_UDP && (type != bpf_htons(ETH_P_IP) || skb->gso_size % 8))
		return size + sizeof(struct udphdr);
	return size;
}

static __always_inline int vx_parse(struct __sk_buff *skb, struct vx_frame *f)
{
	__u32 l3 = ETH_HLEN; /* offset in the frame's bytes */
	int type = vx_parse_ethernet(skb, f);
	struct vx_tag tag;
	int segment;

	if (type < 0)
		return vx_drop(VX_MALFORMED);

	if (skb->vlan_present) {
		f->tpid = bpf_ntohs(skb->vlan_proto);
		f->tci = skb->vlan_tci;
	} else if (vx_is_tpid(type)) {
		if (bpf_skb_load_bytes(skb, l3, &tag, sizeof(tag)))
			return vx_drop(VX_MALFORMED);
		f->tpid = type;
		f->tci = bpf_ntohs(tag.tci);
		f->tag_in_data = true;
		type = bpf_ntohs(tag.type);
		l3 += VX_TAG_BYTES;
	}
	if (f->tpid && vx_is_tpid(type)) {
		f->followed_by_tag = true;
		l3 += VX_TAG_BYTES;
	}
	if (skb->len < l3)
		return vx_drop(VX_MALFORMED);
	f->ethertype = type;
	f->l3 = l3;

	f->l3_bytes = skb->len - l3;
	if (skb->gso_size) {
		segment = vx_parse_gso(skb, l3);
		if (segment < 0)
			return vx_drop(VX_MALFORMED);
		f->l3_bytes = segment;
	}
	return VX_GO_ON;
}

#endif /* VX_PARSE_H */
