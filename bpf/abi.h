/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Every struct and number that the data plane shares with the agent.
 *
 * agent/vxagent/datapath/abi.py mirrors this file; tests/unit/test_abi.py compiles it with cc and
 * compares every size, offset and value. Fixed-width members only, no implicit padding.
 *
 * Values of hash maps carry their own key. A hash element may be freed and reused for another key
 * between a program's lookup and its read; a program therefore reads the word that holds the key
 * once and treats a mismatch as "not found". Isolation rests on it.
 */
#ifndef VX_ABI_H
#define VX_ABI_H

#include <linux/types.h>

/*
 * Part of the pin path. Raise it when a struct or the meaning of a map changes; of a meaning tell
 * maps.MEANINGS, too. Rows are taken over by the names of members (docs/adr/0014).
 */
#define VX_LAYOUT 1

/* Members of one segment: of the kernel's 33 tail calls 27 visit VX_CHUNK slots each. */
#define VX_CHUNK 79
#define VX_MAX_MEMBERS 2112

/*
 * VTEPs that are members have slots of their own, from VX_VTEP_SLOT on, and so have ports whose VMs leave for other
 * hosts, from VX_LEAVING_SLOT on; four calls visit VX_VTEP_CHUNK of both each. A port that awaits its VM has another one that no
 * flood visits, VX_AWAITING_SLOT | token: both hosts know it by that, a number of 14 bits.
 */
#define VX_VTEP_SLOT 0x8000
#define VX_VTEP_CHUNK 144
#define VX_MAX_VTEPS 512
#define VX_LEAVING_SLOT 0xa000
#define VX_MAX_LEAVING 64
#define VX_AWAITING_SLOT 0xc000

/* Hold-down: a MAC that moves more often than VX_MOVES in VX_MOVES_S goes nowhere else for VX_HOLD_S. */
#define VX_MOVES 5
#define VX_MOVES_S 10
#define VX_HOLD_S 60

/* What the data plane decided for a frame; the first four index vx_traffic.packets and .bytes. */
enum vx_verdict {
	VX_FORWARDED = 0,
	VX_FLOODED = 1,
	VX_REPLIED = 2,
	VX_TO_HOST = 3,
	VX_DROPPED = 4,
};

#define VX_COUNTED_VERDICTS 4

/* Drop reasons. Numbers are stable for ever; a retired number stays reserved. */
enum vx_reason {
	VX_REASON_NONE = 0,
	VX_MALFORMED = 1,
	VX_LINK_LOCAL = 2,
	VX_VLAN_DENIED = 3,
	VX_SRC_INVALID = 4,
	VX_SRC_MAC_DENIED = 5,
	VX_SRC_MAC_CONFLICT = 6,
	VX_SRC_IP_DENIED = 7,
	VX_ARP_SPOOF = 8,
	VX_ND_SPOOF = 9,
	VX_DHCP_SERVER_DENIED = 10,
	VX_RA_DENIED = 11,
	VX_RATE_LIMITED = 12,
	VX_STORM_LIMITED = 13,
	VX_HAIRPIN = 14,
	VX_ISOLATED = 15,
	VX_MTU_EXCEEDED = 16,
	VX_EGRESS_FAILED = 17, /* from device statistics, never written by a program */
	VX_UNKNOWN_UNICAST = 18,
	VX_STANDBY = 19,
	VX_POLICY_DENIED = 20,
	VX_NO_DESTINATION = 21,
	VX_VTEP_DENIED = 22,
	VX_FRAGMENT_DENIED = 23,
	VX_LOOP = 24,
};

/* Bits of vx_port.flags. */
enum vx_port_flag {
	VX_PORT_UPLINK = 1 << 0,      /* a NIC towards the physical network */
	VX_PORT_TRUNK = 1 << 1,	      /* VIDs classify through the vids map */
	VX_PORT_ISOLATED = 1 << 2,    /* never exchanges frames with another isolated port */
	VX_PORT_TRUSTED = 1 << 3,     /* exempt from the guards of step 9 */
	VX_PORT_MAC_LOCKED = 1 << 4,  /* lists MACs: no other source, no learning */
	VX_PORT_PEER = 1 << 5,	      /* veth whose peer is in another namespace: redirect_peer */
	VX_PORT_INTERNAL = 1 << 6,    /* the host itself */
	VX_PORT_LIMITED_IN = 1 << 7,  /* limits has a rate or a storm limit of what it brings */
	VX_PORT_LIMITED_OUT = 1 << 8, /* limits has a rate of what it gets */
	VX_PORT_IP_LOCKED = 1 << 9,   /* lists IPs: no other source */
	VX_PORT_PREFIXES = 1 << 10,   /* some of them are prefixes */
	VX_PORT_SHADOW = 1 << 11,     /* its guards and limits count what they would drop */
	VX_PORT_SNOOPED = 1 << 12,    /* lists also what a DHCP server leases it */
	VX_PORT_VTEP = 1 << 13,	      /* an uplink behind a tunnel: vteps says where it ends */
};

