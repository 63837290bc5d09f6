/*
 * The payload of every arm of the benchmark: its first act is to signal one byte.
 *
 *   probe                     write one line to standard output, exit 0
 *   probe fifo PATH           write it to PATH, which is opened write-only, exit 0
 *   probe stay [PATH]         the same two, then sleep until nobody listens any more
 *   probe ask                 ask the kernel for what only a privileged process may do, in ways that
 *                             change nothing; one line each, "ask NAME ERRNO"
 *   probe debugcon            as a machine's init: write it to I/O port 0xe9, then wait for ever,
 *                             so that the host measures the end by destroying the machine
 *   probe debugcon-reboot     the same, then end the machine (see reboot=t on its command line)
 *   probe pour                in a machine: copy standard input to that port, then write a zero byte
 *   probe port                as a service of a machine: write it to that port, exit 0
 *   probe serve NUMBER        write it to standard output as soon as TCP port NUMBER is open on all
 *                             addresses; then answer each connection with "r", for ever
 *   probe serve NUMBER port   the same as a service of a machine, which is told on I/O port 0xe9
 *
 * The line is "p mono_ns=N" (of `serve`: "r mono_ns=N"): N is CLOCK_MONOTONIC in nanoseconds. A
 * container has the host's clock; in a machine it is the guest kernel's own uptime, which tells when
 * that kernel began.
 *
 * No libc and no headers: nothing runs before the first line of ours, and the compiler alone
 * suffices to build it. System call numbers: arch/x86/entry/syscalls/syscall_64.tbl and
 * include/uapi/asm-generic/unistd.h (aarch64).
 */

#if defined(__x86_64__)
enum { SYS_read = 0, SYS_write = 1, SYS_close = 3, SYS_pause = 34, SYS_getpid = 39, SYS_socket = 41,
       SYS_accept = 43, SYS_bind = 49, SYS_listen = 50, SYS_syslog = 103, SYS_settimeofday = 164,
       SYS_swapon = 167, SYS_reboot = 169, SYS_sethostname = 170, SYS_ioperm = 173,
       SYS_init_module = 175, SYS_clock_gettime = 228, SYS_exit_group = 231, SYS_kexec_load = 246,
       SYS_openat = 257, SYS_ppoll = 271, SYS_unshare = 272, SYS_bpf = 321 };
#elif defined(__aarch64__)
enum { SYS_openat = 56, SYS_close = 57, SYS_read = 63, SYS_write = 64, SYS_ppoll = 73,
       SYS_exit_group = 94, SYS_unshare = 97, SYS_kexec_load = 104, SYS_init_module = 105,
       SYS_clock_gettime = 113, SYS_syslog = 116, SYS_sethostname = 161, SYS_settimeofday = 170,
       SYS_socket = 198, SYS_bind = 200, SYS_listen = 201, SYS_accept = 202, SYS_swapon = 224,
       SYS_bpf = 280 };
#else
#error "the probe knows x86-64 and aarch64"
#endif

enum { SYS_io_uring_setup = 425, SYS_fsopen = 430 }; /* the same numbers everywhere */

enum { CLOCK_MONOTONIC = 1, AT_FDCWD = -100, O_WRONLY = 1, STDIN = 0, STDOUT = 1, STDERR = 2,
       EINTR = 4, AF_INET = 2, AF_INET6 = 10, SOCK_STREAM = 1, BACKLOG = 64,
       CLONE_NEWUSER = 0x10000000, SYSLOG_ACTION_READ_ALL = 3, BPF_PROG_LOAD = 5 };

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

static void print(int fd, const char *text)
{
    long length = 0;
    while (text[length])
        length++;
    call(SYS_write, fd, (long)text, length, 0);
}

static void say(const char *text)
{
    print(STDERR, text);
}

struct line {
    char text[40];
    int length;
};

