/*
 * Split virtqueues (VIRTIO 1.2, 2.7). Everything in them is the guest's and may change at any time:
 * each value is read once, checked, and then used; chains end after as many descriptors as the
 * queue has, and every address goes through pci_dma_map.
 */
#include <errno.h>
#include <string.h>

#include "device/virtio/virtio.h"

enum {
    DESC_NEXT = 1,
    DESC_WRITE = 2,
    DESC_INDIRECT = 4,
    AVAIL_NO_INTERRUPT = 1,
};

struct desc {
    u64 address;
    u32 len;
    u16 flags, next;
};

struct used_elem {
    u32 id, len;
};

static bool has(const struct virtio *v, unsigned feature)
{
    return v->state->features >> feature & 1;
}

void virtio_broken(struct virtio *v)
{
    struct virtio_state *s = v->state;

    if (s->status & VIRTIO_STATUS_NEEDS_RESET)
        return;
    s->status |= VIRTIO_STATUS_NEEDS_RESET;
    if (s->status & VIRTIO_STATUS_DRIVER_OK) {
        s->isr |= 2;
        if (!pci_msix_raise(&v->unit, s->config_vector))
            pci_intx(&v->unit, true);
    }
}

static u16 *ring_word(struct virtio *v, u64 address, bool write, u64 *gpa)
{
    u64 len = 2;

    return address & 1 ? NULL : (u16 *)pci_dma_map(&v->unit, address, &len, write, gpa);
}

static int read_word(struct virtio *v, u64 address, u16 *value)
{
    u64 gpa;
    const u16 *at = ring_word(v, address, false, &gpa);

    if (!at)
        return -EFAULT;
    *value = __atomic_load_n(at, __ATOMIC_ACQUIRE);
    return 0;
}

static int write_word(struct virtio *v, u64 address, u16 value)
{
    u64 gpa;
    u16 *at = ring_word(v, address, true, &gpa);

    if (!at)
        return -EFAULT;
    __atomic_store_n(at, value, __ATOMIC_RELEASE);
    mem_wrote(v->dev.env->mem, gpa, 2);
    return 0;
}

/* Makes the last piece longer if [gpa, gpa + len) at @hva goes on where it ends. */
static bool extend(struct virtio_chain *chain, u8 *hva, u64 gpa, u64 len)
{
    unsigned last = chain->out + chain->in - 1;
    struct iovec *piece = &chain->pieces[last];

    if ((u8 *)piece->iov_base + piece->iov_len != hva || chain->gpas[last] + piece->iov_len != gpa)
        return false;
    piece->iov_len += len;
    chain->lens[last] += len;
    return true;
}

/* Adds guest memory to the chain, in pieces that lie within one slot each. */
static int add_pieces(struct virtio *v, struct virtio_chain *chain, const struct desc *d)
{
    bool write = d->flags & DESC_WRITE;
    u64 address = d->address, left = d->len, len, gpa;

    if (address + left < address || (!write && chain->in))
        return -EINVAL; /* what the device reads comes first (2.7.4.2) */
    for (; left; address += len, left -= len) {
        unsigned at = chain->out + chain->in;
        u8 *hva;

        len = left;
        hva = pci_dma_map(&v->unit, address, &len, write, &gpa);
        if (!hva)
            return -EINVAL;
        *(write ? &chain->in_bytes : &chain->out_bytes) += len;
        if (address != d->address && extend(chain, hva, gpa, len))
            continue;
        if (at == VIRTIO_MAX_PIECES)
            return -EINVAL;
        chain->pieces[at] = (struct iovec){hva, len};
        chain->gpas[at] = gpa;
        chain->lens[at] = len;
        *(write ? &chain->in : &chain->out) += 1;
    }
    return 0;
}

