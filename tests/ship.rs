//! Ships to this machine as if it were a guest.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context as Waker, Poll};

use async_trait::async_trait;
use kmt_reporters::event::Arch;
use kmt_run::artifact::{ArtifactSet, Coding, Link, ShipFile, ShipLink, Store, TestPackage, ship};
use kmt_run::external::process::{Child, Output};
use kmt_run::external::transport::local::Local;
use kmt_run::external::transport::{Connection, RemoteStream};
use kmt_run::external::{Class, Result};
use kmt_run::run::formats::Speech;
use kmt_run::run::gotest::Framing;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, ReadBuf};

/// A disk with room, however full this machine's is.
const ROOMY: &str = "df() { printf 'Filesystem\\n/dev/vda 100 10 90 10%% /\\n'; }";
/// One without.
const FULL: &str = "df() { printf 'Filesystem\\n/dev/vda 100 90 10 90%% /\\n'; }";

/// Runs commands here, counts them, and can cut the stream.
struct Guest {
    local: Local,
    commands: AtomicU32,
    cut_after: Option<u64>,
    /// Shell text before each script, such as a limit of file sizes.
    before: &'static str,
    /// Replaces `sh`.
    shell: Option<&'static str>,
}

impl Guest {
    fn new() -> Guest {
        Guest {
            local: Local::new("/"),
            commands: AtomicU32::new(0),
            cut_after: None,
            before: ROOMY,
            shell: None,
        }
    }

    fn argv(&self, argv: &[&str]) -> Vec<String> {
        self.commands.fetch_add(1, Ordering::Relaxed);
        let mut argv: Vec<String> = argv.iter().map(|&arg| arg.to_owned()).collect();
        argv[2] = format!("{}\n{}", self.before, argv[2]);
        if let Some(shell) = self.shell {
            argv.insert(0, shell.to_owned());
        }
        argv
    }
}

fn refs(argv: &[String]) -> Vec<&str> {
    argv.iter().map(String::as_str).collect()
}

struct Cut<'a> {
    inner: &'a mut (dyn AsyncRead + Send + Unpin),
    left: u64,
}

impl AsyncRead for Cut<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        waker: &mut Waker<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.left == 0 {
            return Poll::Ready(Ok(()));
        }
        let mut small = buf.take(usize::try_from(self.left).unwrap_or(usize::MAX).min(1024));
        let polled = Pin::new(&mut *self.inner).poll_read(waker, &mut small);
        let read = small.filled().len();
        let bytes = small.filled().to_vec();
        buf.put_slice(&bytes);
        self.left -= read as u64;
        polled
    }
}

#[async_trait]
impl Connection for Guest {
    async fn run(&self, argv: &[&str], stdin: Vec<u8>) -> Result<Output> {
        self.local.run(&refs(&self.argv(argv)), stdin).await
    }

    async fn feed(&self, argv: &[&str], stdin: &mut (dyn AsyncRead + Send + Unpin)) -> Result<Output> {
        let argv = self.argv(argv);
        let mut cut = Cut { inner: stdin, left: self.cut_after.unwrap_or(u64::MAX) };
        self.local.feed(&refs(&argv), &mut cut).await
    }

    async fn stream(&self, argv: &[&str], stdin: Vec<u8>) -> Result<Box<dyn RemoteStream>> {
        self.local.stream(argv, stdin).await
    }

    async fn close(&self) {}
}

struct World {
    folder: tempfile::TempDir,
    store: Store,
    guest: Guest,
}

impl World {
    fn new() -> World {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("var/kmt").display().to_string();
        let root = folder.path().join("opt/tests").display().to_string();
        World { store: Store::below(&base, &root), folder, guest: Guest::new() }
    }

    fn set(&self, files: &[(&str, &str)]) -> ArtifactSet {
        let file = |(dest, text): &(&str, &str)| {
            let digest = hex::encode(Sha256::digest(text));
            let source = self.folder.path().join(format!("source-{digest}"));
            fs::write(&source, text).unwrap();
            ShipFile { dest: (*dest).to_owned(), source, digest, mode: 0o755, size: text.len() as u64 }
        };
        let package = TestPackage {
            name: "pkg/a".into(),
            binary: "pkg/a/testsuite".into(),
            workdir: "pkg/a".into(),
            speech: Speech::Go(Framing::Plain),
        };
        let link = ShipLink { dest: "pkg/a/testdata/li nk".into(), target: "$(x) y".into() };
        ArtifactSet {
            arch: Arch::host(),
            files: files.iter().map(file).collect(),
            links: vec![link],
            packages: vec![package],
        }
    }

