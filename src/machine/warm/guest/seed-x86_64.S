# Reads 64 hexadecimal digits from standard input, credits their 256 bits to the pool of the kernel, and has its
# generator reseed at once.
# Made by: gcc -nostdlib -static -Wl,-N,--build-id=none,-z,noseparate-code -s -o seed-x86_64.bin seed-x86_64.S
.globl _start
_start:
    lea -72(%rsp), %rsp
    movl $256, (%rsp)
    movl $64, 4(%rsp)
    xor %eax, %eax
    xor %edi, %edi
    lea 8(%rsp), %rsi
    mov $64, %edx
    syscall
    cmp $64, %eax
    jne fail
    mov $2, %eax
    lea path(%rip), %rdi
    mov $1, %esi
    syscall
    test %eax, %eax
    js fail
    mov %eax, %ebx
    mov %eax, %edi
    mov $16, %eax
    mov $0x40085203, %esi
    mov %rsp, %rdx
    syscall
    test %eax, %eax
    js fail
    mov $16, %eax
    mov %ebx, %edi
    mov $0x5207, %esi
    xor %edx, %edx
    syscall
    xor %edi, %edi
    jmp end
fail:
    mov $1, %edi
end:
    mov $60, %eax
    syscall
path: .asciz "/dev/urandom"
