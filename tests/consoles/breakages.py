"""What is broken, how, and the cause it must yield: data for `record.py`. One entry, one console."""

import dataclasses
import json
import os
import pathlib
import re
import socket
import struct
import subprocess
import time
import typing

OLD, NEW, PORTED = ("6.1", "12"), ("6.12", "13"), ("6.12-bpo", "12")
ALL = []


def NEVER(watch):
    """Nothing is waited for but the deadline."""
    return False


@dataclasses.dataclass
class Breakage:
    cause: str
    name: str
    how: str
    make: typing.Callable = lambda machine: None
    on: tuple = OLD
    deadline: int = 75
    done: typing.Callable = NEVER
    then: typing.Callable = None
    ended: str = None
    facts: typing.Callable = None
    host: typing.Callable = None

    waits = property(lambda self: self.done is not NEVER)
    kernel = property(lambda self: self.on[0])
    debian = property(lambda self: self.on[1])


def add(cause, name, how, make=lambda machine: None, ons=(OLD, NEW), **rest):
    for on in ons:
        suffix = f"-{on[0]}" if len(ons) > 1 else ""
        ALL.append(Breakage(cause, name + suffix, how, make, on, **rest))


def change(**values):
    def make(machine):
        for key, value in values.items():
            setattr(machine, key, value)

    return make


def cmdline(*words, **values):
    def make(machine):
        machine.cmdline.update({key.replace("_", "."): value for key, value in values.items()})
        machine.words.extend(words)

    return make


def all_of(*makes):
    def make(machine):
        for one in makes:
            one(machine)

    return make


def says(pattern, after=4):
    """The console says it, and some seconds went by."""
    seen = []

    def done(watch):
        if not seen or seen[0] is not watch:
            if re.search(pattern, watch.text()):
                seen[:] = [watch, time.monotonic()]
            return False
        return time.monotonic() - seen[1] > after

    return done


def greets(watch):
    return watch.greets()


# --- the host -------------------------------------------------------------------------------------------------------


def qemu(*arguments, user=None):
    """What QEMU says when it is started so and ends at once."""

    def host(work, images):
        words = [str(it(work, images)) if callable(it) else it for it in arguments]
        command = ["qemu-system-x86_64", "-display", "none", "-nodefaults", "-S", *words]
        if user:
            os.chmod(work, 0o755)
            command = ["setpriv", f"--reuid={user}", "--clear-groups", *command]
        done = subprocess.run(["timeout", "8", *command], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert done.stderr.strip(), "QEMU said nothing"
        return done.stderr.strip().replace(str(work), "/var/lib/kmt-run/stacks/main").replace(str(images.folder), "/var/lib/kmt-run/images")

    return host


def command(*words):
    def host(work, images):
        done = subprocess.run([it(work, images) if callable(it) else it for it in words], capture_output=True, text=True)
        text = (done.stderr + ("" if done.stderr.strip() else done.stdout)).strip()
        assert text, "it said nothing"
        return text.replace(str(work), "/var/lib/kmt-run/stacks/main")

    return host


def file_of(name, content):
    def make(work, images):
        path = work / name
        path.write_bytes(content)
        return str(path)

    return make


def qcow2(work, images):
    path = work / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "64M"], check=True)
    return path


def truncated(work, images):
    path = qcow2(work, images)
    path.write_bytes(path.read_bytes()[:50])
    return f"file={path},format=qcow2,if=virtio"


def corrupt(work, images):
    path = qcow2(work, images)
    with open(path, "r+b") as file:
        file.seek(72)
        file.write(struct.pack(">Q", 2))
    return f"file={path},format=qcow2,if=virtio"


def lost_backing(work, images):
    base, path = work / "base.qcow2", work / "root.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", base, "64M"], check=True)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", path], check=True)
    base.unlink()
    return f"file={path},format=qcow2,if=virtio"


def locked(work, images):
    path = qcow2(work, images)
    other = subprocess.Popen(["timeout", "12", "qemu-system-x86_64", "-display", "none", "-nodefaults", "-S", "-drive", f"file={path},format=qcow2,if=virtio"])
    time.sleep(3)
    assert other.poll() is None
    return f"file={path},format=qcow2,if=virtio"


def secret(work, images):
    path = qcow2(work, images)
    path.chmod(0o600)
    return f"file={path},format=qcow2,if=virtio"


def taken(work, images):
    holder = socket.socket()
    holder.bind(("127.0.0.1", 0))
    holder.listen()
    taken.holder = holder
    return f"user,id=n,hostfwd=tcp:127.0.0.1:{holder.getsockname()[1]}-:22"


def full_disk(work, images):
    small = work / "small"
    small.mkdir()
    script = f"mount -t tmpfs -o size=1m tmpfs {small} && qemu-img create -f qcow2 -o preallocation=full {small}/root.qcow2 16M"
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True)
    return done.stderr.strip().replace(str(small), "/var/lib/kmt-run/images")


def host(cause, name, how, does):
    ALL.append(Breakage(cause, name, how, host=does))


