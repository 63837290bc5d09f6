/*
 * The payload of every arm of the benchmark: its first act is to signal one byte.
 *
 *   probe                     write one line to standard output, exit 0
 *   probe fifo PATH           write it to PATH, which is opened write-only, exit 0
 *   probe debugcon            as a machine's init: write it to I/O port 0xe9, then wait for ever,
 *                             so that the host measures the end by destroying the machine
 *   probe debugcon-reboot     the same, then end the machine (see reboot=t on its command line)
 *
 * The line is "p mono_ns=N": N is CLOCK_MONOTONIC in nanoseconds. A container has the host's clock;
 * in a machine it is the guest kernel's own uptime, which tells when that kernel began.
 *
 * No libc and no headers: nothing runs before the first line of ours, and the compiler alone
 * suffices to build it. System call numbers: arch/x86/entry/syscalls/syscall_64.tbl and
 * include/uapi/asm-generic/unistd.h (aarch64).
 */

#if defined(__x86_64__)
enum { SYS_write = 1, SYS_pause = 34, SYS_getpid = 39, SYS_reboot = 169, SYS_ioperm = 173,
       SYS_clock_gettime = 228, SYS_exit_group = 231, SYS_openat = 257 };
#elif defined(__aarch64__)
enum { SYS_openat = 56, SYS_write = 64, SYS_exit_group = 94, SYS_clock_gettime = 113 };
#else
#error "the probe knows x86-64 and aarch64"
#endif

enum { CLOCK_MONOTONIC = 1, AT_FDCWD = -100, O_WRONLY = 1, STDOUT = 1, STDERR = 2, EINTR = 4 };

static long call(long number, long a, long b, long c, long d)
{
#if defined(__x86_64__)
    long result;
    register long r10 __asm__("r10") = d;
    __asm__ volatile("syscall" : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
    return result;
#else
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
    return x0;
#endif
}

static __attribute__((noreturn)) void leave(int code)
{
    for (;;)
        call(SYS_exit_group, code, 0, 0, 0);
}

static int same(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

static void say(const char *text)
{
    long length = 0;
    while (text[length])
        length++;
    call(SYS_write, STDERR, (long)text, length, 0);
}

struct line {
    char text[40];
    int length;
};

/* "p mono_ns=N\n", N taken here. */
static struct line clock_line(void)
{
    struct { long seconds, nanoseconds; } now = {0, 0};
    struct line line = {"p mono_ns=", 10};
    char digits[20];
    int count = 0;

    call(SYS_clock_gettime, CLOCK_MONOTONIC, (long)&now, 0, 0);
    unsigned long ns = (unsigned long)now.seconds * 1000000000 + (unsigned long)now.nanoseconds;
    do
        digits[count++] = '0' + ns % 10;
    while (ns /= 10);
    while (count)
        line.text[line.length++] = digits[--count];
    line.text[line.length++] = '\n';
    return line;
}

/* One write: the reader is woken once, and its first byte is the whole line's. */
static __attribute__((noreturn)) void signal_on(int fd, const struct line *line)
{
    long written;
    do
        written = call(SYS_write, fd, (long)line->text, line->length, 0);
    while (written == -EINTR);
    if (written == line->length)
        leave(0);
    say("probe: nobody could be told: write failed\n");
    leave(1);
}

#if defined(__x86_64__)
static void out(char byte)
{
    __asm__ volatile("outb %0, %1" : : "a"(byte), "Nd"((unsigned short)0xe9));
}

/* PID 1 must never return: the kernel would panic. */
static __attribute__((noreturn)) void signal_host(int ends_machine)
{
    if (call(SYS_ioperm, 0xe9, 1, 1, 0) == 0) { /* ioperm(2) */
        out('p');
        struct line line = clock_line();
        for (int i = 1; i < line.length; i++)
            out(line.text[i]);
    } else {
        say("probe: ioperm(0xe9, 1, 1) failed: it needs CAP_SYS_RAWIO and no kernel lockdown\n");
    }
    if (ends_machine) /* reboot(2): LINUX_REBOOT_MAGIC1, MAGIC2, CMD_RESTART */
        call(SYS_reboot, 0xfee1dead, 672274793, 0x01234567, 0);
    for (;;)
        call(SYS_pause, 0, 0, 0, 0);
}
#endif

/* `stack` is what the kernel leaves there: the number of arguments, then their addresses. */
__attribute__((noreturn, used)) void start(const long *stack)
{
    long count = stack[0];
    char *const *arguments = (char *const *)(stack + 1);

    if (count < 2) {
        struct line line = clock_line();
        signal_on(STDOUT, &line);
    }
#if defined(__x86_64__)
    int ends_machine = same(arguments[1], "debugcon-reboot");
    if (count == 2 && (ends_machine || same(arguments[1], "debugcon"))) {
        /* Only the first process: on a real host reboot(2) would be one. */
        if (call(SYS_getpid, 0, 0, 0, 0) == 1)
            signal_host(ends_machine);
        say("probe: debugcon is for the init of a virtual machine\n");
        leave(2);
    }
#endif
    if (count == 3 && same(arguments[1], "fifo")) {
        struct line line = clock_line();
        long fd = call(SYS_openat, AT_FDCWD, (long)arguments[2], O_WRONLY, 0);
        if (fd >= 0)
            signal_on(fd, &line);
        say("probe: cannot open for writing: ");
        say(arguments[2]);
        say("\n");
        leave(1);
    }
    say("usage: probe | probe fifo PATH | probe debugcon | probe debugcon-reboot (as init)\n");
    leave(2);
}

#if defined(__x86_64__)
__asm__(".globl _start\n_start: xor %ebp, %ebp\n mov %rsp, %rdi\n and $-16, %rsp\n call start\n");
#else
__asm__(".globl _start\n_start: mov x0, sp\n bl start\n");
#endif
