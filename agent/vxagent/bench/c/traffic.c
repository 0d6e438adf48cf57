// SPDX-License-Identifier: Apache-2.0
/*
 * Senders and receivers of `vxagent bench`, each a process on one CPU.
 *
 *     traffic CPU write FD FD MS SPREAD FRAME   write a frame to a tap, to SPREAD destinations at random (0: as it is),
 *                                               whenever what comes out of the other tap has been read
 *     traffic CPU announce FD COUNT FRAME       write it once from each of COUNT sources
 *     traffic CPU packet FD MS FRAME            send it out of a packet socket
 *     traffic CPU read FD                       count the frames that come out of a tap
 *     traffic CPU carry FD FD                   carry frames between two taps, as a hypervisor does
 *     traffic CPU stream ADDRESS PORT N MS      send by N TCP connections
 *     traffic CPU sink ADDRESS PORT N           take them
 *     traffic CPU ask ADDRESS PORT MS           send UDP datagrams and spin for each answer
 *     traffic CPU answer ADDRESS PORT           answer them
 *
 * FD is inherited; a tap's is non-blocking and has a struct virtio_net_hdr in front of each frame. FRAME is hex, with
 * that header for a tap. A receiver says "ready" once it listens and ends with SIGTERM. Each one's last line is
 * "COUNT NANOSECONDS": how many frames, bytes or answers, and in which time (of `ask`: the median round trip).
 *
 * Nobody outlives the process that started it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "ring.h"

#define VNET_HEADER 10 /* struct virtio_net_hdr */
#define DESTINATION 0  /* offsets in the frame */
#define SOURCE 6
#define UDP_DESTINATION 36 /* behind Ethernet and IPv4 without options; TCP has it there too */
#define DISCARD 9	   /* RFC 863: the port of all frames that count */
#define LARGEST_WRITTEN 2048
#define LARGEST (VNET_HEADER + 14 + 8 + 65535)
#define BATCH 64	   /* frames between two looks at the clock; of one sendmmsg */
#define BURST 512	   /* frames that a tap's queue (1,000) has room for */
#define CHUNK (256 * 1024) /* bytes of TCP at once */
#define STREAMS 64
#define GRACE_MS \
	2000 /* beyond its time that a stream waits for a network that loses what it sent */
#define ANSWER_NS 20000000 /* after which an answer is lost */
#define SAMPLES (1 << 20)

static volatile sig_atomic_t stopped;

static void stop(int number)
{
	(void)number;
	stopped = 1;
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ULL + t.tv_nsec;
}

static void fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

static void say_ready(void)
{
	puts("ready");
	fflush(stdout);
}

static int finish(uint64_t count, uint64_t ns)
{
	printf("%llu %llu\n", (unsigned long long)count, (unsigned long long)ns);
	return 0;
}

static size_t read_hex(const char *hex, unsigned char *to)
{
	size_t length = strlen(hex) / 2;

	for (size_t at = 0; at < length && at < LARGEST; at++)
		sscanf(hex + 2 * at, "%2hhx", to + at);
	return length;
}

/* The lower three bytes of a MAC. */
static void number_mac(unsigned char *mac, uint32_t number)
{
	mac[3] = number >> 16;
	mac[4] = number >> 8;
	mac[5] = number;
}

/* Xorshift (Marsaglia 2003): cheap, and it needs no lock. */
static uint32_t next_random(uint32_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 17;
	*state ^= *state << 5;
	return *state;
}

/* Waits until nothing is left in a tap's queue; false: the time is over. */
static bool drained(int fd, uint64_t end)
{
	struct pollfd queue = { .fd = fd, .events = POLLIN };

	while (poll(&queue, 1, 0) > 0)
		if (now_ns() > end || stopped)
			return false;
	return true;
}

/* BATCH copies of a frame, each with a destination of its own if there is a spread, by one system call if the kernel has
 * io_uring. */
