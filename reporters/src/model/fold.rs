//! From events to facts. Nothing here can fail: what makes no sense is kept as far as it has any.

use super::Run;
use super::facts::{
    Attempt, BootFailure, Build, Cell, CellFailure, Image, Loss, MachineFacts, Package, Shard, ShardEnded,
    Shipped, Splat, TestEnded,
};
use crate::event::{CellId, Envelope, Event};

impl Run {
    /// Takes one event.
    pub fn fold(&mut self, envelope: &Envelope) {
        self.events += 1;
        self.elapsed_ms = self.elapsed_ms.max(envelope.elapsed_ms);
        if self.started.is_none() {
            self.started = Some(envelope.time);
        }
        self.timeline.fold(envelope);
        match &envelope.event {
            Event::TestStarted { .. }
            | Event::TestFinished { .. }
            | Event::TestMarkedFlaky { .. }
            | Event::TestOutputMalformed { .. } => self.fold_test(envelope),
            Event::PlanMade { .. }
            | Event::ShardStarted { .. }
            | Event::TestsListed { .. }
            | Event::ShardFinished { .. }
            | Event::ShardRequeued { .. } => self.fold_shard(envelope),
            Event::MachineDefined { .. }
            | Event::MachineReused { .. }
            | Event::MachineWarm { .. }
            | Event::MachineLost { .. }
            | Event::BootFailed { .. } => self.fold_machine(envelope),
            Event::MachineReady { .. }
            | Event::ShipFinished { .. }
            | Event::ShipFailed { .. }
            | Event::GuestPrepared { .. }
            | Event::SplatSeen { .. } => self.fold_guest(&envelope.event),
            Event::HostReady { .. }
            | Event::HostFailed { .. }
            | Event::ImageReady { .. }
            | Event::BuildStarted { .. }
            | Event::BuildFinished { .. }
            | Event::BuildFailed { .. } => self.fold_preparation(&envelope.event),
            event => self.fold_run(event),
        }
    }

    fn fold_run(&mut self, event: &Event) {
        match event {
            Event::RunStarted {
                run,
                version,
                command,
                component,
                stack,
                test_failure_exit_code,
                root,
                format,
            } => {
                self.id.clone_from(run);
                self.version.clone_from(version);
                self.command.clone_from(command);
                self.component.clone_from(component);
                self.stack.clone_from(stack);
                self.test_failure_exit_code = *test_failure_exit_code;
                self.root.clone_from(root);
                self.format.clone_from(format);
            }
            Event::CellSelected { cell, distro, distro_version } => {
                let cell = self.cell_entry(cell);
                cell.selected = true;
                cell.distro.clone_from(distro);
                cell.distro_version.clone_from(distro_version);
            }
            Event::CellSkipped { cell, reason } => self.cell_entry(cell).skipped = Some(reason.clone()),
            Event::CellFailed { cell, stage, message } => {
                let failure = CellFailure { stage: stage.clone(), message: message.clone() };
                self.cell_entry(cell).failed.get_or_insert(failure);
            }
            Event::RulesGiven { flaky_fails, known_flaky_fails } => {
                self.flaky_fails = *flaky_fails;
                self.known_flaky_fails = *known_flaky_fails;
            }
            Event::TestsKnown { package, flaky, owners, test_owners } => {
                let known = self.known.entry(package.clone()).or_default();
                known.flaky.extend(flaky.iter().cloned());
                known.owners.clone_from(owners);
                known.test_owners.clone_from(test_owners);
            }
            Event::RunHalted { reason } => {
                self.halted.get_or_insert_with(|| reason.clone());
            }
            Event::CancelRequested { by } => self.cancelled_by = Some(by.clone()),
            Event::MachinesKept { machines } => self.kept.clone_from(machines),
            Event::Warning { subject, message } => self.warnings.push((subject.clone(), message.clone())),
            Event::RunFinished { why } => self.ended = Some(*why),
            _ => {}
        }
    }

    fn fold_preparation(&mut self, event: &Event) {
        match event {
            Event::HostReady { host, accelerator, .. } => {
                self.accelerators.insert(host.clone(), accelerator.clone());
            }
            Event::HostFailed { host, message } => self.failed_hosts.push((host.clone(), message.clone())),
            Event::ImageReady { image, digest, cached, duration_ms } => self.images.push(Image {
                image: image.clone(),
                digest: digest.clone(),
                cached: *cached,
                duration_ms: *duration_ms,
            }),
            Event::BuildStarted { arch } => {
                self.builds.entry(*arch).or_insert(Build::Running);
            }
            Event::BuildFinished { arch, compiled, cached, duration_ms } => {
                let done = Build::Done { compiled: *compiled, cached: *cached, duration_ms: *duration_ms };
                // A failed package stays failed, however the rest went.
                let build = self.builds.entry(*arch).or_insert(Build::Running);
                if !matches!(build, Build::Failed { .. }) {
                    *build = done;
                }
            }
            Event::BuildFailed { arch, subject, message } => {
                self.builds
                    .insert(*arch, Build::Failed { subject: subject.clone(), message: message.clone() });
            }
            _ => {}
        }
    }

