//! `kill -9` at every step of what a command does to the world; the next command must leave nothing half-made.
//!
//! The journal is `stack.json`, written before a resource is made: so at every step whatever exists is written down
//! there (`check::journal`), and after the next command whatever is there is whole (`check::order`).

use crate::check;
use crate::scene::Scene;

/// Walks by name.
pub(crate) const WALKS: [(&str, fn()); 4] = [
    ("a_run", || walk(&[], &["run", "--vms", VM], 20)),
    ("a_run_that_reuses", || walk(&[&["run", "--vms", VM]], &["run", "--vms", VM], 6)),
    ("a_throw_away_run", || walk(&[], &["run", "--vms", VM, "--throw-away"], 22)),
    ("destroy", || walk(&[&["run", "--vms", VM]], &["stack", "destroy", "--all", "--yes"], 2)),
];

const VM: &str = "debian_12-local-distro";
const WORLD: &str = "[[package]]\nname = \"pkg/a\"\ntests = { TestA = \":\" }\n";

/// Kills the victim at each of its steps, of which there are at least so many.
fn walk(before: &[&[&str]], victim: &[&str], at_least: u32) {
    let scene = Scene::new(WORLD);
    let mut step = 0;
    loop {
        step += 1;
        for args in before {
            assert_eq!(scene.call(args, &[]).code, "0", "before step {step}");
        }
        let said = scene.killed_at(step, victim);
        if said.code != "killed" {
            assert_eq!(said.code, "0", "step {step}: {}", said.text);
            break;
        }
        check::journal(&scene);
        // Whichever command is next.
        let next: &[&str] = if step % 2 == 0 { &["stack", "list"] } else { &["run", "--vms", VM] };
        let said = scene.call(next, &[]);
        assert_eq!(said.code, "0", "{next:?} after a kill at step {step}: {}", said.text);
        check::order(&scene);
        scene.strike();
    }
    scene.strike();
    assert!(step > at_least, "only {step} steps");
}
