//! The live board: below the lines, one line a machine, a build, or other long work.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Style;
use crate::event::{Arch, CellId, Event, TestResult};
use crate::mask::Masks;
use crate::model::is_good;
use crate::text::{escape, plural};

/// Redraws at most this often by itself.
const TICK: Duration = Duration::from_millis(250);

/// Which line it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Subject {
    Machine(String),
    Build(Arch),
    Work(String),
}

/// Live lines on a terminal; other output must go through [`Terminal`](super::Terminal), which prints it above them.
#[derive(Debug)]
pub struct LiveBoard {
    bars: MultiProgress,
    style: Style,
    lines: HashMap<Subject, ProgressBar>,
    total: Option<ProgressBar>,
    /// The machine that runs a package.
    machines: HashMap<(CellId, String), String>,
    planned: u64,
    ended: u64,
    passed: u64,
    failed: u64,
}

impl LiveBoard {
    /// Draws on `target`, such as [`ProgressDrawTarget::stderr`].
    pub fn new(target: ProgressDrawTarget, style: Style) -> LiveBoard {
        LiveBoard {
            bars: MultiProgress::with_draw_target(target),
            style,
            lines: HashMap::new(),
            total: None,
            machines: HashMap::new(),
            planned: 0,
            ended: 0,
            passed: 0,
            failed: 0,
        }
    }

    /// Draws on standard error.
    pub fn on_stderr(style: Style) -> LiveBoard {
        LiveBoard::new(ProgressDrawTarget::stderr(), style)
    }

    /// Does `print` while the board is off the screen.
    pub(super) fn above(&self, print: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.bars.suspend(print)
    }

    /// Takes everything off the screen.
    pub(super) fn clear(&mut self) {
        for bar in self.lines.drain().map(|(_, bar)| bar).chain(self.total.take()) {
            bar.finish_and_clear();
            self.bars.remove(&bar);
        }
    }

    pub(super) fn event(&mut self, event: &Event, masks: &Masks) {
        let say = |text: &str| masks.mask(&escape(text)).into_owned();
        match event {
            Event::MachineDefined { machine, cell } | Event::MachineReused { machine, cell } => {
                let bar = self.line(Subject::Machine(machine.clone()));
                bar.set_prefix(say(&cell.to_string()));
                bar.set_message("starting");
            }
            Event::MachinePhase { machine, phase } => {
                let bar = self.line(Subject::Machine(machine.clone()));
                if bar.prefix().is_empty() {
                    bar.set_prefix(say(machine));
                }
                bar.set_message(format!("boot: {}", phase.as_str()));
            }
            Event::MachineReady { machine, cell, .. } => {
                let bar = self.line(Subject::Machine(machine.clone()));
                bar.set_prefix(say(&cell.to_string()));
                bar.set_message("ready");
                bar.reset_elapsed();
            }
            Event::ShipFinished { machine, .. } => {
                self.line(Subject::Machine(machine.clone())).set_message("shipped")
            }
            Event::MachineLost { machine, .. } | Event::BootFailed { machine, .. } => {
                self.drop_line(&Subject::Machine(machine.clone()));
            }
            Event::BuildStarted { arch } => {
                let bar = self.line(Subject::Build(*arch));
                bar.set_prefix(format!("build {arch}"));
            }
            Event::BuildFinished { arch, .. } | Event::BuildFailed { arch, .. } => {
                self.drop_line(&Subject::Build(*arch));
            }
            Event::Progress { subject, done: 0, total: None } => self.step(subject, say),
            Event::Progress { subject, done, total } => self.progress(subject, *done, *total, &say(subject)),
            // Which of the files that are being made were for it is not told; those of others come back with their next step.
            Event::ImageReady { .. } => self.drop_images(),
            Event::PlanMade { shards } => {
                self.planned = shards.len() as u64;
                self.summarize();
            }
            Event::RunFinished { .. } => self.clear(),
            event => self.test(event, masks),
        }
    }

    fn test(&mut self, event: &Event, masks: &Masks) {
        let say = |text: &str| masks.mask(&escape(text)).into_owned();
        match event {
            Event::ShardStarted { cell, package, machine, .. } => {
                self.machines.insert((cell.clone(), package.clone()), machine.clone());
                let bar = self.line(Subject::Machine(machine.clone()));
                bar.set_prefix(say(&cell.to_string()));
                bar.set_message(say(package));
                bar.reset_elapsed();
            }
            Event::TestStarted { cell, package, test, .. } => {
                if let Some(bar) = self.bar_of(cell, package) {
                    bar.set_message(format!("{} {}", say(package), say(test)));
                    bar.reset_elapsed();
                }
            }
            Event::TestFinished { cell, package, test, result, .. } => {
                match result {
                    TestResult::Skip => {}
                    result if is_good(*result) => self.passed += 1,
                    _ => self.failed += 1,
                }
                // Back to what runs above it.
                let above = test.rsplit_once('/').map_or("", |(above, _)| above);
                if let Some(bar) = self.bar_of(cell, package) {
                    bar.set_message(format!("{} {}", say(package), say(above)));
                }
                self.summarize();
            }
            Event::ShardFinished { cell, package, .. } => {
                self.ended += 1;
                if let Some(bar) = self.bar_of(cell, package) {
                    bar.set_message("idle");
                    bar.reset_elapsed();
                }
                self.machines.remove(&(cell.clone(), package.clone()));
                self.summarize();
            }
            _ => {}
        }
    }

