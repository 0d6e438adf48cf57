/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the agent is told of the sender, for its log. Whatever must not get lost is counted as well.
 */
#ifndef VX_TELL_H
#define VX_TELL_H

#include <linux/if_ether.h>

#include "frame.h"
#include "maps.h"

/* An event that finds the ring full is lost; the counters of vx_learning still have it. */
static __always_inline void vx_tell(const struct vx_frame *f, enum vx_event_type type, __u16 port,
				    __u16 other_port)
{
	struct vx_event event = {
		.time_ns = f->now_ns,
		.type = type,
		.port = port,
		.other_port = other_port,
		.segment = f->segment.handle,
	};

#pragma unroll
	for (int i = 0; i < ETH_ALEN; i++)
		event.mac[i] = f->source >> (8 * (ETH_ALEN - 1 - i));
	bpf_ringbuf_output((void *)VX_MAP(events), &event, sizeof(event), 0);
}

#endif /* VX_TELL_H */