    fn fold_machine(&mut self, envelope: &Envelope) {
        match &envelope.event {
            Event::MachineReused { machine, .. } => {
                self.reused.insert(machine.clone());
                self.warm.remove(machine);
            }
            Event::MachineWarm { machine, .. } => {
                self.warm.insert(machine.clone());
            }
            Event::MachineDefined { machine, cell } => {
                self.reused.remove(machine);
                self.warm.remove(machine);
                self.cell_entry(cell);
            }
            Event::BootFailed { machine, cell, phase, message, excerpt, duration_ms, idle_ms } => {
                self.cell_entry(cell).boot_failures.push(BootFailure {
                    machine: machine.clone(),
                    phase: *phase,
                    message: message.clone(),
                    excerpt: excerpt.clone(),
                    duration_ms: *duration_ms,
                    idle_ms: *idle_ms,
                });
            }
            Event::MachineLost { machine, cell, seen, excerpt } => {
                let loss = Loss {
                    machine: machine.clone(),
                    seen: *seen,
                    excerpt: excerpt.clone(),
                    seq: envelope.seq,
                };
                self.cell_entry(cell).losses.push(loss);
            }
            _ => {}
        }
    }

    fn fold_guest(&mut self, event: &Event) {
        match event {
            Event::MachineReady {
                machine,
                cell,
                kernel_release,
                machine_arch,
                os_name,
                duration_ms,
                console,
            } => {
                let (reused, warm) = (self.reused.contains(machine), self.warm.contains(machine));
                self.cell_entry(cell).facts = Some(MachineFacts {
                    machine: machine.clone(),
                    kernel_release: kernel_release.clone(),
                    machine_arch: machine_arch.clone(),
                    os_name: os_name.clone(),
                    boot_ms: *duration_ms,
                    reused,
                    warm,
                    console: console.clone(),
                });
            }
            Event::ShipFinished { cell, bytes, files, duration_ms, .. } => {
                let shipped = self.cell_entry(cell).shipped.get_or_insert(Shipped::default());
                shipped.bytes = shipped.bytes.saturating_add(*bytes);
                shipped.files = shipped.files.saturating_add(*files);
                shipped.duration_ms = shipped.duration_ms.saturating_add(*duration_ms);
            }
            Event::ShipFailed { machine, cell, message } => {
                self.cell_entry(cell).ship_failures.push((machine.clone(), message.clone()));
            }
            Event::GuestPrepared { cell, steps, .. } => {
                self.cell_entry(cell).prepared = Some(steps.clone());
            }
            event => self.fold_splat(event),
        }
    }

    fn fold_splat(&mut self, event: &Event) {
        let Event::SplatSeen { machine, cell, signature, excerpt, test_running } = event else {
            return;
        };
        let mut splat = Splat {
            machine: machine.clone(),
            signature: signature.clone(),
            excerpt: excerpt.clone(),
            test_running: test_running.clone(),
            attributed: false,
        };
        let cell = self.cell_entry(cell);
        splat.attributed = attribute(cell, &splat);
        cell.splats.push(splat);
    }

    fn fold_shard(&mut self, envelope: &Envelope) {
        match &envelope.event {
            Event::PlanMade { shards } => {
                self.planned = true;
                for shard in shards {
                    self.package_entry(&shard.cell, &shard.package).planned = true;
                }
            }
            Event::ShardStarted { cell, package, machine, attempt } => {
                self.package_entry(cell, package).shards.push(Shard {
                    machine: machine.clone(),
                    attempt: *attempt,
                    started_ms: envelope.elapsed_ms,
                    started_seq: envelope.seq,
                    ended: None,
                });
            }
            Event::TestsListed { cell, package, tests } => {
                let listed = &mut self.package_entry(cell, package).listed;
                listed.get_or_insert_default().extend(tests.iter().map(|test| test_name(test)));
            }
            Event::ShardFinished { cell, package, attempt, end, status, duration_ms, leaked, output } => {
                let ended = ShardEnded {
                    end: *end,
                    status: *status,
                    duration_ms: *duration_ms,
                    ended_ms: envelope.elapsed_ms,
                    leaked: *leaked,
                    output: output.clone(),
                };
                let package = self.package_entry(cell, package);
                finish_shard(package, *attempt, ended, envelope.seq);
                package.tests.press();
            }
            Event::ShardRequeued { cell, package, reason, attempt } => {
                let package = self.package_entry(cell, package);
                package.requeues.push(reason.clone());
                if *attempt > 0 {
                    package.superseded.insert(*attempt);
                }
            }
            _ => {}
        }
    }

