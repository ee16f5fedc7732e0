//! A pipeline: its jobs and those of its children, and the evidence that the failed ones left.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use kmt_reporters::event::Arch;
use kmt_reporters::explain::{Cost, Explanation, Machine, Other, Place, Subject};
use tokio::sync::Semaphore;

use super::decide::{self, Evidence, Told};
use super::entries::{self, Entry, State};
use super::jobs::{Attempts, Jobs};
use super::kept;
use super::logs;
use super::machines::{self, StackOutput};
use super::names::Names;
use super::store::{Got, Store};
use crate::error::{Failure, Kind, Result};
use crate::external::ci::{Id, Job, Piece, Pipeline, Status};
use crate::settings::gitlab::Role;

/// Jobs whose evidence is gathered at once; the door sends fewer requests than that.
const AT_ONCE: usize = 16;
/// Results that are read at once: each may take tens of megabytes.
const READ_AT_ONCE: usize = 2;
/// Most bytes of an archive of results, of a log or console, and of a small file.
pub(super) const ARCHIVE: u64 = 64 << 20;
pub(super) const LOG: u64 = 128 << 20;
pub(super) const SMALL: u64 = 4 << 20;
/// Bytes of the end of a log that are looked at.
const TAIL: u64 = 512 << 10;
/// Generations of child pipelines.
const DEPTH: usize = 3;
/// Bridges of a host whose leases are looked at.
const BRIDGES: u32 = 16;

/// A pipeline that was read.
#[derive(Debug)]
pub struct Read {
    /// The pipeline.
    pub pipeline: Pipeline,
    /// Test jobs, and cells of jobs that are a `kmt-run`.
    pub entries: Vec<Entry>,
    /// Machines that did not do their work.
    pub machines: Vec<Machine>,
    /// Failed jobs that are nothing of ours.
    pub others: Vec<Job>,
    /// What could not be read.
    pub notices: Vec<String>,
    /// Runs of jobs that are a `kmt-run`.
    runs: Vec<Explanation>,
}

/// What a setup job left.
#[derive(Debug, Default)]
struct Setup {
    output: Option<StackOutput>,
    addresses: Option<Vec<String>>,
    notice: Option<String>,
}

/// Reads pipelines from a store.
pub struct Reader<'a> {
    /// Where pieces come from.
    pub store: &'a Store,
    /// What names mean.
    pub names: &'a Names,
    /// Leaves room for so many.
    reading: Semaphore,
}

fn unavailable(error: &crate::external::Error) -> Failure {
    Failure::outside(Kind::Ci, error)
}

