//! Scripted logs for the tests of all rooms: one line of builder a fact.

use chrono::{TimeZone, Utc};

use super::Run;
use crate::event::{
    Arch, BootPhase, CellId, Envelope, Event, LossEvidence, OutputRef, PlannedShard, RunEnd, SCHEMA,
    ShardEnd, TestResult,
};

/// A log under construction; every event is 100 ms after the one before.
#[derive(Debug, Clone, Default)]
pub(crate) struct Script {
    pub(crate) log: Vec<Envelope>,
}

pub(crate) const PKG: &str = "pkg/network/tracer";
pub(crate) const EBPF: &str = "pkg/ebpf";

pub(crate) fn bookworm() -> CellId {
    CellId::local("debian_12", "6.1", Arch::X86_64)
}

pub(crate) fn trixie() -> CellId {
    CellId::local("debian_13", "6.12", Arch::X86_64)
}

pub(crate) fn bullseye_arm() -> CellId {
    CellId::local("debian_11", "5.10", Arch::Arm64)
}

impl Script {
    pub(crate) fn new() -> Script {
        let mut script = Script::default();
        script.push(Event::RunStarted {
            run: "20261122-170501-quiet-otter".to_owned(),
            version: "0.1.0".to_owned(),
            command: ["kmt-run", "run", "matrices/demo.toml"].map(str::to_owned).to_vec(),
            component: "system-probe".to_owned(),
            stack: "main".to_owned(),
            test_failure_exit_code: 100,
            root: "/src/agent".to_owned(),
            format: String::new(),
        });
        script
    }

    pub(crate) fn push(&mut self, event: Event) -> &mut Script {
        let seq = self.log.len() as u64;
        let elapsed_ms = seq * 100;
        let start = Utc.with_ymd_and_hms(2026, 11, 22, 17, 5, 1).unwrap();
        let time = start + chrono::Duration::milliseconds(elapsed_ms as i64);
        self.log.push(Envelope { schema: SCHEMA, seq, time, elapsed_ms, event });
        self
    }

    pub(crate) fn run(&self) -> Run {
        let mut run = Run::new();
        self.log.iter().for_each(|envelope| run.fold(envelope));
        run
    }

    /// Selects cells and plans packages in each.
    pub(crate) fn plan(&mut self, cells: &[CellId], packages: &[&str]) -> &mut Script {
        for cell in cells {
            self.push(Event::CellSelected {
                cell: cell.clone(),
                distro: "debian".to_owned(),
                distro_version: cell.platform.rsplit('_').next().unwrap().to_owned(),
            });
        }
        let shard = |cell: &CellId, package: &&str| PlannedShard {
            cell: cell.clone(),
            package: (*package).to_owned(),
        };
        let shards =
            cells.iter().flat_map(|cell| packages.iter().map(move |package| shard(cell, package))).collect();
        self.push(Event::PlanMade { shards })
    }

    /// Boots the cell's machine and ships to it.
    pub(crate) fn up(&mut self, cell: &CellId) -> &mut Script {
        let machine = cell.slug();
        self.push(Event::MachineDefined { machine: machine.clone(), cell: cell.clone() });
        for phase in [BootPhase::Defined, BootPhase::Kernel, BootPhase::Sshd] {
            self.push(Event::MachinePhase { machine: machine.clone(), phase });
        }
        self.push(Event::MachineReady {
            machine: machine.clone(),
            cell: cell.clone(),
            kernel_release: format!("{}.0-28-amd64", cell.kernel),
            machine_arch: if cell.arch == Arch::Arm64 { "aarch64" } else { "x86_64" }.to_owned(),
            os_name: cell.platform.replace('_', "-"),
            duration_ms: 12_345,
            console: Some(format!("{machine}/console.log")),
        });
        self.push(Event::ShipFinished {
            machine,
            cell: cell.clone(),
            bytes: 52_428_800,
            files: 31,
            duration_ms: 900,
        })
    }

    pub(crate) fn begin(&mut self, cell: &CellId, package: &str, listed: &[&str]) -> &mut Script {
        self.begin_attempt(cell, package, 1, listed)
    }

