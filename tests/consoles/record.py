#!/usr/bin/env python3
"""Breaks machines in every way that can be done here, and records console and facts.

    record.py --home /var/lib/kmt-run [--only PATTERN] [--missing] [--list] [--patience N] [--port N]

Boots the images that `kmt-run images build` made, with QEMU alone, emulated, one at a time, each with one thing
broken on purpose (`breakages.py`), and writes `<cause>/<name>.log` (the console, as it came) and `<cause>/<name>.toml`
(how it was broken, and what whoever watched it knew). Machines that are well go to `none/`. Needs qemu-system-x86_64,
debugfs, ssh; some also mkinitramfs, dracut, grub-mkimage, OVMF, kernel headers: what cannot be done is said and left.
Read what was recorded: on a busy host a machine breaks otherwise than it should (its timer does not come), or not in time.
"""

import argparse
import fnmatch
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
PORT = 22422
PATIENCE = 1


class Cannot(Exception):
    """What a breakage needs is not here."""


def cpio(files):
    """A newc archive of {path: bytes, or (mode, bytes)}, folders made."""
    out, names, number = bytearray(), [], 721

    def entry(name, mode, data):
        nonlocal number
        number += 1
        name = name.encode() + b"\0"
        fields = [number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0]
        out.extend(b"070701" + b"".join(b"%08X" % field for field in fields) + name)
        out.extend(b"\0" * (-len(out) % 4))
        out.extend(data)
        out.extend(b"\0" * (-len(out) % 4))

    for path, data in files.items():
        mode, data = data if isinstance(data, tuple) else (0o100644, data)
        parts = path.split("/")
        for depth in range(1, len(parts)):
            folder = "/".join(parts[:depth])
            if folder not in names:
                names.append(folder)
                entry(folder, 0o040755, b"")
        entry(path, mode, data if isinstance(data, bytes) else data.encode())
    entry("TRAILER!!!", 0, b"")
    return bytes(out)


class Images:
    """The images of a KMT_HOME, by name: kernels `6.1`, `6.12`, `6.12-bpo`, root file systems `12`, `13`."""

    NAMES = {"6.1": "kernel-debian_12-", "6.12": "kernel-debian_13-", "6.12-bpo": "kernel-custom-6.12-"}

    def __init__(self, home):
        self.folder = pathlib.Path(home) / "images"

    def files(self, start):
        found = sorted(self.folder.glob(f"{start}*.json"))
        if not found:
            raise Cannot(f"no image {start} in {self.folder}")
        manifest = json.loads(found[-1].read_text())
        return {kind: self.folder / "objects" / it["name"] for kind, it in manifest["files"].items()}, manifest

    def kernel(self, name):
        files, manifest = self.files(self.NAMES[name])
        return files, manifest["kernel_release"]

    def rootfs(self, version):
        return self.files(f"rootfs-debian_{version}-")[0]["rootfs"]


