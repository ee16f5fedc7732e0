//! The way into guests of a scripted world: this machine plays each of them in a folder of its own, by its real
//! `sh`. Host keys and login keys are checked as OpenSSH would; a closed connection must not be used.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use rustix::process::Signal;
use tokio::io::AsyncRead;
use tokio::sync::watch;

use super::{Connection, RemoteStream, Route, Terminal, Transport};
use crate::external::process::{Child, Output, Running};
use crate::external::remote::alias_of;
use crate::external::scripted::{Domain, Fault, Power, Stage, end_processes, signal_self};
use crate::external::{Class, Error, Result};

const SYSTEM: &str = "ssh";
/// How often the world looks what a guest asks for.
const LOOK: Duration = Duration::from_millis(5);
/// Bytes that arrive before a connection breaks.
const SOME: usize = 700;

/// Reaches the guests of a stage.
#[derive(Debug, Clone)]
pub struct FakeTransport {
    stage: Arc<Stage>,
}

/// What has become of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Open,
    Silent,
    Broken,
}

impl FakeTransport {
    /// The transport of `stage`.
    pub fn new(stage: Arc<Stage>) -> FakeTransport {
        FakeTransport { stage }
    }

    /// The domain whose SSH server answers on the route's port now.
    fn answering(&self, route: &Route) -> Result<Domain> {
        let refuse = |words: &str| Error::new(SYSTEM, "reach", &route.alias, Class::Unreachable, words);
        let is_there = |domain: &Domain| {
            self.stage.ssh_at(domain) == Some((route.address.clone(), route.port))
                && domain.host.as_deref().map(alias_of) == route.behind
        };
        let domain = self.stage.domains().into_iter().find(is_there);
        let domain = domain.filter(|domain| domain.power == Power::On && domain.greets);
        let domain = domain.ok_or_else(|| refuse("Connection refused (os error 111)"))?;
        if domain.machine.replace('@', "-") != route.alias {
            return Err(self.stage.careless("reach", &route.alias, "its port leads to another machine"));
        }
        Ok(domain)
    }

    /// What OpenSSH checks: the configuration names the port, the host key is the known one, our key may log in.
    fn check(&self, route: &Route, domain: &Domain) -> Result<()> {
        let denied = |words: &str| Err(Error::new(SYSTEM, "log in to", &route.alias, Class::Denied, words));
        let folder = route.config.parent().unwrap_or(Path::new("/"));
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap_or_default();
        let section =
            format!("\nHost {}\n  HostName {}\n  Port {}\n", route.alias, route.address, route.port);
        let config = std::fs::read_to_string(&route.config).unwrap_or_default();
        let jump = format!("  ProxyJump {}\n", route.behind.as_deref().unwrap_or("none"));
        let own =
            config.split_once(&section).map(|(_, rest)| rest.split("\nHost ").next().unwrap_or_default());
        if !own.is_some_and(|own| own.contains(&jump)) {
            return Err(self.stage.careless("log in to", &route.alias, "its configuration is not written"));
        }
        let initrd = std::fs::read(&domain.initrd).unwrap_or_default();
        let injected =
            |key: &str| !key.is_empty() && initrd.windows(key.len()).any(|bytes| bytes == key.as_bytes());
        let known = read("known_hosts");
        let host_key = known.lines().find_map(|line| line.strip_prefix(&route.alias)?.strip_prefix(' '));
        if domain.fault == Fault::HostKey || !host_key.is_some_and(injected) {
            return denied("Host key verification failed.");
        }
        let login = read("keys/id_ed25519.pub");
        let login: Vec<&str> = login.split_whitespace().take(2).collect();
        if injected(&login.join(" ")) { Ok(()) } else { denied("Permission denied (publickey).") }
    }
}

#[async_trait]
impl Transport for FakeTransport {
    async fn greeting(&self, route: &Route) -> Result<()> {
        self.stage.look("greeting", &route.alias)?;
        let domain = self.answering(route)?;
        self.stage.reachable(domain.host.as_deref()).await
    }

