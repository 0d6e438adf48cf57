/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a test run cannot say with a frame and a context: a tag in skb->vlan_tci.
 *
 * skb->mark is the tag, TPID << 16 | TCI. The words of skb->cb are filled with rubbish, as another
 * program or qdisc may have left them. Then vx_tc runs, as if the frame had come in like that.
 */
#include <linux/bpf.h>

#define SWITCH bpf_pseudo_fd(1, FD_entry)

int prelude(struct __sk_buff *skb)
{
	__u32 tag = skb->mark;

	skb->mark = 0;
	if (tag && bpf_skb_vlan_push(skb, bpf_htons(tag >> 16), tag & 0xffff))
		return -2;
	skb->cb[0] = 0xdeadbeef;
	skb->cb[1] = 0xdeadbeef;
	skb->cb[2] = 0xdeadbeef;
	skb->cb[3] = 0xdeadbeef;
	skb->cb[4] = 0xdeadbeef;
	bpf_tail_call_(SWITCH, skb, 0);
	return -2;
}
