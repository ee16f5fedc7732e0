//! Guests of arm64: one matrix file with both architectures, its tests built for each.

use std::fs;

use crate::harness::{Home, fixture, step, text};

#[test]
fn one_matrix_is_green_on_both_architectures() {
    let home = Home::new("arm64");
    let matrix = home.folder.join("both.toml");
    let words = "memory = 512\npackages = [\"./pkg/network/tracer\"]\n\
                 [axes]\ndistro = [\"debian_12\"]\narch = [\"x86_64\", \"arm64\"]\n";
    fs::write(&matrix, words).unwrap();
    let (fixture, matrix) = (fixture(), text(matrix));
    step("the same tests on two architectures, one of them emulated");
    let args = ["-C", &fixture, "run", &matrix, "--throw-away"];
    let ended = home.call(args).limit(900).end().expect(0);
    let foreign = if cfg!(target_arch = "aarch64") { "x86_64" } else { "arm64" };
    assert!(ended.stderr.contains(&format!("/{foreign}` is emulated on this machine")), "{}", ended.stderr);
    let told = ended.told();
    let cells: Vec<&str> = told.cells();
    assert_eq!(cells.len(), 2, "{cells:?}");
    let machines: Vec<&str> =
        told.kind("machine-ready").iter().filter_map(|e| e["machine_arch"].as_str()).collect();
    assert!(machines.contains(&"x86_64") && machines.contains(&"aarch64"), "{machines:?}");
    let [a, b] = [cells[0], cells[1]].map(|cell| told.all_results(cell));
    assert!(a.len() > 3 && a.keys().eq(b.keys()), "{a:?} {b:?}");
    step("and nothing is left, the firmware's memory neither");
    home.nothing_left();
    let left = fs::read_dir("/var/lib/libvirt/qemu/nvram").into_iter().flatten().flatten();
    let left: Vec<_> =
        left.map(|entry| entry.file_name()).filter(|name| home.owns(&name.to_string_lossy())).collect();
    assert!(left.is_empty(), "{left:?}");
}
