/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the stages know of one frame, and how a stage says what becomes of it.
 *
 * A stage is a function that fills its part of struct vx_frame and returns VX_GO_ON or the frame's
 * fate: a verdict and, for a drop, its reason. It has no other effect unless its comment says so.
 */
#ifndef VX_FRAME_H
#define VX_FRAME_H

#include "abi.h"

/* Ports with one of these know by which addresses their VM may go: ARP and ND are looked into. */
#define VX_PORT_ADDRESSES (VX_PORT_IP_LOCKED | VX_PORT_SNOOPED)
#define VX_PORT_LOCKS (VX_PORT_MAC_LOCKED | VX_PORT_ADDRESSES)

#define VX_TAG_BYTES 4 /* IEEE 802.1Q-2018, 9.3: TPID and TCI */

/* Tag control information, IEEE 802.1Q-2018, 9.6, in host byte order. */
#define VX_TCI_VID 0x0fff
#define VX_TCI_PRIORITY 0xf000 /* PCP and DEI: what a frame keeps when its tag is changed */

/* A fate is never 0, so that stages can be chained until one decides. */
#define VX_GO_ON 0
#define VX_FATE(verdict, reason) (((reason) << 8) | ((verdict) + 1))

static __always_inline enum vx_verdict vx_fate_verdict(int fate)
{
	return (fate & 0xff) - 1;
}

static __always_inline enum vx_reason vx_fate_reason(int fate)
{
	return fate >> 8;
}

static __always_inline int vx_drop(enum vx_reason reason)
{
	return VX_FATE(VX_DROPPED, reason);
}

/* What the FDB knows about one MAC of the frame's segment. */
struct vx_station {
	struct vx_fdb_entry *row;  /* NULL: nothing; else even one that has aged out */
	struct vx_fdb_entry entry; /* its copy */
	bool live;		   /* there and not aged out */
};

/* Where one copy of the frame goes. */
struct vx_copy {
	__u32 ifindex;
	__u32 counter; /* index into traffic of the port that gets it */
	__u16 vid;     /* 0: untagged */
	bool peer;     /* by bpf_redirect_peer */
	bool tunnel;   /* by VXLAN */
};

/* Where the payload of an IP packet begins, behind options and extension headers. */
struct vx_l4 {
	__u32 offset; /* in the frame's bytes */
	__u32 end;    /* of the packet, as its own header has it, in the same bytes */
	__u8 protocol;
	bool fragment; /* part of a larger packet; IPv6: there is a Fragment header at all */
	bool later;    /* a fragment behind the first: what it begins with is no header */
	bool hidden;   /* the header that offset should lead to is out of reach */
};

/* All in host byte order. A MAC is a number with the first octet highest, as in the keys of fdb. */
struct vx_frame {
	/* parse.h */
	__u64 destination;
	__u64 source;
	__u32 bytes;	/* as it came in, tags included, wherever they are */
	__u32 l3_bytes; /* after Ethernet header and tags; of a GSO frame: of its largest segment */
	__u16 tpid;	/* of the outermost tag; 0: untagged */
	__u16 tci;	/* of the same tag */
	bool tag_in_data;     /* the tag is not in skb->vlan_tci but still in the frame's bytes */
	bool followed_by_tag; /* another tag, of whatever TPID, follows it */
	__u16 ethertype;      /* behind the first tag; if the frame is inspected, behind all tags */
	__u32 l3;	      /* where, in the frame's bytes, what it announces begins */

	/* From here on a frame without a flow begins with zeroes: vx_begin. */

	/* parse_l3.h, if the frame is inspected; else all zero */
	struct vx_l4 l4;
	__u16 udp_source; /* port of a UDP header within reach */
	__u8 nd;	  /* ICMPv6 type of an ND message within reach */

	/* verdict.h */
	bool shadowed; /* in force, a guard or limit would have dropped it */

	/* dhcp.h */
	bool dhcp; /* a DHCP message that may say something of leases */

	/* classify.h */
	__u32 counter; /* index into traffic of (from, segment) */
	struct vx_port from;
	struct vx_segment segment; /* handle 0: none (yet) */

	/* flow.h */
	__u64 epoch; /* as read before the tables */

	/* guard.h */
	__u64 now_ns; /* bpf_ktime_get_coarse_ns */
	struct vx_station sender;

	/* forward.h */
	bool known;	      /* the FDB has a live entry of the receiver */
	bool marked;	      /* another host has redirected it (overlay.h) */
	bool redirected;      /* it goes to the host to which a VM migrates, and will be marked */
	bool arriving;	      /* it is marked, and its receiver's port waits for the VM */
	__u16 receiver;	      /* which names this port; 0: none here */
	__u8 receiver_origin; /* of that entry */
	__u64 receiver_seen_ns;
	struct vx_copy copy;
	bool addressed;	   /* `copy` is a packet that has its MACs already */
	__u16 awaiting;	   /* slot of the only port for which it is (overlay.h); 0: of none */
	struct vx_port to; /* handle 0: that port cannot have frames of the segment */
};