host("qemu-argument", "machine-type", "a machine type that QEMU does not have", qemu("-M", "q36"))
host("qemu-argument", "device", "a device that QEMU does not have", qemu("-device", "virtio-net-pcie"))
host("qemu-argument", "processor", "a CPU model that QEMU does not have", qemu("-cpu", "EPYC-Neverland"))
host("qemu-argument", "property", "a property that a device does not have", qemu("-device", "virtio-rng-pci,speed=9"))
host("qemu-argument", "option", "an option that QEMU does not have", qemu("-no-such-option"))
host("qemu-argument", "processors", "more processors than the machine type takes", qemu("-M", "q35", "-smp", "999999"))
host("kvm-unusable", "msr", "KVM on a machine whose /dev/kvm cannot run a guest", qemu("-accel", "kvm", "-cpu", "host"))
host("kvm-unusable", "host-cpu", "the host's processor without KVM", qemu("-accel", "tcg", "-cpu", "host"))
host("kvm-unusable", "device", "KVM by a user who may not open /dev/kvm", qemu("-accel", "kvm", user=65534))
host("image-missing", "disk", "a disk that is not there", qemu("-drive", "file=/var/lib/kmt-run/gone.qcow2,format=qcow2,if=virtio"))
host("image-missing", "kernel", "a kernel that is not there", qemu("-kernel", "/var/lib/kmt-run/vmlinuz-gone"))
host("image-missing", "backing-file", "an overlay whose base was removed", qemu("-drive", lost_backing))
host("image-corrupt", "truncated", "a qcow2 of 50 bytes", qemu("-drive", truncated))
host("image-corrupt", "marked", "a qcow2 that QEMU once marked as corrupt", qemu("-drive", corrupt))
host("image-corrupt", "not-qcow2", "a text given as qcow2", qemu("-drive", lambda w, i: f"file={file_of('text', b'hello' * 999)(w, i)},format=qcow2,if=virtio"))
host("image-in-use", "locked", "two QEMUs on one disk", qemu("-drive", locked))
host("permission", "disk", "a disk that QEMU's user may not read", qemu("-drive", secret, user=65534))
host("port-taken", "forward", "a forwarded port on which somebody listens", qemu("-netdev", taken))
host("host-memory", "too-much", "more memory than the host can give", qemu("-m", "8000G", "-M", "q35"))
host("host-disk", "full", "an image made on a full disk", full_disk)
host("wrong-architecture", "kernel-file", "a kernel that is an ELF file of another machine", qemu("-kernel", file_of("vmlinux", b"\x7fELF\x02\x01\x01" + b"\0" * 9 + struct.pack("<HHIQQQIHHHHHH", 2, 183, 1, 0x40000000, 64, 0, 0, 64, 56, 0, 64, 0, 0) + b"\0" * 20000)))
host("libvirt-down", "socket", "a libvirt that does not run", command("virsh", "-c", "qemu+unix:///system?socket=/run/libvirt/gone-sock", "list"))
host("digest-mismatch", "sha256", "an image that was changed", command("sh", "-c", lambda w, i: f"cd {w} && echo one >a && sha256sum a >a.sum && echo two >a && sha256sum -c a.sum"))

TESTS = ("virsh", "-q", "-c", "test:///default")
TWICE = file_of("twice.xml", b"<domain type='test'><name>test</name><uuid>11111111-2222-3333-4444-555555555555</uuid><memory>1024</memory><os><type>hvm</type></os></domain>")
WRONG = file_of("wrong.xml", b"<domain type='test'><name>vm7</name><memory unit='wheelbarrow'>1</memory><os><type>hvm</type></os></domain>")
host("name-taken", "domain", "a machine whose name another has", command(*TESTS, "define", TWICE))
host("qemu-argument", "xml", "a description that libvirt does not understand", command(*TESTS, "define", WRONG))
host("image-missing", "volume", "a volume that is not in the pool", command(*TESTS, "vol-info", "gone.qcow2", "--pool", "default-pool"))
host("host-network", "unknown", "a network that libvirt does not know", command(*TESTS, "net-start", "gone"))
host("qemu-argument", "drive", "a drive of a bus that is not there", qemu("-M", "q35", "-drive", "if=floppy2,file=/dev/null"))
host("qemu-argument", "memory", "memory that is no number", qemu("-m", "lots"))
host("image-missing", "initrd", "an initrd that is not there", qemu("-kernel", lambda w, i: i.kernel("6.1")[0]["vmlinuz"], "-initrd", "/var/lib/kmt-run/initrd-gone"))

