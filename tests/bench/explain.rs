//! Explains a pipeline whose failed jobs left 2 GB of results, against `curl --parallel` fetching the same files; and again.
//!
//! Asked for: at most 1.3 of curl's time over a line of 1 Gbit/s, less than 150 MB of memory, no more requests than are
//! needed; the second time less than a second. Without a line between them server, client and what unpacks the archives share
//! this machine's processors: that ratio is told too.

#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]
#![expect(clippy::print_stdout, reason = "its result is what it prints")]
#![expect(clippy::disallowed_methods, reason = "it looks at kmt-run from outside, as its users do")]

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const JOBS: u64 = 40;
/// Bytes of an archive, about: of text, which is packed to a fifth, and of what cannot be packed.
const SIZE: u64 = 52 << 20;
const TEXT: usize = 130 << 20;
const NOISE: usize = 26 << 20;
/// Bytes a second of the line.
const LINE: f64 = 125e6;
/// Bytes that the line takes at once.
const PIECE: usize = 256 << 10;
/// Rows of a page.
const PAGE: usize = 20;

struct Served {
    archive: Vec<u8>,
    jobs: Vec<Value>,
    requests: AtomicU64,
    /// Until when the line is busy; none where there is no line between.
    line: Mutex<Option<Instant>>,
}

impl Served {
    /// Sends over the line, which all connections share.
    fn send(&self, stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
        for piece in bytes.chunks(PIECE) {
            let mut line = self.line.lock().unwrap();
            let now = Instant::now();
            let free = line.map(|until| until.max(now) + Duration::from_secs_f64(piece.len() as f64 / LINE));
            *line = free;
            drop(line);
            std::thread::sleep(free.map_or(Duration::ZERO, |free| free - now));
            stream.write_all(piece)?;
        }
        Ok(())
    }
}

/// Lines such as tests print, from a generator of numbers.
fn text(size: usize, mut next: impl FnMut() -> u64) -> String {
    let words = [
        "conntrack",
        "tuple",
        "dropped",
        "closed",
        "flow",
        "netns",
        "verdict",
        "probe",
        "attached",
        "expected",
    ];
    let mut text = String::with_capacity(size + 200);
    while text.len() < size {
        let number = next();
        let word = |by: u64| words[(number >> by) as usize % words.len()];
        let _ = writeln!(
            text,
            "    tracer_test.go:{}: {} {} {} saddr={:#x} pid={} {}",
            number % 900,
            word(3),
            word(9),
            word(17),
            number >> 40,
            number % 32_768,
            word(23)
        );
    }
    text
}

/// An archive with a large log, a large file that cannot be packed, and a small one that is JUnit; as `tar -z` packs.
fn archive() -> Vec<u8> {
    let mut tar =
        tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default()));
    let mut state = 1_u64;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state ^ (state >> 29)
    };
    let log = text(TEXT, &mut next);
    let noise: Vec<u8> = (0..NOISE / 8).flat_map(|_| next().to_le_bytes()).collect();
    let xml = "<testsuites><testsuite name=\"pkg/a\"><testcase name=\"TestA\"><failure message=\"bad\"/></testcase></testsuite></testsuites>";
    let files = [("tests.log", log.as_bytes()), ("core.zst", noise.as_slice()), ("a.xml", xml.as_bytes())];
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append_data(&mut header, name, bytes).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

fn job(number: u64) -> Value {
    json!({"id": number, "name": format!("kmt_run_sysprobe_tests_x64: [platform_{number}, no_usm]"), "status": "failed",
        "stage": "t", "failure_reason": "script_failure", "artifacts": [{"file_type": "archive", "size": SIZE}]})
}

fn path_of(number: u64) -> String {
    format!(
        "/api/v4/projects/a%2Fb/jobs/{number}/artifacts/test/new-e2e/tests/junit-x86_64-platform_{number}-no_usm.tar.gz"
    )
}

fn serve(mut stream: TcpStream, served: &Served) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut line, mut header) = (String::new(), String::new());
    if reader.read_line(&mut line).unwrap_or(0) == 0 {
        return;
    }
    while reader.read_line(&mut header).unwrap_or(0) > 0 && header != "\r\n" {
        header.clear();
    }
    served.requests.fetch_add(1, Ordering::Relaxed);
    let target = line.split(' ').nth(1).unwrap_or_default();
    let mut more = String::new();
    let body;
    let (kind, bytes): (&str, &[u8]) = if target.contains("/artifacts/") {
        ("application/gzip", &served.archive)
    } else {
        let value = if target.contains("/bridges") {
            json!([])
        } else if target.contains("/jobs") {
            let page = target.split("&page=").nth(1).and_then(|page| page.parse().ok()).unwrap_or(1);
            let from = ((page - 1) * PAGE).min(served.jobs.len());
            let to = (from + PAGE).min(served.jobs.len());
            let next = if to < served.jobs.len() { (page + 1).to_string() } else { String::new() };
            let _ = write!(more, "X-Next-Page: {next}\r\n");
            json!(served.jobs[from..to])
        } else {
            json!({"id": 1, "status": "failed", "ref": "main"})
        };
        body = value.to_string().into_bytes();
        ("application/json", &body)
    };
    let head = format!(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: {kind}\r\n{more}Content-Length: {}\r\n\r\n",
        bytes.len()
    );
    let _ = stream.write_all(head.as_bytes()).and_then(|()| served.send(&mut stream, bytes));
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let _ = stream.read(&mut [0; 16]);
}

