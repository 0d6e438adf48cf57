// SPDX-License-Identifier: Apache-2.0
/*
 * Numbered frames, and who counts them: `vxagent bench --faults`. Each is a process on one CPU.
 *
 *     stream CPU send RUN RATE STREAM…    send RATE frames a second, all streams together, until SIGTERM
 *     stream CPU take RUN COUNT END…      count those of COUNT streams as they come, until SIGTERM and none comes any more
 *
 * STREAM is `tap:FD:FRAME` or `packet:IFNAME:FRAME`; its number is its place, from 0. END is `tap:FD:NUMBERS:HELLO` or
 * `packet:IFNAME:NUMBERS:HELLO`: where a receiver is, the streams that are for it (`0,1`), and a frame that it sends each
 * second, so that the switch goes on knowing where it is. `:VID` may follow for a tap: frames count there that have this
 * tag, and otherwise those without one. An FD is a tap's, inherited, non-blocking, with a struct virtio_net_hdr in front
 * of each frame; a device is in the process's network namespace. Frames are hex, of a tap with that header; those in
 * packets of VXLAN over IPv4 count as well. RUN is a number: frames of another run do not count.
 *
 * Both run at real-time priority where they may. A sender never sends more than BURST times what is due in a tick, so
 * that no queue on the way to the switch overflows when it was held up; what it owes beyond DEBT_MS it does not send.
 *
 * A receiver says "ready" once it listens, a sender once SIGTERM ends it as it should. The last line of each is JSON:
 *     send {"realtime": bool, "ns": n, "streams": [[sent, refused], …]}   refused: the VM's device did not take it; they
 *                                                                         are among those sent
 *     take {"realtime": bool, "dropped": n, "astray": n, "streams": [[received, duplicated, reordered], …]}
 *          dropped: by the socket, for lack of room; astray: of a stream that is not for this receiver; reordered: behind
 *          one of the same stream that was sent later (RFC 4737)
 *
 * Nobody outlives the process that started it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define VNET_HEADER 10 /* struct virtio_net_hdr */
#define ETHERNET 14
#define IPV4 20 /* a header without options */
#define UDP 8
#define VXLAN 8
#define VXLAN_PORT 4789
#define LARGEST 2048
#define MOST 16 /* streams, and ends */

#define TICK_NS 1000000
#define BATCH 64 /* of one sendmmsg */
#define BURST 4
#define DEBT_MS 500
#define SECOND_NS 1000000000ULL

#define NAP_NS 500000	   /* of a receiver, between two looks */
#define ROUND 8192	   /* frames taken from one end before the next one's turn */
#define QUIET_NS 100000000 /* after which nothing is on its way any more */

#define RING_FRAMES 131072
#define RING_FRAME 256 /* holds a frame's beginning behind struct tpacket2_hdr */
#define RING_BLOCK 65536

#define NUMBERS (1ULL << 28) /* of a stream in one run: some hours */

/* Behind the UDP header. */
struct stamp {
	uint32_t run;
	uint32_t stream;
	uint64_t number;
} __attribute__((packed));

static volatile sig_atomic_t stopped;
static bool realtime;

static void stop(int number)
{
	(void)number;
	stopped = 1;
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * SECOND_NS + t.tv_nsec;
}

static void nap(uint64_t ns)
{
	struct timespec t = { .tv_nsec = ns };

	nanosleep(&t, NULL);
}

static void fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

/* The part in front of the next colon; 0 ends it. */
static char *part(char **text)
{
	char *found = strsep(text, ":");

	if (!found) {
		errno = EINVAL;
		fail("stream");
	}
	return found;
}

static size_t read_hex(const char *hex, unsigned char *to)
{
	size_t length = strlen(hex) / 2;

	for (size_t at = 0; at < length && at < LARGEST; at++)
		sscanf(hex + 2 * at, "%2hhx", to + at);
	return length;
}

static int packet_socket(const char *ifname, int protocol)
{
	struct sockaddr_ll at = { .sll_family = AF_PACKET,
				  .sll_protocol = htons(protocol),
				  .sll_ifindex = if_nametoindex(ifname) };
	int fd = socket(AF_PACKET, SOCK_RAW, 0), on = 1;

	if (fd < 0 || !at.sll_ifindex || bind(fd, (struct sockaddr *)&at, sizeof(at)))
		fail(ifname);
	setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof(on));
	return fd;
}