class Machine:
    """One boot: what it is made of may be changed before it starts."""

    def __init__(self, work, images, kernel, debian):
        self.work, self.images, self.debian = work, images, debian
        files, self.release = images.kernel(kernel)
        self.kernel_name, self.kernel = kernel, files["vmlinuz"]
        self.initrd, self.modules = files["initrd"].read_bytes(), files["modules"]
        self.rootfs = images.rootfs(debian)
        self.memory, self.processors = 1024, 1
        self.cmdline = {"console": "ttyS0", "root": "/dev/vda", "panic": "-1"}
        self.words = []
        self.files = {
            "kmt/etc/ssh/ssh_host_ed25519_key": (0o100600, (work / "host").read_bytes()),
            "kmt/root/.ssh/authorized_keys": (0o100600, (work / "login.pub").read_bytes()),
            "kmt/etc/hostname": "vm7\n",
        }
        self.netdev = f"user,id=n,restrict=on,hostfwd=tcp:127.0.0.1:{PORT}-:22"
        self.nic = "virtio-net-pci,netdev=n"
        self.root_drive = None
        self.extra = []
        self.firmware = []
        self.direct = True

    def unit(self, name, text, wants="multi-user.target"):
        """A systemd unit, wanted by a target."""
        self.files[f"kmt/etc/systemd/system/{name}"] = text
        if wants:
            self.files[f"kmt/etc/systemd/system/{wants}.d/{name}.conf"] = f"[Unit]\nWants={name}\n"

    def module(self, how, when="multi-user.target"):
        """The test module, loaded so by a unit."""
        header = pathlib.Path(f"/usr/src/linux-headers-{self.release}")
        if not header.is_dir():
            raise Cannot(f"no headers of {self.release}")
        build = self.work / f"broken-{self.release}"
        if not build.exists():
            shutil.copytree(HERE / "broken", build)
            subprocess.run(["make", "-s", "-C", header, f"M={build}", "modules"], check=True)
        self.files["kmt/root/broken.ko"] = (build / "broken.ko").read_bytes()
        self.unit(
            "broken.service",
            f"[Unit]\nAfter=ssh.service systemd-user-sessions.service\n[Service]\nExecStart=/sbin/insmod /root/broken.ko how={how}\n",
            when,
        )

    def edit(self, *commands):
        """Commands of debugfs on a copy of the root file system."""
        copy = self.copy()
        for command in commands:
            subprocess.run(["debugfs", "-w", "-R", command, copy], check=True, capture_output=True)

    def copy(self):
        copy = self.work / "root.ext4"
        subprocess.run(["cp", "--sparse=always", "--no-preserve=mode", self.rootfs, copy], check=True)
        self.rootfs = copy
        return copy

    def arguments(self, console):
        args = ["qemu-system-x86_64", "-M", "q35", "-accel", "tcg", "-m", str(self.memory), "-smp", str(self.processors)]
        args += ["-nodefaults", "-display", "none", "-vga", "none", "-serial", f"file:{console}", "-device", "virtio-rng-pci"]
        args += ["-qmp", f"unix:{self.work}/qmp,server=on,wait=off"] + self.firmware
        if self.direct:
            cmdline = [f"{key}={value}" for key, value in self.cmdline.items() if value is not None] + self.words
            args += ["-kernel", str(self.kernel), "-append", " ".join(cmdline)]
            if self.initrd is not None:
                initrd = self.initrd + b"\0" * (-len(self.initrd) % 4)
                (self.work / "initrd").write_bytes(initrd + (cpio(self.files) if self.files else b""))
                args += ["-initrd", str(self.work / "initrd")]
        drive = self.root_drive or f"file={self.rootfs},format=raw,if=virtio,snapshot=on"
        args += ["-drive", drive] if drive != "none" else []
        args += ["-drive", f"file={self.modules},format=raw,if=virtio,readonly=on"] if self.direct else []
        if self.netdev:
            args += ["-netdev", self.netdev, "-device", self.nic]
        return args + self.extra


class Watch:
    """A QEMU that runs, watched as kmt-run does: console, greeting, login."""

    def __init__(self, machine, arguments, console):
        self.machine, self.console = machine, console
        console.write_bytes(b"")
        self.errors = machine.work / "stderr"
        with open(self.errors, "wb") as errors:
            self.qemu = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors)
        self.begun = self.grown = time.monotonic()
        self.size, self.phase, self.contact = 0, None, None

    def grow(self):
        size = self.console.stat().st_size
        if size != self.size:
            self.size, self.grown = size, time.monotonic()

    def until(self, seconds, done):
        """Waits until `done`, the end of QEMU, or the deadline; what it was."""
        while time.monotonic() - self.begun < seconds:
            self.grow()
            if self.qemu.poll() is not None:
                return "qemu-gone"
            if done(self):
                return "done"
            time.sleep(0.5)
        return "deadline"

    def text(self):
        return self.console.read_bytes().decode(errors="replace")

    def greets(self):
        """Whether an SSH server says hello."""
        try:
            with socket.create_connection(("127.0.0.1", PORT), 2) as connection:
                connection.settimeout(3)
                if connection.recv(64).startswith(b"SSH-"):
                    self.phase = "sshd"
                    return True
        except OSError:
            pass
        return False

    def ssh(self, *command):
        """A command in the guest; what SSH says last is kept."""
        args = ["ssh", "-F", "none", "-i", str(self.machine.work / "login"), "-p", str(PORT), "-o", "StrictHostKeyChecking=no"]
        args += ["-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "BatchMode=yes", "-o", "ConnectTimeout=8"]
        done = subprocess.run(args + ["root@127.0.0.1", *command], capture_output=True, text=True)
        said = [line for line in done.stderr.splitlines() if line.strip()]
        self.contact = said[-1].strip() if said else None
        return done

    def end(self):
        if self.qemu.poll() is None:
            self.qemu.send_signal(signal.SIGKILL)
        self.qemu.wait()


def quoted(value):
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)