    fn read(&self, dest: &str) -> Option<String> {
        fs::read_to_string(Path::new(&self.store.root).join(dest)).ok()
    }

    fn names(&self, folder: &str) -> Vec<PathBuf> {
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        names
    }
}

const LONG: &str = "pkg/a/testdata/a long name that is longer than the hundred bytes that fit into the header of an old tar file/and \\ 'quotes' \"too\"/ü";

#[tokio::test]
async fn the_second_ship_sends_nothing_and_a_change_sends_one_file() {
    let mut world = World::new();
    let first = world.set(&[("pkg/a/testsuite", "binary"), (LONG, "data"), ("pkg/a/testdata/same", "data")]);
    let report = ship(&first, &world.guest, &world.store).await.unwrap();
    assert_eq!(report.files, 2);
    assert!(report.bytes > 0);
    assert_eq!(world.read(LONG).as_deref(), Some("data"));
    let link = Path::new(&world.store.root).join("pkg/a/testdata/li nk");
    assert_eq!(fs::read_link(link).unwrap(), Path::new("$(x) y"));

    world.guest.commands = AtomicU32::new(0);
    let report = ship(&first, &world.guest, &world.store).await.unwrap();
    assert_eq!((report.bytes, report.files), (0, 0));
    assert_eq!(world.guest.commands.load(Ordering::Relaxed), 1);

    let second = world.set(&[("pkg/a/testsuite", "other binary"), (LONG, "data")]);
    assert_eq!(ship(&second, &world.guest, &world.store).await.unwrap().files, 1);
    assert_eq!(world.read("pkg/a/testsuite").as_deref(), Some("other binary"));
    assert_eq!(world.read("pkg/a/testdata/same"), None);
    assert_eq!(world.names(&world.store.trees).len(), 1);
    // The blob that no tree uses stays while there is room: the selection before comes back without a file.
    let back = ship(&first, &world.guest, &world.store).await.unwrap();
    assert_eq!(back.files, 0);
    assert_eq!(world.read("pkg/a/testsuite").as_deref(), Some("binary"));
    // Where there is none, it goes.
    world.guest.before = FULL;
    ship(&second, &world.guest, &world.store).await.unwrap();
    assert_eq!(ship(&first, &world.guest, &world.store).await.unwrap().files, 1);
}

#[tokio::test]
async fn an_untouched_guest_is_not_asked_and_one_that_has_something_after_all_is_right_too() {
    for coding in [Coding::Plain, Coding::Gzip] {
        let mut world = World::new();
        world.store.untouched = Some(coding);
        world.store.link = Link::Far;
        let first = world.set(&[("pkg/a/testsuite", "binary"), (LONG, "data")]);
        assert_eq!(ship(&first, &world.guest, &world.store).await.unwrap().files, 2);
        assert_eq!(world.guest.commands.load(Ordering::Relaxed), 1);
        let second = world.set(&[("pkg/a/testsuite", "other binary"), (LONG, "data")]);
        assert_eq!(ship(&second, &world.guest, &world.store).await.unwrap().files, 2);
        assert_eq!(world.read("pkg/a/testsuite").as_deref(), Some("other binary"));
        assert_eq!(world.read(LONG).as_deref(), Some("data"));
        world.store.untouched = None;
        assert_eq!(ship(&second, &world.guest, &world.store).await.unwrap().bytes, 0);
    }
    let world = World::new();
    fs::create_dir_all(&world.store.root).unwrap();
    let store = Store { untouched: Some(Coding::Plain), ..world.store.clone() };
    let refused = ship(&world.set(&[("pkg/a/testsuite", "x")]), &world.guest, &store).await.unwrap_err();
    assert!(refused.to_string().contains("is no symbolic link"), "{refused}");
}

#[tokio::test]
async fn permissions_arrive_and_two_files_of_one_content_may_differ_in_them() {
    let world = World::new();
    let mut set =
        world.set(&[("pkg/a/testsuite", "same"), ("pkg/a/testdata/key", "same"), ("pkg/a/read", "other")]);
    for (file, mode) in set.files.iter_mut().zip([0o755, 0o600, 0o444]) {
        file.mode = mode;
    }
    assert_eq!(ship(&set, &world.guest, &world.store).await.unwrap().files, 3);
    for (dest, mode) in [("pkg/a/testsuite", 0o755), ("pkg/a/testdata/key", 0o600), ("pkg/a/read", 0o444)] {
        let meta = fs::metadata(Path::new(&world.store.root).join(dest)).unwrap();
        assert_eq!(meta.permissions().mode() & 0o7777, mode, "{dest}");
    }
    assert_eq!(ship(&set, &world.guest, &world.store).await.unwrap().bytes, 0);
}