SECRET_KERNEL = ("sh", "-c", lambda work, images: f"cp /dev/null {work}/vmlinuz; chmod 600 {work}/vmlinuz; chmod 755 {work}; setpriv --reuid=65534 --clear-groups qemu-system-x86_64 -display none -kernel {work}/vmlinuz")
host("port-taken", "gdb", "a port for the debugger on which somebody listens", qemu("-gdb", lambda w, i: f"tcp:127.0.0.1:{taken(w, i).split(':')[2].split('-')[0]}"))
host("port-taken", "vnc", "a display on which somebody listens", qemu("-vnc", lambda w, i: f"127.0.0.1:{int(taken(w, i).split(':')[2].split('-')[0]) - 5900}"))
host("permission", "kernel", "a kernel that QEMU's user may not read", command(*SECRET_KERNEL))
host("image-missing", "firmware", "a firmware that is not there", qemu("-bios", "gone.bin"))
host("host-network", "bridge", "a bridge that is not there", qemu("-netdev", "bridge,id=n,br=gone0"))
host("host-network", "tap", "a tap device that QEMU's user may not make", qemu("-netdev", "tap,id=n,ifname=tap77,script=no,downscript=no", user=65534))
host("host-memory", "huge-pages", "huge pages that the host does not have", qemu("-m", "512M", "-object", "memory-backend-memfd,id=m,size=512M,hugetlb=on,prealloc=on", "-machine", "q35,memory-backend=m"))
host("host-memory", "limit", "more memory than QEMU may take", command("sh", "-c", "ulimit -v 1500000; exec qemu-system-x86_64 -display none -nodefaults -S -m 4G"))
host("qemu-argument", "topology", "processors that do not fit the topology", qemu("-smp", "3,sockets=2,cores=2,threads=1"))
host("qemu-argument", "feature", "a feature that no processor has", qemu("-cpu", "qemu64,+warp"))
host("qemu-argument", "id-twice", "one id for two devices", qemu("-M", "q35", "-device", "virtio-rng-pci,id=a", "-device", "virtio-rng-pci,id=a"))
host("image-corrupt", "vmdk", "a text given as vmdk", qemu("-drive", lambda w, i: f"file={file_of('text', b'hello' * 999)(w, i)},format=vmdk,if=virtio"))

# --- firmware -------------------------------------------------------------------------------------------------------

OVMF = "/usr/share/OVMF/OVMF_CODE_4M.fd"


def empty_disk(machine):
    disk = machine.work / "empty.raw"
    with open(disk, "wb") as file:
        file.truncate(64 << 20)
    machine.direct, machine.root_drive = False, f"file={disk},format=raw,if=virtio"
    return disk


def bios(machine):
    machine.firmware = ["-M", "graphics=off"]


def ovmf(machine):
    machine.firmware = ["-drive", f"if=pflash,format=raw,readonly=on,file={OVMF}"]
    if not pathlib.Path(OVMF).exists():
        raise OSError(f"no {OVMF}")


def grub_disk(machine):
    """A BIOS disk with GRUB and nothing for it to boot."""
    disk, core = empty_disk(machine), machine.work / "core.img"
    subprocess.run(["grub-mkimage", "-O", "i386-pc", "-p", "(hd0,msdos1)/boot/grub", "-o", core, "biosdisk", "part_msdos", "ext2", "serial", "terminal"], check=True)
    boot = bytearray(pathlib.Path("/usr/lib/grub/i386-pc/boot.img").read_bytes())
    image = bytearray(core.read_bytes())
    struct.pack_into("<Q", boot, 0x5C, 1)
    boot[0x66:0x68] = b"\x90\x90"
    struct.pack_into("<Q", image, 0x1F4, 2)
    struct.pack_into("<H", boot, 510, 0xAA55)
    with open(disk, "r+b") as file:
        file.write(bytes(boot))
        file.write(bytes(image))


def grub_efi_disk(machine):
    """A FAT disk whose BOOTX64.EFI is GRUB, with a grub.cfg that names files that are not there."""
    tree = machine.work / "tree"
    (tree / "EFI/BOOT").mkdir(parents=True)
    config = machine.work / "grub.cfg"
    config.write_text("serial\nterminal_input serial console\nterminal_output serial console\nset timeout=1\n"
                      "linux /vmlinuz-5.14.0-362.el9.x86_64 root=/dev/vda\ninitrd /initramfs.img\nboot\n")
    subprocess.run(["grub-mkstandalone", "-O", "x86_64-efi", "-o", tree / "EFI/BOOT/BOOTX64.EFI", f"boot/grub/grub.cfg={config}"], check=True)
    machine.direct, machine.root_drive = False, f"file=fat:rw:{tree},format=raw,if=virtio"


def wrong_efi(machine):
    tree = machine.work / "tree"
    (tree / "EFI/BOOT").mkdir(parents=True)
    image = bytearray(pathlib.Path("/usr/lib/grub/x86_64-efi/monolithic/grubx64.efi").read_bytes())
    at = struct.unpack_from("<I", image, 0x3C)[0]
    struct.pack_into("<H", image, at + 4, 0xAA64)
    (tree / "EFI/BOOT/BOOTX64.EFI").write_bytes(image)
    machine.direct, machine.root_drive = False, f"file=fat:rw:{tree},format=raw,if=virtio"


