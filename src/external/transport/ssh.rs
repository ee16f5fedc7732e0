//! OpenSSH: one master process a machine, commands over its control socket.
//!
//! The master keeps itself for a minute without us (`ControlPersist`), so a killed run leaves nothing for
//! long, and ends at once when its machine does.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use openssh::{ControlPersist, KnownHosts, Session, SessionBuilder, Stdio};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::RwLock;
use tokio::time::timeout;

use super::{Connection, RemoteStream, Route, Terminal, Transport};
use crate::external::process::{Child, Output};
use crate::external::{self, Class, Error};

/// How long a login may take; an emulated CPU needs seconds for the key exchange.
const LOGIN: Duration = Duration::from_secs(40);
/// How long a server may take to greet a new connection before another try is better.
const GREETING: Duration = Duration::from_secs(3);
/// The same where the way leads through another host, to which a connection may have to be made first.
const GREETING_BEHIND: Duration = Duration::from_secs(20);

/// How long a master stays without work: then whoever had it is gone.
const IDLE: NonZeroUsize = NonZeroUsize::new(60).expect("more than nothing");
/// How often it gets some from us: a machine may wait for a build that takes longer.
const WORK: Duration = Duration::from_secs(25);

/// The real transport.
#[derive(Debug, Default)]
pub struct Ssh;

#[async_trait]
impl Transport for Ssh {
    async fn greeting(&self, route: &Route) -> external::Result<()> {
        let fail = |detail: String| Error::new("ssh", "reach", &route.alias, Class::Unreachable, detail);
        if route.behind.is_some() {
            return greeting_behind(route).await;
        }
        let hello = async {
            let mut stream = TcpStream::connect((route.address.as_str(), route.port)).await?;
            let mut banner = [0u8; 4];
            stream.read_exact(&mut banner).await?;
            Ok::<_, std::io::Error>(banner)
        };
        match timeout(GREETING, hello).await {
            Ok(Ok(banner)) if &banner == b"SSH-" => Ok(()),
            Ok(Ok(_)) => {
                Err(Error::new("ssh", "reach", &route.alias, Class::Unintelligible, "not an SSH server"))
            }
            Ok(Err(error)) => Err(fail(error.to_string())),
            Err(_) => Err(fail("no greeting".to_owned())),
        }
    }

    async fn connect(&self, route: &Route) -> external::Result<Arc<dyn Connection>> {
        private_sockets(&route.sockets)?;
        let session = SessionBuilder::default()
            .known_hosts_check(KnownHosts::Strict)
            .config_file(&route.config)
            .control_directory(&route.sockets)
            .control_persist(ControlPersist::IdleFor(IDLE))
            .server_alive_interval(Duration::from_secs(15))
            .connect_timeout(LOGIN)
            .connect_mux(&route.alias)
            .await
            .map_err(|error| failed("log in to", &route.alias, &error))?;
        let session = Arc::new(session);
        tokio::spawn(keep(Arc::downgrade(&session)));
        Ok(Arc::new(SshConnection { alias: route.alias.clone(), session: RwLock::new(Some(session)) }))
    }

    async fn program(
        &self,
        route: &Route,
        line: Option<&str>,
        terminal: Terminal,
    ) -> external::Result<Child> {
        let child = Child::new("ssh").arg("-F").arg(&route.config);
        let child = child.args(["-o", "ServerAliveInterval=15", "-o"]);
        let child = child.arg(format!("ConnectTimeout={}", LOGIN.as_secs()));
        let child = if terminal == Terminal::Wanted { child.arg("-t") } else { child.arg("-T") };
        // What follows the host is read as options again, unless a `--` ends them.
        Ok(child.args([&route.alias, "--"]).args(line))
    }

    async fn make_key(&self, file: &Path) -> external::Result<()> {
        Child::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "kmt-run", "-f"])
            .arg(file)
            .success()
            .await
            .map_err(|error| error.hint("apt-get install openssh-client"))?;
        Ok(())
    }
}

