/* Opening the device, and saying in one sentence why it cannot be used. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kvm/kvm.h"
#include "kvm/private.h"

/* X(capability, what it is for) */
#define REQUIRED(X)                                                                                \
    X(KVM_CAP_USER_MEMORY, "guest memory")                                                         \
    X(KVM_CAP_IRQCHIP, "in-kernel interrupt controllers")                                          \
    X(KVM_CAP_PIT2, "in-kernel 8254")                                                              \
    X(KVM_CAP_SET_TSS_ADDR, "real mode on CPUs that need a TSS for it")                            \
    X(KVM_CAP_EXT_CPUID, "CPUID tables")                                                           \
    X(KVM_CAP_MP_STATE, "start and halt states of vCPUs")                                          \
    X(KVM_CAP_VCPU_EVENTS, "pending events")                                                       \
    X(KVM_CAP_SIGNAL_MSI, "message signalled interrupts")                                          \
    X(KVM_CAP_IMMEDIATE_EXIT, "kicks without a race")

int kvm_ioctl(int fd, unsigned long request, void *arg)
{
    int ret = ioctl(fd, request, arg);

    return ret < 0 ? -errno : ret;
}

const char *kvm_missing_extension(int (*check)(void *opaque, u32 capability), void *opaque)
{
#define X(capability, purpose)                                                                     \
    if (check(opaque, capability) <= 0)                                                            \
        return #capability " (" purpose ")";
    REQUIRED(X)
#undef X
    return NULL;
}

static int check_fd(void *opaque, u32 capability)
{
    return kvm_ioctl(*(int *)opaque, KVM_CHECK_EXTENSION, (void *)(uintptr_t)capability);
}

static int explain_permission(const char *path, int code, struct err *err)
{
    const struct passwd *owner, *self;
    const struct group *group;
    char owner_name[32], group_name[32];
    struct stat st;

    if (stat(path, &st))
        return err_set(err, code, "no permission on %s or on its directory", path);
    owner = getpwuid(st.st_uid);
    snprintf(owner_name, sizeof owner_name, "%s", owner ? owner->pw_name : "");
    if (!owner)
        snprintf(owner_name, sizeof owner_name, "number %u", st.st_uid);
    group = getgrgid(st.st_gid);
    snprintf(group_name, sizeof group_name, "%s", group ? group->gr_name : "");
    if (!group)
        snprintf(group_name, sizeof group_name, "number %u", st.st_gid);
    self = getpwuid(geteuid());

    if ((st.st_mode & 0060) == 0060)
        return err_set(err, code,
                       "no permission on %s: it belongs to group %s; join it with "
                       "\"sudo usermod -aG %s %s\" and log in again",
                       path, group_name, group_name, self ? self->pw_name : "YOU");
    return err_set(err, code,
                   "no permission on %s: only its owner %s may open it (group %s, mode %04o)", path,
                   owner_name, group_name, st.st_mode & 07777);
}

static int explain_open(const char *path, int code, struct err *err)
{
    switch (code) {
    case -ENOENT:
        return err_set(err, code,
                       "%s is missing: load the kernel module (modprobe kvm_intel or kvm_amd); if "
                       "that fails, virtualization is off in the firmware or not offered by the "
                       "hypervisor this machine itself runs on",
                       path);
    case -EACCES:
    case -EPERM:
        return explain_permission(path, code, err);
    case -ENODEV:
    case -ENXIO:
        return err_set(err, code, "%s exists, but no kernel module stands behind it (%s)", path,
                       strerror(-code));
    default:
        return err_set(err, code, "%s cannot be opened: %s", path, strerror(-code));
    }
}

/* KVM_RUN returns when any signal is pending; this one does nothing else. */
static void on_kick(int signal)
{
    (void)signal;
}

int kvm_kick_signal(void)
{
    return SIGRTMIN;
}

static int install_kick_signal(struct err *err)
{
    struct sigaction action = {.sa_handler = on_kick};

    sigemptyset(&action.sa_mask);
    if (sigaction(kvm_kick_signal(), &action, NULL))
        return err_set(err, -errno, "the signal for kicks cannot be installed: %s",
                       strerror(errno));
    return 0;
}

static int check_device(const char *path, struct kvm_engine *engine, struct err *err)
{
    const char *missing;
    int version, bytes;

    version = kvm_ioctl(engine->fd, KVM_GET_API_VERSION, NULL);
    if (version < 0)
        return err_set(err, version, "%s is not a KVM device: %s", path, strerror(-version));
    if (version != KVM_API_VERSION)
        return err_set(err, -EPROTO, "%s speaks KVM API version %d; Triode needs %d", path, version,
                       KVM_API_VERSION);
    missing = kvm_missing_extension(check_fd, &engine->fd);
    if (missing)
        return err_set(err, -EOPNOTSUPP, "the kernel behind %s lacks %s", path, missing);
    bytes = kvm_ioctl(engine->fd, KVM_GET_VCPU_MMAP_SIZE, NULL);
    if (bytes < (int)sizeof(struct kvm_run))
        return err_set(err, bytes < 0 ? bytes : -EPROTO,
                       "%s names %d bytes for the vCPU's run record; at least %zu are needed", path,
                       bytes, sizeof(struct kvm_run));
    engine->run_bytes = bytes;
    return 0;
}

int kvm_open_path(const char *path, struct engine **out, struct err *err)
{
    struct kvm_engine *engine;
    int ret;

    engine = calloc(1, sizeof *engine);
    if (!engine)
        return err_set(err, -ENOMEM, "out of memory for the kvm engine");
    engine->engine.ops = &kvm_engine_ops;
    engine->fd = open(path, O_RDWR | O_CLOEXEC);
    if (engine->fd < 0) {
        ret = explain_open(path, -errno, err);
        goto fail;
    }
    ret = check_device(path, engine, err);
    if (!ret)
        ret = install_kick_signal(err);
    if (ret)
        goto fail;
    *out = &engine->engine;
    return 0;

fail:
    if (engine->fd >= 0)
        close(engine->fd);
    free(engine);
    return ret;
}

int kvm_open(struct engine **engine, struct err *err)
{
    return kvm_open_path(KVM_DEVICE_PATH, engine, err);
}

void kvm_close(struct engine *engine)
{
    struct kvm_engine *kvm = to_kvm_engine(engine);

    close(kvm->fd);
    free(kvm);
}
