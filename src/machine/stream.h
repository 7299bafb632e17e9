/* Streams behind serial ports: descriptors, ptys. Inside src/machine only. */
#ifndef TRIODE_MACHINE_STREAM_H
#define TRIODE_MACHINE_STREAM_H

#include "device/device.h"
#include "machine/loop.h"
#include "machine/machine.h"

#define STREAM_OUT_BYTES (64 * KiB)
#define STREAM_IN_BYTES 4096

struct fd_stream {
    struct stream stream; /* what the device sees */
    struct machine_serial config;
    struct loop *loop;
    struct loop_fd in, out;   /* out is a duplicate, so that both can be waited for */
    bool in_plain, out_plain; /* plain files: always ready, epoll refuses them */
    bool in_ended, in_paused;
    struct device_timer gather;
    int slave; /* of a pty, kept open so that the master lives without a reader; else -1 */
    char path[64];

    pthread_mutex_t lock;
    u8 out_data[STREAM_OUT_BYTES]; /* ring */
    u64 out_head, out_tail;        /* bytes ever put in and taken out */
    bool out_lost;                 /* writing failed: output goes nowhere from now on */
    bool device_waits;             /* for writable() */
    bool gathering;                /* the timer is armed */
    bool room, resume;             /* the device has room again; fd_stream_resume was called */

    u8 in_data[STREAM_IN_BYTES]; /* loop's thread only */
    size_t in_len;
};

int fd_stream_open(struct fd_stream *s, const struct machine_serial *config, struct loop *loop,
                   struct err *err);
/* The loop was woken: move what there is to move. Loop's thread. */
void fd_stream_service(struct fd_stream *s);
/* Reads again after a background job came back to the foreground. Any thread. */
void fd_stream_resume(struct fd_stream *s);
/* Writes out what is left, waiting for a slow reader at most until @deadline_ns. */
void fd_stream_flush(struct fd_stream *s, u64 deadline_ns);
void fd_stream_close(struct fd_stream *s);

#endif
