//! Cold start: `kmt-run run` of one cell with one trivial package, against booting the same image by hand with
//! the same QEMU and waiting for SSH. Pairs, in turn; the ratio of each pair; the median must be at most 1.3. Warm start:
//! the same run from a template, to the beginning of its first test; at most 0.2 of the cold one's.
//!
//! `cargo xtask bench boot [PAIRS]`

#![expect(clippy::disallowed_methods, reason = "a benchmark runs its peers as children")]
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints, and fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kmt_reporters::event::Arch;
use kmt_run::external::debian::DebianHost;
use kmt_run::image::{ImageRequest, ImageStore, LocalImage, identity_cpio};
use kmt_run::matrix::Catalogue;
use kmt_run::settings::Home;

const LIMIT: f64 = 1.3;
/// Of a cold start, both to the beginning of the first test.
const WARM_LIMIT: f64 = 0.2;
/// How long a template may take.
const MAKING: Duration = Duration::from_secs(300);

fn main() {
    let pairs = std::env::args().filter_map(|arg| arg.parse().ok()).next().unwrap_or(5);
    let folder = std::env::temp_dir().join(format!("kmt-bench-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let image = image();
    let module = trivial_module(&folder);
    // Builds, probes and disk caches are warm for both: what is compared is the start of a machine.
    ours(&module, "off", "");
    by_hand(&folder, &image);
    println!("{:>4} {:>10} {:>10} {:>6}", "pair", "kmt-run", "by hand", "ratio");
    let mut ratios: Vec<f64> = (1..=pairs)
        .map(|pair| {
            let (ours, hand) = (ours(&module, "off", "").0, by_hand(&folder, &image));
            let ratio = ours.as_secs_f64() / hand.as_secs_f64();
            println!("{pair:>4} {:>9.2}s {:>9.2}s {ratio:>6.2}", ours.as_secs_f64(), hand.as_secs_f64());
            ratio
        })
        .collect();
    let mut warm = warm(&module, pairs);
    fs::remove_dir_all(&folder).unwrap();
    for (what, ratios, limit) in [
        ("a cold start, of booting by hand", &mut ratios, LIMIT),
        ("a warm start, of a cold one", &mut warm, WARM_LIMIT),
    ] {
        ratios.sort_by(f64::total_cmp);
        let median = ratios[ratios.len() / 2];
        println!("{what}: median ratio {median:.2}, limit {limit}");
        assert!(median <= limit, "{what}: {median:.2}");
    }
}

/// Pairs of a warm and a cold start, both to the beginning of the first test: the ratios.
fn warm(module: &Path, pairs: usize) -> Vec<f64> {
    let begun = Instant::now();
    // The first run has a template made beside it, or begun.
    while !ours(module, "on", "--fresh").2 {
        assert!(begun.elapsed() < MAKING, "no template");
    }
    println!("{:>4} {:>10} {:>10} {:>6}", "pair", "warm", "cold", "ratio");
    (1..=pairs)
        .map(|pair| {
            let (_, warm, from_template) = ours(module, "on", "--fresh");
            assert!(from_template, "it booted");
            let (_, cold, _) = ours(module, "off", "--fresh");
            let ratio = warm.as_secs_f64() / cold.as_secs_f64();
            println!("{pair:>4} {:>9.2}s {:>9.2}s {ratio:>6.2}", warm.as_secs_f64(), cold.as_secs_f64());
            ratio
        })
        .collect()
}

fn image() -> LocalImage {
    let home = Home::find().unwrap();
    let store = ImageStore::new(
        home.images(),
        home.cache(),
        Arc::new(DebianHost::new(home.cache(), None)),
        Arc::new(kmt_run::external::store::http::Http::default()),
    );
    let catalogue = Catalogue::embedded().unwrap();
    let request = ImageRequest::platform(catalogue.platform("debian_12").unwrap(), Arch::host());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(store.ensure(&request, &|progress| println!("{}", progress.line()))).unwrap()
}

/// A Go module with one test that does nothing.
fn trivial_module(folder: &Path) -> PathBuf {
    let module = folder.join("module");
    fs::create_dir_all(module.join("trivial")).unwrap();
    fs::write(module.join("go.mod"), "module example.org/trivial\n\ngo 1.19\n").unwrap();
    fs::write(module.join("kmt.toml"), "[component.trivial]\nbuilder = \"go\"\n").unwrap();
    fs::write(
        module.join("trivial/trivial_test.go"),
        "package trivial\n\nimport \"testing\"\n\nfunc TestNothing(t *testing.T) {}\n",
    )
    .unwrap();
    module
}

/// A run of ours: how long it took, how long until its first test began, whether its machine started warm.
fn ours(module: &Path, warm: &str, fresh: &str) -> (Duration, Duration, bool) {
    let begun = Instant::now();
    let output = Command::new(env!("CARGO_BIN_EXE_kmt-run"))
        .arg("-C")
        .arg(module)
        .args(["run", "--vms", "debian_12-local-distro", "--stack", "bench"])
        .args(Some(fresh).filter(|word| !word.is_empty()))
        .env("KMT_WARM", warm)
        .output()
        .unwrap();
    let taken = begun.elapsed();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Neither side's time holds the end of its machine.
    run(Command::new(env!("CARGO_BIN_EXE_kmt-run"))
        .arg("-C")
        .arg(module)
        .args(["stack", "destroy", "--stack", "bench", "--yes"])
        .stderr(Stdio::null()));
    let log = fs::read_to_string(Home::find().unwrap().runs().join("latest/events.jsonl")).unwrap();
    let events = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let first = events
        .filter(|event| event["event"] == "test-started")
        .find_map(|event| event["elapsed_ms"].as_u64());
    (taken, Duration::from_millis(first.unwrap()), log.contains("\"machine-warm\""))
}

/// Ends QEMU when it goes out of scope.
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn by_hand(folder: &Path, image: &LocalImage) -> Duration {
    let work = folder.join("by-hand");
    let _ = fs::remove_dir_all(&work);
    fs::create_dir_all(&work).unwrap();
    let key = |name: &str| {
        let file = work.join(name);
        run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&file));
        (fs::read(&file).unwrap(), fs::read(file.with_extension("pub")).unwrap())
    };
    let (_, login) = key("login");
    let (host, host_public) = key("host");
    let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    fs::write(work.join("known_hosts"), [format!("[127.0.0.1]:{port} ").as_bytes(), &host_public].concat())
        .unwrap();
    let identity = identity_cpio(&[
        ("/etc/ssh/ssh_host_ed25519_key", 0o600, &host),
        ("/root/.ssh/authorized_keys", 0o600, &login),
    ]);
    let mut initrd = fs::read(&image.direct.as_ref().unwrap().initrd).unwrap();
    initrd.resize(initrd.len().next_multiple_of(4), 0);
    initrd.extend_from_slice(&identity);
    fs::write(work.join("initrd"), initrd).unwrap();
    let begun = Instant::now();
    let overlay = work.join("overlay.qcow2");
    run(Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
        .arg(&image.rootfs)
        .arg(&overlay));
    let _qemu = qemu(&work, image, port);
    while !answers(&work, port) {
        assert!(begun.elapsed() < Duration::from_secs(180), "the machine by hand does not answer");
    }
    begun.elapsed()
}