    /// A step of work that is not counted, `WORK: STEP`: it takes the place of the step before.
    fn step(&mut self, subject: &str, say: impl Fn(&str) -> String) {
        let (work, step) = subject.split_once(": ").unwrap_or((subject, ""));
        let bar = self.line(Subject::Work(work.to_owned()));
        bar.set_prefix(say(work));
        bar.set_message(say(step));
    }

    fn drop_images(&mut self) {
        let of_image =
            |subject: &&Subject| matches!(subject, Subject::Work(work) if work.starts_with("image "));
        let done: Vec<Subject> = self.lines.keys().filter(of_image).cloned().collect();
        done.iter().for_each(|subject| self.drop_line(subject));
    }

    fn progress(&mut self, subject: &str, done: u64, total: Option<u64>, said: &str) {
        let key = Subject::Work(subject.to_owned());
        if total.is_some_and(|total| done >= total) {
            self.drop_line(&key);
            return;
        }
        let known = self.lines.contains_key(&key);
        let style = self.work_style();
        let bar = self.line(key);
        if !known {
            bar.set_prefix(said.to_owned());
        }
        match total {
            Some(total) => {
                if bar.length() != Some(total) {
                    bar.set_style(style);
                    bar.set_length(total);
                }
                bar.set_position(done);
            }
            None => bar.set_message(format!("{done} done")),
        }
    }

    fn bar_of(&self, cell: &CellId, package: &str) -> Option<&ProgressBar> {
        let machine = self.machines.get(&(cell.clone(), package.to_owned()))?;
        self.lines.get(&Subject::Machine(machine.clone()))
    }

    /// The line of a subject, made where it has none.
    fn line(&mut self, subject: Subject) -> ProgressBar {
        if let Some(bar) = self.lines.get(&subject) {
            return bar.clone();
        }
        let bar = ProgressBar::new_spinner().with_style(self.machine_style());
        let bar = match &self.total {
            Some(total) => self.bars.insert_before(total, bar),
            None => self.bars.add(bar),
        };
        bar.enable_steady_tick(TICK);
        self.lines.insert(subject, bar.clone());
        bar
    }

    fn drop_line(&mut self, subject: &Subject) {
        if let Some(bar) = self.lines.remove(subject) {
            bar.finish_and_clear();
            self.bars.remove(&bar);
        }
    }

    fn summarize(&mut self) {
        let style = self.total_style();
        let total = self.total.get_or_insert_with(|| {
            let bar = self.bars.add(ProgressBar::new_spinner().with_style(style));
            bar.set_prefix("Running");
            bar.enable_steady_tick(TICK);
            bar
        });
        let packages = format!("{} of {}", self.ended, plural(self.planned.max(self.ended), "package run"));
        let failed = if self.failed > 0 { format!(", {} failed", self.failed) } else { String::new() };
        total.set_message(format!("{packages}: {} passed{failed}", self.passed));
    }

    fn machine_style(&self) -> ProgressStyle {
        self.template(match self.style.color {
            true => "{spinner:>12.cyan} [{elapsed:>9}] {prefix:.magenta} {wide_msg}",
            false => "{spinner:>12} [{elapsed:>9}] {prefix} {wide_msg}",
        })
    }

    fn work_style(&self) -> ProgressStyle {
        self.template(match self.style.color {
            true => "{spinner:>12.cyan} [{elapsed:>9}] {prefix} {bar:24.cyan/dim} {percent:>3}% {eta} left",
            false => "{spinner:>12} [{elapsed:>9}] {prefix} {bar:24} {percent:>3}% {eta} left",
        })
    }

    fn total_style(&self) -> ProgressStyle {
        self.template(match self.style.color {
            true => "{prefix:>12.bold} [{elapsed:>9}] {wide_msg}",
            false => "{prefix:>12} [{elapsed:>9}] {wide_msg}",
        })
    }

    fn template(&self, template: &str) -> ProgressStyle {
        let style =
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner());
        match self.style.unicode {
            true => style.tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ ").progress_chars("━━─"),
            false => style.tick_chars("|/-\\ ").progress_chars("#>-"),
        }
    }
}