impl<'a> Reader<'a> {
    /// For these names, from that store.
    pub fn new(store: &'a Store, names: &'a Names) -> Reader<'a> {
        Reader { store, names, reading: Semaphore::new(READ_AT_ONCE) }
    }

    /// The pipeline of that number and its children; the jobs of all of them.
    ///
    /// # Errors
    /// The server does not give them.
    pub async fn jobs(&self, id: Id, notices: &mut Vec<String>) -> Result<(Pipeline, Jobs)> {
        let ci = self.store.ci();
        let pipeline = ci.pipeline(id).await.map_err(|error| unavailable(&error))?;
        let (mut found, mut generation, mut known) = (Vec::new(), vec![id], BTreeSet::from([id]));
        for depth in 0..=DEPTH {
            let mut next = Vec::new();
            for id in std::mem::take(&mut generation) {
                let (jobs, bridges) = tokio::join!(ci.jobs(id), async {
                    if depth == DEPTH { Ok(Vec::new()) } else { ci.bridges(id).await }
                });
                found.push((id, jobs.map_err(|error| unavailable(&error))?));
                for bridge in bridges.map_err(|error| unavailable(&error))? {
                    match bridge.downstream_pipeline {
                        Some(child) if known.insert(child.id) => next.push(child.id),
                        None if bridge.status == Status::Failed => {
                            let why = bridge.failure_reason.unwrap_or_default();
                            notices.push(format!("`{}` made no child pipeline: {why}", bridge.name));
                        }
                        _ => {}
                    }
                }
            }
            generation = next;
        }
        Ok((pipeline, Jobs::of(found, self.names)))
    }

    /// The pipeline of that number, with the evidence of what failed.
    ///
    /// # Errors
    /// The server does not give it, or refuses what jobs left.
    pub async fn read(&self, id: Id) -> Result<Read> {
        let mut notices = Vec::new();
        let (pipeline, jobs) = self.jobs(id, &mut notices).await?;
        self.read_jobs(pipeline, &jobs, notices).await
    }

    /// The evidence of what failed among these jobs.
    pub(super) async fn read_jobs(
        &self,
        pipeline: Pipeline,
        jobs: &Jobs,
        mut notices: Vec<String>,
    ) -> Result<Read> {
        let broken = self.broken(jobs).await?;
        let failed: Vec<&Attempts> = jobs
            .that(Role::Test)
            .filter(|test| test.failed() || stood_on(test, &broken, jobs).is_some())
            .collect();
        let gathered: Vec<(&Attempts, Evidence)> = stream::iter(failed)
            .map(|test| {
                let evidence = self.evidence(test, jobs, &broken);
                async move { evidence.await.map(|evidence| (test, evidence)) }
            })
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        let (gathered, mut machines) = self.at_the_machines(gathered, jobs, &mut notices).await?;
        let mut entries: Vec<Entry> = jobs.that(Role::Test).map(|test| entry(test, None)).collect();
        for (test, evidence) in gathered {
            let told = decide::test_job(test.latest(), &evidence);
            if let Some(machine) = machines.iter_mut().find(|machine| is_of(machine, test)) {
                machine.says.clone_from(&told.says);
            }
            let trouble =
                evidence.results.iter().flat_map(|results| results.trouble.iter()).chain(&evidence.lost);
            notices.extend(trouble.map(|trouble| format!("{}: {trouble}", test.latest().name)));
            let own =
                |entry: &&mut Entry| entry.name == test.latest().name && entry.url == test.latest().web_url;
            if let Some(entry) = entries.iter_mut().find(own) {
                entry.results = evidence.results;
                entry.state = State::Failed(told);
            }
        }
        let runs = self.runs(jobs, &mut entries, &mut notices).await?;
        Ok(Read { pipeline, entries, machines, others: jobs.others.clone(), notices, runs })
    }

    /// Why setup and upload jobs failed, by job.
    async fn broken(&self, jobs: &Jobs) -> Result<BTreeMap<Id, Told>> {
        let failed = jobs.that(Role::Setup).chain(jobs.that(Role::Upload)).filter(|job| job.failed());
        let told = failed.map(|attempts| async {
            let job = attempts.latest();
            let log = self.log(job.id).await?;
            let told = match attempts.named.role {
                Role::Setup => decide::setup_job(job, &log),
                _ => decide::upload_job(job, &log),
            };
            Ok((job.id, told))
        });
        stream::iter(told).buffered(AT_ONCE).try_collect().await
    }

    /// The end of a job's log, clean; empty where there is none.
    pub(super) async fn log(&self, job: Id) -> Result<String> {
        let got = self.store.get(job, &Piece::Trace, LOG).await?;
        let text = got.path().and_then(|path| crate::record::tail(path, TAIL).ok());
        Ok(text.map(|text| logs::clean(&text)).unwrap_or_default())
    }

    /// What a failed test job left.
    async fn evidence(&self, test: &Attempts, jobs: &Jobs, broken: &BTreeMap<Id, Told>) -> Result<Evidence> {
        let job = test.latest();
        let mut evidence = Evidence::default();
        let left = job.has_archive() || job.artifacts.is_empty();
        if left && job.status == Status::Failed {
            let paths = self.names.paths(&self.names.artifacts.junit, &words(test));
            match self.store.first(job.id, &paths, ARCHIVE).await? {
                Got::File(path) | Got::Cut(path) => {
                    let _permit = self.reading.acquire().await;
                    let read = tokio::task::spawn_blocking(move || kept::results(&path)).await;
                    evidence.results = read.ok();
                }
                Got::Lost(why) => evidence.lost = Some(format!("its results could not be fetched: {why}")),
                Got::Absent => {}
            }
        }
        if evidence.results.as_ref().is_some_and(|results| results.failed().next().is_some()) {
            return Ok(evidence);
        }
        if let Some((role, told)) = stood_on(test, broken, jobs) {
            let slot = if role == Role::Setup { &mut evidence.setup } else { &mut evidence.upload };
            *slot = Some(told.clone());
            return Ok(evidence);
        }
        if matches!(
            job.failure_reason.as_deref(),
            None | Some("" | "script_failure" | "unknown_failure" | "job_execution_timeout")
        ) {
            evidence.log = self.log(job.id).await?;
            let paths = &self.names.artifacts.unit_status;
            let paths = if left { self.names.paths(paths, &words(test)) } else { Vec::new() };
            let status = self.store.first(job.id, &paths, SMALL).await?;
            let status = status.path().and_then(|path| crate::record::tail(path, TAIL).ok());
            evidence.unit = status.and_then(|status| machines::unit_is_active(&status));
        }
        Ok(evidence)
    }

    /// Looks at the machines of jobs that left no failed test: consoles and leases of their setup jobs.
    async fn at_the_machines<'t>(
        &self,
        gathered: Vec<(&'t Attempts, Evidence)>,
        jobs: &Jobs,
        notices: &mut Vec<String>,
    ) -> Result<(Vec<(&'t Attempts, Evidence)>, Vec<Machine>)> {
        let wanted = |evidence: &Evidence| {
            let failed = evidence.results.as_ref().is_some_and(|results| results.failed().next().is_some());
            !failed && evidence.setup.is_none() && evidence.upload.is_none() && !evidence.log.is_empty()
        };
        let needed = gathered.iter().filter(|(_, evidence)| wanted(evidence));
        let needed: BTreeMap<Id, &Attempts> = needed
            .filter_map(|(test, _)| jobs.setup_of(test))
            .map(|setup| (setup.latest().id, setup))
            .collect();
        let read = needed
            .into_iter()
            .map(|(id, setup)| async move { self.setup(setup).await.map(|read| (id, read)) });
        let setups: BTreeMap<Id, Setup> = stream::iter(read).buffered(AT_ONCE).try_collect().await?;
        notices.extend(setups.values().filter_map(|setup| setup.notice.clone()));
        let looked = gathered.into_iter().map(|(test, mut evidence)| {
            let setup = jobs.setup_of(test).filter(|_| wanted(&evidence));
            let known = setup.and_then(|setup| setups.get(&setup.latest().id));
            async move {
                let Some((setup, known)) = setup.zip(known) else { return Ok((test, evidence, None)) };
                let machine = self.machine(test, setup, known, &mut evidence).await?;
                Ok::<_, Failure>((test, evidence, Some(machine)))
            }
        });
        let looked: Vec<_> = stream::iter(looked).buffered(AT_ONCE).try_collect().await?;
        let machines = looked.iter().filter_map(|(_, _, machine)| machine.clone());
        // A machine that did its work is no machine to show.
        let machines =
            machines.filter(|m| m.login != Some(true) || m.unit == Some(false) || m.address == Some(false));
        let machines = machines.collect();
        Ok((looked.into_iter().map(|(test, evidence, _)| (test, evidence)).collect(), machines))
    }

    async fn setup(&self, setup: &Attempts) -> Result<Setup> {
        let job = setup.latest();
        let mut read = Setup::default();
        if !job.has_archive() && !job.artifacts.is_empty() {
            return Ok(read);
        }
        let words = words(setup);
        let of = |patterns: &[String]| self.names.paths(patterns, &words);
        let got = self.store.first(job.id, &of(&self.names.artifacts.stack_output), SMALL).await?;
        match got.path().map(|path| StackOutput::read(path)) {
            Some(Ok(output)) => read.output = Some(output),
            Some(Err(error)) => read.notice = Some(format!("`stack.output` of `{}` {error}", job.name)),
            None => read.notice = Some(format!("`{}` left no `stack.output`", job.name)),
        }
        for number in 0..BRIDGES {
            let number = number.to_string();
            let words: Vec<(&str, &str)> = words.iter().copied().chain([("n", number.as_str())]).collect();
            let paths = self.names.paths(&self.names.artifacts.leases, &words);
            let got = self.store.first(job.id, &paths, SMALL).await?;
            let Some(path) = got.path() else { break };
            read.addresses.get_or_insert_default().append(&mut machines::addresses(path));
        }
        Ok(read)
    }

    /// A row of the boot table, and what the machine's console adds to the evidence.
    async fn machine(
        &self,
        test: &Attempts,
        setup: &Attempts,
        known: &Setup,
        evidence: &mut Evidence,
    ) -> Result<Machine> {
        let named = &test.named;
        let mut machine = Machine {
            component: named.component.clone(),
            set: named.set.clone(),
            place: place(test),
            login: None,
            unit: evidence.unit,
            address: None,
            phase: None,
            says: String::new(),
        };
        let vm = known
            .output
            .as_ref()
            .and_then(|output| output.machine(named.arch(), &named.platform, &named.set));
        let Some(vm) = vm else { return Ok(machine) };
        machine.address = known.addresses.as_ref().map(|addresses| addresses.contains(&vm.ip));
        let job = setup.latest().id;
        let id = job.to_string();
        let mut words = words(test);
        words.extend([("job", id.as_str()), ("vm", vm.id.as_str())]);
        let paths = self.names.paths(&self.names.artifacts.console, &words);
        let got = self.store.first(job, &paths, LOG).await?;
        let Some(path) = got.path().cloned() else { return Ok(machine) };
        let read = tokio::task::spawn_blocking(move || machines::console(&path)).await;
        if let Ok(Ok(console)) = read {
            machine.login = Some(console.login);
            machine.unit = machine.unit.or(console.unit);
            machine.phase = console.phase;
            evidence.login = Some(console.login);
            evidence.finding = console.finding;
        }
        Ok(machine)
    }
}