/// Runs it; its time, its output, and the most memory it had (KiB).
fn timed(command: &mut Command) -> (Duration, String, u64) {
    let begun = Instant::now();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
    let mut output = child.stdout.take().unwrap();
    let told = std::thread::spawn(move || {
        let mut text = String::new();
        output.read_to_string(&mut text).map(|_| text)
    });
    let status = format!("/proc/{}/status", child.id());
    let mut most = 0;
    let ended = loop {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let peak =
            text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().split(' ').next()?.parse().ok());
        most = most.max(peak.unwrap_or(0));
        if let Some(ended) = child.try_wait().unwrap() {
            break ended;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let took = begun.elapsed();
    assert!(ended.success(), "{command:?}");
    (took, told.join().unwrap().unwrap(), most)
}

fn curl(folder: &Path, url: &str) -> Duration {
    fs::create_dir_all(folder).unwrap();
    let mut list = String::new();
    for number in 1..=JOBS {
        let _ =
            writeln!(list, "url = \"{url}{}\"\noutput = \"{}/{number}\"", path_of(number), folder.display());
    }
    let config = folder.join("list");
    fs::write(&config, list).unwrap();
    let mut command = Command::new("curl");
    command
        .args([
            "--silent",
            "--show-error",
            "--no-progress-meter",
            "--fail",
            "--parallel",
            "--parallel-max",
            "8",
            "--config",
        ])
        .arg(config);
    timed(&mut command).0
}

/// One comparison: seconds of curl and of both calls of ours, and the most memory of ours, MB.
fn compared(served: &Served, url: &str) -> (f64, f64, f64, u64) {
    let temp = tempfile::tempdir().unwrap();
    let by_curl = curl(&temp.path().join("curl"), url);
    fs::remove_dir_all(temp.path().join("curl")).unwrap();
    let explain = || {
        let before = served.requests.load(Ordering::Relaxed);
        let mut command = Command::new(env!("CARGO_BIN_EXE_kmt-run"));
        command.args(["explain", "1", "--format", "json"]).env("KMT_HOME", temp.path().join("home"));
        command.env("KMT_GITLAB_URL", url).env("KMT_GITLAB_PROJECT", "a/b").current_dir(temp.path());
        let (took, told, memory) = timed(&mut command);
        let told: Value = serde_json::from_str(&told).unwrap();
        assert_eq!(told["subject"]["failed"], JOBS);
        assert_eq!(told["causes"].as_array().unwrap().len(), 1);
        let requests = served.requests.load(Ordering::Relaxed) - before;
        assert_eq!(told["cost"]["requests"], requests);
        (took, memory / 1024, requests)
    };
    let (first, memory, requests) = explain();
    let (second, _, state) = explain();
    assert_eq!(
        (requests, state),
        (JOBS + 4, 4),
        "a pipeline, two pages of jobs, bridges, and each archive once"
    );
    (by_curl.as_secs_f64(), first.as_secs_f64(), second.as_secs_f64(), memory)
}

fn main() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let jobs = (1..=JOBS).map(job).collect();
    let (requests, line) = (AtomicU64::new(0), Mutex::new(None));
    let served = Arc::new(Served { archive: archive(), jobs, requests, line });
    let shared = served.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let served = shared.clone();
            std::thread::spawn(move || serve(stream, &served));
        }
    });
    println!("{} MB in {JOBS} files", (served.archive.len() as u64 * JOBS) / 1_000_000);
    println!("{:<22} {:>8} {:>8} {:>6} {:>8} {:>7}", "", "curl", "explain", "ratio", "memory", "again");
    let mut ratio = [0.0; 2];
    for (line, ratio) in [None, Some(Instant::now())].into_iter().zip(&mut ratio) {
        *served.line.lock().unwrap() = line;
        let (curl, first, second, memory) = compared(&served, &url);
        *ratio = first / curl;
        let between = if line.is_some() { "1 Gbit/s between" } else { "nothing between" };
        println!("{between:<22} {curl:>7.2}s {first:>7.2}s {ratio:>6.2} {memory:>5} MB {second:>6.2}s");
        assert!(memory < 150 && second < 1.0);
    }
    assert!(ratio[1] <= 1.3, "at most 1.3 with the line between");
}
