/* A vCPU: creation, running, kicks. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kvm/private.h"

static pid_t thread_id(void)
{
    static __thread pid_t tid;

    if (!tid)
        tid = syscall(SYS_gettid);
    return tid;
}

int kvm_vcpu_create(struct vm *vm, unsigned index, u32 apic_id, struct vcpu **out, struct err *err)
{
    struct kvm_vm *kvm = to_kvm_vm(vm);
    struct kvm_vcpu *vcpu;
    int ret;

    vcpu = calloc(1, sizeof *vcpu);
    if (!vcpu)
        return err_set(err, -ENOMEM, "out of memory for vCPU %u", index);
    vcpu->vcpu.ops = &kvm_engine_ops;
    vcpu->vcpu.vm = vm;
    vcpu->vcpu.index = index;
    vcpu->vcpu.apic_id = apic_id;
    vcpu->run_bytes = kvm->owner->run_bytes;
    if (index == 0 && apic_id != 0) {
        ret = kvm_ioctl(kvm->fd, KVM_SET_BOOT_CPU_ID, (void *)(uintptr_t)apic_id);
        if (ret) {
            err_set(err, ret, "KVM_SET_BOOT_CPU_ID to APIC id %u failed: %s", apic_id,
                    strerror(-ret));
            goto fail;
        }
    }
    vcpu->fd = kvm_ioctl(kvm->fd, KVM_CREATE_VCPU, (void *)(uintptr_t)apic_id);
    if (vcpu->fd < 0) {
        ret = err_set(err, vcpu->fd, "the kernel creates no vCPU %u with APIC id %u: %s", index,
                      apic_id, strerror(-vcpu->fd));
        goto fail;
    }
    vcpu->vcpu.run = mmap(NULL, vcpu->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
    if (vcpu->vcpu.run == MAP_FAILED) {
        ret = err_set(err, -errno, "the run record of vCPU %u cannot be mapped: %s", index,
                      strerror(errno));
        close(vcpu->fd);
        goto fail;
    }
    *out = &vcpu->vcpu;
    return 0;

fail:
    free(vcpu);
    return ret;
}

void kvm_vcpu_destroy(struct vcpu *vcpu)
{
    struct kvm_vcpu *kvm = to_kvm_vcpu(vcpu);

    kvm_stats_free(kvm->stats);
    munmap(vcpu->run, kvm->run_bytes);
    close(kvm->fd);
    free(kvm);
}

/* The thread that runs a vCPU must be open to the kick signal, whatever mask it inherited. */
static void adopt_thread(struct kvm_vcpu *vcpu)
{
    sigset_t set;

    if (vcpu->tid == thread_id())
        return;
    sigemptyset(&set);
    sigaddset(&set, kvm_kick_signal());
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    vcpu->tid = thread_id();
}

/*
 * No kick is lost: the kicker sets immediate_exit and then looks at `running`, this function sets
 * `running` and then lets the kernel look at immediate_exit. So either the kernel sees the flag or
 * the kicker sees a running thread and sends the signal, which KVM_RUN notices even if it came
 * before the ioctl's first instruction, because the flag was set before it.
 */
int kvm_vcpu_run(struct vcpu *vcpu)
{
    struct kvm_vcpu *kvm = to_kvm_vcpu(vcpu);
    int ret;

    adopt_thread(kvm);
    kvm->running = true;
    do {
        /* -EAGAIN: a SIPI or INIT changed the start state; there is nothing to tell the caller. */
        ret = kvm_ioctl(kvm->fd, KVM_RUN, NULL);
    } while (ret == -EAGAIN);
    kvm->running = false;
    kvm->run_error = 0;
    if (ret == -EINTR) {
        __atomic_store_n(&vcpu->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
        vcpu->run->exit_reason = KVM_EXIT_INTR;
        return ret;
    }
    if (ret < 0)
        kvm->run_error = -ret;
    return ret < 0 ? ret : 0;
}

void kvm_vcpu_kick(struct vcpu *vcpu)
{
    struct kvm_vcpu *kvm = to_kvm_vcpu(vcpu);

    __atomic_store_n(&vcpu->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    /* By thread id: when the thread has just ended, the signal goes nowhere instead of to freed
     * memory. */
    if (kvm->running)
        syscall(SYS_tgkill, getpid(), kvm->tid, kvm_kick_signal());
}
