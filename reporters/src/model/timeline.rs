//! When each machine did what: boots, shipping, packages, in milliseconds into the run.
//!
//! Filled beside the facts and never asked for a verdict. A span that has no end in the log lasts until its latest
//! event.

use std::collections::BTreeMap;

use crate::event::{BootPhase, CellId, Envelope, Event};

/// What a machine was busy with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SpanKind {
    /// It booted, or was asked whether it is well.
    Boot,
    /// It got files.
    Ship,
    /// A package ran.
    Package,
}

/// One stretch of work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Of which kind.
    pub kind: SpanKind,
    /// What: a package path, or a word.
    pub name: String,
    /// Its beginning, milliseconds into the run.
    pub start_ms: u64,
    /// Its end; `None` while it goes on.
    pub end_ms: Option<u64>,
    /// Whether it ended badly.
    pub failed: bool,
}

/// One machine over time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineLane {
    /// Its cell.
    pub cell: CellId,
    /// Boot phases and when each was reached.
    pub phases: Vec<(BootPhase, u64)>,
    /// What it did, in order of beginning.
    pub spans: Vec<Span>,
    /// When it was lost.
    pub lost_ms: Option<u64>,
}

/// All machines of a run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Timeline {
    /// Machines by id.
    pub machines: BTreeMap<String, MachineLane>,
    /// Builds by architecture: beginning and end.
    pub builds: BTreeMap<String, (u64, Option<u64>)>,
}

impl Timeline {
    /// Takes one event.
    pub(super) fn fold(&mut self, envelope: &Envelope) {
        let now = envelope.elapsed_ms;
        match &envelope.event {
            Event::MachineDefined { machine, cell } => self.begin(machine, cell, SpanKind::Boot, "boot", now),
            Event::MachineReused { machine, cell } => self.begin(machine, cell, SpanKind::Boot, "reuse", now),
            Event::MachinePhase { machine, phase } => {
                if let Some(lane) = self.machines.get_mut(machine) {
                    lane.phases.push((*phase, now));
                }
            }
            Event::MachineReady { machine, cell, .. } => {
                self.lane(machine, cell).end(SpanKind::Boot, None, now, false);
            }
            Event::BootFailed { machine, cell, .. } => {
                self.lane(machine, cell).end(SpanKind::Boot, None, now, true);
            }
            Event::ShipFinished { machine, cell, duration_ms, .. } => {
                let start_ms = now.saturating_sub(*duration_ms);
                let name = "ship".to_owned();
                let (kind, end_ms) = (SpanKind::Ship, Some(now));
                self.lane(machine, cell).spans.push(Span { kind, name, start_ms, end_ms, failed: false });
            }
            Event::ShardStarted { cell, package, machine, .. } => {
                self.begin(machine, cell, SpanKind::Package, package, now);
            }
            Event::ShardFinished { cell, package, end, .. } => {
                let failed = *end != crate::event::ShardEnd::Exited;
                for lane in self.machines.values_mut().filter(|lane| lane.cell == *cell) {
                    lane.end(SpanKind::Package, Some(package), now, failed);
                }
            }
            Event::MachineLost { machine, cell, .. } => self.lane(machine, cell).lost_ms = Some(now),
            Event::BuildStarted { arch } => {
                self.builds.entry(arch.to_string()).or_insert((now, None));
            }
            Event::BuildFinished { arch, .. } | Event::BuildFailed { arch, .. } => {
                self.builds.entry(arch.to_string()).or_insert((now, None)).1 = Some(now);
            }
            _ => {}
        }
    }

    fn lane(&mut self, machine: &str, cell: &CellId) -> &mut MachineLane {
        self.machines.entry(machine.to_owned()).or_insert_with(|| MachineLane {
            cell: cell.clone(),
            phases: Vec::new(),
            spans: Vec::new(),
            lost_ms: None,
        })
    }

    fn begin(&mut self, machine: &str, cell: &CellId, kind: SpanKind, name: &str, now: u64) {
        let span = Span { kind, name: name.to_owned(), start_ms: now, end_ms: None, failed: false };
        self.lane(machine, cell).spans.push(span);
    }
}

impl MachineLane {
    /// Ends the latest open span of that kind and name.
    fn end(&mut self, kind: SpanKind, name: Option<&str>, now: u64, failed: bool) {
        let open = |span: &&mut Span| {
            span.kind == kind && span.end_ms.is_none() && name.is_none_or(|name| span.name == name)
        };
        if let Some(span) = self.spans.iter_mut().rev().find(open) {
            span.end_ms = Some(now);
            span.failed = failed;
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::event::LossEvidence;
    use crate::model::SpanKind;
    use crate::model::script::{bookworm, bullseye_arm, runs};

    #[test]
    fn a_lane_shows_boot_ship_and_packages_in_order() {
        let run = runs::green().run();
        let lane = &run.timeline.machines[&bookworm().slug()];
        let kinds: Vec<_> = lane.spans.iter().map(|span| (span.kind, span.name.as_str())).collect();
        let packages = [(SpanKind::Package, "pkg/ebpf"), (SpanKind::Package, "pkg/network/tracer")];
        assert_eq!(kinds, [&[(SpanKind::Boot, "boot"), (SpanKind::Ship, "ship")], &packages[..]].concat());
        assert!(lane.spans.iter().all(|span| span.end_ms.is_some_and(|end| end >= span.start_ms)));
        assert_eq!(lane.phases.len(), 3);
    }

    #[test]
    fn what_went_wrong_shows_in_the_lane() {
        let run = runs::boot_failure().run();
        assert!(run.timeline.machines[&bullseye_arm().slug()].spans[0].failed);
        let run = runs::lost(LossEvidence::Panic).run();
        let lane = &run.timeline.machines[&bookworm().slug()];
        assert!(lane.lost_ms.is_some() && lane.spans.last().is_some_and(|span| span.failed));
    }
}
