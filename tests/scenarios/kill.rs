//! `kill -9` at every step of what a command does to the world; the next command must leave nothing half-made.
//!
//! The journal is `stack.json`, written before a resource is made: so at every step whatever exists is written down
//! there (`check::journal`), and after the next command whatever is there is whole (`check::order`).

use kmt_run::external::scripted::Domain;

use crate::scene::{self, Scene};
use crate::{check, expected};

/// A name, and what makes the walk of that name.
type Called = (&'static str, fn() -> Walk);

/// Walks by name.
pub(crate) const WALKS: [Called; 19] = [
    ("a_run", || Walk { victim: RUN, at_least: 26, ..Walk::default() }),
    ("a_run_that_reuses", || Walk { before: &[RUN], victim: RUN, at_least: 6, ..Walk::default() }),
    ("a_run_with_a_template_made_beside", || Walk {
        world: WARM,
        victim: RUN,
        next: [FRESH, GC],
        at_least: 30,
        beside: true,
        ..Walk::default()
    }),
    ("a_throw_away_run", || {
        let victim = &["run", "--vms", "debian_12-local-distro", "--throw-away"];
        Walk { victim, at_least: 30, ..Walk::default() }
    }),
    ("a_run_whose_machine_panics", || {
        let world = "[machine.debian_12]\nboots = [\"panic\"]\n\n";
        Walk { world, victim: RUN, code: "102", at_least: 18, ..Walk::default() }
    }),
    ("a_run_that_makes_room", || {
        let before: &[&[&str]] = &[&["run", "--vms", "debian_13-local-distro"]];
        Walk { world: "memory = 1700\n\n", before, victim: RUN, at_least: 30, ..Walk::default() }
    }),
    ("a_destroy", || {
        let victim = &["stack", "destroy", "--all", "--yes"];
        Walk { before: &[RUN], victim, at_least: 6, ..Walk::default() }
    }),
    ("a_configure", || Walk {
        before: &[RUN],
        victim: CONFIGURE,
        next: [CONFIGURE, LAUNCH],
        at_least: 2,
        ..Walk::default()
    }),
    ("a_configure_that_changes_everything", || {
        let before: &[&[&str]] = &[CONFIGURE, LAUNCH];
        Walk { before, victim: RECONFIGURE, next: [RECONFIGURE, LAUNCH], at_least: 2, ..Walk::default() }
    }),
    ("a_launch", || {
        let next = [LAUNCH, LIST];
        Walk { before: &[CONFIGURE_ONE], victim: LAUNCH, next, at_least: 20, ..Walk::default() }
    }),
    ("a_launch_with_a_network", || {
        let before: &[&[&str]] = &[CONFIGURE_NAT];
        Walk { before, victim: LAUNCH, next: [LAUNCH, LIST], at_least: 24, ..Walk::default() }
    }),
    ("a_launch_that_changes_everything", || {
        // One machine is of a run and adopted, one is paused and woken, one goes, one is new.
        let before: &[&[&str]] = &[CONFIGURE, LAUNCH, &["stack", "pause"], ADD_A_RUN, RECONFIGURE];
        Walk { before, victim: LAUNCH, next: [LAUNCH; 2], at_least: 20, ..Walk::default() }
    }),
    ("a_pause", || {
        let (pause, resume) = (&["stack", "pause"], &["stack", "resume"]);
        let before: &[&[&str]] = &[CONFIGURE, LAUNCH];
        Walk { before, victim: pause, next: [pause, resume], at_least: 8, ..Walk::default() }
    }),
    ("a_cold_pause", || {
        let (pause, resume) = (&["stack", "pause", "--cold"], &["stack", "resume"]);
        let before: &[&[&str]] = &[CONFIGURE_ONE, LAUNCH];
        Walk { before, victim: pause, next: [pause, resume], at_least: 8, ..Walk::default() }
    }),
    ("an_update_of_images", || {
        let next: [&[&str]; 2] = [RUN_PUBLISHED, VALIDATE];
        Walk { world: PUBLISHED, victim: UPDATE, next, at_least: 18, ..Walk::default() }
    }),
    ("an_update_that_replaces_an_image", || {
        let (before, next): (&[&[&str]], _) = (&[UPDATE], [RUN_PUBLISHED, VALIDATE]);
        Walk { world: PUBLISHED, before, victim: UPDATE, next, at_least: 18, ..Walk::default() }
    }),
    ("a_run_that_rents", || {
        let next: [&[&str]; 2] = [RUN_REMOTE, GC];
        // Images are hashed before: beside the renting that would end anywhere.
        Walk { config: EC2, before: &[VALIDATE], victim: RUN_REMOTE, next, at_least: 30, ..Walk::default() }
    }),
    ("a_destroy_of_a_rented_host", || {
        let before: &[&[&str]] = &[CONFIGURE_REMOTE, LAUNCH];
        let victim = &["stack", "destroy", "--all", "--yes"];
        Walk {
            config: EC2,
            before,
            victim,
            next: [GC, victim],
            at_least: 4,
            ends_all: true,
            ..Walk::default()
        }
    }),
    ("a_resume", || {
        let before: &[&[&str]] = &[CONFIGURE_ONE, LAUNCH, &["stack", "pause"]];
        let victim = &["stack", "resume"];
        Walk { before, victim, next: [victim, LAUNCH], at_least: 8, ..Walk::default() }
    }),
];

const CONFIGURE: &[&str] =
    &["stack", "configure", "--vms", "debian_12-local-distro,custom-6.12-local", "--yes"];
const RECONFIGURE: &[&str] =
    &["stack", "configure", "--new", "--vms", "debian_12-local-distro,debian_13-local-distro", "--yes"];
const ADD_A_RUN: &[&str] = &["run", "--vms", "debian_13-local-distro"];
const CONFIGURE_ONE: &[&str] = &["stack", "configure", "--vms", "debian_12-local-distro", "--yes"];
const CONFIGURE_NAT: &[&str] =
    &["stack", "configure", "--vms", "debian_12-local-distro", "--network", "nat", "--yes"];
const EC2: &str = "[ec2]\nkey-name = \"mine\"\n";
const RUN_REMOTE: &[&str] = &["run", "--vms", "debian_12-x86_64-distro"];
const CONFIGURE_REMOTE: &[&str] = &["stack", "configure", "--vms", "debian_12-x86_64-distro", "--yes"];
const GC: &[&str] = &["stack", "gc"];
const LIST: &[&str] = &["stack", "list"];
const LAUNCH: &[&str] = &["stack", "launch"];

const UPDATE: &[&str] = &["images", "update", "jammy"];
const VALIDATE: &[&str] = &["images", "validate"];
const RUN_PUBLISHED: &[&str] = &["run", "--vms", "jammy-local-distro"];
/// An image that is another one at the second time.
const PUBLISHED: &str = concat!(
    "[[published]]\nname = \"ubuntu-22.04-x86_64.qcow2.xz\"\ncontent = [\"",
    "8b0e7153bf7c3706d85c524e440066559a6656c90bd5482a90a29b9fa5ff5180bc0dbc0e15637ebb8e3b91d26ab4a829a95249f512c17b8ed411fa644d35db41d94e5efaf89fc43c5fa52f8b2b19b8f89a50f8a8e9bb8bdb5eba456bf92d5d98065e5751f75143a5f61debc267b0bc8d3b1939a9b4ddbe45cf642b0c3a4acdd7f9fcc589f8d0a9f94f03e7914c0f87f17f8499ff30499a90ebb4108e360ddfcfc69e290d9f945ffa4d1278220ad2cf1337349e455d52613c2813c40d2affbb1494978278947bec54",
    "\", \"",
    "0dddc05a496d2b6cd684fb9035e22c1d460fae4e72b005d284ba6492933cb9bfe74800c47f1006d779171cb09ee33b8cc952e16c39bd4eb2f06e1123a4ba88f438808c578e541b30e1f10d3de732212e9283c98e990afec468a6e24b2dec564f5eb04d8f675d8a9368db8f233a33951c5a83da3929add2292513d3ed27d093ab2ec357332cd389ed164c56a2491e9e8958efc346e3e74752e8e5f398b1360aff9a194d9db49610f59d9deaa05f0feb170f36557c3cd780672bd973be1804d1e06635eeff920e60e6",
    "\"]\n\n"
);

const RUN: &[&str] = &["run", "--vms", "debian_12-local-distro"];
const FRESH: &[&str] = &["run", "--vms", "debian_12-local-distro", "--fresh"];
const PACKAGE: &str = "[[package]]\nname = \"pkg/a\"\ntests = { TestA = \":\" }\n";
/// A package that takes longer than a template.
const WARM: &str = "warm = true\ndeadlines = { pulse = \"20ms\", warm = \"400ms\", template = \"200ms\" }\n\n\
                    [[package]]\nname = \"pkg/long\"\ntests = { TestLong = \"sleep 0.4\" }\n\n";

/// A command that is killed at each of its steps.
pub(crate) struct Walk {
    world: &'static str,
    /// What stands in `kmt.toml` besides.
    config: &'static str,
    before: &'static [&'static [&'static str]],
    victim: &'static [&'static str],
    /// What comes after it, by turns.
    next: [&'static [&'static str]; 2],
    /// Its exit code when it is let be.
    code: &'static str,
    /// It has more steps than so many.
    at_least: u32,
    /// Whether it takes all away: then nothing has to come back.
    ends_all: bool,
    /// Whether it makes a template beside its work: steps come in any order, and one must be made later.
    beside: bool,
}

