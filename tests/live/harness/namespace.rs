//! A network of a test's own, with a libvirtd of its own in it: what happens there is seen nowhere else.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::wait_for;

/// How long the daemons may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is hidden from the rest of the machine, and what is started: domains of this machine are not known in it, nor
/// those of it here. The last program holds the namespace.
const HOLD: &str = "set -e; ip link set lo up; \
                    for place in /run /var/lib/libvirt /var/log/libvirt; do mount -t tmpfs -o mode=755 kmt $place; done; \
                    cp -a /etc/libvirt /run/etc-libvirt; rm -rf /run/etc-libvirt/qemu/*.xml /run/etc-libvirt/qemu/autostart; \
                    mount --bind /run/etc-libvirt /etc/libvirt; \
                    mkdir -p /run/libvirt /run/lock /run/sshd /var/lib/libvirt/dnsmasq; \
                    echo ready; exec sleep 100000";

/// A network namespace and mount namespace; dropped, it ends with all that runs in it.
pub(crate) struct Namespace {
    holder: Child,
}

impl Namespace {
    /// One with libvirtd. Only root can.
    pub(crate) fn new() -> Namespace {
        let mut holder = Command::new("unshare")
            .args(["--net", "--mount", "sh", "-c", HOLD])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare is in util-linux");
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let namespace = Namespace { holder };
        assert_eq!(line, "ready\n", "the namespace cannot be made");
        namespace.start_libvirt();
        namespace
    }

    /// The process that holds it.
    pub(super) fn holder(&self) -> u32 {
        self.holder.id()
    }

    /// A program that will run in it.
    pub(crate) fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.arg("--target").arg(self.holder.id().to_string()).args(["--net", "--mount", "--"]);
        command
    }

    /// What a shell in it says.
    pub(crate) fn said(&self, line: &str) -> String {
        let output = self.enter().args(["sh", "-c", line]).output().unwrap();
        assert!(output.status.success(), "`{line}`: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Starts the daemons that do not run, and waits until they answer.
    pub(crate) fn start_libvirt(&self) {
        for daemon in ["virtlogd", "libvirtd"] {
            if self.processes().iter().all(|(_, name)| name != daemon) {
                self.said(&format!("/usr/sbin/{daemon} -d"));
            }
        }
        wait_for("answer of libvirtd", PATIENCE, || {
            let mut asked = self.enter();
            let output = asked.args(["virsh", "-c", "qemu:///system", "list"]).output().unwrap();
            output.status.success().then_some(())
        });
    }

    /// Sends libvirtd a signal, and waits until it is gone. Machines run on.
    pub(crate) fn end_libvirtd(&self, signal: Signal) {
        let find = || self.processes().into_iter().find(|(_, name)| name == "libvirtd");
        let (pid, _) = find().expect("libvirtd runs");
        kill_process(pid, signal).unwrap();
        wait_for("end of libvirtd", PATIENCE, || find().is_none().then_some(()));
    }

    /// The processes in it, with their names.
    fn processes(&self) -> Vec<(Pid, String)> {
        let network = |pid: &str| fs::read_link(Path::new("/proc").join(pid).join("ns/net")).ok();
        let own = network(&self.holder.id().to_string());
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let inside = pids.filter(|pid| pid.parse::<i32>().is_ok() && own.is_some() && network(pid) == own);
        inside
            .filter_map(|pid| {
                let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
                Some((Pid::from_raw(pid.parse().ok()?)?, name.trim().to_owned()))
            })
            .collect()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let holder = Pid::from_child(&self.holder);
        for (pid, _) in self.processes().into_iter().filter(|(pid, _)| *pid != holder) {
            let _ = kill_process(pid, Signal::KILL);
        }
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