fn qemu(work: &Path, image: &LocalImage, port: u16) -> Qemu {
    let drive = |id: &str, file: &Path, rest: &str| format!("file={},if=none,id={id},{rest}", file.display());
    let modules = image.modules.as_ref().unwrap();
    let child = Command::new("qemu-system-x86_64")
        .args(["-accel", "tcg", "-machine", "q35", "-cpu", "max", "-smp", "1", "-m", "1024", "-nodefaults"])
        .args(["-no-user-config", "-display", "none", "-no-reboot", "-kernel"])
        .arg(&image.direct.as_ref().unwrap().kernel)
        .arg("-initrd")
        .arg(work.join("initrd"))
        .args(["-append", &image.cmdline.join(" "), "-drive"])
        .arg(drive("d0", &work.join("overlay.qcow2"), "format=qcow2,cache=unsafe"))
        .args(["-device", "virtio-blk-pci,drive=d0", "-drive"])
        .arg(drive("d1", modules, "format=raw,readonly=on"))
        .args(["-device", "virtio-blk-pci,drive=d1", "-netdev"])
        .arg(format!("user,id=n0,restrict=on,hostfwd=tcp:127.0.0.1:{port}-10.0.2.15:22"))
        .args(["-device", "virtio-net-pci,netdev=n0,romfile=", "-device", "virtio-rng-pci", "-serial"])
        .arg(format!("file:{}", work.join("console.log").display()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Qemu(child)
}

fn answers(work: &Path, port: u16) -> bool {
    let known = format!("UserKnownHostsFile={}", work.join("known_hosts").display());
    Command::new("ssh")
        .args(["-F", "/dev/null", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", "-o", &known, "-i"])
        .arg(work.join("login"))
        .args(["-p", &port.to_string(), "root@127.0.0.1", "true"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap()
        .success()
}

fn run(command: &mut Command) {
    assert!(command.status().unwrap().success(), "{command:?}");
}
