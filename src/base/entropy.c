#include "base/entropy.h"

#include <errno.h>
#include <sys/random.h>

#include "base/log.h"

void entropy_fill(void *buf, size_t len)
{
    u8 *p = buf;

    while (len) {
        /* Up to 256 bytes a call come whole once the host's pool is ready (getrandom(2)). */
        ssize_t n = getrandom(p, len < 256 ? len : 256, 0);

        if (n < 0) {
            if (errno == EINTR)
                continue;
            BUG("getrandom: errno %d", errno);
        }
        p += n;
        len -= (size_t)n;
    }
}
