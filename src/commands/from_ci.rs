//! `--from-ci-pipeline`: what failed in CI becomes cells and the tests that run in them.

use std::collections::BTreeMap;
use std::path::Path;

use kmt_reporters::event::{Arch, CellId, Location};

use super::explain::{newest, pipeline_number, store};
use super::source::{catalogue, image_of};
use super::{Open, say};
use crate::cli::{FromPipeline, Selection, Written};
use crate::error::{Failure, Kind, Result};
use crate::image::{Availability, ImageStore};
use crate::matrix::pipeline::coalesced;
use crate::matrix::{Catalogue, Cell, DEFAULT_MEMORY_MIB, DEFAULT_VCPU, spec};
use crate::plan::Again;
use crate::settings::{Settings, Wishes};
use crate::triage::entries::Entry;
use crate::triage::failed::{self, Choice, Flaky, Wanted, Work};
use crate::triage::folder;
use crate::triage::names::Names;
use crate::triage::pipeline::Reader;
use crate::world::World;

/// Jobs that one line names.
const NAMED: usize = 6;

/// Fills a selection that takes its cells from CI: cells, tests, component. Others stay as they are.
///
/// # Errors
/// The pipeline is not to be had, nothing failed in it that is meant, or nothing of it can be run.
pub(super) async fn fill(selection: &mut Selection, wishes: &Wishes, open: Open<'_>) -> Result<()> {
    let from = selection.pipeline.clone();
    let Some(word) = from.from_ci_pipeline.as_deref().filter(|_| selection.written.is_none()) else {
        return Ok(());
    };
    let settings = Settings::load(wishes)?;
    let flaky = if from.include_flaky { Flaky::Again } else { Flaky::Passed };
    let choice = Choice::new(&from.jobs, &from.tests, flaky)?;
    let (entries, mut notices) = entries(word, flaky, &settings).await?;
    let wanted = failed::wanted(&entries, &choice);
    let wanted = of_component(wanted, selection, &settings, &mut notices)?;
    if wanted.is_empty() {
        return Err(nothing(word, &entries, &from));
    }
    let world = open(&settings);
    let mut placing = Placing::new(&from, &settings, &world).await?;
    let (mut cells, mut again) = (BTreeMap::new(), Again::default());
    for job in &wanted {
        for cell in placing.cells(job, &selection.vms)? {
            add(&mut again, &cell.id, &job.work);
            if let Work::All(why) = &job.work {
                notices.push(format!("all of `{}` runs: {why}", cell.id));
            }
            cells.insert(cell.id.clone(), cell);
        }
    }
    notices.extend(placing.notices());
    // Names of jobs are anybody's.
    let notices: Vec<String> =
        notices.iter().map(|notice| kmt_reporters::escape(notice).into_owned()).collect();
    if cells.is_empty() {
        let failure = Failure::new(Kind::NothingSelected, "no failed job names a machine that is known");
        let failure = notices.into_iter().fold(failure, Failure::caused_by);
        return Err(failure.hint("name machines: `--vms debian_12-local-distro`"));
    }
    if selection.packages.is_empty()
        && let Some(packages) = again.packages()
    {
        selection.packages = packages.into_iter().map(|package| format!("./{package}")).collect();
    }
    selection.written = Some(Written { cells: cells.into_values().collect(), notices, ..Written::default() });
    selection.again = Some(again);
    Ok(())
}

/// Adds the work of a job.
fn add(again: &mut Again, cell: &CellId, work: &Work) {
    match work {
        Work::All(_) => again.add_whole(cell),
        Work::Tests(packages) => {
            for (package, tests) in packages {
                again.add_pattern(cell, package, &coalesced(tests).join("|"));
            }
        }
    }
}

/// What became of jobs, and what could not be read.
async fn entries(word: &str, flaky: Flaky, settings: &Settings) -> Result<(Vec<Entry>, Vec<String>)> {
    let names = Names::new(&settings.config.gitlab)?;
    let path = Path::new(word);
    if path.exists() && !word.chars().all(|c| c.is_ascii_digit()) {
        let found = folder::read(path, &names)?;
        return Ok((found.entries, found.told.notices));
    }
    let store = match (word, pipeline_number(word)) {
        ("newest", _) | (_, Some(_)) => store(settings).await?,
        _ => {
            return Err(Failure::usage(format!("`{word}` is no pipeline, folder or JUnit file"))
                .hint("a pipeline is a number, its address, or `newest`"));
        }
    };
    let id = match pipeline_number(word) {
        Some(id) => id,
        None => newest(&store, settings).await?,
    };
    let read = Reader::new(&store, &names).read_to_run(id, flaky).await?;
    let cost = store.ci().cost();
    let cached = kmt_reporters::plural(store.cached(), "file");
    let requests = kmt_reporters::plural(cost.requests, "request");
    say(&format!(
        "{:>12} pipeline {id} of {}: {requests}, {cached} from the cache",
        "Read",
        store.ci().place()
    ));
    Ok((read.entries, read.notices))
}

