/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Step 0: frames that other hosts send by VXLAN.
 *
 * A VTEP is an uplink behind a tunnel: it has a port handle, is a member of the segments whose VNIs it
 * has, and what comes from it is learned, counted and kept apart (split horizon) as from any uplink.
 * The underlay device is the host's own: what is not VXLAN for this host's VTEP and one of its VNIs goes
 * on as it came.
 *
 * Nobody but a VTEP that the agent has named, and has named for this VNI, gets a frame in: the fabric is
 * not trusted further than its source addresses are.
 */
#ifndef VX_OVERLAY_H
#define VX_OVERLAY_H

#include "classify.h"
#include "flow.h"
#include "flow_tc.h"
#include "frame.h"
#include "guard.h"
#include "maps.h"
#include "unwrap.h"
#include "vxlan.h"

/*
 * In flows of frames from VTEPs: in place of a device's ifindex, which is a positive int, and of a VID. Both
 * together have the VNI.
 */
#define VX_TUNNEL_DEVICE 0x80000000

static __always_inline __u32 vx_tunnel_device(const struct vx_packet *packet)
{
	return VX_TUNNEL_DEVICE | packet->vni >> 16;
}

static __always_inline __u16 vx_tunnel_place(const struct vx_packet *packet)
{
	return packet->vni;
}

static __always_inline bool vx_is_underlay(__u32 ifindex)
{
	__u32 only = 0;
	const volatile struct vx_overlay *overlay = vx_lookup(overlay, &only);

	return overlay && overlay->ifindex == ifindex;
}

/* Whether it is VXLAN for us. */
static __always_inline bool vx_is_packet(struct __sk_buff *skb, struct vx_packet *packet)
{
	struct vx_overlay here;

	return vx_find_overlay(&here) && here.ifindex == skb->ifindex &&
	       vx_read_outside(skb, &here, packet);
}

/* Whether it is in a segment that we have. Strangers' frames count at the device's port. */
static __always_inline bool vx_is_tunneled(struct __sk_buff *skb, struct vx_frame *f,
					   const struct vx_packet *packet)
{
	struct vx_overlay here;
	struct vx_vni vni;

	if (!vx_find_vni(packet->vni, &vni) || !vx_find_segment(vni.segment, &f->segment) ||
	    !vx_find_overlay(&here))
		return false;
	f->bytes = vx_frame_bytes(skb);
	f->from.handle = here.port;
	return true;
}

static __always_inline int vx_admit(struct vx_frame *f, const struct vx_packet *packet)
{
	struct vx_membership member;
	struct vx_vtep vtep;

	if (!vx_find_tunnel(packet->sender, &vtep))
		return vx_drop(VX_VTEP_DENIED);
	f->from.handle = vtep.port;
	if (!vx_find_member(vtep.port, f->segment.handle, &member) ||
	    !vx_find_port(vtep.port, &f->from))
		return vx_drop(VX_VTEP_DENIED);
	f->counter = member.counter;
	return VX_GO_ON;
}

/* The frame's receiver, which a packet tells before it is opened. */
static __always_inline bool vx_find_inside(struct __sk_buff *skb, const struct vx_frame *f,
					   const struct vx_packet *packet,
					   struct vx_fdb_entry *entry)
{
	const struct vx_ethernet *inside = vx_inside_of(skb, packet);

	return inside && vx_find_fdb(f->segment.handle, vx_mac_of(inside->macs), entry);
}

/*
 * A frame for a VM that has left: the packet goes on as it is, from here and marked, to where the VM is
 * now. Were the frame taken out, the kernel would not put it into a packet again (EALREADY).
 */
static __always_inline int vx_pass_on(struct __sk_buff *skb, struct vx_frame *f,
				      const struct vx_packet *packet)
{
	struct vx_membership member;
	struct vx_overlay here;
	struct vx_fdb_entry entry;
	struct vx_vtep to;

	if (!(f->segment.flags & VX_SEGMENT_MOVING) || packet->flags & VX_VXLAN_COPY ||
	    !vx_find_inside(skb, f, packet, &entry) || !(entry.flags & VX_FDB_REDIRECT))
		return VX_GO_ON;
	if (packet->flags & VX_VXLAN_MARK)
		return vx_drop(VX_LOOP);
	if (!vx_find_overlay(&here) || !vx_find_vtep(entry.via, &to) ||
	    !vx_find_member(entry.via, f->segment.handle, &member) ||
	    !vx_forward_packet(skb, &here, &to))
		return vx_drop(VX_NO_DESTINATION);
	f->copy.ifindex = here.ifindex;
	f->copy.counter = member.counter;
	f->copy.tunnel = true;
	return VX_FATE(VX_FORWARDED, VX_REASON_NONE);
}