impl Default for Walk {
    fn default() -> Walk {
        Walk {
            world: "",
            config: "",
            before: &[],
            victim: &[],
            next: [RUN, LIST],
            code: "0",
            at_least: 0,
            ends_all: false,
            beside: false,
        }
    }
}

impl Walk {
    /// Kills at one step after another, and lists them in `steps/NAME`.
    pub(crate) fn go(self, name: &str) {
        let mut step = 0;
        loop {
            step += 1;
            let scene = Scene::new(&format!("{}{PACKAGE}", self.world));
            scene.configure(self.config);
            if self.configures() {
                assert_eq!(scene.call(&["stack", "create"], &[]).code, "0");
            }
            for args in self.before {
                assert_eq!(scene.call(args, &[]).code, "0", "before step {step}");
            }
            let before = scene.stage().steps().len();
            let said = scene.killed_at(step, self.victim);
            if said.code != "killed" {
                assert_eq!(said.code, self.code, "step {step}: {}", said.text);
                let steps = scene.stage().steps().split_off(before);
                let mut steps: Vec<String> = steps.into_iter().map(|(_, step)| step).collect();
                if self.beside {
                    steps.sort();
                }
                assert_eq!(steps.len(), (step - 1) as usize, "it was not killed at each step: {steps:#?}");
                expected::steps(&scene::folder().join("steps").join(name), &steps);
                scene.strike();
                break;
            }
            check::journal(&scene);
            // Whichever command is next.
            let next = self.next[if step.is_multiple_of(2) { 1 } else { 0 }];
            let said = scene.call(next, &[]);
            let boots_badly = next == RUN && said.code == self.code;
            assert!(said.code == "0" || boots_badly, "{next:?} after step {step}: {}", said.text);
            check::order(&scene);
            if let Some(run) = &said.run {
                check::record(&scene, run, &said.code);
            }
            if self.configures() && !self.ends_all {
                self.converges(&scene, step, next == LAUNCH);
            }
            if self.beside {
                warms(&scene, step);
            }
            scene.strike();
        }
        assert!(step > self.at_least, "only {step} steps");
    }
}

