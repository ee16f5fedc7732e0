//! Unpacking an image against the tools that do nothing else, in the same run: at least 0.9 of `xz -T0` and of
//! `zstd -T0`. The file is half text-like, half as hard to pack as a file system's blocks are, as images are.
//!
//! `cargo xtask bench unpack`

#![expect(clippy::disallowed_methods, reason = "a benchmark runs its peers as children")]
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark prints, and fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kmt_run::image::published::unpack;

/// Size of the image, bytes.
const SIZE: usize = 256 << 20;
/// Least speed, as a part of the tool's.
const LEAST: f64 = 0.9;
/// Times that each is measured; the best counts.
const TIMES: usize = 3;

fn main() {
    let folder = tempfile::tempdir_in(concat!(env!("CARGO_MANIFEST_DIR"), "/target")).unwrap();
    let image = folder.path().join("image");
    fs::write(&image, content()).unwrap();
    for (tool, ending) in [("xz", "xz"), ("zstd", "zst")] {
        let packed = folder.path().join(format!("image.{ending}"));
        let made = Command::new(tool).args(["-T0", "-3", "-k", "-q"]).arg(&image).status().unwrap();
        assert!(made.success(), "{tool} packs");
        let target = folder.path().join("unpacked");
        let theirs = best(|| {
            let output = Stdio::from(fs::File::create(&target).unwrap());
            let done = Command::new(tool)
                .args(["-T0", "-d", "-c", "-q"])
                .arg(&packed)
                .stdout(output)
                .status()
                .unwrap();
            assert!(done.success(), "{tool} unpacks");
        });
        let ours = best(|| assert_eq!(unpack(&packed, &target).unwrap(), SIZE as u64));
        assert!(same(&image, &target), "not the same bytes");
        let part = theirs.as_secs_f64() / ours.as_secs_f64();
        let speed = |time: Duration| (SIZE >> 20) as f64 / time.as_secs_f64();
        println!(
            "{tool:<6} {:>7.0} MiB/s, {tool} -T0 {:>7.0} MiB/s: {part:.2} of it, least {LEAST}",
            speed(ours),
            speed(theirs)
        );
        assert!(cfg!(debug_assertions) || part >= LEAST, "slower than {LEAST} of {tool}");
    }
}

fn best(mut work: impl FnMut()) -> Duration {
    let time = |_| {
        let begun = Instant::now();
        work();
        begun.elapsed()
    };
    (0..TIMES).map(time).min().unwrap()
}

fn same(a: &Path, b: &Path) -> bool {
    Command::new("cmp").args(["-s", "--"]).args([a, b]).status().unwrap().success()
}

/// Blocks of words and blocks of noise, by turns.
fn content() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(SIZE);
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    while bytes.len() < SIZE {
        if (bytes.len() >> 16) % 2 == 0 {
            bytes.extend_from_slice(
                format!("{:04x} the quick brown fox {:03}\n", next() % 4096, next() % 100).as_bytes(),
            );
        } else {
            bytes.extend_from_slice(&next().to_le_bytes());
        }
    }
    bytes.truncate(SIZE);
    bytes
}
