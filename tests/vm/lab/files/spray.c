/* UDP datagrams, each with its number and with bytes that follow from it, which who receives them checks. IPv4.
 *
 *   spray catch PORT COUNT SIZE                    until all have come, or none for SILENCE_S; print how many came,
 *                                                  how many of them behind a later one, and how many copies besides
 *   spray throw ADDRESS PORT COUNT SIZE PER_SECOND send them, evenly; late ones are made up for
 *
 * Exit code 1: an error, or a datagram that is another one than was sent.
 */

#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>

#define SILENCE_S 10
#define LINGER_US 300000 /* for copies of the last ones */
#define ROOM (8 << 20) /* bytes: who waits for a CPU loses none */
#define MOST 65507
#define NS 1000000000LL

static uint8_t datagram[MOST + 1], expected[MOST];

/* Of a short datagram the number is all there is; little-endian, so its first bytes are the low ones. */
static size_t number_size(size_t size)
{
	return size < sizeof(uint32_t) ? size : sizeof(uint32_t);
}

static void fill(uint8_t *to, uint32_t number, size_t size)
{
	for (size_t at = 0; at < size; at++)
		to[at] = number * 7 + at + at / 251;
	memcpy(to, &number, number_size(size));
}

static int opened(struct sockaddr_in *at, const char *address, int port)
{
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	*at = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(port) };
	if (fd < 0)
		err(1, "socket");
	if (address && inet_pton(AF_INET, address, &at->sin_addr) != 1)
		errx(1, "%s is no address", address);
	return fd;
}

static void wait_at_most(int fd, struct timeval patience)
{
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)))
		err(1, "setsockopt");
}

static int catch(int port, uint32_t count, ssize_t size)
{
	uint8_t *seen = calloc(count, 1);
	uint32_t received = 0, late = 0, copies = 0, next = 0, number;
	struct sockaddr_in any;
	int room = ROOM;
	int fd = opened(&any, NULL, port);
	ssize_t took;

	if (!seen || setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)))
		err(1, "room for datagrams");
	wait_at_most(fd, (struct timeval){ .tv_sec = SILENCE_S });
	if (bind(fd, (struct sockaddr *)&any, sizeof(any)))
		err(1, "port %d", port);
	while ((took = recv(fd, datagram, sizeof(datagram), 0)) >= 0) {
		if (took != size)
			errx(1, "%zd bytes, not %zd", took, size);
		number = 0;
		memcpy(&number, datagram, number_size(size));
		fill(expected, number, size);
		if (number >= count || memcmp(datagram, expected, size))
			errx(1, "wrong bytes in number %u", number);
		if (seen[number]++) {
			copies++;
			continue;
		}
		late += number < next;
		next = number < next ? next : number + 1;
		if (++received == count)
			wait_at_most(fd, (struct timeval){ .tv_usec = LINGER_US });
	}
	if (errno != EAGAIN)
		err(1, "after %u datagrams", received);
	printf("%u %u %u\n", received, late, copies);
	return 0;
}

static int throw(const char *address, int port, uint32_t count, size_t size, uint32_t per_second)
{
	struct sockaddr_in to;
	struct timespec start, due;
	int fd = opened(&to, address, port);

	clock_gettime(CLOCK_MONOTONIC, &start);
	for (uint32_t number = 0; number < count; number++) {
		int64_t ns = start.tv_nsec + number * NS / per_second;

		due = (struct timespec){ .tv_sec = start.tv_sec + ns / NS, .tv_nsec = ns % NS };
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
		fill(datagram, number, size);
		if (sendto(fd, datagram, size, 0, (struct sockaddr *)&to, sizeof(to)) < 0)
			err(1, "after %u datagrams", number);
	}
	return 0;
}

int main(int argc, char **argv)
{
	size_t size = argc > 4 ? strtoul(argv[argc == 5 ? 4 : 5], NULL, 10) : 0;

	if (argc > 4 && (size < 1 || size > MOST))
		errx(2, "a datagram has 1 to %d bytes", MOST);
	if (argc > 4 && size < sizeof(uint32_t) && strtoull(argv[argc == 5 ? 3 : 4], NULL, 10) >> 8 * size)
		errx(2, "%zu bytes do not number so many", size);
	if (argc == 5 && !strcmp(argv[1], "catch"))
		return catch (atoi(argv[2]), atoi(argv[3]), size);
	if (argc == 7 && !strcmp(argv[1], "throw") && atoi(argv[6]) > 0)
		return throw(argv[2], atoi(argv[3]), atoi(argv[4]), size, atoi(argv[6]));
	errx(2, "usage: spray catch PORT COUNT SIZE | spray throw ADDRESS PORT COUNT SIZE PER_SECOND");
}