impl Walk {
    fn configures(&self) -> bool {
        [self.before, &[self.victim]].concat().iter().any(|args| args.contains(&"configure"))
    }

    /// Whether the configuration itself is what may be killed.
    fn configures_at_last(&self) -> bool {
        self.victim.contains(&"configure")
    }

    /// Whatever happened, a launch brings the stack to what is configured, and the next one has nothing to do.
    fn converges(&self, scene: &Scene, step: u32, launched: bool) {
        // The configuration itself may be what was killed.
        let unconfigured = |code: &str| self.configures_at_last() && code == "4";
        if !launched {
            let said = scene.call(LAUNCH, &[]);
            assert!(said.code == "0" || unconfigured(&said.code), "launch after step {step}: {}", said.text);
            check::order(scene);
        }
        let up = scene.stage().domains();
        assert!(up.iter().all(Domain::runs), "after step {step}: {up:?}");
        let calls = scene.stage().calls().len();
        let again = scene.call(LAUNCH, &[]);
        assert!(again.code == "0" || unconfigured(&again.code), "{}", again.text);
        let changes = scene.stage().calls()[calls..].to_vec();
        let changes: Vec<_> =
            changes.iter().filter(|call| !call.starts_with("connect") && !call.starts_with("run")).collect();
        assert!(changes.is_empty(), "twice is not once: {changes:?}");
    }
}

/// Whatever was killed, a template is made, and a machine starts from it.
fn warms(scene: &Scene, step: u32) {
    let mut texts = Vec::new();
    while !texts.last().is_some_and(|text: &String| text.contains(" WARM ")) {
        assert!(texts.len() < 6, "no template after step {step}:\n{}", texts.join("\n"));
        let said = scene.call(FRESH, &[]);
        assert_eq!(said.code, "0", "after step {step}: {}", said.text);
        texts.push(said.text);
    }
    check::order(scene);
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

/// Two launches of one stack at once: one waits for the other, and has nothing to do then; one that may not wait says
/// for whom it would.
pub(crate) fn two_launches_at_once() {
    let scene = Scene::new(PACKAGE);
    assert_eq!(scene.call(&["stack", "create"], &[]).code, "0");
    assert_eq!(scene.call(CONFIGURE, &[]).code, "0");
    let calls: [&[&str]; 3] = [LAUNCH, LAUNCH, &["stack", "launch", "--no-wait"]];
    let said = std::thread::scope(|scope| {
        let all = calls.map(|args| scope.spawn(|| scene.call(args, &[])));
        all.map(|call| call.join().expect("a call ends"))
    });
    for (args, said) in calls.iter().zip(&said) {
        let refused = said.code == "102" && said.text.contains("is being changed by process");
        assert!(said.code == "0" || (args.contains(&"--no-wait") && refused), "{args:?}: {}", said.text);
    }
    check::order(&scene);
    assert_eq!(scene.stage().domains().len(), 2);
    scene.strike();
}
