"""The filter that a container gets unless told otherwise: what docker's lets pass, by purpose.

Everything that is not named fails with EPERM. Left out are calls that act on the whole machine
(clock, modules, swap, reboot), on other namespaces (mount, setns, unshare), on the kernel's own
memory (keyctl, userfaultfd, io_uring, bpf, perf_event_open), and old doors nobody uses any more.
A capability brings back the calls that are of no use without it.

The oracle is moby's profiles/seccomp/default_linux.go; tests/test_seccomp.py compares.
"""

from __future__ import annotations

import errno

ALLOWED = {
    "files": """
        open openat openat2 creat close close_range read readv pread64 preadv preadv2 write writev
        pwrite64 pwritev pwritev2 lseek _llseek sendfile sendfile64 copy_file_range splice tee
        vmsplice dup dup2 dup3 fcntl fcntl64 flock ioctl fsync fdatasync sync syncfs sync_file_range
        sync_file_range2 arm_sync_file_range fallocate ftruncate ftruncate64 truncate truncate64
        fadvise64 fadvise64_64 arm_fadvise64_64 readahead pipe pipe2 memfd_create memfd_secret
        cachestat""",
    "names and attributes of files": """
        access faccessat faccessat2 stat stat64 lstat lstat64 fstat fstat64 newfstatat fstatat64
        statx statfs statfs64 fstatfs fstatfs64 statmount listmount getdents getdents64 getcwd chdir
        fchdir chmod fchmod fchmodat fchmodat2 chown chown32 fchown fchown32 fchownat lchown
        lchown32 umask utime utimes futimesat utimensat utimensat_time64 link linkat symlink
        symlinkat readlink readlinkat rename renameat renameat2 unlink unlinkat mkdir mkdirat rmdir
        mknod mknodat name_to_handle_at getxattr lgetxattr fgetxattr getxattrat listxattr llistxattr
        flistxattr listxattrat setxattr lsetxattr fsetxattr setxattrat removexattr lremovexattr
        fremovexattr removexattrat inotify_init inotify_init1 inotify_add_watch inotify_rm_watch
        fanotify_mark""",
    "waiting": """
        select _newselect pselect6 pselect6_time64 poll ppoll ppoll_time64 epoll_create
        epoll_create1 epoll_ctl epoll_ctl_old epoll_wait epoll_wait_old epoll_pwait epoll_pwait2
        eventfd eventfd2 io_setup io_destroy io_submit io_cancel io_getevents io_pgetevents
        io_pgetevents_time64""",
    "memory": """
        brk mmap mmap2 munmap mremap mprotect madvise mincore msync mlock mlock2 mlockall munlock
        munlockall remap_file_pages membarrier mseal pkey_alloc pkey_free pkey_mprotect
        map_shadow_stack process_mrelease""",
    "processes and threads": """
        fork vfork execve execveat exit exit_group wait4 waitid waitpid getpid getppid gettid
        getpgid getpgrp getsid setpgid setsid set_tid_address set_robust_list get_robust_list
        rseq set_thread_area get_thread_area prctl arch_prctl modify_ldt set_tls cacheflush
        breakpoint pidfd_open pidfd_send_signal futex futex_time64 futex_waitv futex_wait futex_wake
        futex_requeue restart_syscall uretprobe""",
    "another process of the same user (yama and ptrace's own checks still hold)": """
        ptrace process_vm_readv process_vm_writev""",
    "signals": """
        kill tkill tgkill rt_sigaction rt_sigprocmask rt_sigpending rt_sigqueueinfo
        rt_tgsigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64
        sigaltstack sigprocmask sigreturn signalfd signalfd4 pause alarm""",
    "users, limits, scheduling": """
        getuid getuid32 geteuid geteuid32 getgid getgid32 getegid getegid32 getresuid getresuid32
        getresgid getresgid32 getgroups getgroups32 setuid setuid32 setgid setgid32 setreuid
        setreuid32 setregid setregid32 setresuid setresuid32 setresgid setresgid32 setfsuid
        setfsuid32 setfsgid setfsgid32 setgroups setgroups32 capget capset getrlimit ugetrlimit
        setrlimit prlimit64 getrusage times getpriority setpriority ioprio_get ioprio_set getcpu
        sched_yield sched_getaffinity sched_setaffinity sched_getattr sched_setattr sched_getparam
        sched_setparam sched_getscheduler sched_setscheduler sched_get_priority_max
        sched_get_priority_min sched_rr_get_interval sched_rr_get_interval_time64 uname sysinfo
        getrandom seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self""",
    "time (to set the clock needs CAP_SYS_TIME in the kernel)": """
        time gettimeofday clock_gettime clock_gettime64 clock_getres clock_getres_time64
        clock_nanosleep clock_nanosleep_time64 nanosleep adjtimex clock_adjtime clock_adjtime64
        getitimer setitimer timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64
        timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64
        timerfd_settime timerfd_settime64""",
    "sockets (socketcall hides its arguments: i386 alone, where old C libraries know no other)": """
        socketcall socketpair bind connect listen accept accept4 getsockname getpeername getsockopt
        setsockopt send sendto sendmsg sendmmsg recv recvfrom recvmsg recvmmsg recvmmsg_time64
        shutdown""",
    "System V and POSIX message queues, semaphores, shared memory": """
        ipc msgget msgsnd msgrcv msgctl semget semop semctl semtimedop semtimedop_time64
        shmget shmat shmdt shmctl mq_open mq_unlink mq_notify mq_getsetattr mq_timedsend
        mq_timedsend_time64 mq_timedreceive mq_timedreceive_time64""",
}