/* "p mono_ns=N\n", N taken here. */
static struct line clock_line(char letter)
{
    struct { long seconds, nanoseconds; } now = {0, 0};
    struct line line = {"p mono_ns=", 10};
    line.text[0] = letter;
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
static void tell(int fd, const struct line *line)
{
    long written;
    do
        written = call(SYS_write, fd, (long)line->text, line->length, 0);
    while (written == -EINTR);
    if (written != line->length) {
        say("probe: nobody could be told: write failed\n");
        leave(1);
    }
}

/* A pipe without a reader is an error, which poll always reports: whoever started a payload that
 * stays cannot leave it behind, not even by kill -9.
 */
static __attribute__((noreturn)) void signal_on(int fd, const struct line *line, int stays)
{
    struct { int fd; short events, revents; } nobody = {fd, 0, 0};

    tell(fd, line);
    while (stays && call(SYS_ppoll, (long)&nobody, 1, 0, 0) == -EINTR)
        ;
    leave(0);
}

#if defined(__x86_64__)
static void out(char byte)
{
    __asm__ volatile("outb %0, %1" : : "a"(byte), "Nd"((unsigned short)0xe9));
}

/* The letter at once, then the rest of the line. Returns whether the port is allowed, ioperm(2). */
static int signal_port(char letter)
{
    if (call(SYS_ioperm, 0xe9, 1, 1, 0) != 0) {
        say("probe: ioperm(0xe9, 1, 1) failed: it needs CAP_SYS_RAWIO and no kernel lockdown\n");
        return 0;
    }
    out(letter);
    struct line line = clock_line(letter);
    for (int i = 1; i < line.length; i++)
        out(line.text[i]);
    return 1;
}

static __attribute__((noreturn)) void pour(void)
{
    char bytes[256];
    long count;

    if (call(SYS_ioperm, 0xe9, 1, 1, 0) != 0) {
        say("probe: ioperm(0xe9, 1, 1) failed\n");
        leave(1);
    }
    while ((count = call(SYS_read, STDIN, (long)bytes, sizeof bytes, 0)) > 0 || count == -EINTR)
        for (long i = 0; i < count; i++)
            out(bytes[i]);
    out(0);
    leave(0);
}

/* PID 1 must never return: the kernel would panic. */
static __attribute__((noreturn)) void signal_host(int ends_machine)
{
    signal_port('p');
    if (ends_machine) /* reboot(2): LINUX_REBOOT_MAGIC1, MAGIC2, CMD_RESTART */
        call(SYS_reboot, 0xfee1dead, 672274793, 0x01234567, 0);
    for (;;)
        call(SYS_pause, 0, 0, 0, 0);
}
#endif

/* 1 to 65535; 0 for anything else. */
static unsigned port_number(const char *text)
{
    unsigned number = 0;
    for (; *text >= '0' && *text <= '9' && number < 65536; text++)
        number = number * 10 + (unsigned)(*text - '0');
    return *text || number > 65535 ? 0 : number;
}

/* A TCP socket that listens on all addresses, IPv4's as well: an IPv6 socket takes both (ipv6(7)).
 * Negative where it cannot be. Port and address are in network byte order.
 */
static long listening(unsigned number)
{
    struct { unsigned short family, port; unsigned rest[6]; } address = {AF_INET6, 0, {0}};
    long size = 28, fd = call(SYS_socket, AF_INET6, SOCK_STREAM, 0, 0);

    address.port = (unsigned short)(number >> 8 | number << 8);
    if (fd < 0) {
        address.family = AF_INET;
        size = 16;
        fd = call(SYS_socket, AF_INET, SOCK_STREAM, 0, 0);
    }
    if (fd >= 0 && (call(SYS_bind, fd, (long)&address, size, 0) < 0 ||
                    call(SYS_listen, fd, BACKLOG, 0, 0) < 0))
        return -1;
    return fd;
}

static __attribute__((noreturn)) void serve(unsigned number, int is_machine)
{
    long fd = listening(number);

    if (fd < 0) {
        say("probe: this TCP port cannot be opened\n");
        leave(1);
    }
#if defined(__x86_64__)
    if (is_machine && !signal_port('r'))
        leave(1);
#endif
    if (!is_machine) {
        struct line line = clock_line('r');
        tell(STDOUT, &line);
    }
    for (;;) {
        long connection = call(SYS_accept, fd, 0, 0, 0);
        if (connection >= 0) {
            call(SYS_write, connection, (long)"r", 1, 0);
            call(SYS_close, connection, 0, 0, 0);
        }
    }
}

/* The kernel looks at the permission first, and then finds that there is nothing to do. */
static __attribute__((noreturn)) void ask(void)
{
    static const struct { const char *name; long number, a, b, c, d; } asked[] = {
        {"settimeofday", SYS_settimeofday, 0, 0, 0, 0},
        {"sethostname", SYS_sethostname, 0, -1, 0, 0},
        {"init_module", SYS_init_module, 0, 0, 0, 0},
        {"kexec_load", SYS_kexec_load, 0, 0, 0, -1},
        {"swapon", SYS_swapon, 0, 0, 0, 0},
        {"fsopen", SYS_fsopen, 0, -1, 0, 0},
        {"syslog", SYS_syslog, SYSLOG_ACTION_READ_ALL, (long)asked, 0, 0},
        {"bpf", SYS_bpf, BPF_PROG_LOAD, 0, 0, 0},
        {"io_uring_setup", SYS_io_uring_setup, 0, 0, 0, 0},
#if defined(__x86_64__)
        {"ioperm", SYS_ioperm, 0x80, 1, 1, 0},
#endif
        {"unshare", SYS_unshare, CLONE_NEWUSER, 0, 0, 0}, /* last: it changes the asker */
    };
    for (unsigned long i = 0; i < sizeof asked / sizeof *asked; i++) {
        long error = -call(asked[i].number, asked[i].a, asked[i].b, asked[i].c, asked[i].d);
        char digits[] = {'0' + (char)(error / 100 % 10), '0' + (char)(error / 10 % 10),
                         '0' + (char)(error % 10), '\n', 0};
        print(STDOUT, "ask ");
        print(STDOUT, asked[i].name);
        print(STDOUT, " ");
        print(STDOUT, error > 0 ? digits : "000\n");
    }
    leave(0);
}

/* `stack` is what the kernel leaves there: the number of arguments, then their addresses. */
__attribute__((noreturn, used)) void start(const long *stack)
{
    long count = stack[0];
    char *const *arguments = (char *const *)(stack + 1);

    if (count < 2) {
        struct line line = clock_line('p');
        signal_on(STDOUT, &line, 0);
    }
    int stays = same(arguments[1], "stay");
    if (count == 2 && stays) {
        struct line line = clock_line('p');
        signal_on(STDOUT, &line, 1);
    }
    if (count == 2 && same(arguments[1], "ask"))
        ask();
#if defined(__x86_64__)
    int ends_machine = same(arguments[1], "debugcon-reboot");
    if (count == 2 && (ends_machine || same(arguments[1], "debugcon"))) {
        /* Only the first process: on a real host reboot(2) would be one. */
        if (call(SYS_getpid, 0, 0, 0, 0) == 1)
            signal_host(ends_machine);
        say("probe: debugcon is for the init of a virtual machine\n");
        leave(2);
    }
    if (count == 2 && same(arguments[1], "pour"))
        pour();
    if (count == 2 && same(arguments[1], "port"))
        leave(!signal_port('p'));
#endif
    if ((count == 3 || (count == 4 && same(arguments[3], "port"))) && same(arguments[1], "serve") &&
        port_number(arguments[2]))
        serve(port_number(arguments[2]), count == 4);
    if (count == 3 && (stays || same(arguments[1], "fifo"))) {
        struct line line = clock_line('p');
        long fd = call(SYS_openat, AT_FDCWD, (long)arguments[2], O_WRONLY, 0);
        if (fd >= 0)
            signal_on(fd, &line, stays);
        say("probe: cannot open for writing: ");
        say(arguments[2]);
        say("\n");
        leave(1);
    }
    say("usage: probe | probe fifo PATH | probe stay [PATH] | probe ask | probe serve NUMBER; in a "
        "machine: probe debugcon (as init) | probe debugcon-reboot (as init) | probe port | "
        "probe serve NUMBER port | probe pour\n");
    leave(2);
}

#if defined(__x86_64__)
__asm__(".globl _start\n_start: xor %ebp, %ebp\n mov %rsp, %rdi\n and $-16, %rsp\n call start\n");
#else
__asm__(".globl _start\n_start: mov x0, sp\n bl start\n");
#endif
