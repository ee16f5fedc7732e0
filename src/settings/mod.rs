//! What everything means: files, environment, profiles, paths; each value knows where it comes from.
//!
//! Owns `kmt.toml`, the user's file, `KMT_HOME` and the folders below it. Does not own what was typed (`cli`) nor what is
//! tested (`matrix`). To add a setting: a field in `file`, its default here, its line in `config show`.

pub mod ci;
pub mod component;
pub mod ec2;
pub mod file;
pub mod gitlab;
pub mod home;
pub mod host;
pub mod job;
pub mod profile;
pub mod secret;
pub mod ssh_key;
pub mod user;

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::{Failure, Result, nearest};
use crate::external::remote::RemoteHost;
pub use component::{BuilderKind, Component};
pub use home::Home;
pub use profile::{Profile, Rules};

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// A file.
    File(PathBuf),
    /// A variable of the environment.
    Environment(&'static str),
    /// A flag.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(path) => write!(f, "{}", path.display()),
            Origin::Environment(name) => write!(f, "${name}"),
            Origin::Flag(name) => f.write_str(name),
        }
    }
}

/// A value and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known<T> {
    /// The value.
    pub value: T,
    /// Where it comes from.
    pub origin: Origin,
}

/// Whether machines start from templates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Warmth {
    /// Where there is one; where there is none, one is made for the next time.
    #[default]
    Auto,
    /// All of them boot.
    Off,
}

/// Whether machines start from templates: `KMT_WARM`, else `warm-start` of `kmt.toml`, else they do.
fn warmth(config: &file::Config, path: &Path) -> Result<Known<Warmth>> {
    let of = |on: bool| if on { Warmth::Auto } else { Warmth::Off };
    match std::env::var("KMT_WARM").unwrap_or_default().as_str() {
        "" => Ok(match config.warm_start {
            Some(on) => Known { value: of(on), origin: Origin::File(path.to_path_buf()) },
            None => Known { value: Warmth::Auto, origin: Origin::Default },
        }),
        word @ ("on" | "off") => {
            Ok(Known { value: of(word == "on"), origin: Origin::Environment("KMT_WARM") })
        }
        other => Err(Failure::usage(format!("KMT_WARM is `{other}`")).hint("KMT_WARM=on or KMT_WARM=off")),
    }
}

/// Everything that holds for one invocation, before a matrix is read.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Root of the repository under test: the folder of `kmt.toml`.
    pub root: Known<PathBuf>,
    /// What `kmt.toml` says, if there is one.
    pub config: file::Config,
    /// Where state lives.
    pub home: Home,
    /// libvirt connection.
    pub libvirt_uri: Known<String>,
    /// Whether machines start from templates.
    pub warm: Known<Warmth>,
    /// Profile in force.
    pub profile: Known<String>,
    /// The user's key for remote hosts, where one is chosen.
    pub ssh_key: Option<Known<user::SshKey>>,
    /// The user's own remote hosts.
    pub hosts: Known<Vec<RemoteHost>>,
}

/// What on the command line bears on settings.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    /// `-C DIR`.
    pub folder: Option<PathBuf>,
    /// `root =` of the matrix, made absolute.
    pub matrix_root: Option<PathBuf>,
    /// `--profile`.
    pub profile: Option<String>,
}

fn read_config(root: &Path) -> Result<file::Config> {
    let path = root.join("kmt.toml");
    if path.is_file() { file::read(&path) } else { Ok(file::Config::default()) }
}

impl Settings {
    /// Reads files and environment.
    ///
    /// # Errors
    /// A `kmt.toml` that is not one, an unknown profile, or a root that does not exist.
    pub fn load(wishes: &Wishes) -> Result<Settings> {
        let root = find_root(wishes)?;
        let config = read_config(&root.value)?;
        Settings::with(wishes, root, config)
    }

    /// The same for whoever needs nothing of `kmt.toml`: one that is broken must not keep anybody from removing machines.
    ///
    /// # Returns
    /// What is wrong with it besides, if anything.
    ///
    /// # Errors
    /// As [`Settings::load`], but for a `kmt.toml` that is not one.
    pub fn load_whatever_it_says(wishes: &Wishes) -> Result<(Settings, Option<Failure>)> {
        let root = find_root(wishes)?;
        let (config, broken) = match read_config(&root.value) {
            Ok(config) => (config, None),
            Err(failure) => (file::Config::default(), Some(failure)),
        };
        Ok((Settings::with(wishes, root, config)?, broken))
    }