/* Bytes in front of the frame that a packet of VXLAN over IPv4 carries; 0: it is none. */
static size_t outside(const unsigned char *frame, size_t length)
{
	const unsigned char *ip = frame + ETHERNET, *udp = ip + IPV4;
	size_t bytes = ETHERNET + IPV4 + UDP + VXLAN;

	if (length < bytes + ETHERNET || frame[12] != 0x08 || frame[13] != 0x00 || ip[0] != 0x45 ||
	    ip[9] != IPPROTO_UDP || (udp[2] << 8 | udp[3]) != VXLAN_PORT)
		return 0;
	return bytes;
}

/* Where the stamp is, of a frame without its virtio_net_hdr: IPv4 and UDP, with or without options. */
static size_t stamp_at(const unsigned char *frame)
{
	return ETHERNET + (frame[12] == 0x81 ? 4 : 0) +
	       (frame[ETHERNET + (frame[12] == 0x81 ? 4 : 0)] & 0x0f) * 4 + UDP;
}

/* --- the sender --------------------------------------------------------------------------- */

struct stream {
	int fd;
	bool tap;
	size_t length; /* of the frame, virtio_net_hdr included */
	size_t stamp;
	unsigned char frames[BATCH][LARGEST];
	uint64_t sent, refused;
};

static void open_stream(struct stream *s, char *text)
{
	size_t at;
	char *where;

	s->tap = !strcmp(part(&text), "tap");
	where = part(&text);
	s->fd = s->tap ? atoi(where) : packet_socket(where, 0);
	s->length = read_hex(part(&text), s->frames[0]);
	at = s->tap ? VNET_HEADER : 0;
	at += outside(s->frames[0] + at, s->length - at);
	s->stamp = at + stamp_at(s->frames[0] + at);
	for (int i = 1; i < BATCH; i++)
		memcpy(s->frames[i], s->frames[0], s->length);
}

static void put_stamp(struct stream *s, int slot, uint32_t run, uint32_t stream, uint64_t number)
{
	struct stamp stamp = { .run = run, .stream = stream, .number = number };

	memcpy(s->frames[slot] + s->stamp, &stamp, sizeof(stamp));
}

/* Whether the device was only busy: then the frame is sent later. */
static bool busy(void)
{
	return errno == EAGAIN || errno == EINTR;
}

static void write_some(struct stream *s, uint32_t run, uint32_t stream, uint64_t count)
{
	while (count--) {
		put_stamp(s, 0, run, stream, s->sent);
		if (write(s->fd, s->frames[0], s->length) < 0) {
			if (busy())
				return;
			s->refused++;
		}
		s->sent++;
	}
}

static void send_some(struct stream *s, uint32_t run, uint32_t stream, uint64_t count)
{
	struct iovec pieces[BATCH];
	struct mmsghdr batch[BATCH] = {};

	while (count) {
		int n = count < BATCH ? count : BATCH, done;

		for (int i = 0; i < n; i++) {
			put_stamp(s, i, run, stream, s->sent + i);
			pieces[i] =
				(struct iovec){ .iov_base = s->frames[i], .iov_len = s->length };
			batch[i].msg_hdr =
				(struct msghdr){ .msg_iov = pieces + i, .msg_iovlen = 1 };
		}
		done = sendmmsg(s->fd, batch, n, 0);
		if (done < 1) {
			if (busy())
				return;
			s->refused++;
			done = 1;
		}
		s->sent += done;
		count -= done;
	}
}

static int send_all(uint32_t run, uint64_t rate, int n, char **words)
{
	static struct stream streams[MOST];
	uint64_t each = rate / n, most = BURST * (each * TICK_NS / SECOND_NS + 1);
	uint64_t begun, owed_since[MOST], now;

	for (int i = 0; i < n; i++)
		open_stream(streams + i, words[i]);
	puts("ready");
	fflush(stdout);
	begun = now_ns();
	for (int i = 0; i < n; i++)
		owed_since[i] = begun;
	while (!stopped) {
		now = now_ns();
		for (int i = 0; i < n; i++) {
			struct stream *s = streams + i;
			uint64_t due = (now - owed_since[i]) * each / SECOND_NS;
			uint64_t count = due < most ? due : most, before = s->sent;

			if (s->tap)
				write_some(s, run, i, count);
			else
				send_some(s, run, i, count);
			owed_since[i] += (s->sent - before) * SECOND_NS / each;
			if (now - owed_since[i] > DEBT_MS * 1000000ULL)
				owed_since[i] = now - DEBT_MS * 1000000ULL;
		}
		nap(TICK_NS);
	}
	printf("{\"realtime\": %s, \"ns\": %llu, \"streams\": [", realtime ? "true" : "false",
	       (unsigned long long)(now_ns() - begun));
	for (int i = 0; i < n; i++)
		printf("%s[%llu, %llu]", i ? ", " : "", (unsigned long long)streams[i].sent,
		       (unsigned long long)streams[i].refused);
	puts("]}");
	return 0;
}

