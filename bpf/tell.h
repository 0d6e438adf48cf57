/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the agent is told of the sender, for its log. Whatever must not get lost is counted as well.
 *
 * A VM can make events with its frames: a MAC that moves is one, and it may send as if it were any of
 * its neighbours. So each port has a bucket for each kind: its flood fills neither the ring, which
 * holds what 1,310 ports tell at most in a second, nor hides what the port tells of another kind.
 */
#ifndef VX_TELL_H
#define VX_TELL_H

#include <linux/if_ether.h>

#include "frame.h"
#include "maps.h"
#include "rate.h"

#define VX_TELL_TICKS VX_TICKS_PER_S

/* A VM that arrives must not wait: whoever reads the ring is woken. */
static __always_inline __u64 vx_wakeup(enum vx_event_type type)
{
	return type == VX_EVENT_ANNOUNCED ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
}

/* Hands an event to the agent; false: the ring is full. */
static __always_inline bool vx_put_event(const struct vx_frame *f, enum vx_event_type type,
					 __u16 port, __u16 other_port)
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
	return !bpf_ringbuf_output((void *)VX_MAP(events), &event, sizeof(event), vx_wakeup(type));
}

/* Tells an event of a port, or counts that it was not told. */
static __always_inline void vx_tell(const struct vx_frame *f, enum vx_event_type type, __u16 port,
				    __u16 other_port)
{
	struct vx_telling *telling = vx_telling_of(port);

	if (!telling)
		return;
	if (!vx_take(&telling->buckets[type - 1], VX_TELL_TICKS, VX_EVENT_BURST * VX_TELL_TICKS) ||
	    !vx_put_event(f, type, port, other_port))
		__sync_fetch_and_add(&telling->suppressed, 1);
}

#endif /* VX_TELL_H */
