//! The start of a machine: a run of one cell with one trivial package, cold and from a template, against virtme-ng and against
//! booting the same kernel and userland by hand until SSH answers. All in turn, in rounds; what counts is the median of the
//! ratios of a round.
//!
//! `cargo xtask bench boot`; `cargo bench -p kmt-run --features live --bench boot -- ROUNDS`

#![expect(clippy::disallowed_methods, reason = "a benchmark runs its peers as children")]
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints, and fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kmt_reporters::event::Arch;
use kmt_run::external::debian::DebianHost;
use kmt_run::image::{ImageRequest, ImageStore, LocalImage, identity_cpio};
use kmt_run::matrix::Catalogue;
use kmt_run::settings::Home;

use machine::{destroy, kmt_run, median, rounds, run, trivial_module};
use virtme::Virtme;

mod machine;
mod virtme;

/// How long a template may take.
const MAKING: Duration = Duration::from_secs(300);

/// What one round took.
struct Round {
    /// A cold run of ours: the whole, and until its first test began.
    cold: (Duration, Duration),
    /// A run from a template, until its first test began.
    warm: Duration,
    by_hand: Duration,
    virtme: Duration,
}

/// What is compared, and what it may be at most.
type Ratio = (&'static str, fn(&Round) -> (Duration, Duration), f64);
const RATIOS: [Ratio; 4] = [
    ("a cold run, of booting by hand", |round| (round.cold.0, round.by_hand), 1.3),
    ("the first test of a cold run, of virtme-ng's whole run", |round| (round.cold.1, round.virtme), 1.6),
    ("the first test of a warm run, of virtme-ng's whole run", |round| (round.warm, round.virtme), 0.5),
    ("the first test of a warm run, of a cold one", |round| (round.warm, round.cold.1), 0.2),
];

fn main() {
    let rounds = rounds(5);
    let folder = std::env::temp_dir().join(format!("kmt-bench-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let image = image();
    let module = trivial_module(&folder);
    let virtme = Virtme::new(&folder, &image);
    // Builds, probes and disk caches are warm for all: what is compared is the start of a machine.
    by_hand(&folder, &image);
    virtme.whole_run();
    let begun = Instant::now();
    // The first run has a template made beside it, or begun.
    while !ours(&module, "on").2 {
        assert!(begun.elapsed() < MAKING, "no template");
    }
    println!(
        "{:>5} {:>8} {:>10} {:>8} {:>9} {:>9}",
        "round", "cold", "to a test", "warm", "by hand", "virtme-ng"
    );
    let rounds: Vec<Round> =
        (1..=rounds).map(|number| round(number, &folder, &module, &image, &virtme)).collect();
    fs::remove_dir_all(&folder).unwrap();
    let mut missed = Vec::new();
    for (what, of, limit) in RATIOS {
        let ratios = rounds.iter().map(of).map(|(ours, theirs)| ours.as_secs_f64() / theirs.as_secs_f64());
        let median = median(ratios.collect());
        println!("{what}: {median:.2}, at most {limit}");
        missed.extend((median > limit).then_some(what));
    }
    assert!(missed.is_empty(), "{missed:?}");
}

fn round(number: u8, folder: &Path, module: &Path, image: &LocalImage, virtme: &Virtme) -> Round {
    let (cold, first, _) = ours(module, "off");
    let (_, warm, from_template) = ours(module, "on");
    assert!(from_template, "it booted");
    let round =
        Round { cold: (cold, first), warm, by_hand: by_hand(folder, image), virtme: virtme.whole_run() };
    let shown =
        [cold, first, warm, round.by_hand, round.virtme].map(|time| format!("{:.2}s", time.as_secs_f64()));
    println!("{number:>5} {:>8} {:>10} {:>8} {:>9} {:>9}", shown[0], shown[1], shown[2], shown[3], shown[4]);
    round
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

/// A run of ours: how long it took, how long until its first test began, whether its machine started warm.
fn ours(module: &Path, warm: &str) -> (Duration, Duration, bool) {
    let begun = Instant::now();
    let output = kmt_run(module)
        .args(["run", "--vms", "debian_12-local-distro", "--stack", "bench", "--fresh"])
        .env("KMT_WARM", warm)
        .output()
        .unwrap();
    let taken = begun.elapsed();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Neither side's time holds the end of its machine.
    destroy(module);
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