    async fn connect(&self, route: &Route) -> Result<Arc<dyn Connection>> {
        self.stage.act("connect", &route.alias)?;
        let domain = self.answering(route)?;
        self.stage.reachable(domain.host.as_deref()).await?;
        self.check(route, &domain)?;
        if domain.fault == Fault::LoginHangs {
            std::future::pending::<()>().await;
        }
        let (fate, seen) = watch::channel(Fate::Open);
        let fate = Arc::new(fate);
        let watching = tokio::spawn(watch_guest(self.stage.clone(), domain.clone(), fate.clone()));
        self.stage.done("connect", &route.alias);
        Ok(Arc::new(Played {
            root: self.stage.guest(&domain.name),
            stage: self.stage.clone(),
            domain,
            fate,
            seen,
            closed: AtomicBool::new(false),
            watching,
        }))
    }

    async fn program(&self, route: &Route, line: Option<&str>, _: Terminal) -> Result<Child> {
        self.stage.act("program", &route.alias)?;
        let domain = self.answering(route)?;
        self.stage.reachable(domain.host.as_deref()).await?;
        self.check(route, &domain)?;
        let shell = played(&self.stage.guest(&domain.name), Path::new("sh"));
        Ok(line.map_or(shell.clone(), |line| shell.args(["-c", line])))
    }

    async fn make_key(&self, file: &Path) -> Result<()> {
        let name = file.display().to_string();
        let folder = file.parent().unwrap_or(file).file_name().unwrap_or_default();
        let subject = folder.to_string_lossy().into_owned();
        self.stage.act("make-key", &subject)?;
        if file.exists() {
            return Err(self.stage.careless("make-key", &name, "there is a key already"));
        }
        let fail = |error: std::io::Error| Error::io("this machine", "write", name.as_str(), &error);
        let body = uuid::Uuid::new_v4().simple();
        std::fs::write(file, format!("PRIVATE {body}\n")).map_err(fail)?;
        std::fs::write(file.with_extension("pub"), format!("ssh-ed25519 AAAA{body} kmt-run\n"))
            .map_err(fail)?;
        self.stage.done("make-key", &subject);
        Ok(())
    }
}

/// A program of this machine that plays one of the guest at `root`.
pub(in crate::external) fn played(root: &Path, program: &Path) -> Child {
    let path = std::env::var("PATH").unwrap_or_default();
    Child::new(program)
        .env("KMT_GUEST", root)
        .env("PATH", format!("{}/bin:{path}", root.display()))
        .folder(root)
}

/// Does to a machine what its guest asks for, and tells its connection.
async fn watch_guest(stage: Arc<Stage>, domain: Domain, fate: Arc<watch::Sender<Fate>>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let now =
            stage.domain(&domain.name).filter(|now| now.uuid == domain.uuid && now.starts == domain.starts);
        let Some(now) = now.filter(Domain::runs) else {
            fate.send_replace(Fate::Broken);
            return;
        };
        let Some(asked) = stage.asked(&domain.name) else { continue };
        match asked.as_str() {
            "panic" => {
                stage.say(&now, "[   42.000000] sysrq: Trigger a crash").await;
                stage.say(&now, "[   42.000001] Kernel panic - not syncing: sysrq triggered crash").await;
                end(&stage, &domain, Power::Off);
            }
            "qemu-gone" => end(&stage, &domain, Power::Off),
            "silent" => {
                stage.change(&domain.name, |domain| domain.power = Power::Silent);
                fate.send_replace(Fate::Silent);
            }
            "reboot" => {
                end(&stage, &domain, Power::On);
                fate.send_replace(Fate::Broken);
                stage.say(&now, "[    0.000000] Linux version 6.1.0-fake (kmt@stage)").await;
                return;
            }
            "host-dies" | "host-reboots" | "link-cut" if domain.host.is_some() => {
                stage.strike_host(domain.host.as_deref().unwrap_or_default(), &asked);
                if asked != "link-cut" {
                    end_processes(&stage.guest(&domain.name));
                    fate.send_replace(Fate::Broken);
                    return;
                }
            }
            "SIGINT" => signal_self(Signal::INT),
            "SIGTERM" => signal_self(Signal::TERM),
            "SIGUSR1" => signal_self(Signal::USR1),
            "SIGKILL" => signal_self(Signal::KILL),
            other => drop(stage.careless("ask", &domain.name, &format!("`{other}` is nothing a world does"))),
        }
    }
}

/// The guest's kernel is gone, and with it all that ran in it.
fn end(stage: &Stage, domain: &Domain, power: Power) {
    end_processes(&stage.guest(&domain.name));
    stage.change(&domain.name, |domain| domain.power = power);
}

