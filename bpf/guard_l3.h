/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Steps 7 to 9: by which addresses a VM may go, and which services it may not offer.
 *
 * All three are a port's. Each begins with what decides for most frames: a flag of the port, or a
 * member that parse_l3.h leaves 0 where there is nothing to guard against.
 *
 * A fragment behind the first has no header, and passes: the first has it, and is checked or denied.
 */
#ifndef VX_GUARD_L3_H
#define VX_GUARD_L3_H

#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include "frame.h"
#include "guard.h"
#include "maps.h"
#include "parse_l3.h"

/* A lease is for one MAC; in ARP and ND that MAC is the frame's source as well (step 8). */
static __always_inline bool vx_is_leased(const struct vx_frame *f, const struct vx_address_key *key)
{
	struct vx_neighbour_key wanted = { .segment = f->segment.handle, .family = key->family };
	struct vx_neighbour found;

	__builtin_memcpy(wanted.octets, key->octets, sizeof(wanted.octets));
	return vx_find_neighbour(&wanted, f->now_ns, &found) && found.port == f->from.handle &&
	       found.mac == f->source;
}

/* `key` has the family and the address. */
static __always_inline bool vx_has_for_itself(const struct vx_frame *f, struct vx_address_key *key)
{
	key->bits = VX_ALL_BITS;
	key->port = f->from.handle;
	return (f->from.flags & VX_PORT_IP_LOCKED && vx_has_address(key)) ||
	       (f->from.flags & VX_PORT_PREFIXES && vx_has_prefix(key)) ||
	       (f->from.flags & VX_PORT_SNOOPED && vx_is_leased(f, key));
}

/* 0.0.0.0 is nobody's: a VM that has no address yet (DHCP), or asks for one (RFC 5227, ARP probe). */
static __always_inline bool vx_may_use_ipv4(const struct vx_frame *f, __be32 address)
{
	const struct vx_first *first = vx_first_of(f->from.handle);
	struct vx_address_key key = { .family = 4 };

	if (!address || (first && *(const volatile __be32 *)first->ipv4 == address))
		return true;
	__builtin_memcpy(key.octets, &address, sizeof(address));
	return vx_has_for_itself(f, &key);
}

/* ::, which DAD and MLD send from, and fe80::/10, which a VM makes up for itself (RFC 4862, 5.3). */
static __always_inline bool vx_may_use_ipv6(const struct vx_frame *f,
					    const struct in6_addr *address)
{
	const struct vx_first *first = vx_first_of(f->from.handle);
	struct vx_address_key key = { .family = 6 };

	if (first && vx_same_address(first->ipv6, address->in6_u.u6_addr8))
		return true;
	if (vx_is_fe80(address) || vx_is_unspecified(address))
		return true;
	__builtin_memcpy(key.octets, address, sizeof(*address));
	return vx_has_for_itself(f, &key);
}

static __always_inline bool vx_may_use_source(struct __sk_buff *skb, const struct vx_frame *f)
{
	struct ipv6hdr copy; /* an IPv4 header is shorter */

	if (f->ethertype == ETH_P_IP) {
		const struct iphdr *ip = vx_at(skb, f->l3, &copy, sizeof(*ip));

		return ip && vx_may_use_ipv4(f, ip->saddr);
	}
	if (f->ethertype == ETH_P_IPV6) {
		const struct ipv6hdr *ip = vx_at(skb, f->l3, &copy, sizeof(*ip));

		return ip && vx_may_use_ipv6(f, &ip->saddr);
	}
	return true;
}

/*
 * Step 7. Of ND nothing may come in fragments: its options might be in another one. Hosts have to
 * ignore such messages (RFC 6980, section 5), and RFC 7113, section 3, has what is hidden dropped.
 */
static __always_inline int vx_guard_ip(struct __sk_buff *skb, const struct vx_frame *f)
{
	if (f->from.flags & VX_PORT_ADDRESSES && !vx_may_use_source(skb, f))
		return vx_drop(VX_SRC_IP_DENIED);
	if (f->l4.hidden || (f->nd && f->l4.fragment && f->from.flags & VX_PORT_LOCKS))
		return vx_drop(VX_FRAGMENT_DENIED);
	return VX_GO_ON;
}

static __always_inline __u64 vx_mac_of(const __u8 *octets)
{
	__u64 mac = 0;

#pragma unroll
	for (int i = 0; i < ETH_ALEN; i++)
		mac = mac << 8 | octets[i];
	return mac;
}

/* RFC 826. Packed: the addresses are not where C would have them. */
struct vx_arp {
	__be16 hardware; /* hosts take that of Ethernet, 1, and that of IEEE 802, 6 */
	__be16 protocol;
	__u8 mac_bytes;
	__u8 ip_bytes;
	__be16 operation;
	__u8 sender_mac[ETH_ALEN];
	__be32 sender_ip;
} __attribute__((packed));

