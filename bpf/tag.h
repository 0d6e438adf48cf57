/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The tag with which a frame leaves.
 *
 * After vx_lift_tag the classifying tag, if there is one, is in skb->vlan_tci. bpf_skb_vlan_pop
 * takes it from there, but puts a tag that follows in the bytes (TPID 0x8100 or 0x88a8) in its
 * place: the frame would leave under a VID of the VM's choice. Hence two rules:
 *   - a frame with a tag that follows never leaves untagged (forward.h, flood.h);
 *   - a tag is changed by a pop and a push in one go: the push puts the one that follows back.
 * If one of the two fails, the frame is somewhere in between and must be dropped.
 */
#ifndef VX_TAG_H
#define VX_TAG_H

#include <linux/if_ether.h>

#include "frame.h"

/*
 * The classifying tag is still in the bytes where the kernel's core did not see it: in test runs,
 * and should a driver be unusual. The pop goes by skb->protocol; with another one the tag would
 * stay.
 */
static __always_inline int vx_lift_tag(struct __sk_buff *skb, const struct vx_frame *f)
{
	if (!f->tag_in_data)
		return VX_GO_ON;
	if (skb->protocol != bpf_htons(ETH_P_8021Q) || bpf_skb_vlan_pop(skb) ||
	    bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021Q), f->tci))
		return vx_drop(VX_NO_DESTINATION);
	return VX_GO_ON;
}

/*
 * Tags the frame as a port wants it (vid 0: untagged), with the priority that it came with. Returns
 * whether it is so now.
 */
static __always_inline bool vx_set_tag(struct __sk_buff *skb, __u16 vid, __u16 priority)
{
	__u16 tci = vid | priority;

	if (skb->vlan_present) {
		if (vid && skb->vlan_tci == tci)
			return true;
		if (bpf_skb_vlan_pop(skb))
			return false;
	}
	return !vid || !bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021Q), tci);
}

#endif /* VX_TAG_H */
