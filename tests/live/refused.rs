//! Bad input and hosts that cannot: a clear error with a hint and the right code, and nothing left over.

use std::fs;
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{ARCH, Home, cell, copy, fixture, program, step, text};

/// Nobody listens there.
const DEAD_MIRROR: &str = "http://127.0.0.1:9";

const DEBIAN_12: [&str; 2] = ["--vms", "debian_12-local-distro"];

/// A call on the fixture.
fn on<'a>(fixture: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    ["-C", fixture, "run"].into_iter().chain(more.iter().copied()).collect()
}

#[test]
fn bad_input_is_refused_before_anything_starts() {
    let home = Home::new("refused");
    let fixture = fixture();
    let refuse = |more: &[&str], code: i32, words: &[&str]| {
        home.call(on(&fixture, more)).end().refused(code, words);
    };
    step("machines");
    refuse(&["--vms", "debian_21-local-distro"], 2, &["debian_21", "did you mean one of `debian_1"]);
    let remote = format!("debian_12-{}-distro", ARCH.replace("x86_64", "amd64"));
    refuse(&["--vms", &remote], 104, &["@remote", "debian_12-local-distro"]);
    refuse(&[], 4, &["no cell is selected"]);

    step("packages and filters");
    let packages = |packages| [DEBIAN_12[0], DEBIAN_12[1], "--packages", packages];
    refuse(
        &packages("./pkg/netwrk/tracer"),
        2,
        &["./pkg/netwrk/tracer", "did you mean `./pkg/network/tracer`"],
    );
    refuse(&packages("./pkg/util/reexec"), 4, &["./pkg/util/reexec"]);
    refuse(&[DEBIAN_12[0], DEBIAN_12[1], "--run", "Test("], 2, &["Test("]);

    step("where JUnit goes");
    let junit = |path| [DEBIAN_12[0], DEBIAN_12[1], "--junit", path];
    refuse(&junit("/proc/nope/junit.xml"), 2, &["cannot write JUnit to `/proc/nope/junit.xml`"]);
    let folder = text(&home.folder);
    refuse(&junit(&folder), 2, &["it is a folder"]);

    step("a matrix with an error");
    let matrix = home.folder.join("matrix.toml");
    fs::write(&matrix, format!("root = {fixture:?}\nvms = [\"debian_12-local-distro\"]\nvcpus = 2\n"))
        .unwrap();
    let matrix = text(matrix);
    let ended = home.call(["run", &matrix]).end().expect(2);
    assert!(ended.stderr.contains("line 3") && ended.stderr.contains("vcpus"), "{}", ended.stderr);
    let nowhere = ["run", &matrix, "--vms", "debian_13-local-distro"];
    fs::write(&matrix, format!("root = {fixture:?}\nvms = [\"debian_12-local-distro\"]\n")).unwrap();
    home.call(nowhere).end().refused(4, &["no cell is selected"]);

    step("no libvirt");
    let call = home.call(on(&fixture, &DEBIAN_12));
    let socket = "qemu+unix:///session?socket=/nonexistent/libvirt-sock";
    call.env("KMT_LIBVIRT_URI", socket).end().refused(102, &["libvirt", "/nonexistent/libvirt-sock"]);
    home.nothing_left();
    assert!(home.machines().is_empty() && home.runs().is_empty());
}

#[test]
fn a_full_disk_is_told_before_anything_starts() {
    let home = Home::new("full");
    let small = home.folder.join("small");
    fs::create_dir(&small).unwrap();
    let (small, fixture) = (text(small), fixture());
    // A file system of 64 MiB in a name space of its own, which an ordinary user can have as well.
    let script = "mount -t tmpfs -o size=64m none \"$KMT_HOME\" && exec \"$@\"";
    let output = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", script, "sh"])
        .arg(program())
        .args(on(&fixture, &DEBIAN_12))
        .env("KMT_HOME", &small)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(102), "{said}");
    assert!(said.contains("no free disk") && said.contains("hint: "), "{said}");
    assert_eq!(fs::read_dir(&small).unwrap().count(), 0);
    home.nothing_left();
}