/* With other lengths the addresses would be somewhere else. No host takes such a message either. */
static __always_inline bool vx_is_honest_arp(struct __sk_buff *skb, const struct vx_frame *f)
{
	struct vx_arp arp;

	if (bpf_skb_load_bytes(skb, f->l3, &arp, sizeof(arp)) ||
	    arp.protocol != bpf_htons(ETH_P_IP) || arp.mac_bytes != ETH_ALEN ||
	    arp.ip_bytes != sizeof(arp.sender_ip) || vx_mac_of(arp.sender_mac) != f->source)
		return false;
	return !(f->from.flags & VX_PORT_ADDRESSES) || vx_may_use_ipv4(f, arp.sender_ip);
}

/* The frame's own source, or another MAC that the port lists. */
static __always_inline bool vx_may_use_mac(const struct vx_frame *f, __u64 mac)
{
	struct vx_station station;

	if (mac == f->source)
		return true;
	if (!(f->from.flags & VX_PORT_MAC_LOCKED))
		return false;
	vx_find_station(f, mac, &station);
	return vx_lists(f, &station);
}

/* RFC 4861, section 4.6; of types 1 and 2, source and target link-layer address, with a MAC. */
struct vx_nd_option {
	__u8 type;
	__u8 length; /* in units of 8 bytes */
	__u8 mac[ETH_ALEN];
};

#define VX_MAX_ND_OPTIONS 8 /* bounds the loop; SEND (RFC 3971), which has the most, takes 5 */

/* Options that cannot be walked to their end hide what they may contain, and are no better. */
static __always_inline bool vx_has_honest_options(struct __sk_buff *skb, const struct vx_frame *f)
{
	__u32 offset = f->l4.offset + vx_nd_bytes(f->nd);
	struct vx_nd_option option;

#pragma clang loop unroll(disable)
	for (int i = 0; i < VX_MAX_ND_OPTIONS; i++) {
		if (offset >= f->l4.end)
			return true;
		if (bpf_skb_load_bytes(skb, offset, &option, sizeof(option)) || !option.length)
			return false;
		if ((option.type == 1 || option.type == 2) &&
		    !vx_may_use_mac(f, vx_mac_of(option.mac)))
			return false;
		offset += option.length * 8;
	}
	return offset >= f->l4.end;
}

/* The target: in NA what the sender says it is, in DAD (RFC 4862, 5.4.2: from ::) what it wants. */
static __always_inline bool vx_may_use_target(struct __sk_buff *skb, const struct vx_frame *f)
{
	struct in6_addr address;

	if (f->nd == VX_ND_NS) {
		if (bpf_skb_load_bytes(skb, f->l3 + __builtin_offsetof(struct ipv6hdr, saddr),
				       &address, sizeof(address)))
			return false;
		if (!vx_is_unspecified(&address))
			return true; /* step 7 has checked it */
	} else if (f->nd != VX_ND_NA) {
		return true;
	}
	return !bpf_skb_load_bytes(skb, f->l4.offset + 8, &address, sizeof(address)) &&
	       vx_may_use_ipv6(f, &address);
}

/* Step 8. */
static __always_inline int vx_guard_neighbour(struct __sk_buff *skb, const struct vx_frame *f)
{
	if (!(f->from.flags & VX_PORT_LOCKS))
		return VX_GO_ON;
	if (f->ethertype == ETH_P_ARP && !vx_is_honest_arp(skb, f))
		return vx_drop(VX_ARP_SPOOF);
	if (f->nd && (!vx_has_honest_options(skb, f) ||
		      (f->from.flags & VX_PORT_ADDRESSES && !vx_may_use_target(skb, f))))
		return vx_drop(VX_ND_SPOOF);
	return VX_GO_ON;
}

/* UDP ports from which servers answer: RFC 2131, section 4.1, and RFC 9915, section 7.2. */
#define VX_DHCP_SERVER 67
#define VX_DHCPV6_SERVER 547

/* Step 9. */
static __always_inline int vx_guard_server(const struct vx_frame *f)
{
	if (f->from.flags & VX_PORT_TRUSTED)
		return VX_GO_ON;
	if (f->udp_source == (f->ethertype == ETH_P_IP ? VX_DHCP_SERVER : VX_DHCPV6_SERVER))
		return vx_drop(VX_DHCP_SERVER_DENIED);
	if (f->nd == VX_ND_RA)
		return vx_drop(VX_RA_DENIED);
	return VX_GO_ON;
}

#endif /* VX_GUARD_L3_H */
