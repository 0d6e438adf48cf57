/* SPDX-License-Identifier: GPL-2.0-only */
/* Empty: BCC brings its own copy of this header and includes that first. See linux/kconfig.h. */
