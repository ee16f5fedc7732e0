//! Hosts that are rented: EC2 is moto's, the host itself a namespace; the script that makes a host runs in a guest.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use kmt_reporters::event::Arch;
use kmt_run::cloud::setup::{Setup, packages, script};
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{ARCH, Home, Lab, Moto, REGION, SECRET, cell, copy, fixture, step, text, wait_for};

/// The fixture in a place of its own, with `[ec2]`.
fn repository(home: &Home, lab: &Lab) -> String {
    let root = home.folder.join("repository");
    copy(Path::new(&fixture()), &root);
    let file = root.join("kmt.toml");
    let whole = format!(
        "{}\n[ec2]\nregion = \"{REGION}\"\nami = {{ {ARCH} = \"ami-12c6146b\" }}\nuser = \"root\"\nteam = \"ebpf\"\nttl = \"2h\"\n{}\
         tags = {{ cost-centre = \"7\" }}\n",
        fs::read_to_string(&file).unwrap(),
        lab.as_rented()
    );
    fs::write(file, whole).unwrap();
    text(root)
}

fn remote() -> String {
    format!("{}@remote", cell("debian_12/6.1"))
}

fn tag<'v>(instance: &'v Value, name: &str) -> &'v str {
    let tags = instance["Tags"].as_array().unwrap();
    let found = tags.iter().find(|tag| tag["Key"] == name);
    found.unwrap_or_else(|| panic!("no tag {name}: {tags:?}"))["Value"].as_str().unwrap()
}

/// What an instance must be whatever became of its run.
fn is_as_ordered(instance: &Value) {
    let kind = if ARCH == "arm64" { "m6gd.metal" } else { "m5d.metal" };
    assert_eq!(instance["InstanceType"], kind);
    assert!(instance["ClientToken"].as_str().unwrap().starts_with("kmt-"), "{instance}");
    assert_eq!(instance["Shutdown"], "terminate");
    let said = instance["UserData"].as_str().unwrap();
    assert!(said.contains("ttl='7200'") && said.contains("kmt-run-end.timer"), "{said}");
    for name in ["kmt-run:stack", "kmt-run:host", "kmt-run:expires", "kmt-run:owner", "branch"] {
        assert!(!tag(instance, name).is_empty());
    }
    assert_eq!((tag(instance, "team"), tag(instance, "cost-centre")), ("ebpf", "7"));
}

/// No file below the folder holds the secret.
fn no_secret_in(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            no_secret_in(&entry.path());
        } else if kind.is_file() {
            let bytes = fs::read(entry.path()).unwrap();
            let found = bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
            assert!(!found, "{} holds the secret", entry.path().display());
        }
    }
}

#[test]
fn a_cell_here_and_one_on_a_rented_host_that_ends_with_the_run() {
    if !rustix::process::geteuid().is_root() {
        return step("only root can make a host");
    }
    let (home, lab, moto) = (Home::new("rented"), Lab::new(), Moto::new());
    let root = repository(&home, &lab);
    let vms = format!("debian_12-local-distro,debian_12-{ARCH}-distro");
    let run = ["-C", &root, "run", "--vms", &vms, "--packages", "./pkg/faults"];
    let call = |args: &[&str]| moto.known_to(lab.hired_by(home.call(args.iter().copied())));

    step("one cell runs here, one on the host; the price is told before, the age after");
    let ended = call(&run).limit(400).end().expect(0);
    let told = ended.told();
    for cell in [cell("debian_12/6.1"), remote()] {
        let results = told.results(&cell, "pkg/faults");
        assert!(
            !results.is_empty() && results.values().all(|result| result == "pass"),
            "{cell}: {results:?}"
        );
    }
    for words in ["Renting a host in eu-west-1", "USD an hour", "Rented", "Ended"] {
        assert!(ended.stderr.contains(words), "`{words}` is not said:\n{}", ended.stderr);
    }
    assert_eq!((told.kind("host-rented").len(), told.kind("host-ended").len()), (1, 1));

    step("it was what was ordered, and is no more");
    let all = moto.instances();
    assert_eq!((all.len(), moto.alive().len()), (1, 0));
    is_as_ordered(&all[0]);
    no_secret_in(&home.folder.join("runs"));
    no_secret_in(&home.folder.join("stacks"));

    step("killed while it waits for its host: the next command ends it");
    kill_once_written_down(&home, &call, &run);
    assert_eq!(moto.alive().len(), 1);
    is_as_ordered(&moto.alive()[0]);
    call(&["-C", &root, "stack", "gc"]).limit(60).end().expect(0);
    assert_eq!(moto.alive().len(), 0);

    step("destroyed, nothing is left");
    call(&["-C", &root, "stack", "destroy", "--all", "--yes"]).limit(120).end().expect(0);
    home.nothing_left();
    assert_eq!(moto.alive().len(), 0);
}

/// Kills a run as soon as it has written down what it rented.
fn kill_once_written_down<'h>(
    home: &'h Home,
    call: &dyn Fn(&[&str]) -> crate::harness::Call<'h>,
    run: &[&str],
) {
    let running = call(run).limit(120).start();
    wait_for("rental", Duration::from_secs(60), || {
        let rented = |stack: &Value| !stack["rentals"]["ec2-".to_owned() + ARCH]["instance"].is_null();
        home.stacks().iter().any(|(_, stack)| rented(stack)).then_some(())
    });
    running.signal(Signal::KILL);
    running.gone();
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
    assert!(said(&home, "sshd -T | grep -i maxsessions").contains("500"));
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