/// The jobs of the component that is meant: the one that was named, else the usual one, else the only one that failed.
fn of_component(
    wanted: Vec<Wanted>,
    selection: &mut Selection,
    settings: &Settings,
    notices: &mut Vec<String>,
) -> Result<Vec<Wanted>> {
    let known = &settings.config.component;
    // A name that kmt.toml does not know may be any.
    let is = |job: &Wanted, name: &str| job.component == name || !known.contains_key(&job.component);
    let components: Vec<String> = failed::components(&wanted).into_iter().map(str::to_owned).collect();
    let asked = selection.component.clone().or_else(|| settings.config.default_component.clone());
    let name = match asked {
        Some(name) if selection.component.is_some() || wanted.iter().any(|job| is(job, &name)) => name,
        _ => match components.as_slice() {
            [only] if known.contains_key(only) => {
                notices.push(format!("component taken to be `{only}`: nothing else failed"));
                only.clone()
            }
            _ => settings.component(None)?.0,
        },
    };
    settings.component(Some(&name))?;
    let (meant, others): (Vec<Wanted>, Vec<Wanted>) = wanted.into_iter().partition(|job| is(job, &name));
    if meant.is_empty() && !others.is_empty() {
        let failure = Failure::new(Kind::NothingSelected, format!("nothing of component `{name}` failed"));
        return Err(failure.hint(format!("--component {}", components.join("|"))));
    }
    for other in failed::components(&others) {
        let count = others.iter().filter(|job| job.component == other).count() as u64;
        let count = kmt_reporters::plural(count, "failed job");
        notices.push(format!("{count} of `{other}` left out: `--component {other}` runs them"));
    }
    selection.component = Some(name);
    Ok(meant)
}

/// Why nothing is wanted.
fn nothing(word: &str, entries: &[Entry], from: &FromPipeline) -> Failure {
    let failure = Failure::new(Kind::NothingSelected, format!("nothing failed in `{word}` that is meant"))
        .caused_by(kmt_reporters::plural(entries.len() as u64, "job") + " of tests were looked at");
    if from.jobs.is_empty() && from.tests.is_empty() {
        failure.hint("`kmt-run explain` shows what there is; `--include-flaky` runs what passed when retried")
    } else {
        failure.hint("without `--job` and `--test` all that failed is meant")
    }
}

/// Where cells are put, and what is to be said of it.
struct Placing<'w> {
    catalogue: Catalogue,
    images: ImageStore,
    local: bool,
    /// Processors and memory (MiB) that a machine here may have at most.
    most: (u32, u32),
    named: &'w FromPipeline,
    /// Cells by the sentence that says where they are and why.
    told: BTreeMap<String, Vec<String>>,
}