WITH_CAPABILITY = {
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_SYS_ADMIN": """
        bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie
        lsm_get_self_attr lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount
        open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount
        umount2 unshare""",
    "CAP_BPF": "bpf",
    "CAP_PERFMON": "perf_event_open",
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "init_module finit_module delete_module",
    "CAP_SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise",
    "CAP_SYS_RAWIO": "iopl ioperm",
    "CAP_SYS_TIME": "settimeofday stime clock_settime clock_settime64",
    "CAP_SYS_TTY_CONFIG": "vhangup",
    "CAP_SYSLOG": "syslog",
}

# CLONE_NEW* as far as clone(2) takes them (CLONE_NEWTIME is among the bits of its exit signal).
NAMESPACE_FLAGS = 0x7E020000
# PER_LINUX, PER_LINUX32, each also with UNAME26; 0xffffffff asks. Not ADDR_NO_RANDOMIZE, not
# READ_IMPLIES_EXEC, which would undo protections.
PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
AF_VSOCK = 40  # would reach the hypervisor, past every network namespace


def default_profile(capabilities) -> dict:
    """The OCI `linux.seccomp` object for a process with these capabilities (names)."""
    capabilities = set(capabilities)
    allowed = [name for names in ALLOWED.values() for name in names.split()]
    for capability, names in WITH_CAPABILITY.items():
        if capability in capabilities:
            allowed += names.split()
    rules = [
        _allow(allowed),
        *(_allow(["personality"], _test("EQ", value)) for value in PERSONALITIES),
        # "domain is not AF_VSOCK", as: one of its six lowest bits differs. docker compares all 64
        # bits for inequality, but socket(2) takes an int: setting bit 32 passes that.
        *(
            _allow(["socket"], _test("MASKED_EQ", 1 << bit, ~AF_VSOCK & 1 << bit))
            for bit in range(6)
        ),
    ]
    if "CAP_SYS_ADMIN" not in capabilities:
        rules.append(_allow(["clone"], _test("MASKED_EQ", NAMESPACE_FLAGS, 0)))
        # clone3's flags lie in memory, out of a filter's sight. ENOSYS: the C library uses clone.
        rules.append(
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS}
        )  # fmt: skip
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": errno.EPERM,
        "architectures": [
            "SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64",
            "SCMP_ARCH_ARM",
        ],
        "syscalls": rules,
    }  # fmt: skip


def _allow(names, *tests) -> dict:
    return {"names": names, "action": "SCMP_ACT_ALLOW", "args": list(tests)}


def _test(operator: str, value: int, second: int = 0) -> dict:
    return {"index": 0, "value": value, "valueTwo": second, "op": f"SCMP_CMP_{operator}"}