    pub(crate) fn begin_attempt(
        &mut self,
        cell: &CellId,
        package: &str,
        n: u32,
        listed: &[&str],
    ) -> &mut Script {
        self.push(Event::ShardStarted {
            cell: cell.clone(),
            package: package.to_owned(),
            machine: cell.slug(),
            attempt: n,
        });
        let tests = listed.iter().map(|test| (*test).to_owned()).collect();
        self.push(Event::TestsListed { cell: cell.clone(), package: package.to_owned(), tests })
    }

    pub(crate) fn start(&mut self, cell: &CellId, package: &str, test: &str) -> &mut Script {
        self.start_attempt(cell, package, 1, test)
    }

    pub(crate) fn start_attempt(
        &mut self,
        cell: &CellId,
        package: &str,
        attempt: u32,
        test: &str,
    ) -> &mut Script {
        let (cell, package, test) = (cell.clone(), package.to_owned(), test.to_owned());
        self.push(Event::TestStarted { cell, package, test, attempt })
    }

    pub(crate) fn finish(
        &mut self,
        cell: &CellId,
        package: &str,
        test: &str,
        result: TestResult,
    ) -> &mut Script {
        self.finish_attempt(cell, package, 1, test, result)
    }

    pub(crate) fn finish_attempt(
        &mut self,
        cell: &CellId,
        package: &str,
        attempt: u32,
        test: &str,
        result: TestResult,
    ) -> &mut Script {
        let bad = matches!(result, TestResult::Fail | TestResult::Skip);
        let output = bad.then(|| OutputRef { file: format!("{test}.out"), offset: 0, length: 4096 });
        self.push(Event::TestFinished {
            cell: cell.clone(),
            package: package.to_owned(),
            test: test.to_owned(),
            attempt,
            result,
            duration_ms: 123,
            output,
            message: None,
        })
    }

    /// Starts and ends tests.
    pub(crate) fn tests(
        &mut self,
        cell: &CellId,
        package: &str,
        tests: &[(&str, TestResult)],
    ) -> &mut Script {
        for (test, result) in tests {
            self.start(cell, package, test).finish(cell, package, test, *result);
        }
        self
    }

    pub(crate) fn end(
        &mut self,
        cell: &CellId,
        package: &str,
        end: ShardEnd,
        status: Option<i32>,
    ) -> &mut Script {
        self.end_attempt(cell, package, 1, end, status)
    }

    pub(crate) fn end_attempt(
        &mut self,
        cell: &CellId,
        package: &str,
        attempt: u32,
        end: ShardEnd,
        status: Option<i32>,
    ) -> &mut Script {
        self.push(Event::ShardFinished {
            cell: cell.clone(),
            package: package.to_owned(),
            attempt,
            end,
            status,
            duration_ms: 2_500,
            leaked: false,
            output: Some(OutputRef {
                file: format!("{}.log", package.replace('/', "-")),
                offset: 0,
                length: 9000,
            }),
        })
    }

    /// A package in which everything listed passes.
    pub(crate) fn green(&mut self, cell: &CellId, package: &str, tests: &[&str]) -> &mut Script {
        let results: Vec<_> = tests.iter().map(|test| (*test, TestResult::Pass)).collect();
        self.begin(cell, package, tests).tests(cell, package, &results);
        self.end(cell, package, ShardEnd::Exited, Some(0))
    }

    pub(crate) fn lost(&mut self, cell: &CellId, seen: LossEvidence) -> &mut Script {
        let excerpt = match seen {
            LossEvidence::Panic => vec![
                "[   41.220101] sysrq: Trigger a crash".to_owned(),
                "[   41.220777] Kernel panic - not syncing: sysrq triggered crash".to_owned(),
                "[   41.221003] \x1b[1;31m---[ end Kernel panic ]---\x1b[0m".to_owned(),
            ],
            _ => Vec::new(),
        };
        self.push(Event::MachineLost { machine: cell.slug(), cell: cell.clone(), seen, excerpt })
    }

