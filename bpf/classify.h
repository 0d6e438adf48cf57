/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Steps 2 and 3: from which port, and into which segment.
 *
 * This is the one place that may hand a frame to the host's stack, and only one that an uplink
 * brought: what a port brings and nobody wants is dropped (promise 2).
 */
#ifndef VX_CLASSIFY_H
#define VX_CLASSIFY_H

#include <linux/if_ether.h>

#include "frame.h"
#include "maps.h"

/* 01-80-C2-00-00-00 to -0F: IEEE 802.1Q-2018, table 8-1, addresses that no bridge forwards. */
#define VX_LINK_LOCAL_MASK 0xfffffffffff0ULL
#define VX_LINK_LOCAL_PREFIX 0x0180c2000000ULL

/*
 * The agent fills the maps before it attaches the program and empties them after it has detached
 * it, so a device without a row should not be. Nobody can say that it is an uplink: its frames may
 * not reach the host. They are dropped, and counted for port 0.
 */
static __always_inline int vx_arrive(struct vx_frame *f, __u32 ifindex, __u32 bytes)
{
	struct vx_device device;

	f->bytes = bytes;
	if (!vx_find_device(ifindex, &device) || !vx_find_port(device.port, &f->from))
		return vx_drop(VX_NO_DESTINATION);
	f->counter = f->from.counter_none;
	return VX_GO_ON;
}

/* A frame that belongs to no segment: an uplink's is the host's, a port's is dropped. */
static __always_inline int vx_not_ours(const struct vx_frame *f, enum vx_reason reason)
{
	return vx_is_uplink(&f->from) ? VX_FATE(VX_TO_HOST, VX_REASON_NONE) : vx_drop(reason);
}

static __always_inline int vx_keep_link_local(const struct vx_frame *f)
{
	if ((f->destination & VX_LINK_LOCAL_MASK) == VX_LINK_LOCAL_PREFIX)
		return vx_not_ours(f, VX_LINK_LOCAL);
	return VX_GO_ON;
}

/*
 * VID 0 is a priority tag (IEEE 802.1Q-2018, 9.6) and says nothing about the segment. Nor does the
 * VID of another TPID, which is a number of somebody else's.
 */
static __always_inline bool vx_segment_of(const struct vx_frame *f, struct vx_membership *found)
{
	__u16 vid = f->tci & VX_TCI_VID;

	if (f->tpid && f->tpid != ETH_P_8021Q)
		return false;
	if (vid) {
		return (f->from.flags & (VX_PORT_TRUNK | VX_PORT_UPLINK)) &&
		       vx_find_vid(f->from.handle, vid, found);
	}
	found->segment = f->from.segment; /* 0, which is no segment, for uplinks and some trunks */
	found->counter = f->from.counter;
	return true;
}

static __always_inline int vx_classify(struct vx_frame *f)
{
	struct vx_membership found;

	if (!vx_segment_of(f, &found) || !vx_find_segment(found.segment, &f->segment))
		return vx_not_ours(f, VX_VLAN_DENIED);
	f->counter = found.counter;
	return VX_GO_ON;
}

#endif /* VX_CLASSIFY_H */
