#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "mem/mem.h"

int mem_ram_alloc(struct mem_ram *ram, u64 size, struct err *err)
{
    int code;

    *ram = (struct mem_ram){.fd = -1};
    if (!size || size % MEM_PAGE_SIZE || size > INT64_MAX)
        return err_set(err, -EINVAL, "guest memory of %" PRIu64 " bytes is not whole pages", size);

    ram->fd = memfd_create("triode-ram", MFD_CLOEXEC);
    if (ram->fd < 0) {
        code = -errno;
        return err_set(err, code, "cannot create guest memory: %s", strerror(-code));
    }
    if (ftruncate(ram->fd, (off_t)size) < 0) {
        code = -errno;
        goto fail;
    }
    /* Pages come when the guest touches them, so a guest may be larger than what is free now. */
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, ram->fd, 0);

    if (p == MAP_FAILED) {
        code = -errno;
        goto fail;
    }
    ram->hva = p;
    ram->size = size;
    return 0;

fail:
    close(ram->fd);
    ram->fd = -1;
    return err_set(err, code, "this host cannot give %" PRIu64 " MiB of guest memory: %s",
                   size / MiB, strerror(-code));
}

void mem_ram_free(struct mem_ram *ram)
{
    if (ram->hva)
        munmap(ram->hva, ram->size);
    if (ram->fd >= 0)
        close(ram->fd);
    *ram = (struct mem_ram){.fd = -1};
}