/// 2 GB with a hole in it: what is not data neither travels nor takes room.
#[tokio::test]
async fn a_sparse_file_stays_one() {
    let world = World::new();
    let size = 2_100_000_000;
    let source = world.folder.path().join("disk.img");
    let file = fs::File::create(&source).unwrap();
    file.write_all_at(b"begin", 0).unwrap();
    file.write_all_at(b"middle", 1_500_000_123).unwrap();
    file.set_len(size).unwrap();
    if file.metadata().unwrap().blocks() > 1000 {
        println!("this file system has no holes");
        return;
    }
    let mut set = world.set(&[("pkg/a/testsuite", "binary")]);
    let digest = Child::new("sha256sum").arg(&source).success().await.unwrap().text()[..64].to_owned();
    let dest = "pkg/a/testdata/disk image".to_owned();
    set.files.push(ShipFile { dest: dest.clone(), source, digest, mode: 0o644, size });
    let report = ship(&set, &world.guest, &world.store).await.unwrap();
    assert!(report.files == 2 && report.bytes < 100_000, "{report:?}");
    let there = Path::new(&world.store.root).join(&dest);
    let meta = fs::metadata(&there).unwrap();
    assert_eq!((meta.len(), meta.permissions().mode() & 0o777), (size, 0o644));
    assert!(meta.blocks() < 1000, "{} blocks", meta.blocks());
    // It was verified when it came, and is not read again.
    assert_eq!(ship(&set, &world.guest, &world.store).await.unwrap().bytes, 0);
}

#[tokio::test]
async fn a_broken_stream_leaves_the_former_tree() {
    let mut world = World::new();
    let first = world.set(&[("pkg/a/testsuite", "binary")]);
    ship(&first, &world.guest, &world.store).await.unwrap();
    // Nothing that gzip makes small.
    let mut state = 1u32;
    let large: String = (0..3_000_000)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            char::from(b'0' + u8::try_from(state >> 26).unwrap())
        })
        .collect();
    let second = world.set(&[("pkg/a/testsuite", "other"), ("pkg/a/testdata/large", &large)]);
    for cut in [0, 1, 512, 5000, 100_000, 2_000_000] {
        world.guest.cut_after = Some(cut);
        let error = ship(&second, &world.guest, &world.store).await.unwrap_err();
        assert_eq!(error.class, Class::Unreachable, "{cut}: {error}");
        assert_eq!(world.read("pkg/a/testsuite").as_deref(), Some("binary"));
        assert_eq!(world.names(&world.store.trees).len(), 1, "{cut}");
    }
    world.guest.cut_after = None;
    assert_eq!(ship(&second, &world.guest, &world.store).await.unwrap().files, 2);
    assert_eq!(world.read("pkg/a/testdata/large").map(|text| text.len()), Some(3_000_000));
}

#[tokio::test]
async fn a_blob_that_was_written_to_is_found_and_sent_again() {
    let world = World::new();
    let set = world.set(&[("pkg/a/testsuite", "binary"), ("pkg/a/testdata/x", "data")]);
    ship(&set, &world.guest, &world.store).await.unwrap();
    // A test writes into its own test data, which is the blob too.
    fs::write(Path::new(&world.store.root).join("pkg/a/testdata/x"), "spoiled").unwrap();
    let report = ship(&set, &world.guest, &world.store).await.unwrap();
    assert_eq!(report.files, 1);
    assert_eq!(world.read("pkg/a/testdata/x").as_deref(), Some("data"));
    assert_eq!(ship(&set, &world.guest, &world.store).await.unwrap().bytes, 0);
}

#[tokio::test]
async fn a_full_disk_is_said_to_be_one_and_leaves_the_former_tree() {
    let mut world = World::new();
    let first = world.set(&[("pkg/a/testsuite", "binary")]);
    ship(&first, &world.guest, &world.store).await.unwrap();
    let second = world.set(&[("pkg/a/testsuite", &"y".repeat(400_000))]);
    world.guest.before = "tar() { command tar \"$@\" && { echo 'tar: write error: No space left on device' >&2; return 2; }; }";
    let error = ship(&second, &world.guest, &world.store).await.unwrap_err();
    assert_eq!(error.class, Class::Busy);
    assert!(error.to_string().contains("its disk is full"), "{error}");
    assert_eq!(world.read("pkg/a/testsuite").as_deref(), Some("binary"));
    assert_eq!(world.names(&world.store.trees).len(), 1);
}

