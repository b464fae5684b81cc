/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "worker/sparse.h"

#include <stdlib.h>
#include <sys/mman.h>

#include "common/sanitized.h"

/* A sanitizer sees the end of what comes from its own allocator. */
void *sparse_new(size_t bytes)
{
	void *memory;

	if (SANITIZED)
		return calloc(1, bytes);
	memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return memory == MAP_FAILED ? NULL : memory;
}

void sparse_free(void *memory, size_t bytes)
{
	if (SANITIZED)
		free(memory);
	else if (memory)
		(void)munmap(memory, bytes);
}
