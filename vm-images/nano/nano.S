# A whole guest in one sector: the BIOS loads these 512 bytes at 0x7c00 and jumps there, in 16-bit
# real mode. Its first instructions write one byte to QEMU's debug console (I/O port 0xe9), so the
# time to it is what the hypervisor and the firmware cost, with no operating system at all.

        .code16
        .globl  _start
_start: mov     $'n', %al
        out     %al, $0xe9
        mov     $'\n', %al
        out     %al, $0xe9
        cli                             # no interrupt wakes it: it costs no CPU from here on
stop:   hlt
        jmp     stop

        .org    510
        .word   0xaa55                  # what makes a sector bootable: bytes 55 aa, little-endian
