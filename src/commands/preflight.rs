//! Everything that can be refused before anything boots, is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kmt_reporters::Masks;
use kmt_reporters::junit::Flavour;

use super::chosen;
use super::jobs::{Job, all_packages, test_packages};
use super::remotes::Remotes;
use super::source::Source;
use crate::cli;
use crate::error::{Failure, Kind, Result, nearest};
use crate::external::builder::{BuildRequest, Builder, Unit};
use crate::external::hypervisor::{GuestNetwork, HostFacts};
use crate::image::{Availability, ImageRequest, ImageStore};
use crate::known::Known;
use crate::machine;
use crate::matrix::Cell;
use crate::plan::Partition;
use crate::run::conduct::Tests;
use crate::run::container::Containers;
use crate::run::filter::{Filter, Filters, TestFilters};
use crate::run::lane::Allowed;
use crate::run::prepare::{is_variable, steps};
use crate::run::words::PackageWords;
use crate::settings::Settings;
use crate::settings::component::{Component, Format};
use crate::settings::file::AllowedSplat;
use crate::world::World;

/// Free space a run needs besides images, bytes: overlays, logs, build outputs.
const FREE: u64 = 1 << 30;

/// Cells that can run, and those whose image cannot be had.
pub(super) struct Cells {
    /// They have an image, or it can be built.
    pub(super) runnable: Vec<(Cell, ImageRequest)>,
    /// They have none: why.
    pub(super) unavailable: Vec<(Cell, String)>,
}

impl Cells {
    /// Those that can run.
    pub(super) fn all(&self) -> Vec<&Cell> {
        self.runnable.iter().map(|(cell, _)| cell).collect()
    }
}

/// Refuses a network that this user's libvirt cannot make.
///
/// # Errors
/// A network of the stack's own, asked of a daemon of this user alone.
pub(super) fn network(settings: &Settings, network: GuestNetwork) -> Result<()> {
    let uri = &settings.libvirt_uri;
    let own_daemon = !rustix::process::geteuid().is_root() && !uri.value.contains("/system");
    if network != GuestNetwork::Nat || !own_daemon {
        return Ok(());
    }
    let failure = format!(
        "the network `nat` needs libvirt's system daemon, and `{}` ({}) is none",
        uri.value, uri.origin
    );
    Err(Failure::new(Kind::Infrastructure, failure)
        .hint("KMT_LIBVIRT_URI=qemu:///system, as a member of group libvirt; one step needs root then: `sudo -n chown` gives QEMU's user the disks")
        .hint("`kmt-run stack configure --network user` needs no root at all"))
}

/// How the tests are run: filters checked, environment resolved.
///
/// # Errors
/// A filter that is no regular expression, a variable that is not set, a value no guest can be given.
pub(super) fn tests(args: &cli::Run, source: &Source) -> Result<Tests> {
    only_go_filters(args, &source.component)?;
    let filter = |text: &str| {
        Filter::parse(text)
            .map_err(|error| Failure::usage(error.to_string()).hint("quote it: `--run 'TestA/sub'`"))
    };
    let known = known(args, source)?;
    Ok(Tests {
        layout: source.component.layout_of(&source.component_name),
        preparation: steps(&source.component).map_err(Failure::usage)?,
        containers: Containers::default(),
        words: PackageWords { usual: chosen::words(args, source, None)?, special: BTreeMap::new() },
        filters: TestFilters {
            usual: Filters {
                run: filter(args.run.as_deref().unwrap_or_default())?,
                skip: args.skip.as_deref().map(filter).transpose()?,
            },
            special: BTreeMap::new(),
        },
        count: args.count,
        limits: BTreeMap::new(),
        machines: args.vms_per_cell,
        partition: partition(args, source)?,
        durations: crate::record::history::durations(&source.settings.home.runs()),
        stress: args.stress,
        rules: args.rules.over(source.settings.rules()),
        allowed: allowed(source)?,
        marks: known.marks(),
        known,
    })
}

/// What the repository says of its tests before they run.
///
/// # Errors
/// A file that is named and not there, or that is not what it should be.
fn known(args: &cli::Run, source: &Source) -> Result<Known> {
    let config = &source.settings.config;
    let named = |typed: &Option<PathBuf>, told: &Option<String>| {
        // What was typed is relative to where it was typed.
        let typed = typed.as_ref().map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone()));
        typed.or_else(|| told.as_ref().map(PathBuf::from))
    };
    Known::load(
        &source.settings.root.value,
        source.component.folder.as_deref().unwrap_or_default(),
        named(&args.rules.flakes, &config.flakes).as_deref(),
        named(&args.rules.codeowners, &config.codeowners).as_deref(),
    )
}

/// The part that was asked for; in a CI job of several, its own.
fn partition(args: &cli::Run, source: &Source) -> Result<Option<Partition>> {
    let node = source.settings.job()?.and_then(|job| job.node);
    match (args.partition, node) {
        (None, Some((index, total))) => {
            let part = format!("slice:{index}/{total}").parse().map_err(Failure::usage)?;
            Ok(Some(part))
        }
        (asked, _) => Ok(asked),
    }
}

