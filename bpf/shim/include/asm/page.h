/* SPDX-License-Identifier: GPL-2.0-only */
/* Empty: BCC's helpers.h includes it, the data plane needs nothing of it. See linux/kconfig.h. */