/*
 * Keeps what `p` points to as it is laid out. Otherwise clang takes struct vx_frame apart and, out of
 * registers, gives each part a stack slot of 8 bytes. Measured for vx_tc, clang 14: 368 instead of
 * 256 bytes of the 512 that there are, 1,357 instead of 1,074 instructions, five times the work for
 * the verifier, and no faster.
 */
#define vx_keep_in_memory(p) asm volatile("" : : "r"(p) : "memory")

/*
 * Makes the verifier forget what it knows of a number: it would follow every sum of lengths
 * that a frame gives by itself; of DHCP options that is more than a million instructions. `unknown` is any number that it does not know.
 */
#define vx_forget(number, unknown) \
	asm volatile("%0 ^= %1\n\t%0 ^= %1" : "+r"(number) : "r"(unknown))

/*
 * The same for 2^bits bytes of the stack from `start` on: one of them is written back as it was, and
 * the verifier cannot know which. What one branch leaves 0 and another sets is a constant on either
 * path; once it is tested, the verifier goes on with each of its values by itself, and with each
 * combination of such members. Where many paths meet, they so meet for the verifier too.
 *
 * No pointer may be among the bytes: it would be one no more. All must have been written. `unknown` is
 * below 2^32; that of a frame's length it is the last byte, which should not be read soon: a load
 * of several bytes waits until a store of one is done.
 */
#define vx_forget_bytes(start, bits, unknown)                                              \
	do {                                                                               \
		__u64 vx_nth = ((1U << (bits)) - 1) ^ (__u32)(unknown) >> (32 - (bits));   \
		volatile __u8 *vx_byte;                                                    \
		/* Or clang adds by OR, which the verifier does not allow for pointers. */ \
		asm volatile("" : "+r"(vx_nth));                                           \
		vx_byte = (volatile __u8 *)(start) + vx_nth;                               \
		*vx_byte = *vx_byte;                                                       \
	} while (0)

/* Stages for the verifier alone: they say nothing of a frame. The members are next to each other. */
static __always_inline int vx_forget_tags(struct vx_frame *f)
{
	vx_forget_bytes(&f->tpid, 4, f->bytes); /* to l3 and l4.offset */
	return VX_GO_ON;
}

static __always_inline int vx_forget_headers(struct vx_frame *f)
{
	vx_forget_bytes(&f->tpid, 5, f->bytes); /* to dhcp */
	return VX_GO_ON;
}

static __always_inline int vx_forget_sender(struct vx_frame *f)
{
	vx_forget_bytes(&f->sender.entry.seen_ns, 4, f->bytes); /* and live */
	return VX_GO_ON;
}

static __always_inline int vx_forget_receiver(struct vx_frame *f)
{
	vx_forget_bytes(&f->known, 5, f->bytes); /* to copy and what to begins with */
	return VX_GO_ON;
}

/*
 * An index below a power of two, of which the verifier knows it. Linux 6.1 forgets what was compared
 * where clang reads the number from the stack once more.
 */
#define vx_limit(index, size) asm volatile("%0 &= %1" : "+r"(index) : "i"((size)-1))

static __always_inline void vx_begin(struct vx_frame *f)
{
	__builtin_memset(&f->l4, 0, sizeof(*f) - __builtin_offsetof(struct vx_frame, l4));
}

/* Bytes of the whole frame: skb->len is without a tag that is in skb->vlan_tci. */
static __always_inline __u32 vx_frame_bytes(const struct __sk_buff *skb)
{
	return skb->len + (skb->vlan_present ? VX_TAG_BYTES : 0);
}

/* Bytes of a copy that leaves with that VID (0: untagged), once a tag is nowhere but in skb->vlan_tci. */
static __always_inline __u32 vx_copy_bytes(const struct __sk_buff *skb, __u16 vid)
{
	return skb->len + (vid ? VX_TAG_BYTES : 0);
}

static __always_inline bool vx_is_uplink(const struct vx_port *port)
{
	return port->flags & VX_PORT_UPLINK;
}

/* Its VM is about to come or to go: its MAC is here and elsewhere for a while. */
static __always_inline bool vx_is_migrating(const struct vx_port *port)
{
	return port->state == VX_PORT_STANDBY || port->state == VX_PORT_HOLDING ||
	       port->state == VX_PORT_DRAINING;
}

/* I/G bit, IEEE 802-2014, 8.2.2: the lowest bit of the first octet. */
static __always_inline bool vx_is_group(__u64 mac)
{
	return mac >> 40 & 1;
}

#endif /* VX_FRAME_H */
