//! Lines of what comes before tests, and of what goes wrong around them.

use super::Verbosity;
use super::lines::View;
use super::paint::{Role, Verb};
use crate::event::{CellId, Event, LossEvidence, PreparedStep};
use crate::output::NoOutput;
use crate::text::{bytes, escape, plural, roughly};
use crate::triage::boot_cause;

/// Causes that say no more than the message of the failure does.
pub(super) const UNSURE: [&str; 4] = ["hang", "slow", "no-output", "unknown"];

impl View<'_> {
    pub(super) fn machine(&self, event: &Event, elapsed_ms: u64) -> String {
        match event {
            Event::MachineDefined { machine, cell } => self.at_least(Verbosity::Verbose, || {
                self.paint.line(Verb::plain("DEFINE"), None, &self.cell(cell), &escape(machine))
            }),
            Event::MachineReused { machine, cell } => self.at_least(Verbosity::Verbose, || {
                self.paint.line(Verb::plain("REUSE"), None, &self.cell(cell), &escape(machine))
            }),
            Event::MachineCold { cell, why, ordinary, .. } => {
                let level = if *ordinary { Verbosity::Verbose } else { Verbosity::Normal };
                self.at_least(level, || {
                    let verb = if *ordinary { Verb::plain("COLD") } else { Verb::odd("COLD") };
                    self.paint.line(verb, None, &self.cell(cell), &escape(why))
                })
            }
            Event::TemplateMade { cell, bytes: size, duration_ms, .. } => {
                self.at_least(Verbosity::Normal, || {
                    let text = format!("{} for later machines to start from", bytes(*size));
                    self.paint.line(Verb::good("TEMPLATE"), *duration_ms, &self.cell(cell), &text)
                })
            }
            Event::MachinePhase { machine, phase } => self.at_least(Verbosity::Verbose, || {
                let text = format!("{} reached {}", escape(machine), phase.as_str());
                self.paint.line(Verb::plain("PHASE"), elapsed_ms, "", &text)
            }),
            Event::MachineReady { cell, kernel_release, machine_arch, os_name, duration_ms, .. } => self
                .at_least(Verbosity::Normal, || {
                    let facts = self.run.cell(cell).and_then(|cell| cell.facts.as_ref());
                    let verb = match facts {
                        Some(facts) if facts.reused => "REUSE",
                        Some(facts) if facts.warm => "WARM",
                        _ => "BOOT",
                    };
                    let text = format!(
                        "{} {} ({})",
                        self.paint.role(Role::Strong, &escape(kernel_release)),
                        escape(machine_arch),
                        escape(os_name)
                    );
                    self.paint.line(Verb::good(verb), *duration_ms, &self.cell(cell), &text)
                }),
            _ => String::new(),
        }
    }

    pub(super) fn preparation(&self, event: &Event) -> String {
        let normal = |line: &dyn Fn() -> String| self.at_least(Verbosity::Normal, line);
        match event {
            Event::ImageReady { image, duration_ms, .. } => {
                let level = if *duration_ms >= 1_000 { Verbosity::Normal } else { Verbosity::Verbose };
                self.at_least(level, || {
                    self.paint.line(Verb::good("IMAGE"), *duration_ms, "", &escape(image))
                })
            }
            Event::BuildStarted { arch } => {
                self.at_least(Verbosity::Verbose, || self.paint.note(Verb::plain("Building"), arch.as_str()))
            }
            Event::BuildFinished { arch, compiled, cached, duration_ms } => normal(&|| {
                let made = match compiled {
                    0 => "nothing to compile".to_owned(),
                    compiled => format!("{} compiled", plural(u64::from(*compiled), "file")),
                };
                let text = format!("{arch}: {made}, {cached} cached");
                self.paint.line(Verb::good("BUILD"), *duration_ms, "", &text)
            }),
            Event::ArtifactsUploaded { host, bytes: sent, duration_ms } => normal(&|| {
                let text = format!("{} to {}, for all its machines", bytes(*sent), escape(host));
                self.paint.line(Verb::good("UPLOAD"), *duration_ms, "", &text)
            }),
            Event::ShipFinished { cell, bytes: sent, files, duration_ms, .. } => normal(&|| {
                let text = match files {
                    0 if *sent == 0 => "nothing to send".to_owned(),
                    0 => format!("no file, another selection ({})", bytes(*sent)),
                    files => format!("{} in {}", bytes(*sent), plural(u64::from(*files), "file")),
                };
                self.paint.line(Verb::good("SHIP"), *duration_ms, &self.cell(cell), &text)
            }),
            Event::GuestPrepared { cell, steps, failed, .. } => self.prepared(cell, steps, failed.is_some()),
            _ => String::new(),
        }
    }

    /// The steps one by one where somebody wants to know.
    fn prepared(&self, cell: &CellId, steps: &[PreparedStep], failed: bool) -> String {
        let cell = self.cell(cell);
        let verb = || if failed { Verb::bad("PREPARE") } else { Verb::good("PREPARE") };
        let each = steps.iter().map(|step| {
            self.at_least(Verbosity::Verbose, || {
                self.paint.line(Verb::plain("STEP"), step.duration_ms, &cell, &escape(&step.name))
            })
        });
        let mut text: String = each.collect();
        text.push_str(&self.at_least(Verbosity::Normal, || {
            let total = steps.iter().map(|step| step.duration_ms).sum::<u64>();
            self.paint.line(verb(), total, &cell, &plural(steps.len() as u64, "step"))
        }));
        text
    }

    /// What went wrong is said at every verbosity.
    pub(super) fn fault(&self, event: &Event) -> String {
        match event {
            Event::MachineLost { machine, cell, seen, excerpt } => {
                let what = match seen {
                    LossEvidence::Panic => "its kernel panicked",
                    LossEvidence::QemuGone => "its QEMU is gone",
                    LossEvidence::Silent => "it does not answer any more",
                };
                let mut text = self.paint.line(
                    Verb::bad("LOST"),
                    None,
                    &self.cell(cell),
                    &format!("{}: {what}", escape(machine)),
                );
                text.push_str(&self.indented(excerpt.iter().rev().take(3).rev()));
                text
            }
            Event::BootFailed { cell, phase, message, excerpt, duration_ms, .. } => {
                let phase = phase
                    .map_or("it never began".to_owned(), |phase| format!("it reached {}", phase.as_str()));
                let text = format!("{} ({phase})", escape(message));
                let mut text = self.paint.line(Verb::bad("BOOT FAIL"), *duration_ms, &self.cell(cell), &text);
                if let Some(cause) = self.cause_so_far(cell) {
                    text.push_str(&self.indented(std::iter::once(format!("cause: {cause}"))));
                }
                text.push_str(&self.indented(excerpt.iter().rev().take(3).rev()));
                text
            }
            Event::SplatSeen { cell, signature, test_running, .. } => {
                let during = test_running.as_ref().map(|test| format!(" (while {} ran)", escape(test)));
                let text = format!("{}{}", escape(signature), during.unwrap_or_default());
                self.paint.line(Verb::bad("SPLAT"), None, &self.cell(cell), &text)
            }
            Event::SplatAllowed { cell, signature, reason, link, .. } => {
                let link = link.as_ref().map(|link| format!(", {}", escape(link))).unwrap_or_default();
                let text = format!("{} (allowed: {}{link})", escape(signature), escape(reason));
                self.paint.line(Verb::odd("SPLAT"), None, &self.cell(cell), &text)
            }
            Event::RunHalted { reason } => {
                self.paint.note(Verb::bad("Stopping"), &format!("nothing more begins: {}", escape(reason)))
            }
            event => self.failed(event),
        }
    }

    /// What the lines that the event carries show; the closing has read the whole console.
    fn cause_so_far(&self, cell: &CellId) -> Option<String> {
        let finding = boot_cause(self.run, self.run.cell(cell)?, &NoOutput)?;
        (!UNSURE.contains(&finding.cause)).then_some(finding.says)
    }

    /// What a rented host costs, before and after.
    fn rented(&self, event: &Event) -> String {
        match event {
            Event::HostRented { host, arch, instance_type, zone, usd_per_hour, expires } => {
                let price = usd_per_hour.map_or(String::new(), |usd| format!(", {usd:.2} USD an hour"));
                let until =
                    expires.map_or(String::new(), |at| at.format(", ends by %Y-%m-%d %H:%M UTC").to_string());
                let text = format!(
                    "{} for {arch}: {} in {}{price}{until}",
                    escape(host),
                    escape(instance_type),
                    escape(zone)
                );
                self.paint.note(Verb::good("Rented"), &text)
            }
            Event::HostEnded { host, age_ms, usd } => {
                let age = age_ms.map_or(String::new(), |ms| format!(" after {}", roughly(ms)));
                let usd = usd.map_or(String::new(), |usd| format!(", about {usd:.2} USD"));
                self.paint.note(Verb::good("Ended"), &format!("{}{age}{usd}", escape(host)))
            }
            _ => String::new(),
        }
    }

    fn failed(&self, event: &Event) -> String {
        match event {
            Event::CellFailed { cell, stage, message } => {
                let first = message.lines().next().unwrap_or_default();
                let text = format!("{} failed: {}", escape(stage), escape(first));
                self.paint.line(Verb::bad("NOT-RUN"), None, &self.cell(cell), &text)
            }
            Event::HostRented { .. } | Event::HostEnded { .. } => self.rented(event),
            Event::HostFailed { host, message } => {
                self.paint.note(Verb::bad("HOST FAIL"), &format!("{}: {}", escape(host), escape(message)))
            }
            Event::CancelRequested { by } => {
                self.paint.note(Verb::odd("Cancelling"), &format!("on {}", escape(by)))
            }
            Event::BuildFailed { arch, subject, message } => {
                let mut text = self.paint.line(
                    Verb::bad("BUILD FAIL"),
                    None,
                    "",
                    &format!("{arch}: {}", escape(subject)),
                );
                text.push_str(&self.indented(message.lines().take(20)));
                text
            }
            Event::ShipFailed { cell, message, .. } => {
                self.paint.line(Verb::bad("SHIP FAIL"), None, &self.cell(cell), &escape(message))
            }
            _ => String::new(),
        }
    }
}
