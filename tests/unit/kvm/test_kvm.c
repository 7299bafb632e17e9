/* The kvm engine where there is no KVM: every refusal has its sentence. */
#include "../unit.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kvm/kvm.h"

static void assert_says(const struct err *err, const char *part)
{
    if (!strstr(err->text, part))
        fail_msg("\"%s\" is not in \"%s\"", part, err->text);
}

static void missing_device(void **state)
{
    struct engine *engine;
    struct err err = {""};

    (void)state;
    assert_int_equal(kvm_open_path("/nonexistent/kvm", &engine, &err), -ENOENT);
    assert_says(&err, "/nonexistent/kvm is missing");
    assert_says(&err, "modprobe");
}

static void not_a_kvm_device(void **state)
{
    struct engine *engine;
    struct err err = {""};

    (void)state;
    assert_int_equal(kvm_open_path("/dev/null", &engine, &err), -ENOTTY);
    assert_says(&err, "/dev/null is not a KVM device");
}

static void directory(void **state)
{
    struct engine *engine;
    struct err err = {""};

    (void)state;
    assert_int_equal(kvm_open_path("/", &engine, &err), -EISDIR);
    assert_says(&err, "cannot be opened: Is a directory");
}

/* Opens @path as somebody who owns nothing; a child process, since this one may be root. */
static void open_as_nobody(const char *path, struct err *err)
{
    int ends[2], status;
    pid_t child;

    assert_int_equal(pipe(ends), 0);
    child = fork();
    assert_true(child >= 0);
    if (!child) {
        struct err said = {""};
        struct engine *engine;
        int ret;

        if (geteuid() == 0 && (setgroups(0, NULL) || setgid(65534) || setuid(65534)))
            _exit(2);
        ret = kvm_open_path(path, &engine, &said);
        if (write(ends[1], &said, sizeof said) != sizeof said)
            _exit(3);
        _exit(ret == -EACCES ? 0 : 1);
    }
    assert_int_equal(read(ends[0], err, sizeof *err), sizeof *err);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    close(ends[0]);
    close(ends[1]);
}

static void no_permission(void **state)
{
    char path[] = "/tmp/triode-kvm-XXXXXX";
    struct err err = {""};
    struct group *group;
    struct stat st;
    int fd;

    (void)state;
    if (geteuid() != 0) { /* only root can make a file that the test's own user may not open */
        print_message("needs root\n");
        skip();
    }
    fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(fchmod(fd, 0660), 0);
    assert_int_equal(fstat(fd, &st), 0);
    group = getgrgid(st.st_gid);
    assert_non_null(group);
    open_as_nobody(path, &err);
    assert_says(&err, "belongs to group ");
    assert_says(&err, group->gr_name);
    assert_says(&err, "usermod -aG");

    assert_int_equal(fchmod(fd, 0600), 0);
    open_as_nobody(path, &err);
    assert_says(&err, "only its owner root may open it");
    close(fd);
    unlink(path);
}

static int lacks(void *opaque, u32 capability)
{
    return capability != *(u32 *)opaque;
}

static void missing_extension(void **state)
{
    u32 none = 0xffffffff, msi = KVM_CAP_SIGNAL_MSI;

    (void)state;
    assert_null(kvm_missing_extension(lacks, &none));
    assert_string_equal(kvm_missing_extension(lacks, &msi),
                        "KVM_CAP_SIGNAL_MSI (message signalled interrupts)");
}

static void entry_failures(void **state)
{
    struct err err;

    (void)state;
    kvm_describe_entry_failure(0x80000021, true, &err);
    assert_says(&err, "VM-entry failure 33, invalid guest state");
    kvm_describe_entry_failure(7, true, &err);
    assert_says(&err, "VM-instruction error 7, VM entry with invalid control fields");
    kvm_describe_entry_failure(99, true, &err);
    assert_says(&err, "VM-instruction error 99");
    kvm_describe_entry_failure((u64)-1, false, &err);
    assert_says(&err, "VMEXIT_INVALID");
}

static void suberrors(void **state)
{
    (void)state;
    assert_string_equal(kvm_suberror_name(1), "the kernel cannot emulate an instruction");
    assert_null(kvm_suberror_name(77));
}

static void instructions(void **state)
{
    static const u8 bytes[] = {0xb8, 0x34, 0x12, 0x00, 0x00, 0x90};
    static const u8 bad[] = {0x06};
    char text[80], small[6];

    (void)state;
    kvm_describe_insn(bytes, sizeof bytes, 32, 0x1000, text, sizeof text);
    assert_string_equal(text, "b8 34 12 00 00  mov eax, 0x1234");
    kvm_describe_insn(bytes, sizeof bytes, 16, 0x1000, text, sizeof text);
    assert_string_equal(text, "b8 34 12  mov ax, 0x1234");
    kvm_describe_insn(bad, sizeof bad, 64, 0, text, sizeof text);
    assert_string_equal(text, "06  (not an instruction)");
    kvm_describe_insn(bytes, sizeof bytes, 32, 0, small, sizeof small);
    assert_int_equal(strlen(small), sizeof small - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(missing_device),    cmocka_unit_test(not_a_kvm_device),
        cmocka_unit_test(directory),         cmocka_unit_test(no_permission),
        cmocka_unit_test(missing_extension), cmocka_unit_test(entry_failures),
        cmocka_unit_test(suberrors),         cmocka_unit_test(instructions),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
