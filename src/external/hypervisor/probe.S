# The firmware of the acceleration probe: real mode, protected mode, long mode with paging, a stack, then the
# exit port. Made into probe.bin by: gcc -c probe.S -o probe.o && objcopy -O binary -j .text probe.o probe.bin
.set BASE, 0xffff0000
.code16
start:
    cli
    lgdtl %cs:(gdtr - start)
    mov %cr0, %eax
    or $1, %eax
    mov %eax, %cr0
    ljmpl $8, $(BASE + prot - start)
.code32
prot:
    mov $16, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov $0x8000, %esp
    mov $0x1000, %edi
    xor %eax, %eax
    mov $0x1000, %ecx
    rep stosl
    movl $0x2003, 0x1000
    movl $0x3003, 0x2000
    movl $0x4003, 0x2018
    movl $0x83, 0x3000
    movl $0xffe00083, 0x4ff8
    mov $0x1000, %eax
    mov %eax, %cr3
    mov %cr4, %eax
    or $0x20, %eax
    mov %eax, %cr4
    mov $0xc0000080, %ecx
    rdmsr
    or $0x100, %eax
    wrmsr
    mov %cr0, %eax
    or $0x80000000, %eax
    mov %eax, %cr0
    ljmpl $24, $(BASE + long - start)
.code64
long:
    mov $1000, %ecx
1:  push %rcx
    pop %rax
    loop 1b
    mov $0x10, %al
    out %al, $0xf4
2:  hlt
    jmp 2b
.balign 8
gdt:
    .quad 0
    .quad 0x00cf9a000000ffff
    .quad 0x00cf92000000ffff
    .quad 0x00af9a000000ffff
gdtr:
    .word 31
    .long BASE + gdt - start
