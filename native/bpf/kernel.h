/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * The kernel's structures, only the fields we read. The loader relocates every access to the running kernel's
 * layout (CO-RE), so order and size here mean nothing, names and types everything.
 */
#ifndef RECOVERY_KERNEL_H
#define RECOVERY_KERNEL_H

#include <linux/types.h>
#include <linux/bpf.h>

typedef __u8 uint8_t;
typedef __u16 uint16_t;
typedef __u32 uint32_t;
typedef __u64 uint64_t;
typedef __s32 int32_t;
typedef __s64 int64_t;

#define AF_UNIX 1
#define AF_INET 2
#define AF_INET6 10
#define AF_NETLINK 16
#define AF_ALG 38
#define SOCK_STREAM 1
#define SOCK_DGRAM 2
#define SOCK_SEQPACKET 5
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define IPPROTO_UDPLITE 136
#define IPPROTO_MPTCP 262
#define MSG_OOB 1
#define MSG_PEEK 2
#define MSG_ERRQUEUE 0x2000
#define PF_EXITING 4
#define EAGAIN 11
#define EFAULT 14
#define EPIPE 32
#define ECONNRESET 104
#define RCV_SHUTDOWN 1
#define SEND_SHUTDOWN 2
#define TCPF(state) (1u << (state))

enum { /* include/net/tcp_states.h, a user-visible ABI */
       TCP_ESTABLISHED = 1,
       TCP_SYN_SENT = 2,
       TCP_SYN_RECV = 3,
       TCP_FIN_WAIT1 = 4,
       TCP_FIN_WAIT2 = 5,
       TCP_TIME_WAIT = 6,
       TCP_CLOSE = 7,
       TCP_CLOSE_WAIT = 8,
       TCP_LAST_ACK = 9,
       TCP_LISTEN = 10,
       TCP_CLOSING = 11,
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

enum sock_flags { SOCK_DEAD, SOCK_DONE };

struct sock_common {
    uint16_t skc_dport;
    unsigned short skc_family;
    volatile unsigned char skc_state;
    unsigned long skc_flags;
};
struct socket;
struct sock {
    struct sock_common __sk_common;
    struct socket *sk_socket;
    uint16_t sk_protocol;
    uint16_t sk_type;
    uint8_t sk_kern_sock : 1;
    uint8_t sk_shutdown;
    int sk_err;
    int sk_peek_off;
};
typedef struct {
    int counter;
} atomic_t;
typedef struct {
    int64_t counter;
} atomic64_t;
typedef struct {
    atomic64_t refcnt;
} file_ref_t;
struct file {
    unsigned int f_flags;
    file_ref_t f_ref; /* one less than there are references */
};
struct files_struct {
    atomic_t count;
};
struct socket {
    struct sock *sk;
    struct file *file;
};
struct tcp_ulp_ops;
struct inet_connection_sock {
    const struct tcp_ulp_ops *icsk_ulp_ops;
};
struct tcp_sock {
    struct inet_connection_sock inet_conn;
    uint8_t repair : 1;
    uint32_t copied_seq;
    uint32_t write_seq;
    uint32_t rcv_nxt;
    uint32_t snd_una;
    uint32_t snd_nxt;
    uint32_t urg_seq;
    uint64_t bytes_received;
    uint64_t bytes_acked;
    uint64_t bytes_sent;
    uint64_t bytes_retrans;
};
struct sk_buff;
struct sockaddr_un {
    char sun_path[108];
};
typedef struct {
    atomic_t refs;
} refcount_t;
struct unix_address {
    refcount_t refcnt;
    int len;
    struct sockaddr_un name[];
};
struct unix_sock {
    struct unix_address *addr;
    struct sock *peer;
    struct sk_buff *oob_skb;
    int inq_len;
};
struct task_struct {
    unsigned int flags;
    int exit_code;
    int tgid;
    struct files_struct *files;
};
struct seq_file;
struct bpf_iter_meta {
    struct seq_file *seq;
};
struct bpf_iter__task_file {
    struct bpf_iter_meta *meta;
    struct task_struct *task;
    uint32_t fd;
    struct file *file;
};
struct bpf_map;
struct bpf_iter__bpf_sk_storage_map {
    struct bpf_iter_meta *meta;
    struct bpf_map *map;
    struct sock *sk;
    void *value;
};
struct bpf_iter__tcp {
    struct bpf_iter_meta *meta;
    struct sock_common *sk_common;
    unsigned int uid;
};
struct bpf_iter__unix {
    struct bpf_iter_meta *meta;
    struct unix_sock *unix_sk;
    unsigned int uid;
};

#pragma clang attribute pop

#endif