FIRMWARE = {"ons": (OLD,), "ended": "deadline"}
add("no-bootable-disk", "bios-empty", "BIOS and an empty disk", all_of(bios, empty_disk), deadline=60, done=says("No bootable device", 6), **FIRMWARE)
add("no-bootable-disk", "bios-no-disk", "BIOS and no disk", all_of(bios, change(direct=False, root_drive="none")), deadline=60, done=says("No bootable device", 6), **FIRMWARE)
add("no-bootable-disk", "bios-not-bootable", "BIOS and the root file system, which has no boot loader", all_of(bios, change(direct=False)), deadline=60, done=says("No bootable device", 6), **FIRMWARE)
add("no-bootable-disk", "uefi-empty", "UEFI and an empty disk, given up while it tries the network", all_of(ovmf, empty_disk), deadline=90, done=says("Shell>", 6), **FIRMWARE)
add("no-bootable-disk", "uefi-root-only", "UEFI and a disk without an EFI partition, given up while it tries the network", all_of(ovmf, change(direct=False)), deadline=90, done=says("Shell>", 6), **FIRMWARE)
add("uefi-shell", "empty", "UEFI, an empty disk and no network", all_of(ovmf, empty_disk, change(netdev=None)), deadline=90, done=says("Shell>", 6), **FIRMWARE)
add("grub-rescue", "bios", "GRUB whose partition is not there", all_of(bios, grub_disk), deadline=60, done=says("rescue>", 5), **FIRMWARE)
add("grub-rescue", "efi-no-kernel", "GRUB whose configuration names a kernel that is not there", all_of(ovmf, grub_efi_disk), deadline=90, done=says("load the kernel first", 12), **FIRMWARE)

# --- the kernel -----------------------------------------------------------------------------------------------------

PANIC = {"done": says("end Kernel panic|reboot: ", 3)}
GONE = {**PANIC, "ended": "deadline"}


def no_reboot(machine):
    machine.extra.append("-no-reboot")
    machine.cmdline["panic"] = "0"


def initrd_of(content):
    def make(machine):
        machine.initrd = content(machine.initrd) if callable(content) else content
        machine.files = {}

    return make


def elf(machine_number):
    return b"\x7fELF\x02\x01\x01" + b"\0" * 9 + struct.pack("<HHIQQQIHHHHHH", 2, machine_number, 1, 0x400000, 64, 0, 0, 64, 56, 0, 64, 0, 0)


def squeeze(data):
    import gzip

    return gzip.compress(data, 1)