/* vx_port.state; the last three belong to a live migration. */
enum vx_port_state {
	VX_PORT_DOWN = 0, /* takes and gives nothing */
	VX_PORT_UP = 1,
	VX_PORT_STANDBY = 2,
	VX_PORT_HOLDING = 3,
	VX_PORT_DRAINING = 4,
};

/* Bits of vx_segment.flags. */
enum vx_segment_flag {
	VX_SEGMENT_DROP_UNKNOWN = 1 << 0, /* unknown unicast is dropped instead of flooded */
	VX_SEGMENT_NEIGHBOURS = 1 << 1,	  /* neighbours may have rows of it */
	VX_SEGMENT_LEASES = 1 << 2,	  /* a port that is in it is VX_PORT_SNOOPED */
	VX_SEGMENT_GROUPS = 1 << 3,	  /* multicast follows IGMP and MLD */
	VX_SEGMENT_MOVING = 1 << 4,	  /* fdb has entries of it with VX_FDB_REDIRECT */
	VX_SEGMENT_BY_VLAN = 1 << 5,	  /* between hosts; tunnels are for VMs that migrate */
	VX_SEGMENT_LEAVING = 1 << 6,	  /* slots has rows of it from VX_LEAVING_SLOT on */
};

/* vx_fdb_entry.origin. */
enum vx_fdb_origin {
	VX_FDB_STATIC = 0,
	VX_FDB_LEARNED = 1,
	VX_FDB_CLUSTER = 2,
};

/* Bits of vx_fdb_entry.flags. */
enum vx_fdb_flag {
	VX_FDB_LISTED = 1 << 0,	  /* the port itself lists this MAC (step 5) */
	VX_FDB_REDIRECT = 1 << 1, /* its VM is leaving: all its frames go by `via`, marked */
};

/* vx_event.type. */
enum vx_event_type {
	VX_EVENT_MAC_MOVED = 1,	    /* port: the new one, other_port: the old one */
	VX_EVENT_LEARN_LIMITED = 2, /* the port's quota or its rate of learning is used up */
	VX_EVENT_FDB_FULL = 3,	    /* the fdb map takes no more entries */
	VX_EVENT_MAC_HELD = 4,	    /* a hold begins; port: who contends, other_port: home */
	VX_EVENT_LEASE_REFUSED = 5, /* no room; port: the server's, other_port: the client's */
	VX_EVENT_ANNOUNCED = 6,	    /* a VM that has arrived says so; port: where it waits */
};

/* Slots of the progs map. */
enum vx_program {
	VX_PROG_FLOOD = 0,
	VX_PROG_SNOOP = 1,
	VX_PROG_LEASE = 2,
	VX_PROG_WALK = 3,
	VX_PROG_REPLICATE = 4,
	VX_PROG_TUNNEL = 5,
};

/* settings: array of one. */
struct vx_settings {
	__u64 ageing_ns; /* a learned entry not seen for longer counts as absent; 0: never ages */
	__u64 flags;	 /* none yet */
};

/*
 * ports: array by port handle (1…); handle 0 means "no port". Written by the agent alone and in
 * place, so what a program must see together shares one aligned 8-byte word: the segment and its
 * counter, the flags and the state.
 */
struct vx_port {
	__u32 ifindex; /* 0: no device, nothing can be sent there */
	__u16 flags;
	__u16 state;
	__u16 handle;
	__u16 segment;	    /* access segment or native segment of a trunk; 0: none */
	__u32 counter;	    /* index into traffic for that segment */
	__u32 counter_none; /* index into traffic for frames that belong to no segment */
	__u32 max_macs;	    /* learned at most; 0: nothing is learned here */
};