static __always_inline int vx_take_out(struct __sk_buff *skb, struct vx_frame *f,
				       const struct vx_packet *packet)
{
	f->bytes = skb->len - (packet->room & VX_ROOM_MASK);
	if (!vx_unwrap(skb, packet))
		return vx_drop(VX_MALFORMED);
	f->marked = packet->flags & VX_VXLAN_MARK;
	if (packet->flags & VX_VXLAN_COPY)
		f->awaiting = VX_AWAITING_SLOT | (packet->flags & VX_VXLAN_TOKEN);
	return VX_GO_ON;
}

/* Steps 2 and 3 for a frame from a VTEP: it is in a segment, and nobody's host. */
static __always_inline int vx_keep_inside(const struct vx_frame *f)
{
	if ((f->destination & VX_LINK_LOCAL_MASK) == VX_LINK_LOCAL_PREFIX)
		return vx_drop(VX_LINK_LOCAL);
	/* RFC 7348, 6.1: a tag would be one that follows, were there a classifying one. */
	return f->tpid ? vx_drop(VX_VLAN_DENIED) : VX_GO_ON;
}

/* In place of steps 5 to 9: what the FDB knows about the sender. */
static __always_inline int vx_find_sender(struct vx_frame *f)
{
	f->now_ns = bpf_ktime_get_coarse_ns();
	vx_find_station(f, f->source, &f->sender);
	return VX_GO_ON;
}

/*
 * A copy of what was flooded where a VM is no more, for the port here that awaits it. One that holds gets
 * what is flooded from whom it comes, as everybody does: to give it this one too would be once too often.
 */
static __always_inline int vx_resolve_copy(struct vx_frame *f)
{
	struct vx_membership member;

	if (!vx_find_slot(f->segment.handle, f->awaiting, &member) ||
	    !vx_find_port(member.port, &f->to) || !f->to.ifindex || f->to.state != VX_PORT_STANDBY)
		return VX_FATE(VX_FLOODED, VX_REASON_NONE);
	f->known = true;
	f->arriving = true;
	f->receiver = member.port;
	f->copy.ifindex = f->to.ifindex;
	f->copy.counter = member.counter;
	f->copy.vid = member.vid;
	return VX_GO_ON;
}

static __always_inline int vx_resolve_inside(struct vx_frame *f)
{
	return f->awaiting ? vx_resolve_copy(f) : vx_resolve(f);
}

/* As vx_finish; a copy for one that has its own has been flooded, to nobody. */
static __always_inline int vx_finish_inside(struct __sk_buff *skb, const struct vx_frame *f,
					    int fate)
{
	if (vx_fate_verdict(fate) != VX_FLOODED)
		return vx_finish(skb, f, fate);
	vx_count_frame(f->counter, VX_FLOODED, f->bytes, 0);
	return TC_ACT_SHOT;
}

/* As vx_parse_for_flow, of a frame in its packet. */
static __always_inline bool vx_parse_inside_for_flow(struct __sk_buff *skb, struct vx_frame *f,
						     const struct vx_packet *packet)
{
	const struct vx_ethernet *inside = vx_inside_of(skb, packet);
	__u64 tail;

	if (packet->flags & VX_VXLAN_MARK || !inside)
		return false;
	tail = bpf_ntohll(*(const __be64 *)(inside->macs + ETH_ALEN));
	f->destination = bpf_ntohll(*(const __be64 *)inside->macs) >> 16;
	f->source = tail >> 16;
	f->ethertype = tail;
	f->tpid = 0;
	f->tci = 0;
	f->bytes = skb->len - packet->room;
	f->l3_bytes = f->bytes - ETH_HLEN;
	f->shadowed = false;
	f->dhcp = false;
	return !vx_is_group(f->destination) && !vx_is_tpid(f->ethertype);
}

/*
 * Whether a frame in its packet has a flow that it may follow. That is so only if the flow's frames come
 * from the same VTEP; that it has the segment is known then.
 */
static __always_inline bool vx_follow_tunneled(struct __sk_buff *skb, struct vx_frame *f,
					       const struct vx_packet *packet)
{
	struct vx_vtep from;

	return vx_parse_inside_for_flow(skb, f, packet) &&
	       vx_follow_parsed(skb, f, vx_tunnel_device(packet), vx_tunnel_place(packet),
				packet->room) &&
	       vx_find_vtep(f->from.handle, &from) && vx_same_address(from.octets, packet->sender);
}

#endif /* VX_OVERLAY_H */