/// Comes once the guest is silent.
async fn silence(mut seen: watch::Receiver<Fate>) {
    let heard = seen.wait_for(|fate| *fate == Fate::Silent).await.is_ok();
    if !heard {
        std::future::pending::<()>().await;
    }
}

struct Played {
    stage: Arc<Stage>,
    domain: Domain,
    root: PathBuf,
    fate: Arc<watch::Sender<Fate>>,
    seen: watch::Receiver<Fate>,
    closed: AtomicBool,
    watching: tokio::task::JoinHandle<()>,
}

impl Played {
    fn broken(&self) -> Error {
        Error::new(
            SYSTEM,
            "run a command in",
            &self.domain.machine,
            Class::Unreachable,
            "the connection broke",
        )
    }

    fn child(&self, argv: &[&str]) -> Result<Child> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(self.stage.careless("run", &self.domain.name, "the connection is closed"));
        }
        if *self.seen.borrow() == Fate::Broken {
            return Err(self.broken());
        }
        let Some((program, args)) = argv.split_first() else {
            return Err(self.stage.careless("run", &self.domain.name, "an empty command"));
        };
        // Its own programs come first.
        let own = self.root.join("bin").join(program);
        let program = if own.is_file() { own } else { PathBuf::from(program) };
        Ok(played(&self.root, &program).args(args))
    }

    /// Waits for what a command gives, as long as the guest answers.
    async fn answer<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let done = tokio::select! {
            biased;
            () = silence(self.seen.clone()) => std::future::pending().await,
            done = work => done,
        };
        self.stage.reachable(self.domain.host.as_deref()).await?;
        // A command that ended with its machine has no status.
        tokio::time::sleep(Duration::ZERO).await;
        let gone = self.stage.domain(&self.domain.name).is_none_or(|now| !now.runs());
        if gone || *self.seen.borrow() == Fate::Broken { Err(self.broken()) } else { done }
    }
}

#[async_trait]
impl Connection for Played {
    async fn run(&self, argv: &[&str], stdin: Vec<u8>) -> Result<Output> {
        self.stage.act("run", &self.domain.machine)?;
        let child = self.child(argv)?;
        let output = self.answer(child.stdin(stdin).output()).await;
        self.stage.done("run", &self.domain.machine);
        output
    }

    async fn feed(&self, argv: &[&str], stdin: &mut (dyn AsyncRead + Send + Unpin)) -> Result<Output> {
        self.stage.act("feed", &self.domain.machine)?;
        let child = self.child(argv)?;
        if matches!(self.domain.fault, Fault::ShipCut | Fault::ShipDeath) {
            let mut some = tokio::io::AsyncReadExt::take(&mut *stdin, SOME as u64);
            let _ = self.answer(child.fed(&mut some)).await;
            let power = if self.domain.fault == Fault::ShipDeath { Power::Off } else { Power::On };
            end(&self.stage, &self.domain, power);
            self.fate.send_replace(Fate::Broken);
            return Err(self.broken());
        }
        let output = self.answer(child.fed(stdin)).await;
        self.stage.done("feed", &self.domain.machine);
        output
    }

    async fn stream(&self, argv: &[&str], stdin: Vec<u8>) -> Result<Box<dyn RemoteStream>> {
        self.stage.act("stream", &self.domain.machine)?;
        let running = self.child(argv)?.stdin(stdin).start()?;
        let (stage, host) = (self.stage.clone(), self.domain.host.clone());
        Ok(Box::new(Stream { running, seen: self.seen.clone(), stage, host }))
    }

    async fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.watching.abort();
    }

    fn prefix(&self) -> &str {
        self.root.to_str().unwrap_or_default()
    }
}

impl Drop for Played {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

struct Stream {
    running: Running,
    seen: watch::Receiver<Fate>,
    stage: Arc<Stage>,
    host: Option<String>,
}

#[async_trait]
impl RemoteStream for Stream {
    async fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        self.stage.reachable(self.host.as_deref()).await?;
        tokio::select! {
            biased;
            () = silence(self.seen.clone()) => std::future::pending().await,
            read = self.running.read(buf) => read,
        }
    }

    async fn wait(self: Box<Self>) -> Result<Option<i32>> {
        self.running.wait().await
    }
}