static unsigned int write_batch(struct ring *ring, int fd, unsigned char frames[][LARGEST_WRITTEN],
				size_t length)
{
	unsigned int sent = 0;

	for (int i = 0; i < BATCH; i++) {
		if (ring->fd < 0)
			sent += write(fd, frames[i], length) > 0;
		else
			ring_put(ring, fd, frames[i], length);
	}
	return ring->fd < 0 ? sent : ring_write(ring, BATCH);
}

/* In bursts that the queue has room for, so that nobody's frames are lost to a reader that is slower than the sender.
 * The time is that of the bursts. */
static int write_frames(int fd, int queue, uint64_t ms, uint32_t spread, const char *hex)
{
	static unsigned char frames[BATCH][LARGEST_WRITTEN];
	struct ring ring = ring_open(BATCH);
	uint32_t state = 2463534242U;
	uint64_t end = now_ns() + ms * 1000000, sent = 0, spent = 0;
	size_t length = strlen(hex) / 2;

	if (length > LARGEST_WRITTEN) {
		errno = EMSGSIZE;
		fail("frame");
	}
	for (int i = 0; i < BATCH; i++)
		read_hex(hex, frames[i]);
	do {
		uint64_t begun = now_ns();

		for (int written = 0; written < BURST; written += BATCH) {
			for (int i = 0; spread && i < BATCH; i++)
				number_mac(frames[i] + VNET_HEADER + DESTINATION,
					   next_random(&state) % spread);
			sent += write_batch(&ring, fd, frames, length);
		}
		spent += now_ns() - begun;
	} while (drained(queue, end) && now_ns() < end && !stopped);
	return finish(sent, spent);
}

static int announce(int fd, uint32_t count, const char *hex)
{
	static unsigned char frame[LARGEST];
	size_t length = read_hex(hex, frame);
	uint64_t begun = now_ns(), sent = 0;

	for (uint32_t i = 0; i < count && !stopped; i++) {
		number_mac(frame + VNET_HEADER + SOURCE, i);
		sent += write(fd, frame, length) > 0;
	}
	return finish(sent, now_ns() - begun);
}

static int send_packets(int fd, uint64_t ms, const char *hex)
{
	static unsigned char frame[LARGEST];
	struct iovec piece = { .iov_base = frame, .iov_len = read_hex(hex, frame) };
	struct mmsghdr batch[BATCH] = {};
	uint64_t begun = now_ns(), end = begun + ms * 1000000, sent = 0, now;

	for (int i = 0; i < BATCH; i++) {
		batch[i].msg_hdr.msg_iov = &piece;
		batch[i].msg_hdr.msg_iovlen = 1;
	}
	do {
		int done = sendmmsg(fd, batch, BATCH, 0);

		sent += done > 0 ? done : 0;
		now = now_ns();
	} while (now < end && !stopped);
	return finish(sent, now - begun);
}

/* Whether a frame, header first, is one that counts. */
static bool counts(const unsigned char *frame, ssize_t length)
{
	const unsigned char *port = frame + VNET_HEADER + UDP_DESTINATION;

	return length >= VNET_HEADER + UDP_DESTINATION + 2 && port[0] == 0 && port[1] == DISCARD;
}

/* Spins, so that the sender pays for no wake-up. What was there before does not count. */
static int read_frames(int fd)
{
	static unsigned char frame[LARGEST];
	uint64_t begun, count = 0;
	ssize_t length;

	while (read(fd, frame, sizeof(frame)) > 0)
		;
	say_ready();
	begun = now_ns();
	for (;;) {
		bool last =
			stopped; /* before the read: what comes between the two is taken as well */

		length = read(fd, frame, sizeof(frame));
		if (length > 0)
			count += counts(frame, length);
		else if (last)
			return finish(count, now_ns() - begun);
	}
}