/// Only Go's binaries know Go's filters.
fn only_go_filters(args: &cli::Run, component: &Component) -> Result<()> {
    let (format, how) = match component.format {
        Format::Gotest => return Ok(()),
        Format::Gtest => ("GoogleTest", Some("`--test-arg=--gtest_filter=PATTERN`")),
        Format::Libtest => ("libtest", Some("`--test-arg=PART_OF_A_NAME`")),
        Format::Tap => ("TAP", None),
    };
    let repeated = args.count != 1 && component.format != Format::Gtest;
    let flag = match (&args.run, &args.skip) {
        (Some(_), _) => "--run",
        (None, Some(_)) => "--skip",
        (None, None) if repeated => "--count",
        (None, None) => return Ok(()),
    };
    let failure = Failure::usage(format!("`{flag}` is for tests of Go, and this component speaks {format}"));
    Err(match how {
        Some(how) if flag != "--count" => failure.hint(how),
        _ => failure.hint("`--packages` chooses among its test binaries"),
    })
}

/// How long each package may take: `--timeout`, else what `kmt.toml` says of it.
pub(super) fn limits(args: &cli::Run, source: &Source, jobs: &[Job]) -> BTreeMap<String, Duration> {
    let packages = all_packages(jobs).into_iter();
    let limit = |package: &str| args.timeout.unwrap_or_else(|| source.timeout_of(package));
    packages.map(|package| (package.to_owned(), limit(package))).collect()
}

/// Name and value of a `--test-env`.
pub(super) fn variable(word: &str) -> Result<(String, String)> {
    let (name, value) = match word.split_once('=') {
        Some((name, value)) => (name, value.to_owned()),
        None => {
            let value = std::env::var(word).map_err(|_| {
                Failure::usage(format!(
                    "`--test-env {word}` takes its value from the environment, where it is not set"
                ))
                .hint(format!("export {word}=…, or `--test-env {word}=VALUE`"))
            })?;
            (word, value)
        }
    };
    if !is_variable(name) {
        return Err(Failure::usage(format!("`{}` is not the name of a variable", name.escape_debug())));
    }
    Ok((name.to_owned(), value))
}

/// Complaints of the kernel that `kmt.toml` allows.
///
/// # Errors
/// A pattern that is no regular expression.
fn allowed(source: &Source) -> Result<Vec<Allowed>> {
    let today = chrono::Utc::now().date_naive();
    let resolve = |entry: &AllowedSplat| {
        let pattern = regex::Regex::new(&entry.pattern).map_err(|error| {
            Failure::usage(format!("`{}` of `[[allowed-splat]]` is no regular expression", entry.pattern))
                .caused_by(error)
        })?;
        let expired = entry.expires.filter(|day| *day < today).map(|day| day.to_string());
        Ok(Allowed { pattern, reason: entry.reason.clone(), link: entry.link.clone(), expired })
    };
    source.settings.config.allowed_splat.iter().map(resolve).collect()
}

/// Values that must not be shown: those that were passed by name.
pub(super) fn masks(args: &cli::Run) -> Masks {
    Masks::new(
        args.test_env.iter().filter(|word| !word.contains('=')).filter_map(|name| std::env::var(name).ok()),
    )
}

/// The command as typed.
pub(super) fn typed() -> Vec<String> {
    std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect()
}

/// Where JUnit goes: `junit.xml` in the run directory is written anyway.
///
/// # Errors
/// An unknown flavour, or a path that cannot be written.
pub(super) fn junit(args: &cli::Run, source: &Source) -> Result<Vec<(Flavour, PathBuf)>> {
    let mut wanted = Vec::new();
    let profile = source.settings.config.profile.get(&source.settings.profile.value);
    for (flavour, path) in profile.iter().flat_map(|profile| &profile.junit) {
        wanted.push((*flavour, source.settings.root.value.join(path)));
    }
    for word in &args.junit {
        wanted.push(match word.split_once('=') {
            Some((flavour, path)) => {
                let flavour =
                    flavour.parse::<Flavour>().map_err(|error| Failure::usage(error.to_string()))?;
                (flavour, PathBuf::from(path))
            }
            None => (Flavour::Gitlab, PathBuf::from(word)),
        });
    }
    for (at, (_, path)) in wanted.iter().enumerate() {
        writable(path)?;
        if wanted[..at].iter().any(|(_, other)| other == path) {
            return Err(Failure::usage(format!("two JUnit reports go to `{}`", path.display()))
                .hint("give each flavour a file of its own"));
        }
    }
    Ok(wanted)
}

