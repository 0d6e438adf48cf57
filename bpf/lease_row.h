/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Leases: rows of neighbours, made and ended as DHCP says (lease.h), read by step 7.
 *
 * A row that is the agent's is left alone. It is looked for before one is written, not in the same
 * moment: what the agent puts in between is overwritten, until it puts its rows right again.
 *
 * A server is the authority on its addresses. What it leases to another port than before, the port
 * before has no more.
 */
#ifndef VX_LEASE_ROW_H
#define VX_LEASE_ROW_H

#include <linux/errno.h>

#include "frame.h"
#include "guard.h"
#include "learn.h"
#include "maps.h"

#define VX_NS_PER_S 1000000000ULL
#define VX_FOR_EVER 0xffffffff /* seconds: RFC 2131, 3.3, and RFC 9915, 7.7 */

/* Whose lease it is: a MAC on a port that is held to its leases. */
struct vx_holder {
	__u64 mac;
	__u16 port;
};

/* False: the FDB does not have the MAC on such a port. */
static __always_inline bool vx_find_holder(const struct vx_frame *f, __u64 mac,
					   struct vx_holder *holder)
{
	struct vx_station station;
	struct vx_port port;

	vx_find_station(f, mac, &station);
	if (!station.live || !vx_find_port(station.entry.port, &port) ||
	    !(port.flags & VX_PORT_SNOOPED))
		return false;
	holder->mac = mac;
	holder->port = port.handle;
	return true;
}

/* Any age: a row that has run out stays until the agent removes it. */
static __always_inline bool vx_find_row(const struct vx_neighbour_key *key,
					struct vx_neighbour *row)
{
	return vx_find_neighbour(key, 0, row);
}

/* One lease more for a port; false: it holds VX_MAX_LEASES. Signed: see vx_give_room. */
static __always_inline bool vx_take_room(__u16 port)
{
	__s64 *held = vx_leases_of(port);

	if (!held)
		return false;
	if (__sync_fetch_and_add(held, 1) < VX_MAX_LEASES)
		return true;
	__sync_fetch_and_add(held, -1);
	return false;
}

/* One less. Where the agent has counted at the same time it may go below zero until it counts again. */
static __always_inline void vx_give_room(__u16 port)
{
	__s64 *held = vx_leases_of(port);

	if (held)
		__sync_fetch_and_add(held, -1);
}

static __always_inline void vx_remove_row(const struct vx_neighbour_key *key, __u16 port)
{
	if (!vx_delete(neighbours, (void *)key))
		vx_give_room(port);
}

/* Ends a lease, if it is this holder's. */
static __always_inline void vx_end_lease(const struct vx_neighbour_key *key,
					 const struct vx_holder *holder)
{
	struct vx_neighbour row;

	if (vx_find_row(key, &row) && row.origin == VX_NEIGHBOUR_LEASED &&
	    row.port == holder->port && row.mac == holder->mac)
		vx_remove_row(key, row.port);
}

/* There is no room for a lease. Its VM will be refused its address; the frame goes on. */
static __always_inline void vx_refuse_lease(const struct vx_frame *f, __u16 port)
{
	__u64 *refused = vx_refused_of(port);

	if (refused && vx_count_and_tell(refused))
		vx_tell(f, VX_EVENT_LEASE_REFUSED, f->from.handle, port);
}

/* Makes a lease, or renews it. A row that was removed since it was found is made again. */
static __always_inline void vx_make_lease(const struct vx_frame *f,
					  const struct vx_neighbour_key *key,
					  const struct vx_holder *holder, __u32 seconds)
{
	struct vx_neighbour old;
	struct vx_neighbour row = {
		.port = holder->port,
		.segment = key->segment,
		.family = key->family,
		.origin = VX_NEIGHBOUR_LEASED,
		.mac = holder->mac,
		.expires_ns = seconds == VX_FOR_EVER ? 0 : f->now_ns + seconds * VX_NS_PER_S,
	};
	bool renewed = vx_find_row(key, &old);
	int error;

	if (renewed && old.origin != VX_NEIGHBOUR_LEASED)
		return;
	if (renewed && old.port != holder->port) {
		vx_remove_row(key, old.port);
		renewed = false;
	}
	if (!renewed && !vx_take_room(holder->port)) {
		vx_refuse_lease(f, holder->port);
		return;
	}
	__builtin_memcpy(row.octets, key->octets, sizeof(row.octets));
	error = vx_update(neighbours, (void *)key, &row, renewed ? BPF_ANY : BPF_NOEXIST);
	if (!error)
		return;
	if (!renewed)
		vx_give_room(holder->port);
	if (error != -EEXIST) /* then another CPU has made it, or the agent a row of its own */
		vx_refuse_lease(f, holder->port);
}

/* What a message says of an address: leased for so many seconds, or with 0 no more. */
static __always_inline void vx_set_lease(const struct vx_frame *f,
					 const struct vx_neighbour_key *key,
					 const struct vx_holder *holder, __u32 seconds)
{
	if (seconds)
		vx_make_lease(f, key, holder, seconds);
	else
		vx_end_lease(key, holder);
}

#endif /* VX_LEASE_ROW_H */
