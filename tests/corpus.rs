//! Replays the corpus of the fuzz targets, and whatever once broke one.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

#[path = "fuzz/src/targets.rs"]
#[expect(unreachable_pub, reason = "public for the fuzz targets, which are another package")]
mod targets;

#[test]
fn no_input_of_the_corpus_panics() {
    for (name, target) in targets::ALL {
        let folder = format!("{}/tests/fuzz/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
        let inputs: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(inputs.len() >= 3, "{name} has {} inputs", inputs.len());
        for input in inputs {
            println!("{}", input.display());
            target(&std::fs::read(input).unwrap());
        }
    }
}
