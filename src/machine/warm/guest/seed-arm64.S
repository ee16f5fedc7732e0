// Reads 64 hexadecimal digits from standard input, credits their 256 bits to the pool of the kernel, and has its
// generator reseed at once.
// Made by: aarch64-linux-gnu-as -o seed.o seed-arm64.S && aarch64-linux-gnu-ld -N -s -o seed-arm64.bin seed.o
.globl _start
_start:
    sub sp, sp, #80
    mov w0, #256
    str w0, [sp]
    mov w0, #64
    str w0, [sp, #4]
    mov x0, #0
    add x1, sp, #8
    mov x2, #64
    mov x8, #63
    svc #0
    cmp x0, #64
    b.ne fail
    mov x0, #-100
    adr x1, path
    mov x2, #1
    mov x3, #0
    mov x8, #56
    svc #0
    cmp x0, #0
    b.lt fail
    mov x19, x0
    movz w1, #0x5203
    movk w1, #0x4008, lsl #16
    mov x2, sp
    mov x8, #29
    svc #0
    cmp x0, #0
    b.lt fail
    mov x0, x19
    mov w1, #0x5207
    mov x2, #0
    mov x8, #29
    svc #0
    mov x0, #0
    b end
fail:
    mov x0, #1
end:
    mov x8, #93
    svc #0
path: .asciz "/dev/urandom"
