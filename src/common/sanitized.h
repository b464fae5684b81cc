/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * sanitized.h - SANITIZED: is this built with a sanitizer that needs more of system
 * calls and memory than we do?  0 or 1.
 */
#ifndef XENDISK_SANITIZED_H
#define XENDISK_SANITIZED_H

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || \
	__has_feature(memory_sanitizer)
#define SANITIZED 1
#endif
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

#endif