/// The same where the server is behind another host, whose client leads there.
async fn greeting_behind(route: &Route) -> external::Result<()> {
    let fail = |detail: &str| Error::new("ssh", "reach", &route.alias, Class::Unreachable, detail);
    let through = route.behind.as_deref().unwrap_or_default();
    let place = format!("{}:{}", route.address, route.port);
    let client = Child::new("ssh").arg("-F").arg(&route.config).args(["-W", &place, through]);
    let mut client = client.stdin(Vec::new()).start()?;
    let hello = async {
        let (mut banner, mut buffer) = (Vec::new(), [0u8; 16]);
        while banner.len() < 4 {
            match client.read(&mut buffer).await? {
                0 => break,
                count => banner.extend_from_slice(&buffer[..count]),
            }
        }
        Ok::<_, Error>(banner)
    };
    match timeout(GREETING_BEHIND, hello).await {
        Ok(Ok(banner)) if banner.starts_with(b"SSH-") => Ok(()),
        Ok(Ok(_)) => Err(fail("nobody answers behind its host")),
        Ok(Err(error)) => Err(fail(&error.to_string())),
        Err(_) => Err(fail("no greeting")),
    }
}

/// Gives a master some work now and then, as long as somebody has it.
async fn keep(session: Weak<Session>) {
    loop {
        tokio::time::sleep(WORK).await;
        let Some(session) = session.upgrade() else { return };
        // One that does not answer is found out by whoever needs it.
        let _ = timeout(WORK, session.command("true").status()).await;
    }
}

/// Makes sure that the folder of control sockets, whose name can be guessed, is ours alone, and clears it.
fn private_sockets(folder: &Path) -> external::Result<()> {
    private_place(folder)?;
    for left in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let _ = std::fs::remove_dir_all(left.path());
    }
    Ok(())
}

/// Makes sure that a folder of control sockets and the one it is in are ours alone.
pub(in crate::external) fn private_place(folder: &Path) -> external::Result<()> {
    folder.parent().map_or(Ok(()), private)?;
    private(folder)
}

fn private(folder: &Path) -> external::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt};
    let failed =
        |error: &std::io::Error| Error::io("file system", "create", folder.display().to_string(), error);
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| failed(&error))?;
    let seen = std::fs::symlink_metadata(folder).map_err(|error| failed(&error))?;
    if seen.is_dir() && seen.uid() == rustix::process::geteuid().as_raw() && seen.mode() & 0o077 == 0 {
        return Ok(());
    }
    Err(Error::new("file system", "use", folder.display().to_string(), Class::Denied, "it is not ours alone")
        .hint(format!("rm -rf {}", folder.display())))
}

/// The text of an error and all its sources, once each.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let words = inner.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        source = inner.source();
    }
    text
}

fn failed(operation: &'static str, alias: &str, error: &openssh::Error) -> Error {
    let text = chain(error);
    let class = if text.contains("Permission denied") || text.contains("Host key verification failed") {
        Class::Denied
    } else {
        Class::Unreachable
    };
    Error::new("ssh", operation, alias, class, text)
}

struct SshConnection {
    alias: String,
    session: RwLock<Option<Arc<Session>>>,
}

impl SshConnection {
    async fn session(&self) -> external::Result<Arc<Session>> {
        self.session.read().await.clone().ok_or_else(|| {
            Error::new("ssh", "run a command in", &self.alias, Class::Unreachable, "the connection is closed")
        })
    }

    async fn spawn(&self, argv: &[&str]) -> external::Result<openssh::Child<Arc<Session>>> {
        let session = self.session().await?;
        let (program, args) = argv.split_first().ok_or_else(|| {
            Error::new("ssh", "run a command in", &self.alias, Class::Rejected, "an empty command")
        })?;
        session
            .arc_command((*program).to_owned())
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .await
            .map_err(|error| failed("run a command in", &self.alias, &error))
    }
}

#[async_trait]
impl Connection for SshConnection {
    async fn run(&self, argv: &[&str], stdin: Vec<u8>) -> external::Result<Output> {
        self.feed(argv, &mut stdin.as_slice()).await
    }

