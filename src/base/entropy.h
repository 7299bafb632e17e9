/* The one source of randomness. Record/replay will hook in here. */
#ifndef TRIODE_BASE_ENTROPY_H
#define TRIODE_BASE_ENTROPY_H

#include "base/types.h"

/* Fills @buf with @len random bytes from the host kernel. */
void entropy_fill(void *buf, size_t len);

#endif
