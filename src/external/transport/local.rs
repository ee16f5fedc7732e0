//! This machine as if it were a guest: commands run here, in a folder of their own.

use std::path::PathBuf;

use async_trait::async_trait;
use tokio::io::AsyncRead;

use super::{Connection, RemoteStream};
use crate::external::process::{Child, Output, Running};
use crate::external::{Class, Error, Result};

/// Runs commands on this machine.
#[derive(Debug, Clone)]
pub struct Local {
    folder: PathBuf,
}

impl Local {
    /// Commands run in `folder`.
    pub fn new(folder: impl Into<PathBuf>) -> Local {
        Local { folder: folder.into() }
    }

    fn child(&self, argv: &[&str]) -> Result<Child> {
        let Some((program, args)) = argv.split_first() else {
            return Err(Error::new("this machine", "run", "", Class::Rejected, "an empty command"));
        };
        Ok(Child::new(program).args(args).folder(&self.folder))
    }
}

#[async_trait]
impl Connection for Local {
    async fn run(&self, argv: &[&str], stdin: Vec<u8>) -> Result<Output> {
        self.child(argv)?.stdin(stdin).output().await
    }

    async fn feed(&self, argv: &[&str], stdin: &mut (dyn AsyncRead + Send + Unpin)) -> Result<Output> {
        self.child(argv)?.fed(stdin).await
    }

    async fn stream(&self, argv: &[&str], stdin: Vec<u8>) -> Result<Box<dyn RemoteStream>> {
        Ok(Box::new(Stream(self.child(argv)?.stdin(stdin).start()?)))
    }

    async fn close(&self) {}
}

#[derive(Debug)]
struct Stream(Running);

#[async_trait]
impl RemoteStream for Stream {
    async fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        self.0.read(buf).await
    }

    async fn wait(self: Box<Self>) -> Result<Option<i32>> {
        self.0.wait().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn input_is_fed_and_output_streams() {
        let local = Local::new("/");
        let mut input: &[u8] = b"hello";
        let output = local.feed(&["cat"], &mut input).await.unwrap();
        assert_eq!(output.text(), "hello");
        let mut stream = local.stream(&["sh", "-c", "cat; pwd; exit 3"], b"in ".to_vec()).await.unwrap();
        let (mut seen, mut buf) = (Vec::new(), [0; 64]);
        loop {
            match stream.read(&mut buf).await.unwrap() {
                0 => break,
                read => seen.extend_from_slice(&buf[..read]),
            }
        }
        assert_eq!(seen, b"in /\n");
        assert_eq!(stream.wait().await.unwrap(), Some(3));
        assert!(local.run(&[], Vec::new()).await.is_err());
    }
}
