/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The one exit: every frame is counted once, under what became of it, by functions of this file.
 *
 * traffic and drops are per CPU, and tc runs with bottom halves off: plain adds are exact. Bytes
 * are those of the frame as it came in; what leaves is counted for the port by which it leaves, as
 * it leaves.
 */
#ifndef VX_VERDICT_H
#define VX_VERDICT_H

#include <linux/pkt_cls.h>

#include "forward.h"
#include "frame.h"
#include "maps.h"
#include "parse.h"

/* A frame that came in; `copies` were made of it. */
static __always_inline void vx_count_frame(__u32 counter, enum vx_verdict verdict, __u32 bytes,
					   __u32 copies)
{
	struct vx_traffic *traffic = vx_lookup(traffic, &counter);

	if (!traffic || verdict >= VX_COUNTED_VERDICTS)
		return;
	traffic->packets[verdict]++;
	traffic->bytes[verdict] += bytes;
	traffic->copies += copies;
}

/* Copies of a frame that is counted already. */
static __always_inline void vx_count_copies(__u32 counter, __u32 copies)
{
	struct vx_traffic *traffic = vx_lookup(traffic, &counter);

	if (traffic)
		traffic->copies += copies;
}

/* A frame that goes out. */
static __always_inline void vx_count_sent(__u32 counter, __u32 bytes)
{
	struct vx_traffic *traffic = vx_lookup(traffic, &counter);

	if (!traffic)
		return;
	traffic->tx_packets++;
	traffic->tx_bytes += bytes;
}

static __always_inline void vx_add_drops(struct vx_drop_key *key, struct vx_drop_count *more)
{
	struct vx_drop_count *count = vx_lookup(drops, key);

	if (!count) {
		if (!vx_update(drops, key, more, BPF_NOEXIST))
			return;
		/* Another CPU has made it since, or the map is full: then the drop is lost. */
		count = vx_lookup(drops, key);
		if (!count)
			return;
	}
	count->packets += more->packets;
	count->bytes += more->bytes;
}

static __always_inline void vx_add_drop(struct vx_drop_key *key, __u32 bytes)
{
	struct vx_drop_count one = { .packets = 1, .bytes = bytes };

	vx_add_drops(key, &one);
}

/*
 * Adds what a port has counted elsewhere. The agent cannot: what it writes into a map of each CPU takes the place of what
 * programs count meanwhile.
 */
static __always_inline void vx_add_carried(struct vx_carried *carried)
{
	struct vx_drop_key *drop = (void *)carried->drop;
	__u64 *traffic = vx_lookup(traffic, &carried->counter);

	if (carried->counter && traffic) {
#pragma unroll
		for (int i = 0; i < (int)(sizeof(struct vx_traffic) / sizeof(*traffic)); i++)
			traffic[i] += carried->traffic[i];
	}
	if (drop->reason)
		vx_add_drops(drop, (void *)carried->dropped);
}

static __always_inline void vx_count_drop(const struct vx_frame *f, enum vx_reason reason,
					  enum vx_drop_kind kind)
{
	struct vx_drop_key key = {
		.port = f->from.handle,
		.segment = f->segment.handle,
		.reason = reason,
		.kind = kind,
	};

	vx_add_drop(&key, f->bytes);
}

/* A flood's copy for a port that may not have it now; the frame's own verdict stays what it is. */
static __always_inline void vx_count_lost_copy(__u16 port, __u16 segment, enum vx_reason reason,
					       __u32 bytes)
{
	struct vx_drop_key key = {
		.port = port,
		.segment = segment,
		.reason = reason,
		.kind = VX_DROP_COPY,
	};

	vx_add_drop(&key, bytes);
}

/* A frame that cannot be flooded, behind vx_walk. */
static __always_inline void vx_count_undelivered(__u16 port, __u16 segment, __u32 bytes)
{
	struct vx_drop_key key = {
		.port = port,
		.segment = segment,
		.reason = VX_NO_DESTINATION,
		.kind = VX_DROP_FRAME,
	};

	vx_add_drop(&key, bytes);
}

/*
 * Wraps a stage that only drops, for what the port itself has asked for. In shadow a drop is counted
 * as what would have been, and the frame goes on to the next stage, which may find fault with it too.
 */
static __always_inline int vx_enforce(struct vx_frame *f, int fate)
{
	if (fate == VX_GO_ON || !(f->from.flags & VX_PORT_SHADOW))
		return fate;
	vx_count_drop(f, vx_fate_reason(fate), VX_DROP_SHADOW);
	f->shadowed = true;
	return VX_GO_ON;
}

/* A fate that nobody foresaw is a drop: nothing reaches the host by mistake. */
static __always_inline int vx_finish(struct __sk_buff *skb, const struct vx_frame *f, int fate)
{
	enum vx_verdict verdict = vx_fate_verdict(fate);

	switch (verdict) {
	case VX_FORWARDED:
	case VX_REPLIED:
		vx_count_frame(f->counter, verdict, f->bytes, 1);
		vx_count_sent(f->copy.counter, vx_frame_bytes(skb));
		return vx_send(skb, f);
	case VX_TO_HOST:
		vx_count_frame(f->counter, VX_TO_HOST, f->bytes, 0);
		return TC_ACT_UNSPEC; /* the next program, then the stack */
	default:
		vx_count_drop(f, vx_fate_reason(fate), VX_DROP_FRAME);
		return TC_ACT_SHOT;
	}
}

#endif /* VX_VERDICT_H */
