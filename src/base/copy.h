/* Copies of the sizes that CPUs have. */
#ifndef TRIODE_BASE_COPY_H
#define TRIODE_BASE_COPY_H

#include <string.h>

/* memcpy; of 1, 2, 4, 8 or 16 bytes by a single move, of which a fault leaves nothing half done. */
static inline void copy_sized(void *to, const void *from, unsigned bytes)
{
    switch (bytes) {
    case 1:
        memcpy(to, from, 1);
        break;
    case 2:
        memcpy(to, from, 2);
        break;
    case 4:
        memcpy(to, from, 4);
        break;
    case 8:
        memcpy(to, from, 8);
        break;
    case 16:
        memcpy(to, from, 16);
        break;
    default:
        memcpy(to, from, bytes);
    }
}

#endif