static bool carry_some(int from, int to)
{
	static unsigned char frame[LARGEST];

	for (int i = 0; i < BATCH; i++) {
		ssize_t length = read(from, frame, sizeof(frame));

		if (length < 0)
			return errno == EAGAIN || errno == EINTR;
		if (write(to, frame, length) < 0 && errno == EBADFD)
			return false;
	}
	return true;
}

static int carry(int one, int two)
{
	struct pollfd ends[2] = { { .fd = one, .events = POLLIN },
				  { .fd = two, .events = POLLIN } };

	say_ready();
	while (!stopped) {
		if (poll(ends, 2, -1) < 0)
			continue;
		if ((ends[0].revents && !carry_some(one, two)) ||
		    (ends[1].revents && !carry_some(two, one)))
			break;
	}
	return finish(0, 0);
}

static struct sockaddr_in address_of(const char *address, const char *port)
{
	struct sockaddr_in found = { .sin_family = AF_INET, .sin_port = htons(atoi(port)) };

	if (inet_pton(AF_INET, address, &found.sin_addr) != 1) {
		errno = EINVAL;
		fail(address);
	}
	return found;
}

static int open_socket(int kind)
{
	int fd = socket(AF_INET, kind, 0), on = 1;

	if (fd < 0)
		fail("socket");
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	return fd;
}

/* Sends until its time is over, then waits until the sink has read all: the time covers every byte that counts. */
static int stream(struct sockaddr_in to, int n, uint64_t ms)
{
	static char chunk[CHUNK];
	struct pollfd sockets[STREAMS];
	uint64_t begun, end, now, sent = 0;
	int open = n;

	for (int i = 0; i < n; i++) {
		sockets[i] = (struct pollfd){ .fd = open_socket(SOCK_STREAM), .events = POLLOUT };
		if (connect(sockets[i].fd, (struct sockaddr *)&to, sizeof(to)))
			fail("connect");
	}
	begun = now_ns();
	end = begun + ms * 1000000;
	for (now = begun; now < end && !stopped; now = now_ns()) {
		if (poll(sockets, n, (end - now) / 1000000 + 1) <= 0)
			continue;
		for (int i = 0; i < n; i++) {
			ssize_t done = sockets[i].revents ? send(sockets[i].fd, chunk, CHUNK,
								 MSG_DONTWAIT | MSG_NOSIGNAL) :
							    0;

			sent += done > 0 ? done : 0;
		}
	}
	for (int i = 0; i < n; i++) {
		shutdown(sockets[i].fd, SHUT_WR);
		sockets[i].events = POLLIN;
	}
	while (open && !stopped && poll(sockets, n, GRACE_MS) > 0) {
		for (int i = 0; i < n; i++) {
			if (sockets[i].fd >= 0 && sockets[i].revents) {
				close(sockets[i].fd); /* the sink has closed its end */
				sockets[i].fd = -1;   /* which poll ignores */
				open--;
			}
		}
	}
	return finish(sent, now_ns() - begun);
}

static int sink(struct sockaddr_in at, int n)
{
	static char chunk[CHUNK];
	struct pollfd sockets[STREAMS + 1];
	uint64_t begun, count = 0;
	int taken = 0;

	sockets[0] = (struct pollfd){ .fd = open_socket(SOCK_STREAM), .events = POLLIN };
	if (bind(sockets[0].fd, (struct sockaddr *)&at, sizeof(at)) || listen(sockets[0].fd, n))
		fail("listen");
	say_ready();
	begun = now_ns();
	while (!stopped) {
		if (poll(sockets, taken + 1, -1) <= 0)
			continue;
		for (int i = 1; i <= taken; i++) {
			ssize_t length = sockets[i].revents ?
						 recv(sockets[i].fd, chunk, CHUNK, MSG_DONTWAIT) :
						 -1;

			if (length > 0) {
				count += length;
			} else if (!length) {
				close(sockets[i].fd);
				sockets[i].fd = -1;
			}
		}
		if (sockets[0].revents && taken < n) {
			sockets[taken + 1] =
				(struct pollfd){ .fd = accept(sockets[0].fd, NULL, NULL),
						 .events = POLLIN };
			taken++;
		}
	}
	return finish(count, now_ns() - begun);
}

