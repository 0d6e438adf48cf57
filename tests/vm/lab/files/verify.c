/* Loads BPF programs as the agent does, and tells what the kernel's verifier says of each.
 *
 *   verify FILE NAME   FILE is lines:
 *       map SENTINEL TYPE KEY_SIZE VALUE_SIZE MAX_ENTRIES FLAGS
 *       prog NAME TYPE ATTACH_TYPE INSTRUCTIONS_IN_HEX
 *
 * The program NAME is loaded, with each sentinel replaced by a descriptor of its map. The end of the verifier's log is
 * printed. Exit code: 0 it is loaded, 1 refused, 2 something else is wrong.
 */

#include <err.h>
#include <errno.h>
#include <linux/bpf.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MAPS 64
#define LOG (1 << 24)
#define SHOWN 3000

static struct {
	uint32_t sentinel;
	int fd;
} maps[MAPS];
static int map_count;
static char said[LOG];

static long bpf(int command, union bpf_attr *attr)
{
	return syscall(SYS_bpf, command, attr, sizeof(*attr));
}

static void make_map(const char *line)
{
	union bpf_attr attr = {};

	if (map_count == MAPS ||
	    sscanf(line, "map %u %u %u %u %u %u", &maps[map_count].sentinel, &attr.map_type,
		   &attr.key_size, &attr.value_size, &attr.max_entries, &attr.map_flags) != 6)
		errx(2, "cannot read: %.60s", line);
	maps[map_count].fd = bpf(BPF_MAP_CREATE, &attr);
	if (maps[map_count].fd < 0)
		err(2, "map %u", maps[map_count].sentinel);
	map_count++;
}

static void put_descriptors(struct bpf_insn *insns, size_t count)
{
	for (size_t at = 0; at < count; at++) {
		if (insns[at].code != (BPF_LD | BPF_DW | BPF_IMM))
			continue;
		for (int map = 0; map < map_count; map++) {
			if (insns[at].src_reg != BPF_PSEUDO_MAP_FD ||
			    (uint32_t)insns[at].imm != maps[map].sentinel)
				continue;
			insns[at].imm = maps[map].fd;
			break;
		}
		at++;
	}
}

static int load(unsigned int type, unsigned int attach, const char *hex)
{
	size_t bytes = strspn(hex, "0123456789abcdef") / 2, length;
	uint8_t *code = malloc(bytes);
	union bpf_attr attr = { .prog_type = type, .expected_attach_type = attach };
	int fd;

	for (size_t at = 0; at < bytes; at++)
		sscanf(hex + 2 * at, "%2hhx", &code[at]);
	put_descriptors((struct bpf_insn *)code, bytes / sizeof(struct bpf_insn));
	attr.insns = (uintptr_t)code;
	attr.insn_cnt = bytes / sizeof(struct bpf_insn);
	attr.license = (uintptr_t)"GPL";
	attr.log_level = 4; /* how much it had to do; what is refused is loaded once more to say why */
	attr.log_size = LOG;
	attr.log_buf = (uintptr_t)said;
	fd = bpf(BPF_PROG_LOAD, &attr);
	if (fd < 0 && errno != E2BIG) {
		attr.log_level = 1;
		fd = bpf(BPF_PROG_LOAD, &attr);
	}
	if (fd < 0)
		printf("%s\n", strerror(errno));
	length = strlen(said);
	printf("%s\n", length > SHOWN ? said + length - SHOWN : said);
	return fd < 0;
}

int main(int argc, char **argv)
{
	char *line = NULL, name[64];
	unsigned int type, attach;
	size_t room = 0;
	int at;
	FILE *file;

	if (argc != 3)
		errx(2, "usage: verify FILE NAME");
	file = fopen(argv[1], "r");
	if (!file)
		err(2, "%s", argv[1]);
	while (getline(&line, &room, file) > 0) {
		if (!strncmp(line, "map ", 4))
			make_map(line);
		else if (sscanf(line, "prog %63s %u %u %n", name, &type, &attach, &at) == 3 &&
			 !strcmp(name, argv[2]))
			return load(type, attach, line + at);
	}
	errx(2, "no program %s", argv[2]);
}