/* segments: array by segment handle (1…). */
struct vx_segment {
	__u16 handle; /* 0: no such segment */
	__u16 slots;  /* flood slots to visit: highest used + 1, at most VX_MAX_MEMBERS */
	__u16 mtu;    /* bytes of L3 */
	__u16 flags;
	__u32 vni;  /* 0: none */
	__u16 vlan; /* 0: none */
	__u16 vteps; /* slots of VTEPs to visit: highest used + 1 - VX_VTEP_SLOT, at most VX_MAX_VTEPS */
};

/* devices: hash by ifindex (u32). */
struct vx_device {
	__u32 ifindex; /* the key again */
	__u16 port;
	__u16 reserved;
};

/*
 * One port in one segment. The value of three hashes, each with a u32 key:
 *   vids     port << 16 | vid        classify a tagged frame
 *   members  port << 16 | segment    may this port take a frame of that segment, and how tagged
 *   slots    segment << 16 | slot    whom a flood visits; a member keeps its slot
 * The first word is read once and compared with the key that was looked up.
 */
struct vx_membership {
	__u16 port;
	__u16 segment;
	__u16 vid; /* 0: untagged */
	__u16 slot;
	__u32 counter; /* index into traffic */
	__u16 via;     /* of a port whose VM leaves: the VTEP by which its copies go, marked */
	__u16 token;   /* with this */
};

/* Octets of addresses of the overlay are as in vx_address_key; all of a host are of one family. */

/* overlay: array of one. This host's own VTEP. */
struct vx_overlay {
	__u32 ifindex; /* of the underlay device; 0: there is no overlay */
	__u16 port;    /* of the same device: VXLAN from strangers counts there */
	__u16 family;  /* 4 or 6 */
	__u8 octets[16];
	__u32 ttl; /* TTL or hop limit that tunnels begin with */
	__u32 reserved;
};

/*
 * vteps: array by port handle; where the tunnels of a port with VX_PORT_VTEP end.
 * tunnels: hash by the octets of an address; the VTEP from which VXLAN is taken.
 */
struct vx_vtep {
	__u16 port;
	__u16 family;
	__u32 reserved;
	__u8 octets[16];
};

/* vnis: hash by VNI (u32). */
struct vx_vni {
	__u32 vni; /* the key again */
	__u16 segment;
	__u16 reserved;
};

/* fdb: hash by u64, segment << 48 | MAC (first octet highest). */
struct vx_fdb_entry {
	__u16 port;    /* a port, an uplink or a VTEP */
	__u16 via;     /* of a port whose VM is on another host for now: that host's VTEP */
	__u16 segment; /* the key's upper part again */
	__u8 origin;
	__u8 flags;
	__u64 seen_ns; /* bpf_ktime_get_ns of the last refresh; kept to about a second */
};

/*
 * moves: LRU hash with the keys of fdb; of MACs that moved between ports. Written by the data plane,
 * removed by the agent with the entry. A hold does not need the agent: it begins and ends by the clock.
 */
struct vx_moves {
	__u64 key;	/* again */
	__u64 began_ns; /* bpf_ktime_get_ns of the first move that is counted */
	__u64 held_ns;	/* until then the MAC is learned at home alone; 0: it was never held */
	__u32 count;	/* moves since began_ns */
	__u16 home;	/* the port that had the MAC before them */
	__u16 reserved;
};

/*
 * Key of addresses, a hash, and of prefixes, an LPM trie. The octets are as on the wire, an IPv4
 * address in the first four and zeroes behind it.
 *
 * The trie wants the bits to compare counted in front of them: port and family count in full (32),
 * then come those of the prefix. A hash finds one address in half of a trie's time, so what has no
 * host bits is in addresses, and a port without prefixes spares itself the trie
 * (VX_PORT_PREFIXES). There all bits count; a key of whole words of 8 bytes is also what the
 * kernel compares fastest.
 */
struct vx_address_key {
	__u32 bits;
	__u16 port;
	__u16 family; /* 4 or 6 */
	__u8 octets[16];
};

/*
 * first: array by port handle. An address of each family that the port lists itself, zeroes for none;
 * it is in addresses as well. Nearly every port lists one of each, and an array is looked up in a
 * tenth of a hash's time. Written by the agent in place: who reads it meanwhile may see half of an
 * old IPv6 address beside half of a new one, which no port has.
 */
struct vx_first {
	__u8 ipv6[16];
	__u8 ipv4[4];
	__u32 reserved;
};

#define VX_ALL_BITS 160 /* of an address that is listed itself, or looked up */

/* Value of both. Nothing but the port, which the key has already: the row is there, that is all. */
struct vx_address {
	__u16 port;
	__u16 reserved;
};

