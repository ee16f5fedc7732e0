//! Commands on a host, by the OpenSSH client over one connection that all of them share.
//!
//! The first command makes the connection (`ControlMaster auto`); one that is lost is made again by the next. A host that
//! did not answer is not asked again for a moment: whoever has many questions would wait for each.

use std::path::Path;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use tokio::io::AsyncRead;

use super::Way;
use crate::external::process::{Child, Output, Running, shell_quoted};
use crate::external::{Class, Error, Result};

/// How often a command is tried on a host that cannot be reached; each is idempotent.
const TRIES: u32 = 2;
/// Between two tries.
const PAUSE: Duration = Duration::from_secs(2);
/// How long a host that did not answer is left alone.
const RESPITE: Duration = Duration::from_secs(20);
/// OpenSSH's status where there was no connection.
const UNCONNECTED: i32 = 255;

/// The shell of a host.
#[derive(Debug)]
pub(super) struct Shell {
    way: Way,
    /// Held while the connection is made, so that one is.
    raising: tokio::sync::Mutex<()>,
    silent: std::sync::Mutex<Option<(Instant, Class, String)>>,
}

impl Shell {
    pub(super) fn new(way: &Way) -> Shell {
        Shell {
            way: way.clone(),
            raising: tokio::sync::Mutex::default(),
            silent: std::sync::Mutex::default(),
        }
    }

    pub(super) fn way(&self) -> &Way {
        &self.way
    }

    /// `ssh` with options before the host, and what follows it.
    fn ssh(&self, options: &[&str]) -> Child {
        Child::new("ssh").arg("-F").arg(&self.way.config).args(options).arg(&self.way.alias)
    }

    fn command(&self, script: &str, args: &[&str]) -> Child {
        let own = ["sh", "-c", script, "kmt"];
        let words: Vec<String> = own.iter().chain(args).map(|word| shell_quoted(word)).collect();
        self.ssh(&["-T"]).arg("--").arg(words.join(" "))
    }

    /// Runs a script with arguments to its end, whatever its status.
    pub(super) async fn run(&self, script: &str, args: &[&str], stdin: Vec<u8>) -> Result<Output> {
        self.quiet()?;
        let mut tries = 1;
        loop {
            let output = {
                let _one = self.raising.lock().await;
                self.raise().await
            };
            let output = match output {
                Ok(()) => self.command(script, args).stdin(stdin.clone()).output().await?,
                Err(output) => output?,
            };
            match self.judged(output) {
                Err(error) if error.class == Class::Unreachable && tries < TRIES => {
                    tries += 1;
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => {
                    let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
                    *silent = Some((Instant::now(), error.class, error.detail.clone()));
                    return Err(error);
                }
                done => return done,
            }
        }
    }

    /// The same where a status other than 0 is an error.
    pub(super) async fn must(
        &self,
        operation: &'static str,
        script: &str,
        args: &[&str],
        stdin: Vec<u8>,
    ) -> Result<Output> {
        let output = self.run(script, args, stdin).await?;
        self.accepted(operation, output)
    }

    /// A script whose standard input is streamed from a reader; not tried again.
    pub(super) async fn feed(
        &self,
        operation: &'static str,
        script: &str,
        args: &[&str],
        stdin: &mut (dyn AsyncRead + Send + Unpin),
    ) -> Result<Output> {
        let output = self.command(script, args).fed(stdin).await?;
        self.accepted(operation, self.judged(output)?)
    }

    /// Starts a script whose standard output is a stream.
    pub(super) fn stream(&self, script: &str, args: &[&str]) -> Result<Running> {
        self.command(script, args).start()
    }

    /// Has a socket here lead to one on the host, as long as the connection lives.
    pub(super) async fn forward(&self, here: &Path, there: &str) -> Result<()> {
        let both = format!("{}:{there}", here.display());
        let output = self.ssh(&["-O", "forward", "-L", &both]).output().await?;
        match output.ok() {
            true => Ok(()),
            false => Err(self.failed("forward a socket of", &output)),
        }
    }

    /// Ends the connection once nobody uses it.
    pub(super) async fn close(&self) {
        if self.master().exists() {
            // A master whose host is gone, or that has ended meanwhile, has nothing to say.
            let _ = self.ssh(&["-O", "stop"]).output().await;
        }
    }

    fn master(&self) -> std::path::PathBuf {
        self.way.sockets.join("master")
    }

    /// Makes the connection where there is none: the first command would, and those beside it make connections of
    /// their own.
    async fn raise(&self) -> std::result::Result<(), Result<Output>> {
        crate::external::transport::ssh::private_place(&self.way.sockets).map_err(Err)?;
        if self.master().exists() {
            return Ok(());
        }
        match self.ssh(&["-T"]).args(["--", "true"]).output().await {
            Ok(output) if output.ok() => Ok(()),
            other => Err(other),
        }
    }

    fn quiet(&self) -> Result<()> {
        let silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        match &*silent {
            Some((since, class, detail)) if since.elapsed() < RESPITE => {
                Err(Error::new("ssh", "log in to", &self.way.alias, *class, detail).hint(self.hint(*class)))
            }
            _ => Ok(()),
        }
    }

    /// Takes OpenSSH's own status for what it is.
    fn judged(&self, output: Output) -> Result<Output> {
        if output.status == Some(UNCONNECTED) {
            return Err(self.failed("log in to", &output));
        }
        *self.silent.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(output)
    }

    fn failed(&self, operation: &'static str, output: &Output) -> Error {
        let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let denied = ["Permission denied", "Host key verification failed", "No ED25519 host key is known"];
        let refused = denied.iter().any(|text| words.contains(text));
        let class = if refused { Class::Denied } else { Class::Unreachable };
        let words = if words.is_empty() { "the connection broke".to_owned() } else { words };
        Error::new("ssh", operation, &self.way.alias, class, words).hint(self.hint(class))
    }

    fn hint(&self, class: Class) -> String {
        let by_hand = format!("ssh -F {} {} true", self.way.config.display(), self.way.alias);
        match class {
            Class::Denied => format!(
                "`{by_hand}` says more; `key` and `host-key` of its `[[host]]` say how to log in and what its key is"
            ),
            _ => format!("`{by_hand}` says more"),
        }
    }

    fn accepted(&self, operation: &'static str, output: Output) -> Result<Output> {
        if output.ok() {
            return Ok(output);
        }
        let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let full = words.contains("No space left");
        let denied = words.contains("Permission denied") || words.contains("a password is required");
        let class = match (full, denied) {
            (true, _) => Class::Busy,
            (_, true) => Class::Denied,
            _ => Class::Rejected,
        };
        let error = Error::new("the host", operation, &self.way.alias, class, words);
        Err(if full {
            error.hint("its disk is full: `folder` of its `[[host]]` can be elsewhere")
        } else {
            error
        })
    }
}
