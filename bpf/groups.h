/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Step 18, where multicast follows IGMP and MLD: who gets a frame for a group.
 *
 * Members of the group and ports with a router behind them, as long as somebody asks for members: what
 * nobody asks for nobody repeats, and without a querier all get all. So do, of what is not known for certain,
 * ports that the querier has not asked, or that have not had the time to answer: new ones, and those that its
 * queries do not reach (isolated from it, or an uplink like it).
 */
#ifndef VX_GROUPS_H
#define VX_GROUPS_H

#include "frame.h"
#include "maps.h"
#include "multicast.h"

/*
 * RFC 3376, section 8, and RFC 3810, section 9, by default values. Those that a query names are left aside: with
 * these a membership outlives the querier that it answered, whatever a VM puts into queries of its own. Where
 * queries are further apart there is no querier for the rest of the time.
 */
#define VX_MEMBERSHIP_NS 260000000000ULL /* 8.4, 9.4: Group Membership Interval */
#define VX_QUERIER_NS 255000000000ULL	 /* 8.5, 9.5: Other Querier Present Interval */
#define VX_LEAVE_NS 2000000000ULL	 /* 8.10, 9.11: Last Member Query Time */

enum vx_audience_kind {
	VX_EVERYBODY = 0,
	VX_ASKED,   /* everybody, and some are asked for the first time */
	VX_MEMBERS, /* of a group, and routers */
	VX_ROUTERS,
};

/*
 * Who in the segment gets the frame at hand. In a map, because there the verifier loses sight of values: what
 * a dozen branches have found out would else be as many ways through the flood.
 */
struct vx_audience {
	__u32 kind;
	__u32 family;		   /* 0: IPv4, 1: IPv6; an index into the pairs of vx_listening */
	struct vx_group_key group; /* MEMBERS: but for the port */
	__u64 now_ns;
	__u64 began_ns;	   /* of vx_queriers */
	__u64 answered_ns; /* ASKED: when all will have answered */
};

_Static_assert(sizeof(struct vx_audience) == VX_AUDIENCE_BYTES, "abi.h has its size for the agent");

static __always_inline bool vx_is_member(const struct vx_audience *audience, __u16 port,
					 __u64 since_ns)
{
	struct vx_group_key key = audience->group;
	struct vx_group group;

	key.port = port;
	return vx_find_group(&key, since_ns, &group) && group.expires_ns > audience->now_ns;
}

/*
 * Whether one of the other ports gets a frame; `counter` is its place's.
 *
 * Reports go to routers alone, not where it is unknown who wants them: a host that hears another's
 * report keeps its own to itself (RFC 2236, section 3).
 */
static __always_inline bool vx_listens(const struct vx_audience *audience, __u16 port,
				       __u32 counter)
{
	const volatile struct vx_listening *listening;
	__u32 family = audience->family & 1; /* the verifier wants a limit */
	__u64 settled;

	if (audience->kind < VX_MEMBERS)
		return true;
	listening = vx_listening_of(counter);
	if (!listening || listening->router_ns[family] > audience->now_ns)
		return true;
	if (audience->kind == VX_ROUTERS)
		return false;
	settled = listening->settled_ns[family];
	return settled < audience->began_ns || settled > audience->now_ns ||
	       vx_is_member(audience, port, listening->since_ns);
}

/* A port gets a general query: the first one of this querier begins the time that it has to answer. */
static __always_inline void vx_ask(const struct vx_audience *audience, __u32 counter)
{
	volatile struct vx_listening *listening;
	__u32 family = audience->family & 1;

	if (audience->kind != VX_ASKED)
		return;
	listening = vx_listening_of(counter);
	if (listening && listening->settled_ns[family] < audience->began_ns)
		listening->settled_ns[family] = audience->answered_ns;
}

static __always_inline void vx_find_audience(const struct vx_multicast *m, __u16 segment,
					     __u64 now_ns, struct vx_audience *audience)
{
	const volatile struct vx_queriers *queriers = vx_queriers_of(segment);
	__u32 family = m->family == 6;

	audience->kind = VX_EVERYBODY;
	if (!queriers || queriers->until_ns[family] <= now_ns)
		return;
	audience->family = family;
	audience->now_ns = now_ns;
	audience->began_ns = queriers->began_ns[family];
	switch (m->kind) {
	case VX_MULTICAST_DATA:
		audience->kind = VX_MEMBERS;
		audience->group.segment = segment;
		audience->group.family = m->family;
		__builtin_memcpy(audience->group.octets, m->octets, sizeof(m->octets));
		return;
	case VX_MULTICAST_REPORT:
		audience->kind = VX_ROUTERS;
		return;
	case VX_MULTICAST_QUERY:
		audience->kind = VX_ASKED;
		audience->answered_ns = now_ns + m->response_ns;
		return;
	default:
		return;
	}
}

#endif /* VX_GROUPS_H */