def write(cause, name, how, facts, console):
    folder = HERE / cause
    folder.mkdir(exist_ok=True)
    shutil.copyfile(console, folder / f"{name}.log")
    lines = [f"how = {quoted(how)}", "", "[facts]"]
    lines += [f"{key} = {quoted(value)}" for key, value in facts.items() if value is not None]
    (folder / f"{name}.toml").write_text("\n".join(lines) + "\n")


def facts_of(watch, ended):
    now = time.monotonic()
    status = watch.qemu.poll()
    return {
        "ended": ended,
        "phase": watch.phase,
        "contact": watch.contact,
        "qemu_exit": status if ended == "qemu-gone" else None,
        "hypervisor": watch.errors.read_text(errors="replace").strip() or None,
        "elapsed_ms": int((now - watch.begun) * 1000),
        "idle_ms": int((now - watch.grown) * 1000),
        "accelerator": "tcg",
    }


def record(work, images, breakage):
    """One breakage: boots, watches, writes."""
    console = work / "console.log"
    console.write_bytes(b"")
    if breakage.host:
        facts = {"ended": "refused", "hypervisor": breakage.host(work, images), "accelerator": "tcg"}
        return write(breakage.cause, breakage.name, breakage.how, facts, console)
    machine = Machine(work, images, breakage.kernel, breakage.debian)
    breakage.make(machine)
    watch = Watch(machine, machine.arguments(console), console)
    try:
        # What shows itself is waited for as long as this host needs; a deadline that is the point stays what it is.
        patience = PATIENCE if breakage.waits else 1
        ended = watch.until(breakage.deadline * patience, breakage.done)
        if breakage.then and ended == "done":
            ended = breakage.then(watch) or ended
        watch.grow()
        if breakage.ended and ended in ("done", "deadline"):
            ended = breakage.ended
        if ended == "done":
            ended = "deadline"
        if ended == "deadline" and not watch.contact and watch.phase is None and machine.netdev and "systemd" in watch.text():
            watch.ssh("true")
        facts = facts_of(watch, ended)
        if breakage.facts:
            facts.update(breakage.facts(watch))
        watch.end()
        write(breakage.cause, breakage.name, breakage.how, facts, console)
        return ended
    finally:
        watch.end()


def main():
    global PATIENCE, PORT
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--home", default=os.environ.get("KMT_HOME", "/var/lib/kmt-run"))
    options.add_argument("--only", default="*", help="cause/name, with * and ?")
    options.add_argument("--missing", action="store_true", help="only what is not recorded yet")
    options.add_argument("--list", action="store_true")
    options.add_argument("--port", type=int, default=PORT, help="of this host, for SSH: another one for another recorder")
    options.add_argument("--patience", type=int, default=1, help="wait so many times longer for what shows itself")
    asked = options.parse_args()
    sys.path.insert(0, str(HERE))
    import breakages

    PATIENCE, PORT = asked.patience, asked.port

    images, failed = Images(asked.home), 0
    for breakage in breakages.ALL:
        title = f"{breakage.cause}/{breakage.name}"
        if not fnmatch.fnmatch(title, asked.only) or asked.missing and (HERE / f"{title}.toml").exists():
            continue
        if asked.list:
            print(f"{title:<48} {breakage.how}")
            continue
        with tempfile.TemporaryDirectory(prefix="kmt-record-") as folder:
            work = pathlib.Path(folder)
            for key in ("host", "login", "other"):
                subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", key, "-f", work / key], check=True)
            begun = time.monotonic()
            try:
                ended = record(work, images, breakage)
                print(f"{title:<48} {ended or 'refused'} {time.monotonic() - begun:.0f} s", flush=True)
            except (Cannot, OSError, subprocess.CalledProcessError) as error:
                failed += 1
                print(f"{title:<48} left: {error}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