#[tokio::test]
async fn a_disk_that_is_really_full_leaves_the_former_tree() {
    let world = World::new();
    let disk = world.folder.path().join("var").display().to_string();
    fs::create_dir_all(&disk).unwrap();
    let mount = Child::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs", &disk]);
    if !mount.output().await.is_ok_and(|output| output.ok()) {
        println!("not allowed to mount");
        return;
    }
    let first = world.set(&[("pkg/a/testsuite", "binary")]);
    let second = world.set(&[("pkg/a/testsuite", &"z".repeat(2_000_000))]);
    let shipped = ship(&first, &world.guest, &world.store).await;
    let error = ship(&second, &world.guest, &world.store).await;
    let (left, trees) = (world.read("pkg/a/testsuite"), world.names(&world.store.trees).len());
    let again = ship(&first, &world.guest, &world.store).await;
    Child::new("umount").arg(&disk).success().await.unwrap();
    assert_eq!(shipped.unwrap().files, 1);
    let error = error.unwrap_err();
    assert_eq!(error.class, Class::Busy, "{error}");
    assert_eq!((left.as_deref(), trees), (Some("binary"), 1));
    assert_eq!(again.unwrap().bytes, 0);
}

#[tokio::test]
async fn a_file_that_changes_meanwhile_is_noticed() {
    let world = World::new();
    let set = world.set(&[("pkg/a/testsuite", "binary")]);
    fs::write(&set.files[0].source, "BINARY").unwrap();
    let error = ship(&set, &world.guest, &world.store).await.unwrap_err();
    assert_eq!(error.class, Class::Unintelligible, "{error}");
    fs::write(&set.files[0].source, "longer than before").unwrap();
    let error = ship(&set, &world.guest, &world.store).await.unwrap_err();
    assert!(error.to_string().contains("it changed since it was read"), "{error}");
    assert_eq!(world.read("pkg/a/testsuite"), None);
}

#[tokio::test]
async fn a_guest_that_has_it_all_need_not_read_what_it_is_asked() {
    let world = World::new();
    let names: Vec<String> = (0..3000).map(|number| format!("pkg/a/testdata/{number}")).collect();
    let files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), name.as_str())).collect();
    let set = world.set(&files);
    assert_eq!(ship(&set, &world.guest, &world.store).await.unwrap().files, 3000);
    // The question is longer than a pipe takes, and the answer comes before it is read.
    assert_eq!(ship(&set, &world.guest, &world.store).await.unwrap().bytes, 0);
}

#[tokio::test]
async fn a_guest_without_gzip_is_sent_a_plain_stream() {
    let mut world = World::new();
    world.store.link = Link::Far;
    let set = world.set(&[("pkg/a/testsuite", &"z".repeat(500_000))]);
    let packed = ship(&set, &world.guest, &world.store).await.unwrap();
    fs::remove_dir_all(world.folder.path().join("var")).unwrap();
    world.guest.before = "command() { return 1; }; gzip() { return 1; }";
    let plain = ship(&set, &world.guest, &world.store).await.unwrap();
    assert!(packed.bytes < 50_000 && plain.bytes > 500_000, "{packed:?} {plain:?}");
    assert_eq!(world.read("pkg/a/testsuite").map(|text| text.len()), Some(500_000));
}

#[tokio::test]
async fn a_folder_in_the_place_of_the_root_is_not_touched() {
    let world = World::new();
    fs::create_dir_all(&world.store.root).unwrap();
    let set = world.set(&[("pkg/a/testsuite", "binary")]);
    let error = ship(&set, &world.guest, &world.store).await.unwrap_err();
    assert_eq!(error.class, Class::Rejected);
    assert!(error.to_string().contains("no symbolic link"), "{error}");
}

/// The guest's tools may be busybox's: where it is installed here, all of it works with those alone.
#[tokio::test]
async fn busybox_is_enough() {
    let Some(busybox) =
        ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists())
    else {
        println!("busybox is not installed");
        return;
    };
    let mut world = World::new();
    world.guest.shell = Some(busybox);
    // Every tool is busybox's applet.
    world.guest.before = "for tool in mkdir rm find sha256sum readlink tar mv ln grep head; do alias $tool=\"/bin/busybox $tool\"; done";
    let first = world.set(&[("pkg/a/testsuite", "binary"), (LONG, "data")]);
    assert_eq!(ship(&first, &world.guest, &world.store).await.unwrap().files, 2);
    assert_eq!(ship(&first, &world.guest, &world.store).await.unwrap().bytes, 0);
    let second = world.set(&[("pkg/a/testsuite", "other binary"), (LONG, "data")]);
    assert_eq!(ship(&second, &world.guest, &world.store).await.unwrap().files, 1);
    assert_eq!(world.read("pkg/a/testsuite").as_deref(), Some("other binary"));
}
