//! Which CI server, which project, with which token; each value knows its origin.
//!
//! Order: `KMT_GITLAB_*`, `GITLAB_*`, what a job is given (`CI_*`), `kmt.toml`, glab's configuration, the git remote.
//! A token goes only where it belongs: a job's to the server of the job, glab's to the host it is written under.

use std::path::{Path, PathBuf};

use super::gitlab::GitlabSection;
use super::secret::Secret;
use super::{Known, Origin};
use crate::error::{Failure, Kind, Result};
use crate::external::process::Child;

/// How to reach a project.
#[derive(Debug, Clone)]
pub struct Access {
    /// Address of the server.
    pub url: Known<String>,
    /// Path or number of the project.
    pub project: Known<String>,
    /// What opens it; public projects need none.
    pub token: Option<Token>,
    /// Certificates (PEM) that are trusted besides the system's.
    pub ca: Option<Known<PathBuf>>,
}

/// A token.
#[derive(Debug, Clone)]
pub struct Token {
    /// The value.
    pub secret: Known<Secret>,
    /// Which header takes it.
    pub kind: TokenKind,
}

/// What kind of token it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// Of a person, a project or a group.
    Access,
    /// Of a job.
    Job,
}

/// What is known outside the environment.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// Text of glab's configuration.
    pub glab: String,
    /// Address of the git remote `origin`.
    pub remote: String,
}

impl Surroundings {
    /// Looks at glab's files and asks git.
    pub async fn look(root: &Path) -> Surroundings {
        let folder = match (variable("GLAB_CONFIG_DIR"), variable("XDG_CONFIG_HOME"), variable("HOME")) {
            (Some(folder), _, _) => Some(folder),
            (None, Some(folder), _) => Some(format!("{folder}/glab-cli")),
            (None, None, Some(home)) => Some(format!("{home}/.config/glab-cli")),
            (None, None, None) => None,
        };
        let glab = folder.and_then(|folder| std::fs::read_to_string(format!("{folder}/config.yml")).ok());
        let git = Child::new("git").arg("-C").arg(root).args(["remote", "get-url", "origin"]).success();
        let remote = git.await.map(|output| output.text().trim().to_owned());
        Surroundings { glab: glab.unwrap_or_default(), remote: remote.unwrap_or_default() }
    }
}

/// A variable of the environment that says something.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Where things are, by all that says so; `root` is the folder of `kmt.toml`.
///
/// # Errors
/// Nothing says which server or which project; a token that is referred to is not there.
pub fn resolve(section: &GitlabSection, root: &Path, env: Env<'_>, around: &Surroundings) -> Result<Access> {
    let file = || Origin::File(root.join("kmt.toml"));
    let remote = remote(&around.remote);
    let url = first(env, &["KMT_GITLAB_URL", "GITLAB_URL", "GITLAB_HOST", "CI_SERVER_URL"])
        .or_else(|| section.url.clone().map(|value| Known { value, origin: file() }))
        .or_else(|| {
            glab_hosts(&around.glab)
                .first()
                .map(|(host, _)| Known { value: host.clone(), origin: GLAB.clone() })
        })
        .or_else(|| remote.as_ref().map(|(host, _)| Known { value: host.clone(), origin: REMOTE.clone() }))
        .map(|known| Known { value: with_scheme(&known.value), ..known });
    let project = first(env, &["KMT_GITLAB_PROJECT", "GITLAB_PROJECT", "CI_PROJECT_PATH", "CI_PROJECT_ID"])
        .or_else(|| section.project.clone().map(|value| Known { value, origin: file() }))
        .or_else(|| remote.map(|(_, path)| Known { value: path, origin: REMOTE.clone() }));
    let missing = |what: &str, variable: &str, key: &str| {
        Failure::new(Kind::Ci, format!("nothing says which GitLab {what} the pipelines are in")).hint(
            format!(
                "set {variable}, or `{key} = \"…\"` in `[gitlab]` of {}",
                root.join("kmt.toml").display()
            ),
        )
    };
    let url = url.ok_or_else(|| missing("server", "KMT_GITLAB_URL", "url"))?;
    let project = project.ok_or_else(|| missing("project", "KMT_GITLAB_PROJECT", "project"))?;
    let token = token(section, root, env, around, &url.value)?;
    let ca = authority(section, root, env, &url.value);
    Ok(Access { url, project, token, ca })
}