    pub(crate) fn boot_failed(&mut self, cell: &CellId) -> &mut Script {
        self.push(Event::MachineDefined { machine: cell.slug(), cell: cell.clone() });
        self.push(Event::BootFailed {
            machine: cell.slug(),
            cell: cell.clone(),
            phase: Some(BootPhase::Kernel),
            message: "no progress for 60 s in phase `kernel`".to_owned(),
            excerpt: vec![
                "[    1.800000] VFS: Cannot open root device \"vda\"".to_owned(),
                "[    1.900000] Kernel panic - not syncing: VFS: Unable to mount root fs\x07".to_owned(),
            ],
            duration_ms: 61_000,
            idle_ms: None,
        });
        self.push(Event::CellFailed {
            cell: cell.clone(),
            stage: "boot".to_owned(),
            message: "no progress for 60 s in phase `kernel`".to_owned(),
        })
    }

    pub(crate) fn done(&mut self) -> &mut Script {
        self.push(Event::RunFinished { why: RunEnd::Completed })
    }

    pub(crate) fn cancel(&mut self) -> &mut Script {
        self.push(Event::CancelRequested { by: "SIGINT".to_owned() })
    }
}

/// The runs that every report is tried on.
pub(crate) mod runs {
    use super::*;
    use crate::event::TestResult::{Fail, Pass, Skip};

    pub(crate) fn green() -> Script {
        let mut script = Script::new();
        script.plan(&[bookworm(), trixie()], &[EBPF, PKG]);
        for cell in [bookworm(), trixie()] {
            script.up(&cell).green(&cell, EBPF, &["TestMap", "TestProgLoad"]);
            script.green(&cell, PKG, &["TestDNS", "TestTCP"]);
        }
        script.done();
        script
    }

    pub(crate) fn failing() -> Script {
        let mut script = Script::new();
        script.plan(&[bookworm(), trixie()], &[PKG]);
        for (cell, result) in [(bookworm(), Fail), (trixie(), Pass)] {
            script.up(&cell).begin(&cell, PKG, &["TestDNS", "TestRingBuffer", "TestTCP"]);
            script.start(&cell, PKG, "TestDNS").start(&cell, PKG, "TestDNS/udp").start(
                &cell,
                PKG,
                "TestDNS/udp/v6",
            );
            script.finish(&cell, PKG, "TestDNS/udp/v6", result).finish(&cell, PKG, "TestDNS/udp", result);
            script.tests(&cell, PKG, &[("TestDNS/tcp", Pass)]).finish(&cell, PKG, "TestDNS", result);
            script.tests(&cell, PKG, &[("TestRingBuffer", Skip), ("TestTCP", Pass)]);
            script.end(&cell, PKG, ShardEnd::Exited, Some(i32::from(result == Fail)));
        }
        script.done();
        script
    }

    pub(crate) fn lost(seen: LossEvidence) -> Script {
        let mut script = Script::new();
        script.plan(&[bookworm(), trixie()], &[EBPF, PKG]);
        let cell = trixie();
        script.up(&cell).green(&cell, EBPF, &["TestMap"]).green(
            &cell,
            PKG,
            &["TestDNS", "TestTCP", "TestUDP"],
        );
        let cell = bookworm();
        script.up(&cell).begin(&cell, PKG, &["TestDNS", "TestTCP", "TestUDP"]);
        script.tests(&cell, PKG, &[("TestDNS", Pass)]).start(&cell, PKG, "TestTCP");
        script.start(&cell, PKG, "TestTCP/v4").lost(&cell, seen).end(&cell, PKG, ShardEnd::MachineLost, None);
        script.done();
        script
    }

    pub(crate) fn early_exit(status: i32) -> Script {
        let mut script = Script::new();
        let cell = bookworm();
        script.plan(std::slice::from_ref(&cell), &[PKG]).up(&cell).begin(&cell, PKG, &["TestDNS", "TestTCP"]);
        script.start(&cell, PKG, "TestDNS").end(&cell, PKG, ShardEnd::Exited, Some(status)).done();
        script
    }

    pub(crate) fn timed_out() -> Script {
        let mut script = Script::new();
        let cell = bookworm();
        script.plan(std::slice::from_ref(&cell), &[PKG]).up(&cell).begin(
            &cell,
            PKG,
            &["TestDNS", "TestHang"],
        );
        script.start(&cell, PKG, "TestHang").start(&cell, PKG, "TestHang/forever");
        script.end(&cell, PKG, ShardEnd::TimedOut, None).done();
        script
    }

