//! What machines have besides their size: disks, a machine type, words for their kernel, a gdb stub, a script; and the
//! examples of the former tool's manual.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{Call, Home, fixture, step, text};

fn call<'h>(home: &'h Home, words: &str) -> Call<'h> {
    let fixture = fixture();
    let words: Vec<&str> = ["-C", &fixture, "stack"].into_iter().chain(words.split(' ')).collect();
    home.call(words).limit(400)
}

/// What a line in a machine of the default stack says.
fn said(home: &Home, vm: &str, line: &str) -> String {
    let fixture = fixture();
    let args = ["-C", &fixture, "stack", "ssh", vm, "--", line];
    home.call(args).limit(60).end().expect(0).stdout.trim().to_owned()
}

/// A qcow2 with an ext4 in it that holds one file.
fn disk(folder: &Path) -> String {
    let (content, raw, disk) = (folder.join("content"), folder.join("disk.raw"), folder.join("disk.qcow2"));
    fs::create_dir_all(&content).unwrap();
    fs::write(content.join("image"), "preloaded").unwrap();
    let run = |program: &str, args: &[&str]| {
        let output =
            Command::new(program).args(args).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").output().unwrap();
        assert!(output.status.success(), "{program}: {output:?}");
    };
    let (content, raw, disk) = (text(content), text(raw), text(disk));
    run("mke2fs", &["-q", "-t", "ext4", "-d", &content, &raw, "48M"]);
    run("qemu-img", &["convert", "-O", "qcow2", &raw, &disk]);
    disk
}

#[test]
fn what_a_vmsets_file_says_reaches_the_machine() {
    let home = Home::new("vmsets");
    let disk = disk(&home.folder);
    let set = |recipe: &str, kernel: Value, machine: Value| {
        json!({
            "tags": [format!("{recipe}_local"), "default"], "recipe": format!("{recipe}-local"), "arch": "local",
            "kernels": [kernel], "vcpu": [1], "memory": [512], "machine": machine, "console_type": "file",
            "disks": [
                {"type": "default", "source": format!("file://{disk}"), "target": disk, "mount_point": "/mnt/docker"},
                {"type": "ram", "source": "", "target": "", "size": "64M", "mount_point": "/mnt/ram"},
            ],
        })
    };
    let custom = json!({
        "dir": "kernel-v6.12.x86_64.pkg", "tag": "6.12",
        "extra_params": {"systemd.unified_cgroup_hierarchy": "0", "_": "kmt.bare", "kmt.word": "value"},
    });
    let distro = json!({"dir": "debian-12-generic-x86_64.qcow2", "tag": "debian_12"});
    let sets =
        json!({"vmsets": [set("custom", custom, json!("pc-q35-6.2")), set("distro", distro, Value::Null)]});
    let file = home.folder.join("vmconfig.json");
    fs::write(&file, sets.to_string()).unwrap();
    call(&home, &format!("configure --init-stack --vmsets {} --yes", text(file))).end().expect(0);
    call(&home, "launch").end().expect(0);
    for vm in ["custom", "debian_12"] {
        step(&format!("{vm}: its disks are mounted, and can be written"));
        assert_eq!(said(&home, vm, "cat /mnt/docker/image"), "preloaded");
        let mounted = said(
            &home,
            vm,
            "findmnt -no FSTYPE /mnt/docker; findmnt -no FSTYPE /mnt/ram; df -m --output=size /mnt/ram | tail -1",
        );
        let words: Vec<&str> = mounted.split_whitespace().collect();
        assert_eq!(words[..2], ["ext4", "ext4"], "{mounted}");
        assert!((40..=64).contains(&words[2].parse::<u32>().unwrap()), "{mounted}");
        said(&home, vm, "echo own >/mnt/docker/own && sync && echo more >/mnt/ram/more");
    }
    step("words of its kernel, and its machine type");
    let cmdline = said(&home, "custom", "cat /proc/cmdline");
    for word in ["systemd.unified_cgroup_hierarchy=0", "kmt.bare", "kmt.word=value"] {
        assert!(cmdline.split(' ').any(|other| other == word), "{cmdline}");
    }
    assert_eq!(said(&home, "custom", "cat /sys/class/dmi/id/product_version"), "pc-q35-6.2");

    step("powered off and on again, the disk is mounted with what was written");
    call(&home, "pause --cold").end().expect(0);
    call(&home, "resume").end().expect(0);
    assert_eq!(said(&home, "custom", "cat /mnt/docker/own"), "own");
    home.destroy();
    assert!(
        fs::read_dir("/dev/shm").unwrap().flatten().all(|e| !home.owns(&e.file_name().to_string_lossy()))
    );
}