/* Follows the chain from @index in a table of @count descriptors; *@budget counts them down. */
static int walk(struct virtio *v, struct virtio_chain *chain, u64 table, u32 count, u32 index,
                unsigned *budget, bool nested)
{
    for (;;) {
        struct desc d;
        int ret;

        if (index >= count || !*budget ||
            pci_dma_read(&v->unit, table + index * sizeof(d), &d, sizeof(d)))
            return -EINVAL;
        --*budget;
        if (d.flags & DESC_INDIRECT) {
            if (nested || (d.flags & DESC_NEXT) || !has(v, VIRTIO_F_INDIRECT) || !d.len ||
                d.len % sizeof(d) || d.address + d.len < d.address)
                return -EINVAL;
            return walk(v, chain, d.address, d.len / sizeof(d), 0, budget, true);
        }
        ret = add_pieces(v, chain, &d);
        if (ret || !(d.flags & DESC_NEXT))
            return ret;
        index = d.next;
    }
}

static u64 avail_ring(const struct virtio_queue *q, u16 index)
{
    return q->driver + 4 + 2ull * (index & (q->size - 1));
}

/* The driver's index; with event indices it learns how far we are, so that it kicks only then. */
static int available(struct virtio *v, struct virtio_queue *q, u16 *index)
{
    int ret = read_word(v, q->driver + 2, index);

    if (ret || *index != q->next || !has(v, VIRTIO_F_EVENT_IDX))
        return ret;
    ret = write_word(v, q->device + 4 + 8ull * q->size, q->next);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return ret ? ret : read_word(v, q->driver + 2, index);
}

int virtio_take(struct virtio *v, unsigned number, struct virtio_chain *chain)
{
    struct virtio_queue *q = &v->state->queues[number];
    unsigned budget = q->size + 1u; /* one for the descriptor of an indirect table */
    u16 index, head;

    if (v->state->status & VIRTIO_STATUS_NEEDS_RESET)
        return -EINVAL;
    if (available(v, q, &index))
        goto broken;
    if (index == q->next)
        return 0;
    if ((u16)(index - q->next) > q->size || read_word(v, avail_ring(q, q->next), &head))
        goto broken;
    chain->head = head;
    chain->out = chain->in = 0;
    chain->out_bytes = chain->in_bytes = 0;
    if (walk(v, chain, q->desc, q->size, head, &budget, false))
        goto broken;
    q->next++;
    return 1;
broken:
    virtio_broken(v);
    return -EINVAL;
}

void virtio_wrote_all(struct virtio *v, const struct virtio_chain *chain)
{
    for (unsigned i = chain->out; i < chain->out + chain->in; i++)
        mem_wrote(v->dev.env->mem, chain->gpas[i], chain->lens[i]);
}

void virtio_give(struct virtio *v, unsigned number, const struct virtio_chain *chain, u32 written)
{
    struct virtio_queue *q = &v->state->queues[number];
    struct used_elem elem = {chain->head, written};

    if (pci_dma_write(&v->unit, q->device + 4 + 8ull * (q->used & (q->size - 1)), &elem,
                      sizeof(elem)) ||
        write_word(v, q->device + 2, (u16)(q->used + 1)))
        virtio_broken(v);
    q->used++;
    /* From here on the driver may take the buffer's mapping away, and shall not wait for the next
     * one. */
    pci_dma_end(&v->unit);
    pci_dma_begin(&v->unit);
}

/* Whether the driver's used_event lies between what it was told of and now (2.7.10). */
static bool wants_interrupt(struct virtio *v, struct virtio_queue *q)
{
    u16 word;

    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (!has(v, VIRTIO_F_EVENT_IDX))
        return !read_word(v, q->driver, &word) && !(word & AVAIL_NO_INTERRUPT);
    if (read_word(v, q->driver + 4 + 2ull * q->size, &word))
        return false;
    return !q->told || (u16)(q->used - word - 1) < (u16)(q->used - q->told_used);
}

void virtio_notify(struct virtio *v, unsigned number)
{
    struct virtio_queue *q = &v->state->queues[number];

    if (q->told && q->told_used == q->used)
        return;
    if (wants_interrupt(v, q)) {
        if (!pci_msix_raise(&v->unit, q->vector)) {
            v->state->isr |= 1;
            pci_intx(&v->unit, true);
        }
    }
    q->told = 1;
    q->told_used = q->used;
}