impl<'w> Placing<'w> {
    async fn new(from: &'w FromPipeline, settings: &Settings, world: &World) -> Result<Placing<'w>> {
        let most = match from.use_local_if_possible {
            true => (world.hosts.here().facts().await?.cores, memory_mib()),
            false => (u32::MAX, u32::MAX),
        };
        let home = &settings.home;
        Ok(Placing {
            catalogue: catalogue()?,
            images: ImageStore::new(home.images(), home.cache(), world.debian.clone(), world.store.clone()),
            local: from.use_local_if_possible,
            most,
            named: from,
            told: BTreeMap::new(),
        })
    }

    fn tell(&mut self, sentence: String, cell: String) {
        let cells = self.told.entry(sentence).or_default();
        if !cells.contains(&cell) {
            cells.push(cell);
        }
    }

    /// The cell of a job; where the catalogue does not know its platform, those that were named instead.
    ///
    /// # Errors
    /// A machine that is none.
    fn cells(&mut self, job: &Wanted, vms: &[String]) -> Result<Vec<Cell>> {
        if let Some(cell) = self.cell(job) {
            return Ok(vec![cell]);
        }
        if vms.is_empty() {
            let name = format!("{} {}", job.place.platform, job.place.arch);
            self.tell("left out, the catalogue does not know it".to_owned(), name);
        }
        let named = vms.iter().map(|vm| Ok(spec::resolve(vm, &self.catalogue, Arch::host())?.cell));
        named.collect()
    }

    fn cell(&mut self, job: &Wanted) -> Option<Cell> {
        let (platform, arch) = (&job.place.platform, job.place.arch);
        let spelt = match platform.strip_prefix("custom-") {
            Some(kernel) => format!("custom-{kernel}-{arch}"),
            None => format!("{platform}-{arch}-distro"),
        };
        let mut cell = spec::resolve(&spelt, &self.catalogue, Arch::host()).ok()?.cell;
        cell.id.set = Some(job.set.clone()).filter(|set| is_tame(set));
        cell.id.location = self.place(&cell);
        let asked = job.size.filter(|(vcpu, memory)| (1..=512).contains(vcpu) && *memory >= 64);
        let asked = asked.unwrap_or((DEFAULT_VCPU, DEFAULT_MEMORY_MIB));
        let (vcpu, memory_mib) = self.fitting(&cell.id, asked);
        (cell.vcpu, cell.memory_mib) = (vcpu, memory_mib);
        let size = (vcpu, memory_mib);
        cell.id.size = (size != (DEFAULT_VCPU, DEFAULT_MEMORY_MIB)).then_some(size);
        Some(cell)
    }

    fn place(&mut self, cell: &Cell) -> Location {
        let name = CellId { set: None, size: None, location: Location::Local, ..cell.id.clone() };
        let (location, why) = self.decide(cell, &name);
        if self.named.use_local_if_possible {
            self.tell(why, name.to_string());
        }
        location
    }

    fn decide(&self, cell: &Cell, here: &CellId) -> (Location, String) {
        let (arch, host) = (cell.id.arch, Arch::host());
        if !self.local {
            return (Location::Remote, String::new());
        }
        if arch != host {
            return (Location::Remote, format!("remote: {arch} is not this machine's architecture ({host})"));
        }
        let local = Cell { id: here.clone(), ..cell.clone() };
        let request = match image_of(&local, &self.catalogue) {
            Ok(request) => request,
            Err(failure) => return (Location::Remote, format!("remote: {}", failure.message)),
        };
        match self.images.available(&request) {
            Availability::Present => {
                (Location::Local, "here: the architecture fits, its image is here".to_owned())
            }
            Availability::Buildable => {
                (Location::Local, "here: the architecture fits, its image can be built here".to_owned())
            }
            Availability::Fetchable => {
                (Location::Local, "here: the architecture fits, its image is published".to_owned())
            }
            Availability::Unavailable { why, .. } => (Location::Remote, format!("remote: {why}")),
        }
    }

    /// The size CI used; the usual one where this machine is too small for that.
    fn fitting(&mut self, cell: &CellId, (vcpu, memory): (u32, u32)) -> (u32, u32) {
        let here = cell.location == Location::Local;
        if !here || (vcpu <= self.most.0 && memory <= self.most.1) {
            return (vcpu, memory);
        }
        let sentence = format!(
            "smaller than in CI ({vcpu} processors, {memory} MiB), for which this machine has no room"
        );
        let name = CellId { set: None, ..cell.clone() };
        self.tell(sentence, name.to_string());
        (DEFAULT_VCPU, DEFAULT_MEMORY_MIB)
    }

    fn notices(self) -> Vec<String> {
        let told = self.told.into_iter().map(|(sentence, cells)| {
            let more = cells.len().saturating_sub(NAMED);
            let mut named = cells.into_iter().take(NAMED).collect::<Vec<_>>().join(", ");
            if more > 0 {
                named += &format!(" and {more} more");
            }
            format!("{named}: {sentence}")
        });
        told.collect()
    }
}

/// Whether a test set of a job's name can be one of a cell's.
fn is_tame(set: &str) -> bool {
    !set.is_empty() && set.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
}

/// Memory that machines here may have, MiB: three quarters of what this one has.
fn memory_mib() -> u32 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib: Option<u64> = line.and_then(|line| line.trim().split(' ').next()?.parse().ok());
    kib.map_or(u32::MAX, |kib| u32::try_from(kib / 1024 * 3 / 4).unwrap_or(u32::MAX))
}