/* vx_neighbour.origin. */
enum vx_neighbour_origin {
	VX_NEIGHBOUR_LISTED = 0, /* the port lists the address and one MAC; the agent's row */
	VX_NEIGHBOUR_LEASED = 1, /* a DHCP server said so; the data plane's row */
	VX_NEIGHBOUR_CLUSTER = 2,
};

/* neighbours: hash by segment and address; the octets are as in vx_address_key. */
struct vx_neighbour_key {
	__u16 segment;
	__u16 family; /* 4 or 6 */
	__u32 reserved;
	__u8 octets[16];
};

/* Leases that one port may hold, so that a VM that makes up clients leaves room for others'. */
#define VX_MAX_LEASES 64

/* Who has an address. */
struct vx_neighbour {
	__u16 port;
	__u16 segment; /* the key again, as are family and octets */
	__u16 family;
	__u16 origin;
	__u8 octets[16];
	__u64 mac;	  /* first octet highest */
	__u64 expires_ns; /* bpf_ktime_get_ns at which the row counts as absent; 0: never */
};

/* groups: hash by place and group; the octets are as in vx_address_key. */
struct vx_group_key {
	__u16 segment;
	__u16 port;
	__u16 family; /* 4 or 6 */
	__u16 reserved;
	__u8 octets[16];
};

/* Somebody behind a port has joined a group of a segment. */
struct vx_group {
	__u16 segment; /* the key again, as are port, family and octets */
	__u16 port;
	__u16 family;
	__u16 reserved;
	__u8 octets[16];
	__u64 since_ns;	  /* vx_listening.since_ns of the place that it was written for */
	__u64 expires_ns; /* bpf_ktime_get_ns at which the row counts as absent */
};

/*
 * listening: array by counter, of a place: a port in a segment. Which multicast it gets, beside what
 * groups says. The agent writes since_ns, and the rest zero, before the place takes part: what groups
 * has of an earlier place with the same numbers is not its own. Then the data plane alone writes.
 * Times are those of bpf_ktime_get_ns; of two the first is for IPv4, the second for IPv6.
 */
struct vx_listening {
	__u64 since_ns;	     /* when the place began */
	__u64 router_ns[2];  /* until then it counts as one with a multicast router behind it */
	__u64 settled_ns[2]; /* from then on groups has all that it joined; 0: never asked */
	__u64 joins;	     /* a bucket, as in vx_buckets: what it may add to groups */
	__u64 refused;	     /* joins for which groups had no room */
};

/* queriers: array by segment handle, in the same pairs. Zeroed by the agent when snooping begins. */
struct vx_queriers {
	__u64 began_ns[2]; /* the first query that found nobody to be querier */
	__u64 until_ns[2]; /* until then somebody is */
};

/* audience: per-CPU array of one, for the programs alone: a struct vx_audience (groups.h). */
#define VX_AUDIENCE_BYTES 56

/*
 * traffic: per-CPU array; one index for each (port, segment) and one for (port, no segment).
 * packets and bytes are of frames that came in, by verdict; a drop counts in drops instead.
 * bytes are of the whole frame with its tag. tx is what was handed to the port's device.
 */
struct vx_traffic {
	__u64 packets[VX_COUNTED_VERDICTS];
	__u64 bytes[VX_COUNTED_VERDICTS];
	__u64 tx_packets;
	__u64 tx_bytes;
	__u64 copies; /* frames made out of those that came in: 1 a forward, n a flood */
};

/* vx_drop_key.kind: what it is that counts. */
enum vx_drop_kind {
	VX_DROP_FRAME = 0, /* frames that the port brought */
	VX_DROP_COPY = 1,  /* copies of a flood that it did not get */
	VX_DROP_SHADOW =
		2, /* frames that went on, but would have been dropped by a guard in force */
};

/* drops: per-CPU hash, made by the data plane at the first drop of its kind. */
struct vx_drop_key {
	__u16 port;
	__u16 segment;
	__u16 reason;
	__u16 kind;
};

struct vx_drop_count {
	__u64 packets;
	__u64 bytes;
};

/*
 * What a port has counted on the host that it came from; vx_carry is run on it as if it was a frame.
 * counter 0 and reason 0: nothing of that kind.
 */