    async fn feed(
        &self,
        argv: &[&str],
        stdin: &mut (dyn AsyncRead + Send + Unpin),
    ) -> external::Result<Output> {
        let mut child = self.spawn(argv).await?;
        let (pipe, mut out, mut err) = (child.stdin().take(), child.stdout().take(), child.stderr().take());
        let feeding = async {
            let Some(mut pipe) = pipe else { return Ok(()) };
            tokio::io::copy(stdin, &mut pipe).await?;
            pipe.shutdown().await
        };
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let (fed, said, complained) =
            tokio::join!(feeding, all_of(&mut out, &mut stdout), all_of(&mut err, &mut stderr));
        said.and(complained).map_err(|error| Error::io("ssh", "read from", &self.alias, &error))?;
        let status = status(child.wait().await, "run a command in", &self.alias)?;
        let output = Output { status, stdout, stderr };
        match fed {
            // A command that stopped reading says by its own status whether it had enough.
            Err(error) if output.ok() && error.kind() != std::io::ErrorKind::BrokenPipe => {
                Err(Error::io("ssh", "feed a command in", &self.alias, &error))
            }
            _ => Ok(output),
        }
    }

    async fn stream(&self, argv: &[&str], stdin: Vec<u8>) -> external::Result<Box<dyn RemoteStream>> {
        let mut child = self.spawn(argv).await?;
        if let Some(mut pipe) = child.stdin().take() {
            pipe.write_all(&stdin)
                .await
                .map_err(|error| Error::io("ssh", "feed a command in", &self.alias, &error))?;
        }
        let stdout = child.stdout().take();
        // Nobody reads its errors: the scripts we stream send them to standard output.
        drop(child.stderr().take());
        Ok(Box::new(SshStream { alias: self.alias.clone(), child, stdout }))
    }

    async fn close(&self) {
        let session = self.session.write().await.take();
        if let Some(session) = session.and_then(Arc::into_inner) {
            // A master whose machine is gone cannot say goodbye.
            let _ = timeout(Duration::from_secs(2), session.close()).await;
        }
    }
}

/// Reads a stream to its end.
async fn all_of(stream: &mut Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>) -> std::io::Result<()> {
    if let Some(stream) = stream {
        stream.read_to_end(into).await?;
    }
    Ok(())
}

/// The exit status of a remote command; none where a signal ended it. `openssh` takes the status 127 for a command that
/// is not there, but a script of ours ends so too, when one of its commands is missing.
fn status(
    ended: std::result::Result<std::process::ExitStatus, openssh::Error>,
    operation: &'static str,
    alias: &str,
) -> external::Result<Option<i32>> {
    match ended {
        Ok(status) => Ok(status.code()),
        Err(openssh::Error::RemoteProcessTerminated) => Ok(None),
        Err(openssh::Error::Remote(error)) if error.kind() == std::io::ErrorKind::NotFound => Ok(Some(127)),
        Err(error) => Err(failed(operation, alias, &error)),
    }
}

struct SshStream {
    alias: String,
    child: openssh::Child<Arc<Session>>,
    stdout: Option<openssh::ChildStdout>,
}

#[async_trait]
impl RemoteStream for SshStream {
    async fn read(&mut self, buf: &mut [u8]) -> external::Result<usize> {
        match &mut self.stdout {
            Some(stdout) => {
                stdout.read(buf).await.map_err(|error| Error::io("ssh", "read from", &self.alias, &error))
            }
            None => Ok(0),
        }
    }

    async fn wait(mut self: Box<Self>) -> external::Result<Option<i32>> {
        drop(self.stdout.take());
        status(self.child.wait().await, "wait for a command in", &self.alias)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_a_killed_process_left_among_the_sockets_goes_and_a_folder_of_others_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("stack/machine");
        private_sockets(&folder).unwrap();
        std::fs::create_dir(folder.join(".ssh-connection-of-a-killed-run")).unwrap();
        private_sockets(&folder).unwrap();
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);

        let stack = base.path().join("stack");
        std::fs::set_permissions(&stack, std::fs::Permissions::from_mode(0o777)).unwrap();
        let error = private_sockets(&folder).unwrap_err();
        assert_eq!(error.class, Class::Denied);
        assert!(error.to_string().contains("not ours alone"), "{error}");
    }
}
