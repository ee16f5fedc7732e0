//! The life of published images against a real server on loopback, and kernels that somebody brings.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::Duration;

use rustix::process::Signal;

use crate::harness::{Home, fixture, step, text};

/// Points at which an update is killed.
const KILLS: u64 = 50;
/// Of these, so many while bytes come; the others while they are unpacked, hashed and put in place.
const WHILE_FETCHING: u64 = 30;
const NAME: &str = "ubuntu-22.04-x86_64.qcow2.xz";

/// A server of files with ranges; it counts the bytes it sent.
struct Server {
    url: String,
    sent: Arc<AtomicU64>,
    ranges: Arc<AtomicBool>,
}

impl Server {
    fn new(folder: &Path) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sent, ranges) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(true)));
        let (folder, count, with_ranges) = (folder.to_owned(), sent.clone(), ranges.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (folder, count, with_ranges) = (folder.clone(), count.clone(), with_ranges.clone());
                // Whoever asked may be gone.
                std::thread::spawn(move || {
                    drop(answer(stream, &folder, &count, with_ranges.load(Ordering::Relaxed)))
                });
            }
        });
        Server { url, sent, ranges }
    }
}

fn answer(stream: TcpStream, folder: &Path, sent: &AtomicU64, ranges: bool) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut first, mut from, mut line) = (String::new(), 0usize, String::new());
    reader.read_line(&mut first)?;
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        let lower = line.to_ascii_lowercase();
        if let Some(range) = lower.trim().strip_prefix("range: bytes=").filter(|_| ranges) {
            from = range.trim_end_matches('-').parse().unwrap_or(0);
        }
    }
    let mut words = first.split_whitespace();
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut out = stream;
    let Ok(bytes) = fs::read(folder.join(path.rsplit('/').next().unwrap_or_default())) else {
        return out.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    let status = match from {
        0 => "200 OK\r\n".to_owned(),
        _ => format!(
            "206 Partial Content\r\nContent-Range: bytes {from}-{}/{}\r\n",
            bytes.len() - 1,
            bytes.len()
        ),
    };
    let tag = bytes.len() ^ usize::from(bytes[bytes.len() / 2]);
    let length = bytes.len() - from;
    write!(out, "HTTP/1.1 {status}Content-Length: {length}\r\nETag: \"{tag}\"\r\nConnection: close\r\n\r\n")?;
    if method == "HEAD" {
        return Ok(());
    }
    for piece in bytes[from..].chunks(64 << 10) {
        out.write_all(piece)?;
        sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
        // So that a process can be killed in between.
        sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Publishes an image of 24 MiB that does not pack well, another one for each seed.
fn publish(folder: &Path, seed: u64) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let bytes: Vec<u8> = (0..3 << 20)
        .flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .collect();
    let plain = folder.join(NAME.trim_end_matches(".xz"));
    fs::write(&plain, bytes).unwrap();
    let run = |line: &str| {
        let done = Command::new("sh").args(["-c", line]).current_dir(folder).status().unwrap();
        assert!(done.success(), "{line}");
    };
    run(&format!("xz -T0 -0 -f {} && sha256sum {NAME} > {NAME}.sum", text(plain)));
}

/// The digest of the image that is in use.
fn in_use(home: &Home) -> String {
    let listed = home.call(["images", "ls", "--format", "json"]).limit(60).end().expect(0).stdout;
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    listed["published"]["images"]["ubuntu_22.04-x86_64"]["file"]["sha256"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn an_update_that_is_killed_anywhere_leaves_a_whole_image_in_use() {
    let home = Home::bare("update-kills");
    let served = home.folder.join("served");
    fs::create_dir_all(&served).unwrap();
    let server = Server::new(&served);
    let call =
        |words: &[&str]| home.call(words.iter().copied()).env("KMT_IMAGE_MIRROR", &server.url).limit(120);
    publish(&served, 1);
    step("a first image");
    let begun = std::time::Instant::now();
    call(&["images", "update", "jammy"]).end().expect(0);
    let whole = begun.elapsed();
    let size = fs::metadata(served.join(NAME)).unwrap().len();
    let mut killed = 0;
    for point in 0..KILLS {
        let before = in_use(&home);
        publish(&served, point + 2);
        server.sent.store(0, Ordering::Relaxed);
        let running = call(&["images", "update", "jammy"]).start();
        let (bytes, after) = match point.checked_sub(WHILE_FETCHING) {
            None => (size * point / WHILE_FETCHING, Duration::ZERO),
            Some(late) => (size, whole * u32::try_from(late).unwrap() / 40),
        };
        let limit = std::time::Instant::now() + Duration::from_secs(60);
        while server.sent.load(Ordering::Relaxed) < bytes && std::time::Instant::now() < limit {
            sleep(Duration::from_millis(1));
        }
        sleep(after);
        running.signal(Signal::KILL);
        killed += u64::from(running.end().signal == Some(9));
        call(&["images", "validate"]).end().expect(0);
        let now = in_use(&home);
        call(&["images", "update", "jammy"]).end().expect(0);
        call(&["images", "validate"]).end().expect(0);
        assert_ne!(in_use(&home), before, "point {point}: the next update did not bring the new image");
        assert!(now == before || now == in_use(&home), "point {point}: neither the old nor the new image");
    }
    step(&format!("{killed} of {KILLS} were killed before their end"));
    assert!(killed >= WHILE_FETCHING, "{killed}");

    step("a server without ranges, a wrong sum, half a file: named, and the image in use stays");
    server.ranges.store(false, Ordering::Relaxed);
    publish(&served, 100);
    call(&["images", "update", "jammy"]).end().expect(0);
    let before = in_use(&home);
    publish(&served, 101);
    let packed = fs::read(served.join(NAME)).unwrap();
    fs::write(served.join(NAME), &packed[..packed.len() / 2]).unwrap();
    let said = call(&["images", "update", "jammy"]).end().expect(102).stderr;
    assert!(said.contains("sha256") && said.contains("stay in use"), "{said}");
    assert_eq!(in_use(&home), before);
    step("revert is a switch");
    call(&["images", "revert"]).end().expect(0);
    assert_ne!(in_use(&home), before);
}

/// The package of this machine's own suite.
fn kernel_package(folder: &Path) -> PathBuf {
    let run = |line: &str| {
        let output = Command::new("sh").args(["-c", line]).current_dir(folder).output().unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let arch = run("dpkg --print-architecture");
    let depends = run(&format!("apt-cache depends linux-image-cloud-{}", arch.trim()));
    let name =
        depends.lines().find_map(|line| line.trim().strip_prefix("Depends: ")).unwrap().trim().to_owned();
    run(&format!("apt-get download -qq {name}"));
    let file =
        |entry: fs::DirEntry| Some(entry.path()).filter(|path| path.extension().is_some_and(|e| e == "deb"));
    fs::read_dir(folder).unwrap().flatten().find_map(file).unwrap()
}

#[test]
fn a_kernel_from_a_package_by_path_boots_and_finds_its_modules() {
    let home = Home::new("own-kernel");
    let package = text(kernel_package(&home.folder));
    let (fixture, own) = (fixture(), format!("6.1.999={package}"));
    step("named on the command line");
    let args =
        ["-C", &fixture, "run", "--custom-kernel", &own, "--vms", "custom-6.1.999-local", "--throw-away"];
    let tests = ["--packages", "./pkg/network/tracer"];
    let told = home.call(args.into_iter().chain(tests)).limit(600).end().expect(0).told();
    let release = told.kind("machine-ready")[0]["kernel_release"].as_str().unwrap().to_owned();
    assert!(package.contains(&release), "{release} is not of {package}");
    step("and in a matrix, where a module is loaded in the guest");
    let matrix = home.folder.join("own.toml");
    let name = Path::new(&package).file_name().unwrap().to_str().unwrap();
    let words = format!(
        "vms = [\"custom-6.1.999-local\"]\nmemory = 512\n[[custom-kernel]]\nversion = \"6.1.999\"\nfrom = \"{name}\"\n"
    );
    fs::write(&matrix, words).unwrap();
    let matrix = text(matrix);
    let args = ["-C", &fixture, "run", &matrix, "--stack", "own"];
    home.call(args.into_iter().chain(tests)).limit(600).end().expect(0);
    let line = "modprobe dummy && grep -c ^dummy /proc/modules";
    let args = ["-C", &fixture, "stack", "exec", "--stack", "own", "--", "sh", "-c", line];
    assert!(home.call(args).limit(60).end().expect(0).stdout.contains('1'));
    home.destroy();
}
