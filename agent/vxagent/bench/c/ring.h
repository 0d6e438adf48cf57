/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes in batches, by io_uring(7): one system call for many frames, as vhost-net takes many from a guest at a wake-up.
 * A frame that is written alone pays more for its system call than for the switch.
 */
#ifndef RING_H
#define RING_H

#include <linux/io_uring.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

struct ring {
	int fd; /* -1: this kernel has none, or does not give it to us */
	uint32_t *sq_tail, *cq_head, *cq_tail;
	uint32_t sq_mask, cq_mask;
	struct io_uring_sqe *entries;
	struct io_uring_cqe *results;
};

static inline void *ring_map(int fd, size_t length, uint64_t what)
{
	return mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, what);
}

/* For so many writes at once, a power of two. */
static inline struct ring ring_open(unsigned int writes)
{
	struct io_uring_params p = {};
	struct ring ring = { .fd = syscall(__NR_io_uring_setup, writes, &p) };
	uint8_t *sq, *cq;

	if (ring.fd < 0)
		return ring;
	sq = ring_map(ring.fd, p.sq_off.array + p.sq_entries * sizeof(uint32_t),
		      IORING_OFF_SQ_RING);
	cq = ring_map(ring.fd, p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe),
		      IORING_OFF_CQ_RING);
	ring.entries =
		ring_map(ring.fd, p.sq_entries * sizeof(struct io_uring_sqe), IORING_OFF_SQES);
	if (sq == MAP_FAILED || cq == MAP_FAILED || ring.entries == MAP_FAILED) {
		close(ring.fd);
		ring.fd = -1;
		return ring;
	}
	ring.sq_tail = (uint32_t *)(sq + p.sq_off.tail);
	ring.sq_mask = *(uint32_t *)(sq + p.sq_off.ring_mask);
	ring.cq_head = (uint32_t *)(cq + p.cq_off.head);
	ring.cq_tail = (uint32_t *)(cq + p.cq_off.tail);
	ring.cq_mask = *(uint32_t *)(cq + p.cq_off.ring_mask);
	ring.results = (struct io_uring_cqe *)(cq + p.cq_off.cqes);
	for (uint32_t i = 0; i < p.sq_entries; i++)
		((uint32_t *)(sq + p.sq_off.array))[i] = i;
	return ring;
}

/* The next write of a batch, which begins when the batch before it has ended. */
static inline void ring_put(struct ring *ring, int fd, const void *data, uint32_t length)
{
	struct io_uring_sqe *entry = &ring->entries[*ring->sq_tail & ring->sq_mask];

	*entry = (struct io_uring_sqe){
		.opcode = IORING_OP_WRITE,
		.fd = fd,
		.addr = (uintptr_t)data,
		.len = length,
	};
	__atomic_store_n(ring->sq_tail, *ring->sq_tail + 1, __ATOMIC_RELEASE);
}

/* Does all of a batch, in order; how many of the writes succeeded. */
static inline unsigned int ring_write(struct ring *ring, unsigned int writes)
{
	unsigned int done = 0;
	uint32_t head = *ring->cq_head;

	syscall(__NR_io_uring_enter, ring->fd, writes, writes, IORING_ENTER_GETEVENTS, NULL, 0);
	for (; head != __atomic_load_n(ring->cq_tail, __ATOMIC_ACQUIRE); head++)
		done += ring->results[head & ring->cq_mask].res > 0;
	__atomic_store_n(ring->cq_head, head, __ATOMIC_RELEASE);
	return done;
}

#endif /* RING_H */