    pub(crate) fn boot_failure() -> Script {
        let mut script = Script::new();
        script.plan(&[bookworm(), bullseye_arm()], &[EBPF, PKG]);
        script.up(&bookworm()).green(&bookworm(), EBPF, &["TestMap"]).green(&bookworm(), PKG, &["TestDNS"]);
        script.boot_failed(&bullseye_arm()).done();
        script
    }

    pub(crate) fn build_failure() -> Script {
        let mut script = Script::new();
        script.plan(&[bookworm()], &[PKG]).push(Event::BuildStarted { arch: Arch::X86_64 });
        script.push(Event::BuildFailed {
            arch: Arch::X86_64,
            subject: PKG.to_owned(),
            message: "tracer_test.go:12:2: undefined: nosuch\nFAIL".to_owned(),
        });
        script.done();
        script
    }

    pub(crate) fn cancelled() -> Script {
        let mut script = Script::new();
        let cell = bookworm();
        script.plan(&[cell.clone(), trixie()], &[EBPF, PKG]).up(&cell).begin(
            &cell,
            PKG,
            &["TestDNS", "TestTCP", "TestUDP"],
        );
        script.tests(&cell, PKG, &[("TestDNS", Pass)]).start(&cell, PKG, "TestTCP").cancel();
        script.end(&cell, PKG, ShardEnd::Cancelled, None).push(Event::RunFinished { why: RunEnd::Cancelled });
        script
    }

    /// Of four failures one is listed, one says so itself, and one is the parent of the first.
    pub(crate) fn known_flaky() -> Script {
        let (mut script, cell) = (Script::new(), bookworm());
        script.plan(std::slice::from_ref(&cell), &[PKG]);
        script.push(Event::TestsKnown {
            package: PKG.to_owned(),
            flaky: vec!["TestSuite/dns".to_owned()],
            owners: vec!["@net".to_owned()],
            test_owners: [("TestTCP".to_owned(), vec!["@tcp".to_owned(), "@net".to_owned()])].into(),
        });
        script.up(&cell).begin(&cell, PKG, &["TestSuite", "TestTCP"]);
        script.start(&cell, PKG, "TestSuite").start(&cell, PKG, "TestSuite/dns");
        script.finish(&cell, PKG, "TestSuite/dns", TestResult::Fail);
        script.finish(&cell, PKG, "TestSuite", TestResult::Fail).start(&cell, PKG, "TestTCP");
        script.push(Event::TestMarkedFlaky {
            cell: cell.clone(),
            package: PKG.to_owned(),
            test: "TestTCP".to_owned(),
            attempt: 1,
        });
        script.finish(&cell, PKG, "TestTCP", TestResult::Fail);
        script.end(&cell, PKG, ShardEnd::Exited, Some(1)).done();
        script
    }

    pub(crate) fn flaky() -> Script {
        let mut script = Script::new();
        let cell = bookworm();
        script.plan(std::slice::from_ref(&cell), &[PKG]).up(&cell).begin(&cell, PKG, &["TestDNS", "TestTCP"]);
        script.tests(&cell, PKG, &[("TestDNS", Pass), ("TestTCP", Fail)]).end(
            &cell,
            PKG,
            ShardEnd::Exited,
            Some(1),
        );
        script.begin_attempt(&cell, PKG, 2, &["TestTCP"]).start_attempt(&cell, PKG, 2, "TestTCP");
        script.finish_attempt(&cell, PKG, 2, "TestTCP", Pass);
        script.end_attempt(&cell, PKG, 2, ShardEnd::Exited, Some(0)).done();
        script
    }

    /// The log of a runner that was killed.
    pub(crate) fn cut() -> Script {
        let mut script = failing();
        script.log.truncate(script.log.len() - 5);
        script
    }

    /// Each by name.
    pub(crate) fn all() -> Vec<(&'static str, Script)> {
        vec![
            ("green", green()),
            ("failing", failing()),
            ("panic", lost(LossEvidence::Panic)),
            ("qemu_gone", lost(LossEvidence::QemuGone)),
            ("early_exit", early_exit(3)),
            ("timed_out", timed_out()),
            ("boot_failure", boot_failure()),
            ("build_failure", build_failure()),
            ("cancelled", cancelled()),
            ("flaky", flaky()),
            ("known_flaky", known_flaky()),
            ("cut", cut()),
        ]
    }
}