#[test]
fn a_kernel_is_debugged_with_the_line_that_is_told() {
    let home = Home::new("gdb");
    call(&home, "configure --init-stack --vms debian_12-local-distro --memory 512 --yes").end().expect(0);
    let launched = call(&home, "launch --gdb").end().expect(0).stderr;
    let status: Value =
        serde_json::from_str(&call(&home, "status --format json").end().expect(0).stdout).unwrap();
    let line = status["stacks"][0]["machines"][0]["gdb"].as_str().unwrap().to_owned();
    assert!(launched.contains(&line), "{launched}");
    for moment in ["at first", "after a pause"] {
        step(&format!("{moment}: gdb stops the kernel, looks, and lets it go on"));
        let typed = format!("{line} -nx -batch -ex 'info registers rip' -ex 'info threads' -ex detach");
        let output = Command::new("sh").args(["-c", &typed]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        println!("           {}", text.trim().replace('\n', "\n           "));
        assert!(output.status.success() && text.contains("rip  ") && text.contains("Thread 1"), "{output:?}");
        assert!(said(&home, "debian_12", "uname -r").starts_with("6.1."));
        if moment == "at first" {
            call(&home, "pause").end().expect(0);
            call(&home, "resume").end().expect(0);
        }
    }
    assert!(said(&home, "debian_12", "cat /proc/cmdline").contains("nokaslr"));
    home.destroy();
}

const BOOT: &str = "cat /proc/sys/kernel/random/boot_id";

/// "Configuring the stack" of the former manual, its distributions and kernels being Debian's.
#[test]
fn the_three_examples_of_the_former_manual() {
    let home = Home::new("examples");
    step("example 1: two, launched; more, launched, the first ones keep running; all but one away");
    call(
        &home,
        "gen-config --vms=debian_12-local-distro,debian_13-local-distro --init-stack --memory=512 --yes",
    )
    .end()
    .expect(0);
    call(&home, "launch").end().expect(0);
    let boot = [said(&home, "debian_12", BOOT), said(&home, "debian_13", BOOT)];
    call(&home, "gen-config --vms=custom-local-6.12 --memory=512 --yes").end().expect(0);
    call(&home, "launch").end().expect(0);
    assert_eq!(home.machines().len(), 3);
    assert_eq!(
        [said(&home, "debian_12", BOOT), said(&home, "debian_13", BOOT)],
        boot,
        "one was booted again"
    );
    call(&home, "gen-config --new --vms=debian_13-local-distro --memory=512 --yes").end().expect(0);
    provisioned(&home);
    assert_eq!(home.machines().len(), 1);
    assert_eq!(said(&home, "debian_13", BOOT), boot[1], "it was booted again");

    step("example 2: machines of both architectures elsewhere, and more of them: there is no provider");
    for vms in
        ["x86_64-debian12-distro,distro-debian13-x86_64,distro-arm64-debian12", "arm64-distro-debian13"]
    {
        call(&home, &format!("gen-config --vms={vms} --yes")).end().expect(0);
        call(&home, "launch").end().refused(104, &["remote machine", "no provider"]);
    }
    assert_eq!(said(&home, "debian_13", BOOT), boot[1], "it was booted again");

    step("example 3: custom kernels, one of them of an architecture elsewhere");
    call(&home, "gen-config --new --vms=custom-6.12-local,custom-6.12-arm64 --memory=512 --yes")
        .end()
        .expect(0);
    call(&home, "launch").end().refused(104, &["custom/6.12/arm64@remote"]);
    call(&home, "gen-config --new --vms=custom-6.12-local --memory=512 --yes").end().expect(0);
    call(&home, "launch").end().expect(0);
    assert!(said(&home, "custom-6.12-local", "uname -r").starts_with("6.12."));
    home.destroy();
}

/// Launches with a script that runs in the machine, and runs another one.
fn provisioned(home: &Home) {
    step("a script runs in all machines, at a launch and by itself");
    let script = home.folder.join("provision.sh");
    fs::write(&script, "#!/bin/bash\nset -e\necho \"on $(uname -r)\" | tee /root/provisioned\n").unwrap();
    let launched = call(home, &format!("launch --provision-script {}", text(&script))).end().expect(0);
    assert!(launched.stdout.contains("| on 6.12."), "{}", launched.stdout);
    assert!(said(home, "debian_13", "cat /root/provisioned").starts_with("on 6.12."));
    fs::write(&script, "#!/bin/sh\nexit 7\n").unwrap();
    call(home, &format!("provision {}", text(&script))).end().expect(7);
}