    fn with(wishes: &Wishes, root: Known<PathBuf>, config: file::Config) -> Result<Settings> {
        let path = root.value.join("kmt.toml");
        let profile = match &wishes.profile {
            Some(name) => Known { value: name.clone(), origin: Origin::Flag("--profile") },
            None => match std::env::var("KMT_PROFILE") {
                Ok(name) if !name.is_empty() => {
                    Known { value: name, origin: Origin::Environment("KMT_PROFILE") }
                }
                _ => Known { value: "default".to_owned(), origin: Origin::Default },
            },
        };
        if !["default", "ci"].contains(&profile.value.as_str())
            && !config.profile.contains_key(&profile.value)
        {
            let names = config.profile.keys().map(String::as_str).chain(["default", "ci"]);
            let failure = Failure::usage(format!("no profile `{}` ({})", profile.value, profile.origin));
            return Err(match nearest(&profile.value, names) {
                Some(name) => failure.hint(format!("did you mean `{name}`?")),
                None => failure.hint(format!("add `[profile.{}]` to {}", profile.value, path.display())),
            });
        }
        let libvirt_uri = match std::env::var("KMT_LIBVIRT_URI") {
            Ok(uri) if !uri.is_empty() => {
                Known { value: uri, origin: Origin::Environment("KMT_LIBVIRT_URI") }
            }
            _ => Known { value: "qemu:///session".to_owned(), origin: Origin::Default },
        };
        let warm = warmth(&config, &path)?;
        let (ssh_key, hosts) = chosen()?;
        Ok(Settings { root, config, home: Home::find()?, libvirt_uri, warm, profile, ssh_key, hosts })
    }

    /// The component of that name; without a name the default one.
    ///
    /// # Errors
    /// There is no such component, or none at all.
    pub fn component(&self, name: Option<&str>) -> Result<(String, &Component)> {
        let components = &self.config.component;
        let path = self.root.value.join("kmt.toml");
        let name = match name.or(self.config.default_component.as_deref()) {
            Some(name) => name.to_owned(),
            None if components.len() == 1 => components.keys().next().cloned().unwrap_or_default(),
            None if components.is_empty() => {
                return Err(Failure::usage(format!(
                    "nothing says what to test: no component in `{}`",
                    path.display()
                ))
                .hint("run in the repository under test, or name it: `kmt-run -C DIR …`"));
            }
            None => {
                let names: Vec<&str> = components.keys().map(String::as_str).collect();
                return Err(Failure::usage(format!("which component of `{}`?", path.display()))
                    .hint(format!("--component {}", names.join("|"))));
            }
        };
        match components.get(&name) {
            Some(component) => Ok((name, component)),
            None => {
                let failure = Failure::usage(format!("no component `{name}` in `{}`", path.display()));
                Err(match nearest(&name, components.keys().map(String::as_str)) {
                    Some(near) => failure.hint(format!("did you mean `{near}`?")),
                    None => failure,
                })
            }
        }
    }

    /// The CI job that this is, where profile `ci` is in force.
    ///
    /// # Errors
    /// A variable of the job that is none.
    pub fn job(&self) -> Result<Option<job::Job>> {
        job::Job::of(&self.profile.value, &self.root.value, &ci::variable)
    }

    /// What the profile in force rules.
    pub fn rules(&self) -> Rules {
        Rules::of(&self.profile.value, &self.config.profile)
    }

    /// What the profile in force maps failing tests to (100 unless it says otherwise).
    pub fn test_failure_exit_code(&self) -> u8 {
        self.config.profile.get(&self.profile.value).and_then(|p| p.test_failure_exit_code).unwrap_or(100)
    }
}

/// What the user's file says.
type Chosen = (Option<Known<user::SshKey>>, Known<Vec<RemoteHost>>);

/// The key and the hosts in the user's file.
fn chosen() -> Result<Chosen> {
    let Some(path) = user::path()? else {
        return Ok((None, Known { value: Vec::new(), origin: Origin::Default }));
    };
    let file = user::read(&path)?;
    let hosts = host::all(&file.host, file.ssh_key.as_ref(), home::absolute("HOME")?.as_deref(), &path)?;
    let origin = if hosts.is_empty() { Origin::Default } else { Origin::File(path.clone()) };
    let key = file.ssh_key.map(|value| Known { value, origin: Origin::File(path) });
    Ok((key, Known { value: hosts, origin }))
}

/// `-C DIR`, the matrix's `root`, or the nearest folder upward that holds a `kmt.toml`.
fn find_root(wishes: &Wishes) -> Result<Known<PathBuf>> {
    let chosen = match (&wishes.folder, &wishes.matrix_root) {
        (Some(folder), _) => Some((folder, Origin::Flag("-C"))),
        (None, Some(folder)) => Some((folder, Origin::Flag("root of the matrix"))),
        (None, None) => None,
    };
    if let Some((folder, origin)) = chosen {
        let value = folder.canonicalize().map_err(|error| {
            Failure::usage(format!("no folder `{}` ({origin})", folder.display())).caused_by(error)
        })?;
        let value = upward(&value).unwrap_or(value);
        return Ok(Known { value, origin });
    }
    let here = std::env::current_dir()
        .map_err(|error| Failure::usage("there is no current folder").caused_by(error))?;
    match upward(&here) {
        Some(root) => Ok(Known { origin: Origin::File(root.join("kmt.toml")), value: root }),
        None => Ok(Known { value: here, origin: Origin::Default }),
    }
}

fn upward(from: &Path) -> Option<PathBuf> {
    from.ancestors().find(|folder| folder.join("kmt.toml").is_file()).map(Path::to_path_buf)
}
