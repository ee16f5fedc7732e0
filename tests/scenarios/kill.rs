//! `kill -9` at every step of what a command does to the world; the next command must leave nothing half-made.
//!
//! The journal is `stack.json`, written before a resource is made: so at every step whatever exists is written down
//! there (`check::journal`), and after the next command whatever is there is whole (`check::order`).

use crate::check;
use crate::scene::Scene;

/// Walks by name.
pub(crate) const WALKS: [(&str, fn()); 6] = [
    ("a_run", || Walk { victim: RUN, at_least: 20, ..Walk::default() }.go()),
    ("a_run_that_reuses", || Walk { before: &[RUN], victim: RUN, at_least: 6, ..Walk::default() }.go()),
    ("a_throw_away_run", || {
        let victim = &["run", "--vms", "debian_12-local-distro", "--throw-away"];
        Walk { victim, at_least: 22, ..Walk::default() }.go();
    }),
    ("a_run_whose_machine_panics", || {
        let world = "[machine.debian_12]\nboots = [\"panic\"]\n\n";
        Walk { world, victim: RUN, code: "102", at_least: 12, ..Walk::default() }.go();
    }),
    ("a_run_that_makes_room", || {
        let before: &[&[&str]] = &[&["run", "--vms", "debian_13-local-distro"]];
        Walk { world: "memory = 1700\n\n", before, victim: RUN, at_least: 20, ..Walk::default() }.go();
    }),
    ("destroy", || {
        let victim = &["stack", "destroy", "--all", "--yes"];
        Walk { before: &[RUN], victim, at_least: 2, ..Walk::default() }.go();
    }),
];

const RUN: &[&str] = &["run", "--vms", "debian_12-local-distro"];
const PACKAGE: &str = "[[package]]\nname = \"pkg/a\"\ntests = { TestA = \":\" }\n";

/// A command that is killed at each of its steps.
struct Walk {
    world: &'static str,
    before: &'static [&'static [&'static str]],
    victim: &'static [&'static str],
    /// Its exit code when it is let be.
    code: &'static str,
    /// It has more steps than so many.
    at_least: u32,
}

impl Default for Walk {
    fn default() -> Walk {
        Walk { world: "", before: &[], victim: &[], code: "0", at_least: 0 }
    }
}

impl Walk {
    fn go(self) {
        let mut step = 0;
        loop {
            step += 1;
            let scene = Scene::new(&format!("{}{PACKAGE}", self.world));
            for args in self.before {
                assert_eq!(scene.call(args, &[]).code, "0", "before step {step}");
            }
            let said = scene.killed_at(step, self.victim);
            if said.code != "killed" {
                assert_eq!(said.code, self.code, "step {step}: {}", said.text);
                scene.strike();
                break;
            }
            check::journal(&scene);
            // Whichever command is next.
            let next = if step.is_multiple_of(2) { &["stack", "list"] } else { RUN };
            let said = scene.call(next, &[]);
            let boots_badly = next == RUN && said.code == self.code;
            assert!(said.code == "0" || boots_badly, "{next:?} after step {step}: {}", said.text);
            check::order(&scene);
            if let Some(run) = &said.run {
                check::record(&scene, run, &said.code);
            }
            scene.strike();
        }
        assert!(step > self.at_least, "only {step} steps");
    }
}

/// Two commands at once on one stack: each has a machine of its own.
pub(crate) fn two_at_once() {
    let world = "[[package]]\nname = \"pkg/a\"\ntests = { TestA = \"sleep 1\" }\n";
    let scene = Scene::new(world);
    let codes = std::thread::scope(|scope| {
        let both = [0, 1].map(|_| scope.spawn(|| scene.call(RUN, &[])));
        both.map(|run| run.join().expect("a call ends"))
    });
    for said in &codes {
        assert_eq!(said.code, "0", "{}", said.text);
    }
    check::order(&scene);
    assert_eq!(scene.stage().domains().len(), 2);
    scene.strike();
}