struct vx_carried {
	__u32 counter; /* index into traffic */
	__u32 reserved;
	__u64 traffic[sizeof(struct vx_traffic) / sizeof(__u64)];
	__u16 drop[sizeof(struct vx_drop_key) / sizeof(__u16)];
	__u64 dropped[sizeof(struct vx_drop_count) / sizeof(__u64)];
};

/*
 * learning: array by port handle, written by the data plane. learned - forgotten[port] is how many
 * entries the port holds; forgotten (array of u64 by port handle) is the agent's half of the sum.
 */
struct vx_learning {
	__u64 learned; /* entries made for, minus entries moved away from, this port */
	__u64 limited; /* frames whose source was not learned for the quota or the rate */
	__u64 moved;   /* MACs that came to this port from another one */
	__u64 full;    /* frames whose source was not learned because fdb was full */
	__u64 held;    /* holds on MACs that this port contended for */
};

/*
 * limits: array by port handle; 0: no limit. Written by the agent in place. Each member is a limit of
 * its own and one word, so a program that sees a new one beside an old one is right about both.
 */
struct vx_limits {
	__u64 in_bits;	  /* of what the port brings: bits a second, as on the wire */
	__u64 in_packets; /* frames a second */
	__u64 out_bits;	  /* of what it gets */
	__u64 out_packets;
	__u64 broadcast; /* frames a second that it brings to everybody */
	__u64 multicast; /* to a group */
	__u64 unknown;	 /* to a station that nobody knows */
	__u64 learn;	 /* MACs a second that it makes new or moved entries for */
};

/*
 * buckets: array by port handle, a token bucket for each limit; written by the data plane, zeroed by
 * the agent when the port goes or its limits change. The level of a bucket is kept as the time at
 * which it will be full again, in ticks (rate.h): it fills by itself, one word holds it, and all CPUs
 * share it.
 */
struct vx_buckets {
	__u64 in_bits;
	__u64 in_packets;
	__u64 out_bits;
	__u64 out_packets;
	__u64 broadcast;
	__u64 multicast;
	__u64 unknown;
	__u64 learn;
};

/* Rows of flows, for each CPU: 2^12, 256 KiB. */
#define VX_FLOW_BITS 12

/*
 * flows: per-CPU array by hash, for the programs alone (flow.h): the flow that came last, and how its
 * frames are forwarded. 64 bytes: one line of the CPU's cache.
 */
struct vx_flow {
	__u64 destination; /* MAC << 16 | VID that its frames have, 0: no tag */
	__u64 source;	   /* MAC */
	__u64 epoch;	   /* epochs[0] + epochs[segment] for which it counts */
	__u64 until_ns;	   /* and until when, by bpf_ktime_get_ns */
	__u32 ifindex;	   /* of the device that they come by */
	__u32 counter;	   /* index into traffic of (port, segment) */
	__u32 to_ifindex;
	__u32 to_counter; /* index into traffic of the port that gets them */
	__u16 port;
	__u16 receiver; /* port */
	__u16 segment;
	__u16 vid;   /* that they leave with, 0: no tag */
	__u16 flags; /* of the two ports */
	__u16 to_flags;
	__u16 mtu; /* the segment's, as are these flags */
	__u16 segment_flags;
};

/*
 * hops: array by port handle, for the programs alone (hop.h): by which MACs packets to a VTEP leave, as
 * they are in the packets, and 4 octets of 0. The receiver's MAC is in one word.
 */
struct vx_hop {
	__u64 until_ns;
	__u64 epoch; /* epochs[0] for which it counts */
	__u64 macs[2];
};

/*
 * epochs: array of u64 by segment handle; they only rise. 0: the agent has changed something; a
 * segment's: the data plane has moved a MAC there.
 */

/* Of each kind a port tells so many events at once, and then one a second. */
#define VX_EVENT_BURST 4
#define VX_EVENT_KINDS 6

/*
 * telling: array by port handle, written by the data plane, zeroed by the agent when the port goes.
 * The port is the one that the event names first.
 */
struct vx_telling {
	__u64 suppressed;	       /* events that were not told, for the rate or a full ring */
	__u64 buckets[VX_EVENT_KINDS]; /* by vx_event_type - 1, as in vx_buckets */
};

/* events: ring buffer. The agent looks once a second; a VM that has arrived wakes it. */
struct vx_event {
	__u64 time_ns; /* bpf_ktime_get_ns */
	__u16 type;
	__u16 port;
	__u16 other_port;
	__u16 segment;
	__u8 mac[6];
	__u16 reserved;
};

#endif /* VX_ABI_H */