/// Certificates that are trusted besides the system's; a job's are those of its own server.
fn authority(section: &GitlabSection, root: &Path, env: Env<'_>, url: &str) -> Option<Known<PathBuf>> {
    let path = |known: Known<String>| Known { value: PathBuf::from(known.value), origin: known.origin };
    let here = env("CI_SERVER_URL").is_some_and(|server| same_host(&server, url));
    let of_file = || {
        let value = root.join(section.ca_file.as_ref()?);
        Some(Known { value, origin: Origin::File(root.join("kmt.toml")) })
    };
    first(env, &["KMT_GITLAB_CA_FILE"])
        .map(path)
        .or_else(of_file)
        .or_else(|| first(env, &["CI_SERVER_TLS_CA_FILE"]).filter(|_| here).map(path))
}

fn token(
    section: &GitlabSection,
    root: &Path,
    env: Env<'_>,
    around: &Surroundings,
    url: &str,
) -> Result<Option<Token>> {
    let given =
        |secret: &str, origin, kind| Token { secret: Known { value: Secret::new(secret), origin }, kind };
    if let Some(known) = first(env, &["KMT_GITLAB_TOKEN", "GITLAB_TOKEN"]) {
        return Ok(Some(given(&known.value, known.origin, TokenKind::Access)));
    }
    if let Some(name) = &section.token_env
        && let Some(value) = env(name)
    {
        return Ok(Some(given(&value, Origin::File(root.join("kmt.toml")), TokenKind::Access)));
    }
    if let Some(path) = &section.token_file {
        let path = root.join(path);
        let value = std::fs::read_to_string(&path).map_err(|error| {
            Failure::usage(format!("cannot read the token file `{}`", path.display())).caused_by(error)
        })?;
        return Ok(Some(given(&value, Origin::File(path), TokenKind::Access)));
    }
    let here = env("CI_SERVER_URL").is_some_and(|server| same_host(&server, url));
    if let Some(known) = first(env, &["CI_JOB_TOKEN"]).filter(|_| here) {
        return Ok(Some(given(&known.value, known.origin, TokenKind::Job)));
    }
    let hosts = glab_hosts(&around.glab);
    let found = hosts.into_iter().find(|(host, _)| same_host(host, url)).and_then(|(_, token)| token);
    Ok(found.map(|token| given(&token, GLAB.clone(), TokenKind::Access)))
}

const GLAB: Origin = Origin::Flag("glab's configuration");
const REMOTE: Origin = Origin::Flag("the git remote `origin`");

/// The first of these variables that says something.
fn first(env: Env<'_>, names: &[&'static str]) -> Option<Known<String>> {
    names.iter().find_map(|name| {
        let value = env(name)?.trim().to_owned();
        (!value.is_empty()).then_some(Known { value, origin: Origin::Environment(name) })
    })
}

fn with_scheme(host: &str) -> String {
    if host.contains("://") { host.to_owned() } else { format!("https://{host}") }
}

/// `host[:port]` of an address.
fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

fn same_host(a: &str, b: &str) -> bool {
    let tls = |url: &str| !url.starts_with("http://");
    tls(a) == tls(b) && host_of(a).eq_ignore_ascii_case(host_of(b))
}

/// Host and project of a remote: `git@host:group/project.git`, `https://user@host/group/project`, `ssh://…`.
fn remote(address: &str) -> Option<(String, String)> {
    let (host, path) = match address.split_once("://") {
        Some((_, rest)) => rest.split_once('/')?,
        None => address.split_once(':')?,
    };
    let host = host.rsplit('@').next()?.split(':').next()?;
    let path = path.trim_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path);
    (!host.is_empty() && path.contains('/')).then(|| (host.to_owned(), path.to_owned()))
}