/// The setup or upload job under a test job that failed, and why; where the test itself could not run.
fn stood_on<'b>(test: &Attempts, broken: &'b BTreeMap<Id, Told>, jobs: &Jobs) -> Option<(Role, &'b Told)> {
    if matches!(test.latest().status, Status::Success | Status::Running | Status::Pending) {
        return None;
    }
    if let Some(told) = jobs.setup_of(test).and_then(|setup| broken.get(&setup.latest().id)) {
        return Some((Role::Setup, told));
    }
    let mut uploads = jobs.for_place(Role::Upload, test);
    let told = uploads.find_map(|upload| broken.get(&upload.latest().id))?;
    Some((Role::Upload, told))
}

fn is_of(machine: &Machine, test: &Attempts) -> bool {
    machine.place == place(test) && machine.set == test.named.set && machine.component == test.named.component
}

pub(super) fn place(attempts: &Attempts) -> Place {
    let platform = match attempts.named.platform.as_str() {
        "" => attempts.latest().name.clone(),
        platform => platform.to_owned(),
    };
    Place { platform, arch: attempts.named.arch() }
}

/// What placeholders stand for, in a job's artifacts.
pub(super) fn words(attempts: &Attempts) -> Vec<(&'static str, &str)> {
    let named = &attempts.named;
    let (arch, dashed) = match named.arch() {
        Arch::X86_64 => ("x86_64", "x86-64"),
        Arch::Arm64 => ("arm64", "arm64"),
    };
    vec![
        ("arch", arch),
        ("arch-dashed", dashed),
        ("platform", &named.platform),
        ("set", &named.set),
        ("component", &named.component),
        ("pipeline", attempts.pipeline_text()),
    ]
}

