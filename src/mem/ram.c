#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bits.h"
#include "mem/mem.h"

#define HUGE_PAGE 0x200000ull /* of the host's */
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif

/* Maps @size bytes of @fd where a huge page of the host may begin. */
static void *map_aligned(int fd, u64 size)
{
    u8 *room, *p, *aligned;

    if (size > SIZE_MAX - HUGE_PAGE)
        return MAP_FAILED;
    room =
        mmap(NULL, size + HUGE_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED)
        return MAP_FAILED;
    aligned = (u8 *)align_up((u64)room, HUGE_PAGE);
    p = mmap(aligned, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE | MAP_FIXED, fd, 0);
    if (p == MAP_FAILED) {
        munmap(room, size + HUGE_PAGE);
        return MAP_FAILED;
    }
    if (aligned != room)
        munmap(room, (size_t)(aligned - room));
    munmap(aligned + size, (size_t)(room + HUGE_PAGE - aligned));
    return p;
}

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
    void *p = map_aligned(ram->fd, size);

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

static bool collapse(u8 *huge)
{
    *(volatile u8 *)huge; /* there must be a page table to begin with */
    return !madvise(huge, HUGE_PAGE, MADV_COLLAPSE);
}

void mem_populate(u8 *hva, u64 size)
{
    u8 *end = hva + size, *huge = (u8 *)align_up((u64)hva, HUGE_PAGE);

    if (huge < end)
        madvise(hva, (size_t)(huge - hva), MADV_POPULATE_WRITE);
    else
        huge = hva;
    for (; (u64)(end - huge) >= HUGE_PAGE; huge += HUGE_PAGE) {
        if (!collapse(huge))
            break;
    }
    madvise(huge, (size_t)(end - huge), MADV_POPULATE_WRITE);
}
