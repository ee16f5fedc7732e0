//! The only place that spawns a child process.
//!
//! Children get a pinned locale, no standard input unless given, their own process group (a Ctrl-C on the
//! terminal reaches only us) and die with their handle. Arguments are a list, never a shell string.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};

use super::{Class, Error, Result};

/// A word that a shell reads as it is.
pub fn shell_quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// A child process to be: program, arguments, environment, folder, standard input.
#[derive(Debug, Clone)]
pub struct Child {
    program: OsString,
    args: Vec<OsString>,
    envs: Vec<(OsString, OsString)>,
    folder: Option<PathBuf>,
    stdin: Option<Vec<u8>>,
    stdin_file: Option<PathBuf>,
}

/// What a child that ended left behind.
#[derive(Debug)]
pub struct Output {
    /// Exit status; `None` where a signal ended it.
    pub status: Option<i32>,
    /// Standard output, whole.
    pub stdout: Vec<u8>,
    /// Standard error, whole.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Whether it exited with 0.
    pub fn ok(&self) -> bool {
        self.status == Some(0)
    }

    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

impl Child {
    /// Runs `program`, looked up in `PATH`.
    pub fn new(program: impl AsRef<OsStr>) -> Child {
        Child {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            envs: vec![("LC_ALL".into(), "C.UTF-8".into())],
            folder: None,
            stdin: None,
            stdin_file: None,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Child {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Child {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets a variable of the child's environment.
    #[must_use]
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Child {
        self.envs.push((key.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Runs it in `folder`.
    #[must_use]
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Child {
        self.folder = Some(folder.into());
        self
    }

    /// Feeds `bytes` to its standard input.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Child {
        self.stdin = Some(bytes.into());
        self
    }

    /// Opens `file` as its standard input.
    #[must_use]
    pub fn stdin_file(mut self, file: impl Into<PathBuf>) -> Child {
        self.stdin_file = Some(file.into());
        self
    }

    /// The program's name, for messages.
    pub fn program(&self) -> String {
        self.program.to_string_lossy().into_owned()
    }

    #[expect(clippy::disallowed_methods, reason = "this is the place the rule names")]
    fn command(&self) -> Result<tokio::process::Command> {
        let mut command = tokio::process::Command::new(&self.program);
        command.args(&self.args).envs(self.envs.iter().map(|(k, v)| (k, v)));
        command.stdin(match (&self.stdin, &self.stdin_file) {
            (Some(_), _) => Stdio::piped(),
            (None, Some(path)) => {
                let file = std::fs::File::open(path)
                    .map_err(|error| Error::io("file system", "open", path.display().to_string(), &error))?;
                file.into()
            }
            (None, None) => Stdio::null(),
        });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        Ok(command)
    }

    fn spawn(&self) -> Result<tokio::process::Child> {
        tracing::debug!(program = ?self.program, args = ?self.args, "spawn");
        self.command()?.spawn().map_err(|error| Error::io("this machine", "run", self.program(), &error))
    }

    /// Runs it to its end, whatever its status.
    pub async fn output(self) -> Result<Output> {
        let mut child = self.spawn()?;
        let feed = child.stdin.take().zip(self.stdin.clone());
        let feeding = async {
            if let Some((mut pipe, bytes)) = feed {
                // A child that does not read all of it says so by its status.
                let _ = pipe.write_all(&bytes).await;
            }
        };
        let (output, ()) = tokio::join!(child.wait_with_output(), feeding);
        let output = output.map_err(|error| Error::io("this machine", "wait for", self.program(), &error))?;
        Ok(Output { status: output.status.code(), stdout: output.stdout, stderr: output.stderr })
    }

    /// Runs it to its end; a status other than 0 is an error that carries the end of its standard error.
    pub async fn success(self) -> Result<Output> {
        let program = self.program();
        let output = self.output().await?;
        if output.ok() { Ok(output) } else { Err(failed(&program, &output)) }
    }

    /// Runs it to its end and hands over each line of standard error as it comes; status 0 or an error.
    pub async fn watched(self, mut line: impl FnMut(&str)) -> Result<Output> {
        let mut child = self.spawn()?;
        let stderr = child.stderr.take();
        let mut kept = Vec::new();
        let watching = async {
            if let Some(stderr) = stderr {
                let mut lines = BufReader::new(stderr).split(b'\n');
                while let Ok(Some(bytes)) = lines.next_segment().await {
                    line(&String::from_utf8_lossy(&bytes));
                    kept.extend_from_slice(&bytes);
                    kept.push(b'\n');
                }
            }
        };
        let (output, ()) = tokio::join!(child.wait_with_output(), watching);
        let output = output.map_err(|error| Error::io("this machine", "wait for", self.program(), &error))?;
        let output = Output { status: output.status.code(), stdout: output.stdout, stderr: kept };
        if output.ok() { Ok(output) } else { Err(failed(&self.program(), &output)) }
    }
}

/// Which output of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// Most bytes of a line; a longer one comes in pieces.
const LINE: u64 = 64 * 1024;

impl Child {
    /// The words of a shell that run the same by hand, environment and folder left out.
    pub fn words(&self) -> Vec<String> {
        let words = std::iter::once(&self.program).chain(&self.args);
        words.map(|word| word.to_string_lossy().into_owned()).collect()
    }

    /// Becomes it: this process goes on as that program, with the terminal and all it has. Comes back only where
    /// that is refused.
    #[expect(clippy::disallowed_methods, reason = "this is the place the rule names")]
    pub fn take_over(self) -> Error {
        use std::os::unix::process::CommandExt as _;
        let mut command = std::process::Command::new(&self.program);
        command.args(&self.args).envs(self.envs.iter().map(|(k, v)| (k, v)));
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        Error::io("this machine", "run", self.program(), &command.exec())
    }

    /// Runs it to its end with its standard output streamed to `sink`.
    pub async fn received(self, sink: &mut (dyn tokio::io::AsyncWrite + Send + Unpin)) -> Result<Output> {
        let mut child = self.spawn()?;
        let pipe = child.stdout.take();
        let receiving = async {
            if let Some(mut pipe) = pipe {
                // Whoever stops reading says why; a child that is not heard any more gets a closed pipe.
                let _ = tokio::io::copy(&mut pipe, sink).await;
            }
        };
        let (output, ()) = tokio::join!(child.wait_with_output(), receiving);
        let output = output.map_err(|error| Error::io("this machine", "wait for", self.program(), &error))?;
        Ok(Output { status: output.status.code(), stdout: Vec::new(), stderr: output.stderr })
    }

    /// Runs it to its end and hands over each line of both outputs as it comes, without its end of line; `None`
    /// where a signal ended it.
    pub async fn lines(self, mut line: impl FnMut(Side, &[u8])) -> Result<Option<i32>> {
        let program = self.program();
        let mut child = self.spawn()?;
        let (send, mut lines) = tokio::sync::mpsc::channel(64);
        let readers = [
            child.stdout.take().map(|pipe| tokio::spawn(pump(pipe, Side::Out, send.clone()))),
            child.stderr.take().map(|pipe| tokio::spawn(pump(pipe, Side::Err, send))),
        ];
        while let Some((side, bytes)) = lines.recv().await {
            line(side, &bytes);
        }
        for reader in readers.into_iter().flatten() {
            reader.abort();
        }
        let status = child.wait().await;
        Ok(status.map_err(|error| Error::io("this machine", "wait for", program, &error))?.code())
    }
}

/// Sends each line of `pipe` until its end.
async fn pump(pipe: impl AsyncRead + Unpin, side: Side, lines: tokio::sync::mpsc::Sender<(Side, Vec<u8>)>) {
    let mut pipe = BufReader::new(pipe);
    loop {
        let mut bytes = Vec::new();
        match (&mut pipe).take(LINE).read_until(b'\n', &mut bytes).await {
            Ok(read) if read > 0 => {
                if bytes.last() == Some(&b'\n') {
                    bytes.pop();
                }
                if lines.send((side, bytes)).await.is_err() {
                    return;
                }
            }
            _ => return,
        }
    }
}

/// A child that runs, its standard output a stream. It dies when this is dropped.
#[derive(Debug)]
pub struct Running {
    program: String,
    child: tokio::process::Child,
    feeding: tokio::task::JoinHandle<()>,
}

impl Child {
    /// Runs it to its end with standard input streamed from `stdin`.
    pub async fn fed(mut self, stdin: &mut (dyn AsyncRead + Send + Unpin)) -> Result<Output> {
        self.stdin = Some(Vec::new());
        let mut child = self.spawn()?;
        let pipe = child.stdin.take();
        let feeding = async {
            if let Some(mut pipe) = pipe {
                // A child that does not read all of it says so by its status.
                let _ = tokio::io::copy(stdin, &mut pipe).await;
            }
        };
        let (output, ()) = tokio::join!(child.wait_with_output(), feeding);
        let output = output.map_err(|error| Error::io("this machine", "wait for", self.program(), &error))?;
        Ok(Output { status: output.status.code(), stdout: output.stdout, stderr: output.stderr })
    }

    /// Runs it to its end and hands over each line of both its streams as it comes. Gives its status, and the end of
    /// what it said: `keep` bytes at least, twice as many at most. A program that is not there ends with 127.
    pub async fn told(
        self,
        keep: usize,
        lines: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<(Option<i32>, String)> {
        let mut merged = self.clone();
        merged.program = "sh".into();
        merged.args = ["-c", "exec \"$@\" 2>&1", "sh"].map(OsString::from).to_vec();
        merged.args.push(self.program);
        merged.args.extend(self.args);
        let mut running = merged.start()?;
        let (mut kept, mut line, mut buffer) = (Vec::new(), Vec::new(), vec![0; 16 << 10]);
        loop {
            let read = running.read(&mut buffer).await?;
            if read == 0 {
                break;
            }
            kept.extend_from_slice(&buffer[..read]);
            if kept.len() > 2 * keep {
                kept.drain(..kept.len() - keep);
            }
            for byte in &buffer[..read] {
                match byte {
                    b'\n' => lines(&String::from_utf8_lossy(&std::mem::take(&mut line))),
                    byte => line.push(*byte),
                }
            }
        }
        if !line.is_empty() {
            lines(&String::from_utf8_lossy(&line));
        }
        Ok((running.wait().await?, String::from_utf8_lossy(&kept).into_owned()))
    }

    /// Starts it. Standard error is thrown away: merge it in the command where it matters.
    pub fn start(self) -> Result<Running> {
        let mut child = self.spawn()?;
        drop(child.stderr.take());
        let feed = child.stdin.take().zip(self.stdin.clone());
        let feeding = tokio::spawn(async move {
            if let Some((mut pipe, bytes)) = feed {
                let _ = pipe.write_all(&bytes).await;
            }
        });
        Ok(Running { program: self.program(), child, feeding })
    }
}

impl Running {
    /// Reads some bytes of its standard output; 0 at the end.
    pub async fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        match &mut self.child.stdout {
            Some(stdout) => stdout.read(buf).await.map_err(|error| {
                Error::io("this machine", "read the output of", self.program.as_str(), &error)
            }),
            None => Ok(0),
        }
    }

    /// Waits for its end; `None` where a signal ended it.
    pub async fn wait(mut self) -> Result<Option<i32>> {
        let status = self.child.wait().await;
        self.feeding.abort();
        let status =
            status.map_err(|error| Error::io("this machine", "wait for", self.program.as_str(), &error))?;
        Ok(status.code())
    }
}

fn failed(program: &str, output: &Output) -> Error {
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(20)..].join("\n");
    let status = output.status.map_or("a signal".to_owned(), |code| format!("status {code}"));
    Error::new("this machine", "run", program, Class::Rejected, format!("it ended with {status}\n{tail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_child_gets_its_input_and_its_status_is_seen() {
        let output = Child::new("cat").stdin("hello").success().await.unwrap();
        assert_eq!(output.text(), "hello");
        let error = Child::new("false").success().await.unwrap_err();
        assert_eq!(error.class, Class::Rejected);
        let error = Child::new("no-such-program-here").output().await.unwrap_err();
        assert_eq!(error.class, Class::NotFound);
    }

    #[tokio::test]
    async fn both_outputs_come_line_by_line_and_none_is_endless() {
        let mut seen = Vec::new();
        let child =
            Child::new("sh").args(["-c", "echo one; sleep 0.1; echo two >&2; sleep 0.1; printf end; exit 3"]);
        let status = child.lines(|side, line| seen.push((side, String::from_utf8_lossy(line).into_owned())));
        assert_eq!(status.await.unwrap(), Some(3));
        let wanted = [(Side::Out, "one"), (Side::Err, "two"), (Side::Out, "end")];
        assert_eq!(seen, wanted.map(|(side, line)| (side, line.to_owned())));

        let mut longest = 0;
        let child = Child::new("head").args(["-c", "300000", "/dev/zero"]);
        child.lines(|_, line| longest = longest.max(line.len())).await.unwrap();
        assert_eq!(longest as u64, LINE);
    }

    #[tokio::test]
    async fn lines_of_standard_error_arrive_as_they_come() {
        let mut seen = Vec::new();
        let child = Child::new("sh").args(["-c", "echo one >&2; echo two >&2"]);
        child.watched(|line| seen.push(line.to_owned())).await.unwrap();
        assert_eq!(seen, ["one", "two"]);
    }
}