/// Tries to write beside `path`, so that a run does not end with nowhere to put its report.
fn writable(path: &Path) -> Result<()> {
    let refuse = |why: String| {
        Failure::usage(format!("cannot write JUnit to `{}`", path.display()))
            .caused_by(why)
            .hint("name a file in a folder that exists and is yours: `--junit out/junit.xml`")
    };
    if path.is_dir() {
        return Err(refuse("it is a folder".to_owned()));
    }
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let probe = folder.join(format!(".kmt-{}", std::process::id()));
    std::fs::write(&probe, b"").map_err(|error| refuse(error.to_string()))?;
    std::fs::remove_file(&probe).map_err(|error| refuse(error.to_string()))
}

/// What would be built: also finds out which packages there are.
///
/// # Errors
/// A package that is unknown (2), or a tree that cannot be listed (101).
pub(super) async fn units(
    builder: &dyn Builder,
    request: &BuildRequest,
    source: &Source,
) -> Result<Vec<Unit>> {
    let units = builder.list(request).await.map_err(|error| {
        use crate::external::Class;
        let kind = if error.class == Class::NotFound { Kind::Usage } else { Kind::Build };
        Failure::outside(kind, &error)
    })?;
    if test_packages(&units).is_empty() {
        let asked = request.packages.join(",");
        let root = source.settings.root.value.display().to_string();
        let failure =
            Failure::new(Kind::NothingSelected, format!("no package of `{asked}` has tests (in {root})"));
        let near = nearest(&asked, source.component.packages.iter().map(String::as_str));
        return Err(
            failure.hint(format!("patterns are relative to {root}: `{}`", near.unwrap_or("./pkg/...")))
        );
    }
    Ok(units)
}

/// The host, and whether a run has a chance on it. What a killed run left takes room: it goes before anybody counts.
///
/// # Errors
/// No libvirt, no QEMU, no disk, folders that QEMU's user cannot enter.
pub(super) async fn host(settings: &Settings, world: &World) -> Result<HostFacts> {
    super::rent::sweep(settings, world).await?;
    crate::stack::sweep(&settings.home, &world.hosts).await?;
    let home = &settings.home.root.value;
    std::fs::create_dir_all(home).map_err(|error| {
        Failure::usage(format!("cannot use `{}` ({})", home.display(), settings.home.root.origin))
            .caused_by(error)
            .hint("export KMT_HOME=DIR")
    })?;
    let space = rustix::fs::statvfs(home).map_err(|error| {
        Failure::new(Kind::Infrastructure, format!("cannot look at `{}`", home.display())).caused_by(error)
    })?;
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    if free < FREE {
        return Err(Failure::new(
            Kind::Infrastructure,
            format!("no free disk: {} MiB at `{}`", free >> 20, home.display()),
        )
        .hint("a run needs 1 GiB; `kmt-run stack destroy --all` and old runs give some, or set KMT_HOME"));
    }
    let host = world.hosts.here().facts().await?;
    if host.qemu_user.is_some()
        && let Some(closed) = machine::closed_to_others(&home.join("x"))
    {
        return Err(Failure::usage(format!(
            "QEMU runs as its own user, which cannot enter `{}`",
            closed.display()
        ))
        .hint(format!("chmod o+x {}, or set KMT_HOME to a folder elsewhere", closed.display())));
    }
    Ok(host)
}

/// Parts cells whose image is there or can be made from the others.
///
/// # Errors
/// There are others, and `--skip-unavailable` was not given.
pub(super) fn images(
    args: &cli::Run,
    source: &Source,
    images: &ImageStore,
    remotes: &Remotes,
) -> Result<Cells> {
    if !args.skip_unavailable {
        remotes.refuse(source.cells.iter().map(|(cell, _)| cell))?;
    }
    let mut cells = Cells { runnable: Vec::new(), unavailable: Vec::new() };
    let mut hints = Vec::new();
    for (cell, request) in &source.cells {
        if cell.id.location == kmt_reporters::event::Location::Remote && !remotes.takes(cell.id.arch) {
            let why = match remotes.refused.first() {
                Some((name, why)) => format!("`{name}`: {}", why.message),
                None => "no provider of remote machines is configured".to_owned(),
            };
            cells.unavailable.push((cell.clone(), why));
            continue;
        }
        match images.available(request) {
            Availability::Present | Availability::Buildable | Availability::Fetchable => {
                cells.runnable.push((cell.clone(), request.clone()))
            }
            Availability::Unavailable { why, hint } => {
                cells.unavailable.push((cell.clone(), why));
                hints.extend(hint);
            }
        }
    }
    if cells.unavailable.is_empty() || args.skip_unavailable {
        return Ok(cells);
    }
    let mut failure = Failure::new(Kind::Infrastructure, "some cells have no image; nothing was started");
    for (cell, why) in &cells.unavailable {
        failure = failure.caused_by(format!("`{}`: {why}", cell.id));
    }
    hints.dedup();
    failure = hints.into_iter().fold(failure, Failure::hint);
    Err(failure.hint("`--skip-unavailable` runs the others and records these as not run"))
}
