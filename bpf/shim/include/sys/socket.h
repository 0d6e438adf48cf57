/* SPDX-License-Identifier: GPL-2.0-only */
/* What <linux/if.h> wants of the C library, which BPF has none of. See linux/kconfig.h. */
#ifndef VX_SHIM_SOCKET_H
#define VX_SHIM_SOCKET_H

struct sockaddr {
	unsigned short sa_family;
	char sa_data[14];
};

#endif /* VX_SHIM_SOCKET_H */