/* --- the receiver ------------------------------------------------------------------------- */

struct end {
	int fd;
	bool tap;
	uint32_t streams; /* a bit for each that is for it */
	int vid;	  /* of the tag that its frames have; 0: they have none */
	unsigned char *ring;
	uint32_t next; /* frame in the ring */
	unsigned char hello[LARGEST];
	size_t hello_length;
	uint64_t dropped;
};

struct count {
	uint64_t *seen; /* a bit for each number */
	uint64_t newest, received, duplicated, reordered;
};

static struct count counts[MOST];
static uint64_t astray;
static uint32_t the_run, stream_count;

/* Whether a frame of IPv4 has the tag that those of this end have. */
static bool is_tagged_right(const struct end *e, const unsigned char *frame, size_t length)
{
	const unsigned char *type = frame + ETHERNET - 2;

	if (length < ETHERNET + 4 + IPV4)
		return false;
	if (e->vid) {
		if (type[0] != 0x81 || type[1] != 0x00 ||
		    ((type[2] & 0x0f) << 8 | type[3]) != e->vid)
			return false;
		type += 4;
	}
	return type[0] == 0x08 && type[1] == 0x00;
}

static void count_frame(const struct end *e, const unsigned char *frame, size_t length)
{
	size_t before = outside(frame, length);
	struct stamp stamp;
	struct count *c;
	uint64_t bit;

	frame += before;
	length -= before;
	if (!is_tagged_right(e, frame, length) || length < stamp_at(frame) + sizeof(stamp))
		return;
	memcpy(&stamp, frame + stamp_at(frame), sizeof(stamp));
	if (stamp.run != the_run || stamp.stream >= stream_count)
		return;
	if (!(e->streams & 1U << stamp.stream)) {
		astray++;
		return;
	}
	if (stamp.number >= NUMBERS) {
		errno = ERANGE;
		fail("the run is too long");
	}
	c = counts + stamp.stream;
	bit = 1ULL << (stamp.number % 64);
	if (c->seen[stamp.number / 64] & bit) {
		c->duplicated++;
		return;
	}
	c->seen[stamp.number / 64] |= bit;
	c->reordered += c->received && stamp.number < c->newest;
	if (stamp.number > c->newest)
		c->newest = stamp.number;
	c->received++;
}

static uint32_t take_from_tap(struct end *e, bool count)
{
	static unsigned char frame[LARGEST];
	uint32_t n;

	for (n = 0; n < ROUND; n++) {
		ssize_t length = read(e->fd, frame, sizeof(frame));

		if (length <= 0)
			break;
		if (count && length > VNET_HEADER)
			count_frame(e, frame + VNET_HEADER, length - VNET_HEADER);
	}
	return n;
}

static uint32_t take_from_ring(struct end *e, bool count)
{
	uint32_t n;

	for (n = 0; n < ROUND; n++) {
		struct tpacket2_hdr *h = (void *)(e->ring + (size_t)e->next * RING_FRAME);

		if (!(__atomic_load_n(&h->tp_status, __ATOMIC_ACQUIRE) & TP_STATUS_USER))
			break;
		/* A tag beside the frame: not what an access port gives. */
		if (count && !(h->tp_status & TP_STATUS_VLAN_VALID))
			count_frame(e, (unsigned char *)h + h->tp_mac, h->tp_snaplen);
		__atomic_store_n(&h->tp_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
		e->next = (e->next + 1) % RING_FRAMES;
	}
	return n;
}

static uint32_t take_some(struct end *e, bool count)
{
	return e->tap ? take_from_tap(e, count) : take_from_ring(e, count);
}

static void make_ring(struct end *e, const char *ifname)
{
	struct tpacket_req ring = { .tp_block_size = RING_BLOCK,
				    .tp_block_nr = RING_FRAMES / (RING_BLOCK / RING_FRAME),
				    .tp_frame_size = RING_FRAME,
				    .tp_frame_nr = RING_FRAMES };
	int version = TPACKET_V2, on = 1;

	e->fd = packet_socket(ifname, ETH_P_ALL);
	if (setsockopt(e->fd, SOL_PACKET, PACKET_VERSION, &version, sizeof(version)) ||
	    setsockopt(e->fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on)) ||
	    setsockopt(e->fd, SOL_PACKET, PACKET_RX_RING, &ring, sizeof(ring)))
		fail(ifname);
	e->ring = mmap(NULL, (size_t)RING_FRAMES * RING_FRAME, PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_POPULATE, e->fd, 0);
	if (e->ring == MAP_FAILED)
		fail(ifname);
}

