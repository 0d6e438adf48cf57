/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Step 13: learn where the sender is.
 *
 * An entry changes by map update alone. The element that a program points to may meanwhile have
 * been freed and reused for another MAC, whose port a write in place would change. seen_ns is the
 * exception: at worst another entry looks younger than it is.
 *
 * Nothing here drops a frame. The counters are shared by all CPUs and added to atomically: they
 * change when a MAC is new, moves or is refused, not with every frame.
 */
#ifndef VX_LEARN_H
#define VX_LEARN_H

#include <linux/errno.h>

#include "frame.h"
#include "hold.h"
#include "maps.h"
#include "rate.h"
#include "tell.h"

#define VX_REFRESH_NS 1000000000LL /* a busy entry is written once a second, not for every frame */

/*
 * Counts one more and says whether that is worth an event: at powers of two, so 64 times in the
 * life of a counter, however hard a VM tries.
 */
static __always_inline bool vx_count_and_tell(__u64 *counter)
{
	__u64 before = __sync_fetch_and_add(counter, 1);

	return !(before & (before + 1));
}

/* Signed: two CPUs that move one MAC at once both take it off the old port, perhaps below zero. */
static __always_inline bool vx_quota_left(const struct vx_frame *f,
					  const struct vx_learning *learning)
{
	__u32 key = f->from.handle;
	const __u64 *forgotten = vx_lookup(forgotten, &key);

	return forgotten && (__s64)(learning->learned - *forgotten) < (__s64)f->from.max_macs;
}

/* By 1: flows of the segment no longer count (flow.h). */
static __always_inline void vx_raise_epoch(__u16 segment, __u64 by)
{
	__u32 key = segment;
	__u64 *epoch = vx_lookup(epochs, &key);

	if (epoch)
		__sync_fetch_and_add(epoch, by);
}

/* The entry was `old` port's; 0: nobody's, or a VTEP's. */
static __always_inline void vx_count_learned(const struct vx_frame *f, struct vx_learning *learning,
					     __u16 old)
{
	struct vx_learning *loser;

	vx_raise_epoch(f->segment.handle, f->sender.row ? 1 : 0);
	__sync_fetch_and_add(&learning->learned, 1);
	if (f->sender.live) {
		__sync_fetch_and_add(&learning->moved, 1);
		vx_tell(f, VX_EVENT_MAC_MOVED, f->from.handle, old);
	}
	loser = old ? vx_learning_of(old) : NULL;
	if (loser)
		__sync_fetch_and_add(&loser->learned, -1);
}

/* The sender is new to the FDB, or the FDB has it on another port. */
static __always_inline void vx_learn_here(const struct vx_frame *f)
{
	struct vx_learning *learning = vx_learning_of(f->from.handle);
	__u64 key = vx_fdb_key(f->segment.handle, f->source);
	__u16 old = f->sender.row ? f->sender.entry.port : 0;
	struct vx_fdb_entry entry = {
		.port = f->from.handle,
		.segment = f->segment.handle,
		.origin = VX_FDB_LEARNED,
		.seen_ns = f->now_ns,
	};
	struct vx_moves moves;
	bool moved = vx_has_moved(f);
	int error;

	if (!learning)
		return;
	if (moved) {
		vx_recall_moves(f, key, &moves);
		if (vx_is_held(f, &moves))
			return;
	}
	if (!vx_quota_left(f, learning) || !vx_take_learning(f->from.handle)) {
		if (vx_count_and_tell(&learning->limited))
			vx_tell(f, VX_EVENT_LEARN_LIMITED, f->from.handle, 0);
		return;
	}
	if (moved && !vx_count_move(f, &moves))
		return;
	error = vx_update(fdb, &key, &entry, f->sender.row ? BPF_EXIST : BPF_NOEXIST);
	if (!error)
		vx_count_learned(f, learning, old);
	else if (error == -EEXIST || error == -ENOENT)
		; /* another CPU or the agent was faster; the next frame sees what it did */
	else if (vx_count_and_tell(&learning->full))
		vx_tell(f, VX_EVENT_FDB_FULL, f->from.handle, 0);
}

/* Whether the FDB has the sender on another port, or not at all. */
static __always_inline bool vx_is_news(const struct vx_frame *f)
{
	const struct vx_station *sender = &f->sender;

	return !sender->row ||
	       (sender->entry.origin == VX_FDB_LEARNED && sender->entry.port != f->from.handle);
}

/* The FDB has the sender, and here: once in a while that is confirmed. */
static __always_inline void vx_refresh(const struct vx_frame *f)
{
	const struct vx_station *sender = &f->sender;
	__s64 age = f->now_ns - sender->entry.seen_ns;

	if (sender->entry.origin == VX_FDB_LEARNED && age >= VX_REFRESH_NS)
		*(volatile __u64 *)&sender->row->seen_ns = f->now_ns;
}

/*
 * A port that lists MACs learns none: it comes here with a static entry only (step 5). What is marked has made a
 * detour, and does not come from where its sender is.
 */
static __always_inline int vx_learn(struct vx_frame *f)
{
	if (f->marked)
		return VX_GO_ON;
	if (vx_is_news(f))
		vx_learn_here(f);
	else
		vx_refresh(f);
	return VX_GO_ON;
}

#endif /* VX_LEARN_H */
