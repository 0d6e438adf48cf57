/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Hold-down, a part of step 13: a MAC that moves too often stays where it was at first.
 *
 * Moves are counted from the first one on, for VX_MOVES_S. The one beyond VX_MOVES begins a hold: for
 * VX_HOLD_S the MAC is learned at home alone, which is the port that had it before the first of them.
 * If it is elsewhere when the hold begins, it goes home with the next frame from there. So who
 * contends for a neighbour's MAC does not win it by having it last; who was there first keeps its
 * traffic. A hold is of learning: no frame is dropped for it.
 *
 * A port whose VM comes or goes is exempt: there a MAC is in two places for a while, and rightly so.
 *
 * The row is looked up and written at a move, never for a frame whose sender is where the FDB has it.
 * It is replaced as a whole: two CPUs that count the same MAC at once may lose one of the moves.
 *
 * Who fills `moves` with other MACs evicts the rows that are used least. A MAC that goes on flapping
 * uses its row with every frame. With VX_MOVES_S between two frames it takes as many moves of
 * different MACs as there are rows: 65,536, seven ports at a `learn` limit of 1,000. An evicted row
 * costs the hold, and no more; were the table to refuse new rows instead, one tenant could keep
 * another's MACs from moving.
 */
#ifndef VX_HOLD_H
#define VX_HOLD_H

#include "frame.h"
#include "maps.h"
#include "tell.h"

#define VX_MOVES_NS (VX_MOVES_S * 1000000000LL)
#define VX_HOLD_NS (VX_HOLD_S * 1000000000LL)

/* Whether the sender comes from another port than before, for no better reason than that it does. */
static __always_inline bool vx_has_moved(const struct vx_frame *f)
{
	struct vx_port old;

	return f->sender.live && !vx_is_migrating(&f->from) &&
	       !(vx_find_port(f->sender.entry.port, &old) && vx_is_migrating(&old));
}

/* Ages are signed: another CPU may have read the clock later and been faster. */
static __always_inline bool vx_in_hold(const struct vx_frame *f, const struct vx_moves *moves)
{
	return (__s64)(moves->held_ns - f->now_ns) > 0;
}

/* What is known of the moves of a MAC that has moved: none, if they are too long ago. */
static __always_inline void vx_recall_moves(const struct vx_frame *f, __u64 key,
					    struct vx_moves *moves)
{
	if (vx_find_moves(key, moves) &&
	    (vx_in_hold(f, moves) || (__s64)(f->now_ns - moves->began_ns) < VX_MOVES_NS))
		return;
	*moves = (struct vx_moves){
		.key = key,
		.began_ns = f->now_ns,
		.home = f->sender.entry.port,
	};
}

static __always_inline bool vx_is_held(const struct vx_frame *f, const struct vx_moves *moves)
{
	return vx_in_hold(f, moves) && moves->home != f->from.handle;
}

/* The sender and home contend for the MAC or, when home takes it back, the port that had it last. */
static __always_inline void vx_tell_of_hold(const struct vx_frame *f, __u16 home)
{
	__u16 rival = f->from.handle == home ? f->sender.entry.port : f->from.handle;
	struct vx_learning *learning = vx_learning_of(rival);

	if (learning)
		__sync_fetch_and_add(&learning->held, 1);
	vx_tell(f, VX_EVENT_MAC_HELD, rival, home);
}

/* Counts a move that is not held. Returns whether it may still be made. */
static __always_inline bool vx_count_move(const struct vx_frame *f, struct vx_moves *moves)
{
	bool begins = !vx_in_hold(f, moves) && ++moves->count > VX_MOVES;

	if (begins)
		moves->held_ns = f->now_ns + VX_HOLD_NS;
	if (vx_update(moves, &moves->key, moves, BPF_ANY) || !begins)
		return true;
	vx_tell_of_hold(f, moves->home);
	return moves->home == f->from.handle;
}

#endif /* VX_HOLD_H */