/// Hosts of glab's configuration and their tokens: the section `hosts:`, two levels of indentation.
fn glab_hosts(text: &str) -> Vec<(String, Option<String>)> {
    let mut hosts: Vec<(String, Option<String>)> = Vec::new();
    let mut inside = false;
    let mut level = None;
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#')) {
        let indentation = line.len() - line.trim_start().len();
        let (key, value) = line.trim().rsplit_once(": ").unwrap_or((line.trim().trim_end_matches(':'), ""));
        let value = value.split(" #").next().unwrap_or_default().trim().trim_matches(['"', '\'']);
        if indentation == 0 {
            inside = key == "hosts";
        } else if inside && *level.get_or_insert(indentation) == indentation {
            hosts.push((key.trim_matches(['"', '\'']).to_owned(), None));
        } else if inside && key == "token" && !value.is_empty() {
            let value = value.trim_start_matches("!!null").trim();
            if let Some(host) = hosts.last_mut().filter(|_| !value.is_empty()) {
                host.1 = Some(value.to_owned());
            }
        }
    }
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;

    const GLAB_FILE: &str = "git_protocol: ssh\nhosts:\n    gitlab.com:\n        token:\n        api_protocol: https\n    \
                             git.example.org:\n        # made by hand\n        token: \"glpat-glab\"\nhost: gitlab.com\n";

    fn access(section: &str, env: &[(&str, &str)], glab: &str, remote: &str) -> Result<Access> {
        let section: GitlabSection = toml::from_str(section).unwrap();
        let env = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let around = Surroundings { glab: glab.to_owned(), remote: remote.to_owned() };
        resolve(&section, Path::new("/repo"), &env, &around)
    }

    #[test]
    fn what_is_nearer_wins_and_tells_its_origin() {
        let remote = "git@git.example.org:group/sub/project.git";
        let found = access("", &[], "", remote).unwrap();
        assert_eq!(
            (found.url.value.as_str(), found.project.value.as_str()),
            ("https://git.example.org", "group/sub/project")
        );
        let job = [("CI_SERVER_URL", "https://ci"), ("CI_PROJECT_PATH", "a/b"), ("CI_JOB_TOKEN", "jt")];
        let found = access("url = 'https://file'\nproject = 'f/p'", &job, GLAB_FILE, remote).unwrap();
        assert_eq!((found.url.value.as_str(), found.project.value.as_str()), ("https://ci", "a/b"));
        assert_eq!(found.token.unwrap().kind, TokenKind::Job);
        let env = [("KMT_GITLAB_URL", "https://k"), ("GITLAB_TOKEN", "t\n"), ("KMT_GITLAB_PROJECT", "7")];
        let found = access("", &[job.as_slice(), &env].concat(), "", "").unwrap();
        assert_eq!((found.url.value.as_str(), found.project.value.as_str()), ("https://k", "7"));
        let token = found.token.unwrap();
        assert_eq!(
            (token.secret.value.expose(), token.secret.origin.to_string()),
            ("t", "$GITLAB_TOKEN".to_owned())
        );
    }

    #[test]
    fn a_token_goes_only_where_it_belongs() {
        let job =
            [("CI_SERVER_URL", "https://ci"), ("CI_JOB_TOKEN", "jt"), ("KMT_GITLAB_URL", "https://other")];
        assert!(access("project = 'a/b'", &job, GLAB_FILE, "").unwrap().token.is_none());
        let found = access("project = 'a/b'\nurl = 'https://git.example.org/x'", &[], GLAB_FILE, "").unwrap();
        assert_eq!(found.token.unwrap().secret.value.expose(), "glpat-glab");
        assert!(
            access("project = 'a/b'\nurl = 'http://git.example.org'", &[], GLAB_FILE, "")
                .unwrap()
                .token
                .is_none()
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = access("", &[], "", "").unwrap_err();
        assert_eq!(error.kind, Kind::Ci);
        assert!(error.hints[0].contains("KMT_GITLAB_URL"), "{error:?}");
        assert_eq!(remote("https://u@h:8443/g/p.git"), Some(("h".to_owned(), "g/p".to_owned())));
        assert_eq!(remote("/srv/repo.git"), None);
    }
}