#[test]
fn what_does_not_compile_ends_with_the_compilers_words() {
    let home = Home::new("compile");
    let broken = home.folder.join("broken");
    copy(Path::new(&fixture()), &broken);
    let source = broken.join("pkg/util/kernel/broken.go");
    let root = text(&broken);
    let args = on(&root, &[DEBIAN_12[0], DEBIAN_12[1], "--packages", "./pkg/util/kernel", "--throw-away"]);

    step("a type error");
    fs::write(&source, "package kernel\n\nfunc broken() int { return \"seven\" }\n").unwrap();
    let ended = home.call(args.iter().copied()).limit(240).end().expect(101);
    assert!(ended.stderr.contains("broken.go:3:") && ended.stderr.contains("\"seven\""), "{}", ended.stderr);
    let told = ended.told();
    assert_eq!(told.all_results(&cell("debian_12/6.1")).into_values().collect::<Vec<_>>(), ["not-run"]);
    home.nothing_left();

    step("what is no Go at all");
    fs::write(&source, "pakage kernel\n").unwrap();
    let ended = home.call(args.iter().copied()).end().expect(101);
    assert!(ended.stderr.contains("broken.go:1:1: expected 'package'"), "{}", ended.stderr);
    assert_eq!(ended.run, None, "a run began");
    home.nothing_left();
}

#[test]
fn a_corrupt_image_is_found_out_and_never_booted() {
    let home = Home::bare("corrupt");
    borrow_images(&home);
    let fixture = fixture();
    let args = on(&fixture, &[DEBIAN_12[0], DEBIAN_12[1], "--packages", "./pkg/util/kernel"]);
    let refused = |what: &str| {
        step(what);
        let call = home.call(args.iter().copied()).env("KMT_DEBIAN_MIRROR", DEAD_MIRROR);
        let ended = call.limit(240).end().expect(102);
        let told = ended.told();
        assert!(told.kind("machine-defined").is_empty(), "it was booted");
        let trouble = &told.cell(&cell("debian_12/6.1"))["trouble"];
        assert_eq!(trouble["stage"], "image", "{trouble}");
        let message = trouble["message"].as_str().unwrap();
        assert!(message.contains("127.0.0.1:9") && message.contains("(hint: "), "{message}");
        home.nothing_left();
        ended
    };
    let images = roots(&home);
    for image in &images {
        let file = fs::OpenOptions::new().read(true).write(true).open(image).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, 1 << 20).unwrap();
        file.write_all_at(&[byte[0] ^ 1], 1 << 20).unwrap();
    }
    let ended = refused("one bit is wrong, and the mirror to build it again is away");
    assert!(ended.stderr.contains("damaged"), "{}", ended.stderr);

    for image in &images {
        fs::OpenOptions::new().write(true).open(image).unwrap().set_len(1 << 20).unwrap();
    }
    refused("the end is missing");
}

/// The caller's images in a folder of this home, as links; the root file systems of Debian 12 as copies.
fn borrow_images(home: &Home) {
    let theirs = Home::new("corrupt-lender").folder.join("images").canonicalize().unwrap();
    let ours = home.folder.join("images");
    fs::create_dir_all(ours.join("objects")).unwrap();
    for folder in ["", "objects"] {
        for entry in fs::read_dir(theirs.join(folder)).unwrap().flatten() {
            if entry.file_type().unwrap().is_file() {
                symlink(entry.path(), ours.join(folder).join(entry.file_name())).unwrap();
            }
        }
    }
    for image in roots(home) {
        let source = image.canonicalize().unwrap();
        fs::remove_file(&image).unwrap();
        let mut copy = Command::new("cp");
        copy.args(["--sparse=always", "--reflink=auto", "--preserve=timestamps"]).arg(source).arg(&image);
        assert!(copy.status().unwrap().success());
        let mut permissions = fs::metadata(&image).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o644);
        fs::set_permissions(&image, permissions).unwrap();
    }
}

/// The root file systems that the records of Debian 12 name.
fn roots(home: &Home) -> Vec<PathBuf> {
    let images = home.folder.join("images");
    let mut found = Vec::new();
    for entry in fs::read_dir(&images).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if name.starts_with("rootfs-debian_12-") && name.ends_with(".json") {
            let record: serde_json::Value = serde_json::from_slice(&fs::read(entry.path()).unwrap()).unwrap();
            let digest = record["files"]["rootfs"]["sha256"].as_str().unwrap().to_owned();
            let objects = fs::read_dir(images.join("objects")).unwrap().flatten().map(|object| object.path());
            let of_it = |path: &PathBuf| {
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                name.starts_with(&digest) && !name.ends_with(".seen")
            };
            found.extend(objects.filter(of_it));
        }
    }
    assert!(!found.is_empty(), "no root file system of Debian 12");
    found
}
