/* The kernel's own counters, by its binary statistics interface (KVM_GET_STATS_FD). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kvm/private.h"

struct kvm_stats {
    int fd;
    struct kvm_stats_header header;
    u8 *descriptors; /* header.num_desc of them, each with header.name_size bytes of name */
    u8 *data;
    size_t data_bytes;
};

static struct kvm_stats_desc *descriptor(const struct kvm_stats *stats, u32 i)
{
    size_t each = sizeof(struct kvm_stats_desc) + stats->header.name_size;

    return (struct kvm_stats_desc *)(stats->descriptors + i * each);
}

void kvm_stats_free(struct kvm_stats *stats)
{
    if (!stats)
        return;
    close(stats->fd);
    free(stats->descriptors);
    free(stats->data);
    free(stats);
}

static int read_exactly(int fd, void *buf, size_t len, off_t offset)
{
    ssize_t got = pread(fd, buf, len, offset);

    if (got < 0)
        return -errno;
    return (size_t)got == len ? 0 : -EIO;
}

static int stats_load(struct kvm_stats *stats)
{
    size_t bytes;
    int ret;

    ret = read_exactly(stats->fd, &stats->header, sizeof stats->header, 0);
    if (ret)
        return ret;
    bytes = stats->header.num_desc * (sizeof(struct kvm_stats_desc) + stats->header.name_size);
    stats->descriptors = malloc(bytes);
    if (!stats->descriptors)
        return -ENOMEM;
    ret = read_exactly(stats->fd, stats->descriptors, bytes, stats->header.desc_offset);
    if (ret)
        return ret;
    for (u32 i = 0; i < stats->header.num_desc; i++) {
        const struct kvm_stats_desc *desc = descriptor(stats, i);
        size_t end = desc->offset + desc->size * sizeof(u64);

        if (end > stats->data_bytes)
            stats->data_bytes = end;
    }
    stats->data = calloc(1, stats->data_bytes);
    return stats->data ? 0 : -ENOMEM;
}

static int stats_open(int owner_fd, struct kvm_stats **out)
{
    struct kvm_stats *stats;
    int ret;

    stats = calloc(1, sizeof *stats);
    if (!stats)
        return -ENOMEM;
    stats->fd = kvm_ioctl(owner_fd, KVM_GET_STATS_FD, NULL);
    if (stats->fd < 0) {
        ret = stats->fd;
        free(stats);
        return ret;
    }
    ret = stats_load(stats);
    if (ret) {
        kvm_stats_free(stats);
        return ret;
    }
    *out = stats;
    return 0;
}

static int stats_fill(int owner_fd, struct kvm_stats **cache, struct engine_stat *out, int max)
{
    struct kvm_stats *stats;
    int ret, count = 0;

    if (!*cache) {
        ret = stats_open(owner_fd, cache);
        if (ret)
            return ret;
    }
    stats = *cache;
    ret = read_exactly(stats->fd, stats->data, stats->data_bytes, stats->header.data_offset);
    if (ret)
        return ret;
    for (u32 i = 0; i < stats->header.num_desc && count < max; i++) {
        const struct kvm_stats_desc *desc = descriptor(stats, i);

        if (desc->size != 1) /* histograms */
            continue;
        out[count].name = desc->name;
        memcpy(&out[count].value, stats->data + desc->offset, sizeof out[count].value);
        count++;
    }
    return count;
}

int kvm_vcpu_stats(struct vcpu *vcpu, struct engine_stat *stats, int max)
{
    struct kvm_vcpu *kvm = to_kvm_vcpu(vcpu);

    return stats_fill(kvm->fd, &kvm->stats, stats, max);
}

int kvm_vm_stats(struct vm *vm, struct engine_stat *stats, int max)
{
    struct kvm_vm *kvm = to_kvm_vm(vm);

    return stats_fill(kvm->fd, &kvm->stats, stats, max);
}
