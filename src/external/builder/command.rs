//! Commands of one's own: what the repository says makes its binaries and objects, here or in a container.

use std::path::Path;

use async_trait::async_trait;

use super::{BuildRequest, Builder, Lines, Unit, UnitKind, matches};
use crate::error::nearest;
use crate::external::process::Child;
use crate::external::{Class, Error, Result};
use crate::settings::component::{BuildCommand, Container, Engine};

const SYSTEM: &str = "the build command";
/// Bytes of what a command says that are kept for its error.
const KEPT: usize = 64 << 10;

/// Builds with the commands of the component, which make the test binaries that it names.
#[derive(Debug, Clone, Copy, Default)]
pub struct Commands;

#[async_trait]
impl Builder for Commands {
    async fn list(&self, request: &BuildRequest) -> Result<Vec<Unit>> {
        for pattern in &request.packages {
            let names = || request.tests.iter().map(|(name, _)| name.as_str());
            if !names().any(|name| matches(pattern, name)) {
                let error = Error::new(SYSTEM, "make", pattern, Class::NotFound, "no test of that name");
                let near = nearest(pattern.trim_start_matches("./"), names()).map(str::to_owned);
                let all = names().collect::<Vec<_>>().join(", ");
                return Err(error.hint(
                    near.map_or(format!("there are: {all}"), |near| format!("did you mean `{near}`?")),
                ));
            }
        }
        let wanted = request.tests.iter().filter(|(name, _)| request.wants(name));
        Ok(wanted.map(|(name, file)| unit(name, &request.repository.join(file))).collect())
    }

    async fn compile(&self, _request: &BuildRequest, unit: &Unit, _into: &Path) -> Result<()> {
        Err(Error::new(SYSTEM, "make", &unit.name, Class::Rejected, "only its commands make test binaries"))
    }
}

fn unit(name: &str, file: &Path) -> Unit {
    Unit {
        kind: UnitKind::Test,
        name: name.to_owned(),
        import_path: name.to_owned(),
        dir: file.parent().map(Path::to_path_buf).unwrap_or_default(),
        inputs: Vec::new(),
        facts: Vec::new(),
        made: Some(file.to_owned()),
    }
}

/// Runs a command to its end and hands over what it says, line by line.
pub(super) async fn carry_out(
    request: &BuildRequest,
    command: &BuildCommand,
    lines: Lines<'_>,
) -> Result<()> {
    let folder = match command.dir.as_str() {
        "" => request.repository.clone(),
        dir => request.repository.join(dir),
    };
    let argv = match &command.container {
        Some(container) => contained(container, command, &request.repository, &folder),
        None => command.argv.clone(),
    };
    let mut child = Child::new(&argv[0]).args(&argv[1..]).folder(&folder);
    if command.container.is_none() {
        for (key, value) in &command.env {
            child = child.env(key, value);
        }
    }
    let subject = argv.join(" ");
    let (status, said) = child.told(KEPT, lines).await?;
    if status == Some(0) {
        return Ok(());
    }
    let status = status.map_or("a signal".to_owned(), |code| format!("status {code}"));
    let words = format!("{}\n`{subject}` ended with {status}", said.trim_end());
    let error = Error::new(SYSTEM, "run", &subject, Class::Rejected, words.trim_start());
    Err(match (&command.container, status.as_str()) {
        (Some(container), "status 127") => {
            error.hint(format!("is `{}` installed, and may this user call it?", container.engine.program()))
        }
        (None, "status 127") => error.hint(format!("is `{}` installed?", argv[0])),
        _ => error,
    })
}

/// The same command in a container: the repository lies where it lies here, and files that are made belong to
/// who calls, so nothing need be given back.
fn contained(container: &Container, command: &BuildCommand, repository: &Path, folder: &Path) -> Vec<String> {
    let shown = |path: &Path| path.display().to_string();
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    let mut argv: Vec<String> = vec![container.engine.program().into(), "run".into(), "--rm".into()];
    match container.engine {
        Engine::Podman if !user.is_root() => argv.push("--userns=keep-id".into()),
        _ => argv.push(format!("--user={}:{}", user.as_raw(), group.as_raw())),
    }
    argv.push(format!("--volume={0}:{0}", shown(repository)));
    argv.push(format!("--workdir={}", shown(folder)));
    // A user that the image does not know has no home.
    argv.push("--env=HOME=/tmp".into());
    argv.extend(command.env.iter().map(|(key, value)| format!("--env={key}={value}")));
    argv.extend(container.args.iter().cloned());
    argv.push(container.image.clone());
    argv.extend(command.argv.iter().cloned());
    argv
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use kmt_reporters::event::Arch;

    use super::*;

    fn command(argv: &[&str]) -> BuildCommand {
        BuildCommand {
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
            dir: String::new(),
            env: BTreeMap::from([("WORD".to_owned(), "a b".to_owned())]),
            inputs: Vec::new(),
            outputs: Vec::new(),
            container: None,
        }
    }

    #[tokio::test]
    async fn what_it_says_comes_line_by_line_and_stands_in_its_error() {
        let request = BuildRequest::new("/", Arch::host());
        let said = Mutex::new(Vec::new());
        let lines = |line: &str| said.lock().unwrap().push(line.to_owned());
        carry_out(&request, &command(&["sh", "-c", "echo one; echo \"$WORD\" >&2; printf end"]), &lines)
            .await
            .unwrap();
        assert_eq!(*said.lock().unwrap(), ["one", "a b", "end"]);
        let error = carry_out(&request, &command(&["sh", "-c", "echo x.c:1: no >&2; exit 3"]), &|_| {})
            .await
            .unwrap_err();
        assert!(error.detail.starts_with("x.c:1: no\n"), "{error}");
        assert!(error.detail.ends_with("ended with status 3"), "{error}");
        let error = carry_out(&request, &command(&["no-such-compiler"]), &|_| {}).await.unwrap_err();
        assert_eq!(error.hint.as_deref(), Some("is `no-such-compiler` installed?"));
    }

    #[test]
    fn a_container_works_as_who_calls_in_the_same_folder() {
        let mut wanted = command(&["make", "all"]);
        wanted.dir = "sub".to_owned();
        let container =
            Container { image: "img:1".into(), engine: Engine::Docker, args: vec!["--network=none".into()] };
        let argv = contained(&container, &wanted, Path::new("/repo"), Path::new("/repo/sub"));
        let user =
            format!("--user={}:{}", rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let expected = [
            "docker",
            "run",
            "--rm",
            &user,
            "--volume=/repo:/repo",
            "--workdir=/repo/sub",
            "--env=HOME=/tmp",
            "--env=WORD=a b",
            "--network=none",
            "img:1",
            "make",
            "all",
        ];
        assert_eq!(argv, expected);
    }
}