static int by_size(const void *one, const void *two)
{
	uint32_t a = *(const uint32_t *)one, b = *(const uint32_t *)two;

	return (a > b) - (a < b);
}

static int ask(struct sockaddr_in to, uint64_t ms)
{
	static uint32_t trips[SAMPLES];
	int fd = open_socket(SOCK_DGRAM);
	uint64_t end, number = 0, answer, count = 0;

	if (connect(fd, (struct sockaddr *)&to, sizeof(to)))
		fail("connect");
	end = now_ns() + ms * 1000000;
	while (now_ns() < end && count < SAMPLES && !stopped) {
		uint64_t sent_at = now_ns(), trip = 0;

		number++;
		send(fd, &number, sizeof(number), MSG_DONTWAIT);
		do {
			answer = 0;
			recv(fd, &answer, sizeof(answer), MSG_DONTWAIT);
			trip = now_ns() - sent_at;
		} while (answer != number && trip < ANSWER_NS);
		if (answer == number)
			trips[count++] = trip;
	}
	qsort(trips, count, sizeof(trips[0]), by_size);
	return finish(count, count ? trips[count / 2] : 0);
}

static int answer(struct sockaddr_in at)
{
	int fd = open_socket(SOCK_DGRAM);
	uint64_t begun, count = 0, number;
	struct sockaddr_in from;
	socklen_t length;

	if (bind(fd, (struct sockaddr *)&at, sizeof(at)))
		fail("bind");
	say_ready();
	begun = now_ns();
	while (!stopped) {
		length = sizeof(from);
		if (recvfrom(fd, &number, sizeof(number), MSG_DONTWAIT, (struct sockaddr *)&from,
			     &length) > 0) {
			sendto(fd, &number, sizeof(number), MSG_DONTWAIT, (struct sockaddr *)&from,
			       length);
			count++;
		}
	}
	return finish(count, now_ns() - begun);
}

static void settle(int cpu)
{
	struct sigaction action = { .sa_handler = stop }; /* without SA_RESTART: poll returns */
	cpu_set_t cpus;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sigaction(SIGTERM, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
	CPU_ZERO(&cpus);
	CPU_SET(cpu, &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus))
		fail("sched_setaffinity");
}

static bool is(const char *name, int given, const char *command, int wanted)
{
	return !strcmp(name, command) && given == wanted + 3;
}

int main(int n, char **word)
{
	const char *command = n > 2 ? word[2] : "";

	if (n > 1)
		settle(atoi(word[1]));
	if (is(command, n, "write", 5))
		return write_frames(atoi(word[3]), atoi(word[4]), atoi(word[5]), atoi(word[6]),
				    word[7]);
	if (is(command, n, "announce", 3))
		return announce(atoi(word[3]), atoi(word[4]), word[5]);
	if (is(command, n, "packet", 3))
		return send_packets(atoi(word[3]), atoi(word[4]), word[5]);
	if (is(command, n, "read", 1))
		return read_frames(atoi(word[3]));
	if (is(command, n, "carry", 2))
		return carry(atoi(word[3]), atoi(word[4]));
	if (is(command, n, "stream", 4))
		return stream(address_of(word[3], word[4]), atoi(word[5]), atoi(word[6]));
	if (is(command, n, "sink", 3))
		return sink(address_of(word[3], word[4]), atoi(word[5]));
	if (is(command, n, "ask", 3))
		return ask(address_of(word[3], word[4]), atoi(word[5]));
	if (is(command, n, "answer", 2))
		return answer(address_of(word[3], word[4]));
	fprintf(stderr, "usage: see the head of traffic.c\n");
	return 2;
}
