//! Hosts that are rented: whoever rents one is killed at any moment; the script that makes a host runs in a guest.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use kmt_reporters::event::Arch;
use kmt_run::cloud::setup::{Setup, packages, script};
use rustix::process::Signal;

use crate::harness::{ARCH, Home, Lab, Moto, cell, fixture, step, text, wait_for};
use crate::rented::{is_as_ordered, repository};

/// Moments at which a run is killed while it rents its host.
const KILLS: u32 = 14;
/// Between two of them.
const APART: Duration = Duration::from_millis(350);
/// What has just happened when it is killed later.
const LATER: [&str; 4] = ["machine-defined", "machine-ready", "test-started", "host-ended"];

#[test]
fn whoever_rents_is_killed_at_any_moment_and_no_host_stays() {
    if !rustix::process::geteuid().is_root() {
        return step("only root can make a host");
    }
    let (home, lab, moto) = (Home::new("rented-kills"), Lab::new(), Moto::new());
    let root = repository(&home, &lab);
    let vms = format!("debian_12-{ARCH}-distro");
    let run = ["-C", &root, "run", "--vms", &vms, "--packages", "./pkg/faults"];
    let call = |args: &[&str]| moto.known_to(lab.hired_by(home.call(args.iter().copied()))).limit(300);
    let none_stays = || {
        call(&["-C", &root, "stack", "gc"]).end().expect(0);
        assert_eq!(moto.alive().len(), 0, "a host is left");
        assert!(home.stacks().iter().all(|(_, stack)| stack["rentals"].is_null()), "{:?}", home.stacks());
        // A host that ends takes all with it; ours does not end.
        lab.wipe();
    };
    for kill in 0..KILLS {
        let moment = APART * kill;
        step(&format!("kill -9 after {} ms", moment.as_millis()));
        let running = call(&run).start();
        sleep(moment);
        running.signal(Signal::KILL);
        running.gone();
        moto.alive().iter().for_each(is_as_ordered);
        none_stays();
    }
    for event in LATER {
        step(&format!("kill -9 after {event}"));
        let mut running = call(&run).start();
        running.wait_for_event(event, |told| told["event"] == event);
        running.signal(Signal::KILL);
        running.gone();
        none_stays();
    }
    step("and a run works; its host is not one of those before");
    call(&run).end().expect(0);
    assert_eq!(moto.alive().len(), 0);
    call(&["stack", "destroy", "--all", "--yes"]).end().expect(0);
    home.nothing_left();
}

/// What stands for Debian's archive in a guest without a network: programs that are there and do nothing.
const ARCHIVE: &str = "#!/bin/sh
echo \"$@\" >>/root/asked
case \" $* \" in *' install '*)
    for program in qemu-system-x86_64 qemu-system-aarch64 qemu-img virsh libvirtd dnsmasq zstd xz; do
        printf '#!/bin/sh\\n' >/usr/local/bin/$program
        chmod 755 /usr/local/bin/$program
    done
    groupadd -f libvirt
esac
";

/// Runs a line in the only machine of the stack.
fn said(home: &Home, line: &str) -> String {
    let fixture = fixture();
    let args = ["-C", &fixture, "stack", "ssh", "--stack", "bare", "debian_12", "--", line];
    home.call(args).limit(60).end().expect(0).stdout.trim().to_owned()
}

#[test]
fn the_script_makes_a_bare_debian_a_host_and_ends_it() {
    let home = Home::new("bare");
    let fixture = fixture();
    let stack = |words: &str| {
        let words: Vec<&str> = ["-C", &fixture, "stack"].into_iter().chain(words.split(' ')).collect();
        home.call(words).limit(600).end().expect(0);
    };
    step("a bare Debian, with an archive that is none");
    stack("configure --vms debian_12-local-distro --stack bare --init-stack --yes");
    stack("launch --stack bare");
    let arch = if ARCH == "arm64" { Arch::Arm64 } else { Arch::X86_64 };
    let setup = Setup {
        arch,
        ttl: Duration::from_secs(60),
        user: "admin",
        key: Some(
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFtestingtestingtestingtestingtestingtesting it's mine",
        ),
        folder: Path::new("/var/lib/kmt-run"),
    };
    let files: [(&str, String); 2] = [("setup", script(&setup)), ("apt-get", ARCHIVE.to_owned())];
    for (name, body) in files {
        let file: PathBuf = home.folder.join(name);
        fs::write(&file, body).unwrap();
        let (from, to) = (text(file), format!("debian_12:/root/{name}"));
        home.call(["-C", &fixture, "stack", "cp", "--stack", "bare", &from, &to]).limit(60).end().expect(0);
    }

    step("the script runs");
    let shown = said(
        &home,
        "install -m 755 /root/apt-get /usr/local/sbin/apt-get; ln -sf /root/console /dev/console; \
         sh /root/setup >/root/output 2>&1; echo $?; cat /var/log/kmt-run-setup.log",
    );
    assert!(
        shown.starts_with("0\n") && shown.ends_with("kmt-run: ready"),
        "{shown}\n{}",
        said(&home, "cat /root/output")
    );
    assert!(kmt_run::cloud::setup::said(&shown).host_key.is_some(), "{shown}");
    let asked = said(&home, "cat /root/asked");
    for package in packages(arch) {
        assert!(asked.contains(package), "{package} is not asked for: {asked}");
    }
    let login = said(
        &home,
        "id -nG admin; stat -c '%a %U' ~admin/.ssh/authorized_keys /var/lib/kmt-run; cat ~admin/.ssh/authorized_keys",
    );
    assert!(
        login.contains("libvirt") && login.contains("600 admin") && login.contains("755 admin"),
        "{login}"
    );
    assert!(login.contains("it's mine"), "{login}");
    assert!(
        said(&home, "sshd -T -f /etc/ssh/sshd_config.d/10-kmt-run.conf | grep -i maxsessions")
            .contains("500")
    );
    its_time_comes(&home);
    home.destroy();
}

/// The guest that was made a host powers itself off when its time is over.
fn its_time_comes(home: &Home) {
    step("its time comes, whatever it does");
    let timer = said(home, "systemctl list-timers --all kmt-run-end.timer | head -2");
    assert!(timer.contains("kmt-run-end"), "{timer}");
    let domain = home.domain(&cell("debian_12/6.1").replace('/', "-"));
    wait_for("end of the host", Duration::from_secs(150), || {
        let output =
            Command::new("virsh").args(["-c", "qemu:///session", "domstate", &domain]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).contains("shut off").then_some(())
    });
}

/// The packages of the script are Debian's: apt would install them.
#[test]
fn debian_has_the_packages_that_a_host_needs() {
    for arch in Arch::ALL {
        let output = Command::new("apt-cache").arg("policy").args(packages(arch)).output().unwrap();
        let known = String::from_utf8_lossy(&output.stdout);
        for package in packages(arch) {
            assert!(known.contains(&format!("{package}:\n")), "Debian has no {package}:\n{known}");
        }
    }
}