static void open_end(struct end *e, char *text)
{
	char *where, *numbers, *number, *vid;

	e->tap = !strcmp(part(&text), "tap");
	where = part(&text);
	if (e->tap)
		e->fd = atoi(where);
	else
		make_ring(e, where);
	numbers = part(&text);
	while ((number = strsep(&numbers, ",")))
		e->streams |= 1U << (atoi(number) % MOST);
	e->hello_length = read_hex(part(&text), e->hello);
	vid = strsep(&text, ":");
	e->vid = vid ? atoi(vid) : 0;
}

static void say_hello(const struct end *e)
{
	if (e->hello_length && write(e->fd, e->hello, e->hello_length) < 0)
		return; /* the next one may get through */
}

/* What the socket had no room for since it was last asked. */
static void add_dropped(struct end *e)
{
	struct tpacket_stats stats = {};
	socklen_t size = sizeof(stats);

	if (!e->tap && !getsockopt(e->fd, SOL_PACKET, PACKET_STATISTICS, &stats, &size))
		e->dropped += stats.tp_drops;
}

static void report(const struct end *ends, int n)
{
	uint64_t dropped = 0;

	for (int i = 0; i < n; i++)
		dropped += ends[i].dropped;
	printf("{\"realtime\": %s, \"dropped\": %llu, \"astray\": %llu, \"streams\": [",
	       realtime ? "true" : "false", (unsigned long long)dropped,
	       (unsigned long long)astray);
	for (uint32_t i = 0; i < stream_count; i++)
		printf("%s[%llu, %llu, %llu]", i ? ", " : "",
		       (unsigned long long)counts[i].received,
		       (unsigned long long)counts[i].duplicated,
		       (unsigned long long)counts[i].reordered);
	puts("]}");
}

static int take_all(uint32_t run, uint32_t count, int n, char **words)
{
	static struct end ends[MOST];
	uint64_t now, quiet_since = 0, greeted_at = 0;

	the_run = run;
	stream_count = count < MOST ? count : MOST;
	for (uint32_t i = 0; i < stream_count; i++) {
		counts[i].seen = mmap(NULL, NUMBERS / 8, PROT_READ | PROT_WRITE,
				      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (counts[i].seen == MAP_FAILED)
			fail("mmap");
	}
	for (int i = 0; i < n; i++) {
		open_end(ends + i, words[i]);
		while (take_some(ends + i, false))
			;
		add_dropped(ends + i);
		ends[i].dropped = 0;
	}
	for (bool ready = false;; ready = true) {
		bool last =
			stopped; /* before the look: what comes between the two is taken as well */
		uint32_t found = 0;

		now = now_ns();
		if (now - greeted_at >= SECOND_NS) {
			for (int i = 0; i < n; i++)
				say_hello(ends + i);
			greeted_at = now;
		}
		if (!ready) { /* the switch knows by now where it is */
			puts("ready");
			fflush(stdout);
		}
		for (int i = 0; i < n; i++)
			found += take_some(ends + i, true);
		if (found || !last)
			quiet_since = now;
		else if (now - quiet_since > QUIET_NS)
			break;
		if (found < ROUND)
			nap(NAP_NS);
	}
	for (int i = 0; i < n; i++)
		add_dropped(ends + i);
	report(ends, n);
	return 0;
}

/* --- both --------------------------------------------------------------------------------- */

static void settle(int cpu, int priority)
{
	struct sigaction action = { .sa_handler = stop }; /* without SA_RESTART: a nap ends */
	struct sched_param param = { .sched_priority = priority };
	cpu_set_t cpus;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sigaction(SIGTERM, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
	CPU_ZERO(&cpus);
	CPU_SET(cpu, &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus))
		fail("sched_setaffinity");
	realtime = !sched_setscheduler(0, SCHED_FIFO, &param);
}

int main(int n, char **word)
{
	bool sends = n > 5 && !strcmp(word[2], "send");

	if (n < 6 || n - 5 > MOST || (!sends && strcmp(word[2], "take"))) {
		fputs("usage: stream CPU send RUN RATE STREAM…\n       stream CPU take RUN COUNT END…\n",
		      stderr);
		return 2;
	}
	settle(atoi(word[1]), sends ? 10 : 20);
	if (sends)
		return send_all(strtoul(word[3], NULL, 10), atoll(word[4]), n - 5, word + 5);
	return take_all(strtoul(word[3], NULL, 10), atoi(word[4]), n - 5, word + 5);
}
