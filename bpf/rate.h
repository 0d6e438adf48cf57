/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Step 11, and the rates of steps 13 and 15: token buckets.
 *
 * A bucket holds what its limit allows in VX_BURST_TICKS, but at least VX_BURST_BITS or
 * VX_BURST_PACKETS, below which TCP collapses; those of storm limits and of learning hold one second. A
 * frame that it has not enough for is dropped and takes nothing. One that is larger than the whole bucket never
 * passes.
 *
 * All CPUs share a bucket, without a lock. Its word is the time at which it is full again: in the
 * past, it is full; `ahead` of now, that much is missing. Taking is to move the word further ahead,
 * by compare-and-swap. If another CPU was faster, the word is up to date by its doing, and what is
 * taken is just added: nothing is lost, so the rate is exact over time, and of n CPUs that look at
 * the same moment each may be let through on what one has room for, n - 1 frames that the bucket then
 * owes.
 */
#ifndef VX_RATE_H
#define VX_RATE_H

#include "frame.h"
#include "maps.h"
#include "parse.h"

/* 1/16 ns: at 100 Gbit/s a frame of 64 bytes takes 5.12 ns. In 64 bits it lasts 36 years. */
#define VX_TICKS_PER_NS 16ULL
#define VX_TICKS_PER_S (1000000000 * VX_TICKS_PER_NS)

#define VX_BURST_TICKS (VX_TICKS_PER_S / 4)
#define VX_BURST_BITS (128 * 1024 * 8)
#define VX_BURST_PACKETS 64
#define VX_STORM_TICKS VX_TICKS_PER_S
#define VX_LEARN_TICKS VX_TICKS_PER_S

#define VX_BROADCAST 0xffffffffffffULL

/* What a frame puts on the wire, without its classifying tag; of a GSO frame: all its segments. */
struct vx_load {
	__u32 frames;
	__u32 bytes;
};

/*
 * Weighs a frame. All headers of a GSO frame are repeated in each segment.
 *
 * gso_segs is of no use: the kernel leaves it 0 for what a VM hands over.
 *
 * `bytes` and `headers` are without the classifying tag, wherever that is.
 */
static __always_inline void vx_weigh(const struct __sk_buff *skb, __u32 bytes, __u32 headers,
				     struct vx_load *load)
{
	__u32 size = skb->gso_size;

	load->frames = 1;
	load->bytes = bytes;
	if (!size || size == VX_GSO_BY_FRAGS || bytes <= headers)
		return;
	load->frames = (bytes - headers + size - 1) / size;
	load->bytes += (load->frames - 1) * headers;
}

/* Bytes of Ethernet without the classifying tag. */
static __always_inline __u32 vx_ethernet_bytes(bool followed_by_tag)
{
	return ETH_HLEN + (followed_by_tag ? VX_TAG_BYTES : 0);
}

static __always_inline void vx_weigh_frame(const struct __sk_buff *skb, const struct vx_frame *f,
					   struct vx_load *load)
{
	__u32 headers = vx_ethernet_bytes(f->followed_by_tag) + f->l3_bytes - skb->gso_size;

	vx_weigh(skb, skb->len - (f->tag_in_data ? VX_TAG_BYTES : 0), headers, load);
}

/* The same for vx_flood, which has the frame and no more. False: it is malformed. */
static __always_inline bool vx_weigh_again(struct __sk_buff *skb, bool followed_by_tag,
					   struct vx_load *load)
{
	__u32 headers = vx_ethernet_bytes(followed_by_tag);
	int segment;

	if (skb->gso_size) {
		segment = vx_parse_gso(skb, headers);
		if (segment < 0)
			return false;
		headers += segment - skb->gso_size;
	}
	vx_weigh(skb, skb->len, headers, load);
	return true;
}

/* The time in which a limit allows that much. Below 2^64 for any frame at 1 bit/s. */
static __always_inline __u64 vx_ticks(__u64 amount, __u64 rate)
{
	return amount * VX_TICKS_PER_S / rate;
}

/*
 * Takes `ticks` out of a bucket that holds `burst`; false: it has not that much.
 *
 * Further ahead than two bursts is no debt of this limit: when a rate is raised the agent fills the
 * bucket, and a program that still goes by the old rate may add to it afterwards. That would stop the
 * port for as long as it took at the old rate; the bucket is just empty instead.
 */
static __always_inline bool vx_take(__u64 *bucket, __u64 ticks, __u64 burst)
{
	__u64 now = bpf_ktime_get_ns() * VX_TICKS_PER_NS;
	__u64 full = *(volatile __u64 *)bucket;
	__u64 ahead = full > now ? full - now : 0;

	if (ahead + ticks > burst) {
		if (ahead > 2 * burst)
			__sync_val_compare_and_swap(bucket, full, now + burst);
		return false;
	}
	if (__sync_val_compare_and_swap(bucket, full, now + ahead + ticks) != full)
		__sync_fetch_and_add(bucket, ticks);
	return true;
}

