/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Stands in for the kernel's headers, so that a host needs none to compile the data plane.
 *
 * BCC includes this file before everything else and takes the kernel's own types for granted.
 * The UAPI headers come from the C library's package (/usr/include); the other files of this
 * directory only have to exist, because BCC's helpers.h includes them by name.
 */
#ifndef VX_SHIM_KCONFIG_H
#define VX_SHIM_KCONFIG_H

#define CONFIG_BPF_SYSCALL 1

#include <linux/types.h>

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s8 s8;
typedef __s16 s16;
typedef __s32 s32;
typedef __s64 s64;

typedef _Bool bool;
#define true 1
#define false 0

typedef __SIZE_TYPE__ size_t;
typedef __UINTPTR_TYPE__ uintptr_t;
typedef int pid_t;

#ifndef NULL
#define NULL ((void *)0)
#endif

#undef __always_inline
#define __always_inline inline __attribute__((always_inline))

#define PAGE_SIZE 4096

#endif /* VX_SHIM_KCONFIG_H */
