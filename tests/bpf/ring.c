/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Writes one record into a ring of the test's own: skb->mark says which byte it is filled with,
 * cb[0] whether it is short, cb[1] whether it is thrown away again instead of submitted.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#include "maps.h"

#define SHORT 20
#define LONG 1000

static __always_inline int finish(struct __sk_buff *skb, void *record)
{
	if (skb->cb[1])
		bpf_ringbuf_discard(record, 0);
	else
		bpf_ringbuf_submit(record, 0);
	return TC_ACT_OK;
}

int writer(struct __sk_buff *skb)
{
	void *record;

	if (skb->cb[0]) {
		record = bpf_ringbuf_reserve((void *)VX_MAP(ring), SHORT, 0);
		if (!record)
			return TC_ACT_SHOT;
		__builtin_memset(record, skb->mark, SHORT);
	} else {
		record = bpf_ringbuf_reserve((void *)VX_MAP(ring), LONG, 0);
		if (!record)
			return TC_ACT_SHOT;
		for (int i = 0; i < LONG; i += 8)
			*(__u64 *)(record + i) = skb->mark * 0x0101010101010101ULL;
	}
	return finish(skb, record);
}