    fn fold_test(&mut self, envelope: &Envelope) {
        match &envelope.event {
            Event::TestStarted { cell, package, test, attempt } => {
                let package = self.package_entry(cell, package);
                let begun = Attempt {
                    number: *attempt,
                    shard: execution(package, *attempt),
                    started_ms: envelope.elapsed_ms,
                    ended: None,
                    splats: Vec::new(),
                };
                package.tests.entry(test_name(test)).push(begun);
            }
            Event::TestFinished { cell, package, test, attempt, result, duration_ms, output, message } => {
                let ended = TestEnded {
                    result: *result,
                    duration_ms: *duration_ms,
                    output: output.clone(),
                    message: message.clone(),
                };
                let package = self.package_entry(cell, package);
                let shard = execution(package, *attempt);
                let attempts = package.tests.entry(test_name(test));
                let open = attempts.iter_mut().rev().find(|a| a.number == *attempt && a.ended.is_none());
                match open {
                    Some(attempt) => attempt.ended = Some(ended),
                    None => attempts.push(Attempt {
                        number: *attempt,
                        shard,
                        started_ms: envelope.elapsed_ms,
                        ended: Some(ended),
                        splats: Vec::new(),
                    }),
                }
                package.tests.settle();
            }
            Event::TestMarkedFlaky { cell, package, test, .. } => {
                self.package_entry(cell, package).marked_flaky.insert(test_name(test));
            }
            Event::TestOutputMalformed { cell, package, message } => {
                self.package_entry(cell, package).malformed.push(message.clone());
            }
            _ => {}
        }
    }

    fn cell_entry(&mut self, id: &CellId) -> &mut Cell {
        let next = self.cells.len();
        let index = *self.cell_index.entry(id.clone()).or_insert(next);
        if index == next {
            self.cells.push(Cell::new(id.clone()));
        }
        &mut self.cells[index]
    }

    fn package_entry(&mut self, cell: &CellId, package: &str) -> &mut Package {
        let packages = &mut self.cell_entry(cell).packages;
        if !packages.contains_key(package) {
            packages.insert(package.to_owned(), Package::default());
        }
        packages.entry(package.to_owned()).or_default()
    }
}

/// The execution of that number; where the log does not name it, the last one.
fn execution(package: &Package, number: u32) -> Option<usize> {
    let named = package.shards.iter().rposition(|shard| shard.attempt == number);
    named.or(package.shards.len().checked_sub(1))
}

/// The empty name stands for the package itself, so a test cannot have it.
fn test_name(name: &str) -> String {
    if name.is_empty() { "(unnamed)".to_owned() } else { name.to_owned() }
}

/// Ends the execution it belongs to; one whose start is not in the log is added.
fn finish_shard(package: &mut Package, attempt: u32, ended: ShardEnded, seq: u64) {
    let open =
        package.shards.iter_mut().rev().find(|shard| shard.attempt == attempt && shard.ended.is_none());
    match open {
        Some(shard) => shard.ended = Some(ended),
        None => package.shards.push(Shard {
            machine: String::new(),
            attempt,
            started_ms: ended.ended_ms.saturating_sub(ended.duration_ms),
            started_seq: seq,
            ended: Some(ended),
        }),
    }
}

/// Hands a splat to the test that ran on its machine then; false if there is none.
fn attribute(cell: &mut Cell, splat: &Splat) -> bool {
    let Some(name) = &splat.test_running else {
        return false;
    };
    let index = cell.splats.len();
    let on_machine = |package: &&mut Package| {
        package.shards.iter().any(|shard| shard.machine == splat.machine) && package.tests.contains(name)
    };
    let mut candidates: Vec<&mut Package> = cell.packages.values_mut().filter(on_machine).collect();
    // Of several packages with a test of that name, the one that began last.
    candidates.sort_by_key(|package| package.shards.last().map(|shard| shard.started_seq));
    let attempt = candidates.pop().and_then(|package| package.tests.entry(name.clone()).last_mut());
    match attempt {
        Some(attempt) => {
            attempt.splats.push(index);
            true
        }
        None => false,
    }
}
