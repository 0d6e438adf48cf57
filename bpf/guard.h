/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Steps 4 to 6: may this sender send at all?
 *
 * The sender's FDB entry is looked up here, and once; step 13 (learn.h) goes by the same copy.
 */
#ifndef VX_GUARD_H
#define VX_GUARD_H

#include "frame.h"
#include "maps.h"

static __always_inline int vx_guard_address(const struct vx_frame *f)
{
	if (!f->source || vx_is_group(f->source))
		return vx_drop(VX_SRC_INVALID);
	return VX_GO_ON;
}

/* A draining port's VM still sends; a port that is down has nothing to say either. */
static __always_inline int vx_guard_state(const struct vx_frame *f)
{
	if (f->from.state != VX_PORT_UP && f->from.state != VX_PORT_DRAINING)
		return vx_drop(VX_STANDBY);
	return VX_GO_ON;
}

/*
 * What the FDB knows about a MAC. A learned entry not seen for settings.ageing_ns counts as absent,
 * whether or not the agent has removed it already.
 *
 * The age is signed: another CPU may have refreshed the entry after this one read the clock.
 */
static __always_inline void vx_find_station(const struct vx_frame *f, __u64 mac,
					    struct vx_station *station)
{
	const struct vx_settings *settings;
	__u32 only = 0;
	__s64 age;

	station->row = vx_find_fdb(f->segment.handle, mac, &station->entry);
	station->live = station->row;
	if (!station->row || station->entry.origin != VX_FDB_LEARNED)
		return;
	settings = vx_lookup(settings, &only);
	age = f->now_ns - station->entry.seen_ns;
	station->live = settings && (!settings->ageing_ns || age <= (__s64)settings->ageing_ns);
}

static __always_inline bool vx_lists(const struct vx_frame *f, const struct vx_station *sender)
{
	return sender->live && sender->entry.flags & VX_FDB_LISTED &&
	       sender->entry.port == f->from.handle;
}

/*
 * Whether somebody stated that the sender is elsewhere. A VM that migrates is in two places for a while:
 * its frames come from an uplink while its port here is not up yet, or not any more; and they come from
 * a draining port whose MAC the cluster has elsewhere already.
 */
static __always_inline bool vx_conflicts(const struct vx_frame *f)
{
	const struct vx_fdb_entry *known = &f->sender.entry;
	struct vx_port owner;

	if (!f->sender.live || known->origin == VX_FDB_LEARNED || known->port == f->from.handle)
		return false;
	if (known->origin == VX_FDB_CLUSTER && vx_is_migrating(&f->from))
		return false;
	return !vx_is_uplink(&f->from) || !vx_find_port(known->port, &owner) ||
	       !vx_is_migrating(&owner);
}

/* The coarse clock is bpf_ktime_get_ns as of the last tick, for half of the price. */
static __always_inline int vx_guard_mac(struct vx_frame *f)
{
	f->now_ns = bpf_ktime_get_coarse_ns();
	vx_find_station(f, f->source, &f->sender);
	if (f->from.flags & VX_PORT_MAC_LOCKED && !vx_lists(f, &f->sender))
		return vx_drop(VX_SRC_MAC_DENIED);
	if (vx_conflicts(f))
		return vx_drop(VX_SRC_MAC_CONFLICT);
	return VX_GO_ON;
}

#endif /* VX_GUARD_H */
