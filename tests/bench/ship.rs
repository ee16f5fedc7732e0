//! Ships 100,000 small files to this machine as if it were a guest, and again: the second time not a byte, and in less
//! than two seconds, reading the files here included.

#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]
#![expect(clippy::print_stdout, reason = "its result is what it prints")]

use std::fs;
use std::time::{Duration, Instant};

use kmt_run::artifact::{Store, ship};
use kmt_run::external::transport::local::Local;

use data::built;

mod data;

const FOLDERS: u32 = 100;
const FILES: u32 = 1000;

#[tokio::main]
async fn main() {
    let temp = tempfile::tempdir().unwrap();
    let (root, cache) = (temp.path().join("repository"), temp.path().join("cache"));
    for folder in 0..FOLDERS {
        let folder = root.join(format!("data/{folder}"));
        fs::create_dir_all(&folder).unwrap();
        for number in 0..FILES {
            fs::write(folder.join(format!("f{number}")), format!("{} {number}", folder.display())).unwrap();
        }
    }
    let at = |name: &str| temp.path().join(name).display().to_string();
    let (store, guest) = (Store::below(&at("var"), &at("opt/tests")), Local::new("/"));
    let begun = Instant::now();
    let first = built(&root, &cache).await;
    assert_eq!(first.files.len(), (FOLDERS * FILES) as usize);
    let report = ship(&first, &guest, &store).await.unwrap();
    assert_eq!(report.files, FOLDERS * FILES);
    println!("{} files, {} bytes: {:.2} s", report.files, report.bytes, begun.elapsed().as_secs_f64());
    let begun = Instant::now();
    let second = built(&root, &cache).await;
    let here = begun.elapsed();
    let report = ship(&second, &guest, &store).await.unwrap();
    let took = begun.elapsed();
    println!(
        "again: {} bytes, {:.2} s, of which {:.2} s here (at most 2)",
        report.bytes,
        took.as_secs_f64(),
        here.as_secs_f64()
    );
    assert_eq!((report.bytes, report.files), (0, 0));
    assert!(took < Duration::from_secs(2), "{took:?}");
}