pub(super) fn entry(attempts: &Attempts, failed: Option<Told>) -> Entry {
    let job = attempts.latest();
    let state = match (failed, &job.status) {
        (Some(told), _) => State::Failed(told),
        (None, Status::Success) if attempts.recovered() => State::Recovered,
        (None, Status::Success) => State::Passed,
        (None, _) => State::Unfinished,
    };
    Entry {
        component: attempts.named.component.clone(),
        set: attempts.named.set.clone(),
        place: place(attempts),
        name: job.name.clone(),
        url: job.web_url.clone(),
        attempts: attempts.count(),
        allowed: job.allow_failure,
        size: None,
        state,
        results: None,
    }
}

impl Read {
    /// The explanation, with these commands to run what failed.
    pub fn explanation(&self, store: &Store, reproduce: Vec<String>) -> Explanation {
        let pipeline = &self.pipeline;
        let count = |wanted: &dyn Fn(&State) -> bool| {
            self.entries.iter().filter(|entry| wanted(&entry.state)).count()
        };
        let cost = store.ci().cost();
        let mut causes = entries::causes(&self.entries);
        causes.extend(self.runs.iter().flat_map(|run| run.causes.iter().cloned()));
        let mut machines = self.machines.clone();
        machines.extend(self.runs.iter().flat_map(|run| run.machines.iter().cloned()));
        let other = |job: &Job| Other {
            name: job.name.clone(),
            stage: job.stage.clone(),
            reason: job.failure_reason.clone().unwrap_or_default(),
            allowed: job.allow_failure,
        };
        Explanation {
            schema: 1,
            subject: Subject {
                kind: "pipeline",
                name: pipeline.id.to_string(),
                status: pipeline.status.to_string(),
                branch: pipeline.branch.clone(),
                commit: pipeline.sha.clone(),
                url: pipeline.web_url.clone(),
                total: self.entries.len(),
                failed: count(&|state| matches!(state, State::Failed(_))),
                unfinished: count(&|state| *state == State::Unfinished),
            },
            groups: entries::groups(&self.entries),
            machines,
            causes: kmt_reporters::explain::grouped(causes),
            others: self.others.iter().map(other).collect(),
            notices: self.notices.clone(),
            reproduce,
            cost: Some(Cost {
                requests: cost.requests,
                repeated: cost.repeated,
                bytes: cost.bytes,
                cached: store.cached(),
            }),
        }
    }
}
