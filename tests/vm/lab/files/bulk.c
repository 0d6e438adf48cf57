/* Bulk TCP whose every byte is checked by who receives it.
 *
 *   bulk sink PORT               take one connection, read to its end; print how many bytes came, all of them right
 *   bulk pour ADDRESS PORT BYTES connect, send that many, wait until the other side has read them
 *
 * Exit code 1: an error, a byte that is another one than was sent, or 30 s without progress. IPv4, or IPv6 with a colon.
 */

#include <arpa/inet.h>
#include <err.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define PATIENCE_S 30
#define CHUNK (1 << 17)
#define PERIOD 65521 /* prime: no segment size divides it, so bytes out of place show */

static uint8_t pattern[PERIOD + CHUNK];

static void draw_pattern(void)
{
	uint32_t state = 2463534242;

	for (size_t at = 0; at < sizeof(pattern); at++) {
		if (at >= PERIOD) {
			pattern[at] = pattern[at - PERIOD];
			continue;
		}
		state ^= state << 13; /* xorshift32 */
		state ^= state >> 17;
		state ^= state << 5;
		pattern[at] = state >> 24;
	}
}

static int impatient(int fd)
{
	struct timeval patience = { .tv_sec = PATIENCE_S };

	if (fd < 0)
		err(1, "socket");
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)))
		err(1, "setsockopt");
	return fd;
}

static int sink(int port)
{
	struct sockaddr_in6 any = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	int on = 1, off = 0;
	int listener = impatient(socket(AF_INET6, SOCK_STREAM, 0));
	uint64_t received = 0;
	static uint8_t chunk[CHUNK];
	ssize_t size;
	int fd;

	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	if (bind(listener, (struct sockaddr *)&any, sizeof(any)) || listen(listener, 1))
		err(1, "port %d", port);
	fd = impatient(accept(listener, NULL, NULL));
	while ((size = recv(fd, chunk, CHUNK, 0)) > 0) {
		if (memcmp(chunk, pattern + received % PERIOD, size))
			errx(1, "wrong bytes behind %llu", (unsigned long long)received);
		received += size;
	}
	if (size < 0)
		err(1, "after %llu bytes", (unsigned long long)received);
	printf("%llu\n", (unsigned long long)received);
	return 0;
}

static int connected(const char *address, int port)
{
	struct sockaddr_in6 six = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	struct sockaddr_in four = { .sin_family = AF_INET, .sin_port = htons(port) };
	int is_six = strchr(address, ':') != NULL;
	int fd = impatient(socket(is_six ? AF_INET6 : AF_INET, SOCK_STREAM, 0));

	if (inet_pton(is_six ? AF_INET6 : AF_INET, address,
		      is_six ? (void *)&six.sin6_addr : (void *)&four.sin_addr) != 1)
		errx(1, "%s is no address", address);
	if (connect(fd, is_six ? (void *)&six : (void *)&four, is_six ? sizeof(six) : sizeof(four)))
		err(1, "connect to %s", address);
	return fd;
}

static int pour(const char *address, int port, uint64_t amount)
{
	int fd = connected(address, port);
	uint64_t sent = 0;
	char end;

	while (sent < amount) {
		uint64_t left = amount - sent;
		ssize_t size = send(fd, pattern + sent % PERIOD, left < CHUNK ? left : CHUNK, 0);

		if (size < 0)
			err(1, "after %llu bytes", (unsigned long long)sent);
		sent += size;
	}
	shutdown(fd, SHUT_WR);
	if (recv(fd, &end, 1, 0))
		err(1, "%s has not read to the end", address);
	return 0;
}

int main(int argc, char **argv)
{
	draw_pattern();
	if (argc == 3 && !strcmp(argv[1], "sink"))
		return sink(atoi(argv[2]));
	if (argc == 5 && !strcmp(argv[1], "pour"))
		return pour(argv[2], atoi(argv[3]), strtoull(argv[4], NULL, 10));
	errx(2, "usage: bulk sink PORT | bulk pour ADDRESS PORT BYTES");
}