/* The larger of what a rate allows in the burst's time and of `least`. */
static __always_inline __u64 vx_burst(__u64 least, __u64 rate)
{
	__u64 ticks = vx_ticks(least, rate);

	return ticks > VX_BURST_TICKS ? ticks : VX_BURST_TICKS;
}

/* A rate in bits and one in packets, 0 for none. A frame that one of them refuses takes of neither. */
static __always_inline bool vx_take_rate(__u64 bit_rate, __u64 *bits, __u64 packet_rate,
					 __u64 *packets, const struct vx_load *load, __u16 vid)
{
	__u32 tag = vid ? VX_TAG_BYTES : 0;
	__u64 ticks = 0;

	if (bit_rate) {
		ticks = vx_ticks((load->bytes + (__u64)load->frames * tag) * 8, bit_rate);
		if (!vx_take(bits, ticks, vx_burst(VX_BURST_BITS, bit_rate)))
			return false;
	}
	if (packet_rate && !vx_take(packets, vx_ticks(load->frames, packet_rate),
				    vx_burst(VX_BURST_PACKETS, packet_rate))) {
		if (ticks)
			__sync_fetch_and_add(bits, -ticks);
		return false;
	}
	return true;
}

static __always_inline bool vx_take_storm(__u64 rate, __u64 *bucket, const struct vx_load *load)
{
	return !rate || vx_take(bucket, vx_ticks(load->frames, rate), VX_STORM_TICKS);
}

/* Of the three kinds a frame is at most one. Group addresses are in no FDB, so they are not known. */
static __always_inline bool vx_pass_storm(const struct vx_frame *f,
					  const volatile struct vx_limits *limits,
					  struct vx_buckets *buckets, const struct vx_load *load)
{
	if (f->known)
		return true;
	if (f->destination == VX_BROADCAST)
		return vx_take_storm(limits->broadcast, &buckets->broadcast, load);
	if (vx_is_group(f->destination))
		return vx_take_storm(limits->multicast, &buckets->multicast, load);
	return vx_take_storm(limits->unknown, &buckets->unknown, load);
}

static __always_inline int vx_charge_arrival(const struct vx_frame *f, const struct vx_load *load)
{
	const volatile struct vx_limits *limits = vx_limits_of(f->from.handle);
	struct vx_buckets *buckets = vx_buckets_of(f->from.handle);

	if (!limits || !buckets) /* there is a row for every port */
		return VX_GO_ON;
	if (!vx_take_rate(limits->in_bits, &buckets->in_bits, limits->in_packets,
			  &buckets->in_packets, load, f->tpid))
		return vx_drop(VX_RATE_LIMITED);
	if (!vx_pass_storm(f, limits, buckets, load))
		return vx_drop(VX_STORM_LIMITED);
	return VX_GO_ON;
}

/* Step 11. What a later step drops has been paid for. */
static __always_inline int vx_limit_arrival(struct __sk_buff *skb, const struct vx_frame *f)
{
	struct vx_load load;

	if (!(f->from.flags & VX_PORT_LIMITED_IN))
		return VX_GO_ON;
	vx_weigh_frame(skb, f, &load);
	return vx_charge_arrival(f, &load);
}

/* Whether a port may have a copy now, which is tagged with `vid`; if so, it is paid for. */
static __always_inline bool vx_take_departure(const struct vx_port *to, const struct vx_load *load,
					      __u16 vid)
{
	const volatile struct vx_limits *limits;
	struct vx_buckets *buckets;

	if (!(to->flags & VX_PORT_LIMITED_OUT))
		return true;
	limits = vx_limits_of(to->handle);
	buckets = vx_buckets_of(to->handle);
	if (!limits || !buckets)
		return true;
	return vx_take_rate(limits->out_bits, &buckets->out_bits, limits->out_packets,
			    &buckets->out_packets, load, vid);
}

/* Step 15 for a known receiver. A flood asks for each of its copies. */
static __always_inline int vx_limit_departure(struct __sk_buff *skb, const struct vx_frame *f)
{
	struct vx_load load;

	if (!(f->to.flags & VX_PORT_LIMITED_OUT) || !f->to.handle)
		return VX_GO_ON;
	vx_weigh_frame(skb, f, &load);
	if (!vx_take_departure(&f->to, &load, f->copy.vid))
		return vx_drop(VX_RATE_LIMITED);
	return VX_GO_ON;
}

/* Step 13: whether a port may learn one more MAC now. Asked for new and moved ones alone: no flag. */
static __always_inline bool vx_take_learning(__u16 port)
{
	const volatile struct vx_limits *limits = vx_limits_of(port);
	struct vx_buckets *buckets = vx_buckets_of(port);
	__u64 rate = limits ? limits->learn : 0;

	return !rate || !buckets || vx_take(&buckets->learn, vx_ticks(1, rate), VX_LEARN_TICKS);
}

#endif /* VX_RATE_H */
