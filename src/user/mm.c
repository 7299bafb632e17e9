/*
 * The guest's address space: which host pages are its, with the rights that it asked for. The
 * rights hold on the host too, with two differences: nothing is executable, and pages that code was
 * translated from are not writable.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "user/private.h"

#define TOP (BIT(47) - MEM_PAGE_SIZE)

int mm_init(struct user_mm *mm)
{
    return -pthread_mutex_init(&mm->lock, NULL);
}

/* Index of the first mapping that ends above @addr. */
static size_t index_of(const struct user_mm *mm, u64 addr)
{
    size_t lo = 0, hi = mm->count;

    while (lo < hi) {
        size_t mid = (lo + hi) / 2;

        if (mm->maps[mid].end <= addr)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* Makes room for @more mappings. Before the host's mappings are changed: once they are, the change
 * must be noted. Lock held, as for all that follow. */
static int reserve(struct user_mm *mm, size_t more)
{
    size_t cap = mm->cap ? mm->cap * 2 : 64;
    struct mapping *maps;

    if (mm->count + more <= mm->cap)
        return 0;
    maps = realloc(mm->maps, cap * sizeof(*maps));
    if (!maps)
        return -ENOMEM;
    mm->maps = maps;
    mm->cap = cap;
    return 0;
}

static void insert(struct user_mm *mm, size_t at, struct mapping map)
{
    memmove(&mm->maps[at + 1], &mm->maps[at], (mm->count - at) * sizeof(map));
    mm->maps[at] = map;
    mm->count++;
}

/* Takes [start, end) out of the list. What lies around it may need room for one more. */
static void carve(struct user_mm *mm, u64 start, u64 end)
{
    size_t i = index_of(mm, start), n = 0;
    struct mapping *map;

    if (i == mm->count)
        return;
    map = &mm->maps[i];
    if (map->start < start) {
        struct mapping rest = {end, map->end, map->prot};

        map->end = start;
        if (rest.start < rest.end) {
            insert(mm, i + 1, rest);
            return;
        }
        i++;
    }
    while (i + n < mm->count && mm->maps[i + n].end <= end)
        n++;
    if (i + n < mm->count && mm->maps[i + n].start < end)
        mm->maps[i + n].start = end;
    memmove(&mm->maps[i], &mm->maps[i + n], (mm->count - i - n) * sizeof(*map));
    mm->count -= n;
}

/* May need room for two more. */
static void note(struct user_mm *mm, u64 start, u64 end, int prot)
{
    size_t i;

    carve(mm, start, end);
    if (prot < 0)
        return;
    i = index_of(mm, start);
    if (i && mm->maps[i - 1].end == start && mm->maps[i - 1].prot == (u32)prot) {
        mm->maps[i - 1].end = end;
        return;
    }
    insert(mm, i, (struct mapping){start, end, (u32)prot});
}

int mm_note(struct user_mm *mm, u64 start, u64 end, int prot)
{
    int ret;

    pthread_mutex_lock(&mm->lock);
    ret = reserve(mm, 2);
    if (!ret)
        note(mm, start, end, prot);
    pthread_mutex_unlock(&mm->lock);
    return ret;
}

static int prot_of(const struct user_mm *mm, u64 addr)
{
    size_t i = index_of(mm, addr);

    return i < mm->count && mm->maps[i].start <= addr ? (int)mm->maps[i].prot : -1;
}

int mm_prot(struct user_mm *mm, u64 addr)
{
    int prot;

    pthread_mutex_lock(&mm->lock);
    prot = prot_of(mm, addr);
    pthread_mutex_unlock(&mm->lock);
    return prot < 0 ? prot : prot & USER_PROT_RIGHTS;
}

bool mm_allows(struct user_mm *mm, u64 addr, u64 len, int prot)
{
    bool ok = addr + len >= addr;

    pthread_mutex_lock(&mm->lock);
    for (u64 at = addr, end = addr + len; ok && at < end;) {
        size_t i = index_of(mm, at);

        ok = i < mm->count && mm->maps[i].start <= at && ((int)mm->maps[i].prot & prot) == prot;
        if (ok)
            at = mm->maps[i].end;
    }
    pthread_mutex_unlock(&mm->lock);
    return ok;
}

int mm_host_prot(int prot)
{
    if (prot & PROT_WRITE)
        return PROT_READ | PROT_WRITE;
    return prot & (PROT_READ | PROT_EXEC) ? PROT_READ : PROT_NONE;
}

bool mm_protect_code(void *opaque, u64 page, bool on)
{
    struct user_mm *mm = opaque;
    bool shared;
    int prot;

    pthread_mutex_lock(&mm->lock);
    prot = prot_of(mm, page);
    shared = prot >= 0 && prot & USER_PROT_SHARED;
    if (prot >= 0 && prot & PROT_WRITE && !(on && shared))
        mprotect(user_ptr(page), MEM_PAGE_SIZE, on ? PROT_READ : mm_host_prot(prot));
    pthread_mutex_unlock(&mm->lock);
    return !shared;
}

/* Is [addr, addr+len) free of what is Triode's own? The gaps between the guest's mappings are taken
 * by harmless ones on the way. Lock held. */
static int claim(struct user_mm *mm, u64 addr, u64 len)
{
    u64 at = addr, end = addr + len;

    while (at < end) {
        size_t i = index_of(mm, at);
        u64 next = i < mm->count && mm->maps[i].start < end ? mm->maps[i].start : end;

        if (next <= at) {
            at = mm->maps[i].end;
            continue;
        }
        if (reserve(mm, 2))
            return -ENOMEM;
        if (mmap(user_ptr(at), next - at, PROT_NONE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1,
                 0) == MAP_FAILED) {
            int error = errno;

            return error == EEXIST ? -ENOMEM : -error;
        }
        note(mm, at, next, PROT_NONE);
        at = next;
    }
    return 0;
}

static s64 map_locked(struct user *user, u64 addr, u64 len, int prot, int flags, int fd, u64 offset)
{
    struct user_mm *mm = &user->mm;
    void *got;
    int ret;

    if (flags & MAP_FIXED && (flags & MAP_FIXED_NOREPLACE) != MAP_FIXED_NOREPLACE) {
        ret = claim(mm, addr, len);
        if (ret)
            return ret;
    }
    ret = reserve(mm, 2);
    if (ret)
        return ret;
    got = mmap(user_ptr(addr), len, mm_host_prot(prot), flags & ~MAP_GROWSDOWN, fd, (off_t)offset);
    if (got == MAP_FAILED)
        return -errno;
    prot &= USER_PROT_RIGHTS;
    if (flags & MAP_SHARED) /* MAP_SHARED_VALIDATE has that bit too */
        prot |= USER_PROT_SHARED;
    note(mm, (u64)got, (u64)got + len, prot);
    return (s64)got;
}

s64 mm_map(struct user *user, u64 addr, u64 len, int prot, int flags, int fd, u64 offset)
{
    s64 got;

    if (!len || len > TOP)
        return len ? -ENOMEM : -EINVAL;
    len = align_up(len, MEM_PAGE_SIZE);
    if (flags & (MAP_FIXED | MAP_FIXED_NOREPLACE) && (addr & (MEM_PAGE_SIZE - 1)))
        return -EINVAL;
    if (flags & (MAP_FIXED | MAP_FIXED_NOREPLACE) && (addr > TOP || len > TOP - addr))
        return -ENOMEM;
    pthread_mutex_lock(&user->mm.lock);
    got = map_locked(user, addr, len, prot, flags, fd, offset);
    pthread_mutex_unlock(&user->mm.lock);
    if (got >= 0 && flags & MAP_FIXED && user->dbt)
        dbt_code_changed(user->dbt, (u64)got, len);
    return got;
}

static int unmap(struct user *user, u64 addr, u64 len)
{
    struct user_mm *mm = &user->mm;
    u64 end;
    int ret;

    if (!len || addr & (MEM_PAGE_SIZE - 1) || addr > TOP || len > TOP - addr)
        return -EINVAL;
    end = align_up(addr + len, MEM_PAGE_SIZE);
    pthread_mutex_lock(&mm->lock);
    ret = reserve(mm, 1);
    for (size_t i = index_of(mm, addr); !ret && i < mm->count && mm->maps[i].start < end; i++) {
        u64 first = mm->maps[i].start > addr ? mm->maps[i].start : addr;
        u64 last = mm->maps[i].end < end ? mm->maps[i].end : end;

        munmap(user_ptr(first), last - first);
    }
    if (!ret)
        carve(mm, addr, end);
    pthread_mutex_unlock(&mm->lock);
    dbt_code_changed(user->dbt, addr, end - addr);
    return ret;
}

/* --- system calls ------------------------------------------------------------------------- */

s64 sys_mmap(struct user_thread *t, const u64 a[6])
{
    if (a[5] & (MEM_PAGE_SIZE - 1))
        return -EINVAL;
    return mm_map(t->user, a[0], a[1], (int)a[2], (int)a[3], (int)a[4], a[5]);
}

s64 sys_munmap(struct user_thread *t, const u64 a[6])
{
    return unmap(t->user, a[0], a[1]);
}

/* The first address of [at, end) that is not mapped; @end if all are. Lock held. */
static u64 first_hole(const struct user_mm *mm, u64 at, u64 end)
{
    while (at < end) {
        size_t i = index_of(mm, at);

        if (i == mm->count || mm->maps[i].start > at)
            return at;
        at = mm->maps[i].end;
    }
    return end;
}

/* The range, all of it mapped, has new rights: at both ends a mapping may be cut in two. */
static void note_rights(struct user_mm *mm, u64 start, u64 end, int rights)
{
    while (start < end) {
        const struct mapping *map = &mm->maps[index_of(mm, start)];
        u64 next = map->end < end ? map->end : end;

        note(mm, start, next, rights | (int)(map->prot & USER_PROT_SHARED));
        start = next;
    }
}

s64 sys_mprotect(struct user_thread *t, const u64 a[6])
{
    struct user_mm *mm = &t->user->mm;
    u64 end = align_up(a[0] + a[1], MEM_PAGE_SIZE);
    int prot = (int)a[2] & (PROT_READ | PROT_WRITE | PROT_EXEC), ret, missing = 0;
    u64 hole;

    if (a[0] & (MEM_PAGE_SIZE - 1) || a[2] & ~(u64)(prot | PROT_GROWSDOWN | PROT_GROWSUP))
        return -EINVAL;
    if (end < a[0])
        return -ENOMEM;
    if (end == a[0])
        return 0;
    pthread_mutex_lock(&mm->lock);
    hole = first_hole(mm, a[0], end);
    if (hole == a[0]) {
        pthread_mutex_unlock(&mm->lock);
        return -ENOMEM;
    }
    if (hole < end)
        missing = -ENOMEM; /* what lies before it is changed all the same */
    end = hole;
    ret = reserve(mm, 2);
    if (!ret && mprotect(user_ptr(a[0]), end - a[0], mm_host_prot(prot)))
        ret = -errno;
    if (!ret)
        note_rights(mm, a[0], end, prot);
    pthread_mutex_unlock(&mm->lock);
    dbt_code_changed(t->user->dbt, a[0], end - a[0]);
    return ret ? ret : missing;
}

s64 sys_mremap(struct user_thread *t, const u64 a[6])
{
    struct user_mm *mm = &t->user->mm;
    u64 old = align_up(a[1], MEM_PAGE_SIZE), len = align_up(a[2], MEM_PAGE_SIZE);
    void *got;
    s64 ret;
    int prot;

    if (a[0] & (MEM_PAGE_SIZE - 1) || !len || a[3] & ~(u64)(MREMAP_MAYMOVE | MREMAP_FIXED))
        return -EINVAL;
    pthread_mutex_lock(&mm->lock);
    prot = prot_of(mm, a[0]);
    pthread_mutex_unlock(&mm->lock);
    if (prot < 0 || !mm_allows(mm, a[0], old, 0))
        return -EFAULT;
    /* Pages of code split the host's mapping. */
    dbt_code_changed(t->user->dbt, a[0], old);
    pthread_mutex_lock(&mm->lock);
    ret = a[3] & MREMAP_FIXED ? claim(mm, a[4], len) : 0;
    if (!ret)
        ret = reserve(mm, 3);
    if (!ret) {
        got = mremap(user_ptr(a[0]), old, len, (int)a[3], user_ptr(a[4]));
        ret = got == MAP_FAILED ? -errno : (s64)got;
    }
    if (ret >= 0) {
        if ((u64)ret != a[0])
            carve(mm, a[0], a[0] + old);
        else if (len < old)
            carve(mm, a[0] + len, a[0] + old);
        note(mm, (u64)ret, (u64)ret + len, prot);
    }
    pthread_mutex_unlock(&mm->lock);
    if (ret >= 0)
        dbt_code_changed(t->user->dbt, (u64)ret, len);
    return ret;
}

s64 sys_madvise(struct user_thread *t, const u64 a[6])
{
    int advice = (int)a[2];
    s64 ret;

    if (!mm_allows(&t->user->mm, a[0], a[1], 0))
        return -ENOMEM;
    ret = syscall_host(t, SYS_madvise, a);
    if (advice == MADV_DONTNEED || advice == MADV_FREE || advice == MADV_REMOVE)
        dbt_code_changed(t->user->dbt, a[0], a[1]);
    return ret;
}

void mm_set_brk(struct user_mm *mm, u64 start)
{
    mm->brk_start = mm->brk = mm->brk_end = align_up(start, MEM_PAGE_SIZE);
}

s64 sys_brk(struct user_thread *t, const u64 a[6])
{
    struct user_mm *mm = &t->user->mm;
    u64 end = align_up(a[0], MEM_PAGE_SIZE);

    if (a[0] < mm->brk_start || end < a[0])
        return (s64)mm->brk;
    if (end > mm->brk_end) {
        if (mm_map(t->user, mm->brk_end, end - mm->brk_end, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) < 0)
            return (s64)mm->brk;
    } else if (end < mm->brk_end) {
        unmap(t->user, end, mm->brk_end - end);
    }
    mm->brk_end = end;
    mm->brk = a[0];
    return (s64)mm->brk;
}
