//! Ships to a real guest, against `scp` and `rsync` of the same over a connection that is open too: a tree of 200 files with a
//! binary of 30 MB, then that binary changed, then nothing changed. In turn, in rounds; the median of the ratios counts.
//!
//! `cargo xtask bench scp`

#![expect(clippy::disallowed_methods, reason = "a benchmark runs its peers as children")]
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints, and fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kmt_run::artifact::{Store, ship};
use kmt_run::external::transport::ssh::Ssh;
use kmt_run::external::transport::{Connection, Route, Transport as _};

use data::built;
use machine::{destroy, kmt_run, median, rounds, run, trivial_module};

mod data;
mod machine;

/// Bytes of the binary.
const BINARY: usize = 30 << 20;
const SMALL: usize = 200;
/// Speed of ours that is asked, of that of `scp`.
const ASKED: f64 = 0.8;
/// What rsync and its libraries lie in, in the guest.
const PEER: &str = "/root/rsync";

/// A guest, and an open connection to it for the peers.
struct Guest {
    alias: String,
    config: PathBuf,
    socket: PathBuf,
}

impl Guest {
    fn launch(module: &Path, folder: &Path) -> Guest {
        run(kmt_run(module)
            .args(["run", "--vms", "debian_12-local-distro", "--stack", "bench"])
            .stderr(Stdio::null()));
        let output = kmt_run(module).args(["stack", "ssh-config", "--stack", "bench"]).output().unwrap();
        let config = folder.join("ssh-config");
        fs::write(&config, &output.stdout).unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let alias = text.lines().find_map(|line| line.strip_prefix("Host ")).unwrap();
        let alias = alias.split(' ').next().unwrap().to_owned();
        let guest = Guest { alias, config, socket: folder.join("socket") };
        run(guest.command("ssh").args(["-M", "-f", "-N", &guest.alias]));
        guest.rsync();
        guest
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("-F").arg(&self.config).arg("-o").arg(format!("ControlPath={}", self.socket.display()));
        command
    }

    fn says(&self, line: &str) {
        run(self.command("ssh").args([&self.alias, line]));
    }

    /// Brings this machine's rsync there, with its libraries.
    fn rsync(&self) {
        let which = Command::new("sh").args(["-c", "command -v rsync"]).output().unwrap();
        let program = String::from_utf8(which.stdout).unwrap().trim().to_owned();
        let libraries = Command::new("ldd").arg(&program).output().unwrap();
        let libraries = String::from_utf8(libraries.stdout).unwrap();
        let files = libraries.split_whitespace().filter(|word| word.starts_with('/'));
        self.says(&format!("mkdir -p {PEER}"));
        let to = format!("{}:{PEER}/", self.alias);
        run(self.command("scp").arg("-q").args(files).arg(&program).arg(&to));
        self.says(&format!("chmod 755 {PEER}/*"));
    }

    /// Our own connection, as a lane has one.
    async fn connection(&self, folder: &Path) -> std::sync::Arc<dyn Connection> {
        let output =
            Command::new("ssh").arg("-G").arg("-F").arg(&self.config).arg(&self.alias).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let value =
            |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).unwrap().trim().to_owned();
        let route = Route {
            alias: self.alias.clone(),
            config: self.config.clone(),
            address: value("hostname "),
            port: value("port ").parse().unwrap(),
            sockets: folder.join("ours"),
            behind: None,
        };
        Ssh.connect(&route).await.unwrap()
    }

    fn scp(&self, what: &Path, to: &str) -> Duration {
        timed(|| run(self.command("scp").arg("-qrp").arg(what).arg(format!("{}:{to}", self.alias))))
    }

    fn rsynced(&self, what: &Path, to: &str) -> Duration {
        let shell = format!("ssh -F {} -o ControlPath={}", self.config.display(), self.socket.display());
        let there = format!("{PEER}/ld-linux-x86-64.so.2 --library-path {PEER} {PEER}/rsync");
        timed(|| {
            run(Command::new("rsync")
                .args(["-a", "-e", &shell, "--rsync-path", &there])
                .arg(what)
                .arg(format!("{}:{to}", self.alias)));
        })
    }
}

fn timed(what: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    what();
    begun.elapsed()
}

/// Changes the code of the binary here and there, differently each time.
fn change(binary: &Path, seed: u8) {
    let mut code = fs::read(binary).unwrap();
    code.iter_mut().step_by(4099).for_each(|byte| *byte = byte.wrapping_add(seed | 1));
    fs::write(binary, code).unwrap();
}

/// What one round took: ours, scp, rsync.
type Round = [Duration; 3];

fn shown(what: &str, round: &Round, bytes: u64) {
    let [ours, scp, rsync] = round.map(|time| time.as_secs_f64());
    println!("{what:<16} {ours:>7.2}s {scp:>7.2}s {rsync:>7.2}s {bytes:>10} {:>6.2}", scp / ours);
}

#[tokio::main]
async fn main() {
    let rounds = rounds(5);
    // Sockets lie where nobody else may.
    let temp = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o700)).tempdir().unwrap();
    let module = trivial_module(temp.path());
    let guest = Guest::launch(&module, temp.path());
    let (root, cache) = (temp.path().join("repository"), temp.path().join("cache"));
    let data = root.join("data");
    fs::create_dir_all(&data).unwrap();
    for number in 0..SMALL {
        fs::write(data.join(format!("f{number}")), format!("file {number}\n").repeat(100)).unwrap();
    }
    let binary = data.join("system-probe");
    fs::write(&binary, &fs::read(env!("CARGO_BIN_EXE_kmt-run")).unwrap()[..BINARY]).unwrap();
    let connection = guest.connection(temp.path()).await;
    let store = Store::below("/root/ours/var", "/root/ours/tests");
    println!("{:<16} {:>8} {:>8} {:>8} {:>10} {:>6}", "", "ours", "scp", "rsync", "bytes", "of scp");
    let mut ratios = Vec::new();
    for number in 0..=rounds {
        if number > 0 {
            change(&binary, number);
        }
        // Building is not shipping: the set is made before, as a run makes it while its machines boot.
        let set = built(&root, &cache).await;
        let begun = Instant::now();
        let report = ship(&set, connection.as_ref(), &store).await.unwrap();
        let ours = begun.elapsed();
        let (what, from) = if number == 0 { ("the tree", &data) } else { ("binary changed", &binary) };
        let to = |peer: &str| format!("/root/{peer}{}", if number == 0 { "" } else { "/data/" });
        guest.says("mkdir -p /root/by-scp /root/by-rsync");
        let round = [ours, guest.scp(from, &to("by-scp")), guest.rsynced(from, &to("by-rsync"))];
        shown(what, &round, report.bytes);
        if number > 0 {
            ratios.push(round[1].as_secs_f64() / round[0].as_secs_f64());
        }
    }
    let set = built(&root, &cache).await;
    let begun = Instant::now();
    let report = ship(&set, connection.as_ref(), &store).await.unwrap();
    let ours = begun.elapsed();
    shown(
        "nothing changed",
        &[ours, guest.scp(&data, "/root/by-scp"), guest.rsynced(&data, "/root/by-rsync")],
        report.bytes,
    );
    connection.close().await;
    let _ = guest.command("ssh").args(["-O", "exit", &guest.alias]).stderr(Stdio::null()).status();
    destroy(&module);
    let median = median(ratios);
    println!("a changed binary at {median:.2} of the speed of scp, at least {ASKED}");
    assert_eq!(report.bytes, 0);
    assert!(median >= ASKED, "{median:.2}");
}