add("no-root-device", "no-initrd", "no initrd, so no driver for the disk", all_of(no_reboot, initrd_of(None)), **GONE)
add("no-root-device", "wrong-root", "root= of a disk that is not there", all_of(no_reboot, initrd_of(None), cmdline(root="/dev/vdz1")), **GONE)
add("no-root-device", "reboots", "no initrd, and a restart after each panic", initrd_of(None), done=says("(?s)Linux version.*Linux version", 2), ended="deadline")
add("bad-initrd", "noise", "an initrd of random bytes", all_of(no_reboot, initrd_of(lambda old: os.urandom(300000))), **GONE)
add("bad-initrd", "cut", "a compressed initrd that was cut", all_of(no_reboot, initrd_of(lambda old: squeeze(old)[: len(old) // 8])), **GONE)
add("kernel-out-of-memory", "too-little", "a machine of too little memory", all_of(no_reboot, change(memory=64)), **GONE)
add("wrong-architecture", "init-arm64", "an initrd whose /init is for arm64", all_of(no_reboot, lambda machine: machine.files.update({"init": (0o100755, elf(183) + b"\0" * 4096)})), **GONE)
add("no-init", "rdinit-gone", "an /init whose interpreter is not there", all_of(no_reboot, lambda machine: machine.files.update({"init": (0o100755, "#!/bin/gone\n")})), **GONE)
add("no-init", "init-gone", "a root file system without the program that init= names", all_of(no_reboot, cmdline(kmt_init="/sbin/gone")), done=says("FAILED|Power down", 3), ended="deadline")
add("panic", "sysrq", "sysrq c from a unit", all_of(no_reboot, lambda machine: machine.unit("crash.service", "[Service]\nExecStart=/bin/sh -c 'echo c >/proc/sysrq-trigger'\n")), **GONE)
add("panic", "init-ends", "a first program that ends", all_of(no_reboot, cmdline(kmt_init="/bin/true")), **GONE)
add("panic", "module", "a module that panics", all_of(no_reboot, lambda machine: machine.module("panic")), (OLD, PORTED), **GONE)
add("no-output", "no-console", "a kernel without a console on this port", cmdline(console="tty0"), deadline=25)
add("no-output", "bios-only", "a kernel without a console, behind a BIOS that speaks", all_of(bios, cmdline(console="null")), (OLD,), deadline=25)
add("hang", "unit-never-ends", "a unit before everything that never ends", lambda machine: machine.unit("wait.service", "[Unit]\nDefaultDependencies=no\nBefore=sysinit.target ssh.service\n[Service]\nType=oneshot\nExecStart=/bin/sleep 9999\n", "sysinit.target"), deadline=120)
add("soft-lockup", "module", "a module that never lets the processor go", lambda machine: machine.module("softlockup"), (OLD, PORTED), done=says("soft lockup", 5), deadline=120, ended="lost")
add("soft-lockup", "panics", "the same, and softlockup_panic=1", all_of(no_reboot, cmdline("softlockup_panic=1"), lambda machine: machine.module("softlockup")), (OLD, PORTED), deadline=120, **PANIC, ended="lost")
add("rcu-stall", "module", "a module that holds the read side of RCU", all_of(change(processors=2), cmdline("nosoftlockup", "nowatchdog"), lambda machine: machine.module("rcu")), (OLD, PORTED), done=says("detected stall|self-detected", 5), deadline=150, ended="lost")
add("hung-task", "module", "a module that sleeps for ever", all_of(cmdline("sysctl.kernel.hung_task_timeout_secs=10"), lambda machine: machine.module("hung")), (OLD, PORTED), done=says("blocked for more than", 5), deadline=120, ended="ready")
for how, cause in (("oops", "oops"), ("gpf", "oops"), ("bug", "bug"), ("warning", "warning"), ("atomic", "bug")):
    add(cause, f"module-{how}", f"a module that ends in {how}", lambda machine, how=how: machine.module(how), (OLD, PORTED), done=says("end trace|scheduling while atomic", 4), ended="ready")
add("oops", "panics", "an oops with panic_on_oops", all_of(no_reboot, cmdline("oops=panic"), lambda machine: machine.module("oops")), (OLD, PORTED), **PANIC, ended="lost")

# --- init -----------------------------------------------------------------------------------------------------------


def initramfs_tools(machine):
    """An initrd of Debian's own tools, of the modules of this kernel."""
    tree = machine.work / "tree"
    modules = tree / "lib/modules" / machine.release
    modules.mkdir(parents=True)
    subprocess.run(["debugfs", "-R", f"rdump / {modules}", machine.modules], check=True, capture_output=True)
    folder = pathlib.Path("/lib/modules") / machine.release
    subprocess.run(["mkdir", "-p", "/lib/modules"], check=True)
    made = not folder.exists()
    if made:
        folder.symlink_to(modules)
    config = machine.work / "initramfs"
    try:
        subprocess.run(["cp", "-r", "/etc/initramfs-tools", config], check=True)
        out = machine.work / "initrd.img"
        subprocess.run(["depmod", machine.release], check=False, capture_output=True)
        pathlib.Path(f"/boot/config-{machine.release}").write_text("CONFIG_RD_GZIP=y\nCONFIG_RD_ZSTD=y\n")
        subprocess.run(["mkinitramfs", "-d", config, "-o", out, machine.release], check=True, capture_output=True)
        machine.initrd = out.read_bytes()
    finally:
        if made:
            folder.unlink()
        pathlib.Path(f"/boot/config-{machine.release}").unlink(missing_ok=True)
    machine.files = {}


def dracut(machine):
    """An initrd of dracut, with systemd of this host in it."""
    tree = machine.work / "tree"
    modules = tree / "lib/modules" / machine.release
    modules.mkdir(parents=True)
    subprocess.run(["debugfs", "-R", f"rdump / {modules}", machine.modules], check=True, capture_output=True)
    subprocess.run(["depmod", "-b", tree, machine.release], check=False, capture_output=True)
    out = machine.work / "initrd.img"
    subprocess.run(["dracut", "--force", "--no-hostonly", "--kmoddir", modules, "--add-drivers", "virtio_blk virtio_pci ext4",
                    "--kver", machine.release, out], check=True, capture_output=True)
    machine.initrd, machine.files = out.read_bytes(), {}


def fstab(text):
    return lambda machine: machine.files.update({"kmt/etc/fstab": text})


def mount(what):
    """The unit that systemd's generator makes of a line of fstab: these guests have no generator for it."""

    def make(machine):
        machine.unit("data.mount", f"[Unit]\nBefore=local-fs.target\n[Mount]\nWhat={what}\nWhere=/data\nType=ext4\n", wants=None)
        machine.files["kmt/etc/systemd/system/local-fs.target.d/data.conf"] = "[Unit]\nRequires=data.mount\n"
        device = what.strip("/").replace("/", "-")
        machine.files[f"kmt/etc/systemd/system/{device}.device.d/soon.conf"] = "[Unit]\nJobRunningTimeoutSec=5s\n"

    return make


def zero(machine, offset, length):
    with open(machine.copy(), "r+b") as file:
        file.seek(offset)
        file.write(b"\0" * length)


def cut_root(machine):
    copy = machine.copy()
    os.truncate(copy, 300 << 20)


SHELL = {"deadline": 120, "ended": "deadline"}
add("initramfs-shell", "own", "root= of a disk that is not there", all_of(no_reboot, cmdline(root="/dev/vdz")), done=says("FAILED", 4), ended="deadline")
add("initramfs-shell", "initramfs-tools", "the same, in an initrd of initramfs-tools", all_of(initramfs_tools, cmdline("rootdelay=5", root="/dev/vdz1", panic=None)), done=says(r"\(initramfs\)", 5), **SHELL)
add("initramfs-shell", "initramfs-tools-uuid", "a UUID that no disk has", all_of(initramfs_tools, cmdline("rootdelay=5", "quiet", root="UUID=0f0e0d0c-1111-2222-3333-444455556666", panic=None)), (OLD,), done=says(r"\(initramfs\)", 5), **SHELL)
add("initramfs-shell", "dracut", "the same, in an initrd of dracut", all_of(dracut, cmdline("rd.retry=10", "rd.timeout=15", root="/dev/vdz1", panic=None)), (OLD,), done=says("rdsosreport|emergency mode", 8), deadline=180, ended="deadline")
add("no-init", "initramfs-tools", "init= of a program that is not there, in an initrd of initramfs-tools", all_of(initramfs_tools, cmdline(root="/dev/vda", init="/sbin/gone", panic=None)), (OLD,), done=says("No init found", 5), **SHELL)
add("emergency-shell", "mount", "a mount that local-fs.target needs, of a disk that is not there", mount("/dev/vdz"), done=says("emergency mode|Cannot open access", 6), **SHELL)
add("emergency-shell", "asked", "systemd.unit=emergency.target", cmdline("systemd.unit=emergency.target"), done=says("emergency mode|Cannot open access", 6), **SHELL)
add("file-system-errors", "superblock", "a root file system whose superblock is zero", all_of(no_reboot, lambda machine: zero(machine, 1024, 1024)), done=says("FAILED", 4), ended="deadline")
add("file-system-errors", "descriptors", "group descriptors of noise", all_of(no_reboot, lambda machine: zero(machine, 4096, 8192)), done=says("FAILED|Power down", 4), ended="deadline")
add("image-corrupt", "root-cut", "a root file system that was cut short", all_of(no_reboot, cut_root), done=says("FAILED|Power down|login:", 4), ended="deadline")
FULL = "[Unit]\nDefaultDependencies=no\nBefore=ssh.service systemd-tmpfiles-setup.service\n[Service]\nType=oneshot\nStandardError=journal+console\nStandardOutput=journal+console\nExecStart=-/bin/sh -c 'cat /dev/zero >/fill; cat /dev/zero >>/fill'\n"
add("disk-full", "root", "a root file system without room", all_of(lambda machine: machine.unit("fill.service", FULL, "sysinit.target"), lambda machine: machine.files.update({"kmt/etc/systemd/system/ssh.service.d/late.conf": "[Service]\nExecStartPre=/bin/sh -c 'echo x >/var/lib/x || exit 1'\nStandardError=journal+console\nRestart=no\n"})), done=says("login:", 5), **SHELL)
add("module-mismatch", "other-kernel", "an initrd with the modules of another kernel", lambda machine: setattr(machine, "initrd", machine.images.kernel("6.12" if machine.kernel_name == "6.1" else "6.1")[0]["initrd"].read_bytes()), done=says("FAILED", 4), ended="deadline")
add("failed-unit", "sysinit", "a unit that sysinit.target needs and that fails", all_of(lambda machine: machine.files.update({"kmt/etc/systemd/system/sysinit.target.d/need.conf": "[Unit]\nRequires=need.service\nAfter=need.service\n", "kmt/etc/systemd/system/need.service": "[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nExecStart=/bin/false\n", "kmt/etc/systemd/system/ssh.service.d/need.conf": "[Unit]\nRequires=sysinit.target\nAfter=sysinit.target\n"})), deadline=100)

# --- network --------------------------------------------------------------------------------------------------------

NETWORKD = {
    "kmt/etc/systemd/network/80.network": "[Match]\nName=e*\n[Network]\nDHCP=yes\n",
    "kmt/etc/systemd/system/network-online.target.d/wait.conf": "[Unit]\nWants=systemd-networkd.service\n",
    "kmt/etc/systemd/system/wait-online.service": "[Unit]\nDescription=Wait for Network to be Configured\nAfter=systemd-networkd.service\nWants=systemd-networkd.service\nBefore=network-online.target ssh.service\n[Service]\nType=oneshot\nExecStart=/lib/systemd/systemd-networkd-wait-online --timeout=15\n",
    "kmt/etc/systemd/system/multi-user.target.d/wait.conf": "[Unit]\nWants=wait-online.service\n",
}
NOBODY = change(netdev="hubport,id=n,hubid=0")


def networkd(machine):
    machine.files.update(NETWORKD)
    machine.words.append("kmt.net=none")


add("no-dhcp-lease", "own", "a network without a DHCP server", all_of(no_reboot, NOBODY, cmdline("kmt.net=dhcp")), done=says("FAILED", 4), ended="deadline")
add("no-dhcp-lease", "networkd", "the same, with systemd-networkd", all_of(NOBODY, networkd), done=says("login:", 5), **SHELL)
add("no-dhcp-lease", "ipconfig", "the same, in an initrd of initramfs-tools", all_of(initramfs_tools, NOBODY, cmdline("ip=dhcp", "boot=nfs", root="/dev/nfs", panic=None, nfsroot="10.0.2.2:/x")), (OLD,), done=says("giving up|no response", 60), deadline=150, ended="deadline")
add("wrong-interface", "no-device", "a machine without a network device", all_of(no_reboot, change(netdev=None)), done=says("FAILED|Power down", 4), ended="deadline")
PING = "[Unit]\nAfter=ssh.service\n[Service]\nType=oneshot\nStandardOutput=journal+console\nStandardError=journal+console\nExecStart=/bin/ping -c1 -W2 192.0.2.1\n"
add("no-route", "no-gateway", "an address and no gateway", all_of(cmdline("kmt.net=static:10.0.9.15/24"), lambda machine: machine.unit("setup.service", PING)), done=says("login:", 5), **SHELL)
LINK = "[Unit]\nDefaultDependencies=no\nAfter=systemd-networkd.service\n[Service]\nType=oneshot\nStandardOutput=journal+console\nExecStart=/bin/ip link\n"


def link_down(watch):
    with socket.socket(socket.AF_UNIX) as monitor:
        monitor.connect(f"{watch.machine.work}/qmp")
        for words in ({"execute": "qmp_capabilities"}, {"execute": "set_link", "arguments": {"name": "n", "up": False}}):
            monitor.sendall(json.dumps(words).encode())
            time.sleep(0.3)


add("no-carrier", "link-down", "a virtual cable that is pulled", all_of(networkd, lambda machine: machine.unit("link.service", LINK)), done=says("Freeing unused kernel", 0.5), then=lambda watch: (link_down(watch), watch.until(120, says("login:", 5)))[1], ended="deadline", deadline=60)

# --- ssh ------------------------------------------------------------------------------------------------------------


def drop_in(unit, text):
    return lambda machine: machine.files.update({f"kmt/etc/systemd/system/{unit}.d/broken.conf": text})


LOGIN = {"done": says("login:", 6), "deadline": 100, "ended": "deadline"}
SAYS = "StandardOutput=journal+console\nStandardError=journal+console\n"
add("sshd-not-started", "masked", "an SSH server that is masked", lambda machine: machine.files.update({"kmt/etc/systemd/system/ssh.service": ""}), **LOGIN)
add("sshd-not-started", "fails", "an SSH server that ends at once", drop_in("ssh.service", "[Service]\nExecStart=\nExecStart=/bin/false\nRestart=no\n"), **LOGIN)
add("sshd-not-started", "configuration", "a configuration with a word that it does not know", all_of(drop_in("ssh.service", f"[Service]\n{SAYS}Restart=no\n"), lambda machine: machine.files.update({"kmt/etc/ssh/sshd_config": "Prot 22\n"})), **LOGIN)
add("host-keys-missing", "none", "an SSH server without host keys", all_of(drop_in("ssh.service", f"[Service]\n{SAYS}"), lambda machine: machine.files.pop("kmt/etc/ssh/ssh_host_ed25519_key")), **LOGIN)
add("ssh-refused", "other-port", "an SSH server on another port", drop_in("ssh.service", "[Service]\nExecStart=\nExecStart=/usr/sbin/sshd -D -e -p 2222\n"), **LOGIN)


def asks(watch):
    watch.ssh("true")
    return "deadline"


ASKS = {"done": greets, "then": asks, "ended": "deadline", "deadline": 100}
add("key-rejected", "other-key", "authorized_keys with another key", lambda machine: machine.files.update({"kmt/root/.ssh/authorized_keys": (0o100600, (machine.work / "other.pub").read_bytes())}), **ASKS)
add("key-rejected", "modes", "a home folder that everybody may write", all_of(drop_in("ssh.service", f"[Service]\n{SAYS}ExecStartPre=/bin/chmod 0777 /root/.ssh /root\n")), (OLD,), **ASKS)
add("banner-timeout", "silent", "a server that says nothing", lambda machine: (machine.files.update({"kmt/etc/systemd/system/ssh.service": ""}), machine.unit("ssh-silent.socket", "[Socket]\nListenStream=22\nAccept=yes\n", "sockets.target"), machine.unit("ssh-silent@.service", "[Service]\nExecStart=/bin/sleep 9999\nStandardInput=socket\n", None)), **LOGIN)

# --- ready ----------------------------------------------------------------------------------------------------------

SETUP = "[Unit]\nDescription=Setup ddvm\nAfter=ssh.service\n[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo no share; exit 3'\n"
UP = {"done": says("login:", 6), "then": asks, "ended": "deadline", "deadline": 100}
add("setup-unit-failed", "ddvm", "a setup unit that fails", lambda machine: machine.unit("setup-ddvm.service", SETUP), **UP)
SHARE = "[Mount]\nWhat=kernel-version-testing\nWhere=/mnt/share\nType={}\nOptions={}\n"
add("shared-folder-not-mounted", "9p", "a 9p share that the host does not offer", lambda machine: machine.unit("mnt-share.mount", SHARE.format("9p", "trans=virtio")), **UP)
add("shared-folder-not-mounted", "virtiofs", "a virtiofs share that the host does not offer", lambda machine: machine.unit("mnt-share.mount", SHARE.format("virtiofs", "defaults")), **UP)


def offset(watch):
    there = watch.ssh("date", "+%s").stdout.strip()
    return {"clock_offset_s": int(there) - int(time.time()), "contact": None}


add("clock-off", "years", "a clock of another year", change(extra=["-rtc", "base=2035-01-01T00:00:00"]), done=greets, then=asks, ended="deadline", facts=offset, deadline=100)

# --- slow, and up ---------------------------------------------------------------------------------------------------

for seconds in (6, 9, 12):
    add("slow", f"after-{seconds}s", f"a boot that was given {seconds} seconds", deadline=seconds)
for seconds, words in ((8, "loglevel=8"), (15, "mitigations=off"), (20, "systemd.log_level=debug"), (26, "nokaslr")):
    add("slow", f"after-{seconds}s", f"a boot with {words} that was given {seconds} seconds", cmdline(words), (OLD, NEW, PORTED), deadline=seconds)


def guest(script, pause=5, ended=None):
    """A command in a machine that is up."""

    def then(watch):
        watch.phase = "ready"
        watch.ssh(script)
        time.sleep(pause)
        watch.contact = None
        return ended

    return then


HOG = "systemd-run -q -p OOMScoreAdjust=1000 tail /dev/zero"
add("oom-kill", "hog", "a program that takes all memory", change(memory=384), done=greets, then=guest(HOG, 25), ended="ready", deadline=100)
add("ssh-lost", "link", "a guest that takes its network down", done=greets, then=guest("(sleep 1; ip link set eth0 down) >/dev/null 2>&1 &", 6), ended="lost", deadline=100)
add("rebooted", "asked", "a guest that restarts", done=greets, then=guest("systemd-run -q systemctl reboot -f", 25), ended="lost", deadline=100)
add("panic", "while-up", "sysrq c in a guest that is up", no_reboot, done=greets, then=guest("(sleep 1; echo c >/proc/sysrq-trigger) >/dev/null 2>&1 &", 6), ended="lost", deadline=100)


def killed(watch):
    watch.phase = "ready"
    watch.qemu.kill()
    watch.qemu.wait()
    return "qemu-gone"


add("qemu-died", "killed", "a QEMU that somebody killed", done=greets, then=killed, ended=None, deadline=100)


def failing_disk(machine):
    config = machine.work / "blkdebug.conf"
    config.write_text('[inject-error]\nevent = "write_aio"\nerrno = "28"\nonce = "off"\nimmediately = "off"\n')
    copy = machine.copy()
    machine.root_drive = f"file=blkdebug:{config}:{copy},format=raw,if=virtio,werror=stop,rerror=stop"


def paused(watch):
    with socket.socket(socket.AF_UNIX) as monitor:
        monitor.connect(f"{watch.machine.work}/qmp")
        for words in ({"execute": "qmp_capabilities"}, {"execute": "query-status"}):
            monitor.sendall(json.dumps(words).encode())
            time.sleep(0.5)
        status = monitor.recv(65536).decode()
    assert '"io-error"' in status, status
    return {"hypervisor": "domain state: paused (I/O error)"}


add("paused-io-error", "no-space", "a disk on the host that is full", failing_disk, (OLD,), deadline=30, ended="lost", facts=paused)

# --- well -----------------------------------------------------------------------------------------------------------

WELL = {"done": greets, "then": guest("true", 0), "ended": "ready", "deadline": 120, "ons": (OLD, NEW, PORTED)}
add("none", "plain", "nothing", **WELL)
add("none", "quiet", "nothing; quiet", cmdline("quiet"), **WELL)
add("none", "loglevel-8", "nothing; everything is said", cmdline("loglevel=8", "ignore_loglevel"), **WELL)
add("none", "debug", "nothing; systemd says everything", cmdline("systemd.log_level=debug", "systemd.log_target=console"), **WELL)
add("none", "journal", "nothing; the journal goes to the console", lambda machine: machine.files.update({"kmt/etc/systemd/journald.conf.d/console.conf": "[Journal]\nForwardToConsole=yes\nMaxLevelConsole=debug\nTTYPath=/dev/ttyS0\nReadKMsg=no\n"}), **WELL)
add("none", "little-memory", "nothing; little memory", change(memory=320), **WELL)
add("none", "two-processors", "nothing; two processors", change(processors=2), **WELL)
add("none", "mitigations-off", "nothing; other words for the kernel", cmdline("mitigations=off", "nokaslr", "net.ifnames=0", "printk.time=1"), **WELL)
add("none", "no-network-yet", "a DHCP server that answers", cmdline("kmt.net=dhcp"), **WELL)
add("none", "unit-that-nobody-needs", "a unit that fails and that nobody needs", lambda machine: machine.unit("motd-news.service", "[Service]\nType=oneshot\nExecStart=/bin/false\n"), **WELL)
add("none", "words", "a program that prints frightening words", lambda machine: machine.unit("words.service", "[Unit]\nAfter=ssh.service\n[Service]\nType=oneshot\nStandardOutput=journal+console\nExecStart=/bin/echo ok 1 - no Kernel panic - not syncing, no Oops: 0000, no (initramfs) was seen\n"), **WELL)
add("none", "nofail-disk", "a disk of fstab that may be missing", fstab("/dev/vdz /data ext4 nofail,x-systemd.device-timeout=3s 0 0\n"), **WELL)
