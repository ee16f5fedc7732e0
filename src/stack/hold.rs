//! The right to change a stack as a whole: one command at a time, given back by whatever ends its process.

use std::fs::{File, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::time::Duration;

use super::Stack;
use crate::error::{Failure, Kind, Result};

/// Name of the lock in a stack's folder; its text says who has it.
const FILE: &str = "hold";
/// How often a command that waits looks again.
const LOOK: Duration = Duration::from_millis(100);

/// What to do while another command changes the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Wait for it.
    Wait,
    /// Fail at once.
    None,
}

/// The right to change a stack; given back when dropped, also by a crash.
#[derive(Debug)]
pub struct Hold {
    _file: File,
}

impl Stack {
    /// Takes the right to change the stack; `tell` hears, once, for whom it is waited.
    ///
    /// # Errors
    /// Another command has it and there is no patience, or the stack is gone after the wait.
    pub async fn hold(&self, patience: Patience, tell: &(dyn Fn(&str) + Sync)) -> Result<Hold> {
        let path = self.folder.join(FILE);
        let mut told = false;
        loop {
            let file = File::options().create(true).truncate(false).read(true).write(true).open(&path);
            let mut file = file.map_err(|error| match Stack::is_at(&self.folder) {
                true => Failure::file("open", &path, &error),
                false => self.gone(),
            })?;
            match file.try_lock() {
                Ok(()) if !Stack::is_at(&self.folder) => return Err(self.gone()),
                Ok(()) => {
                    let who = format!("process {}: {}\n", std::process::id(), command());
                    let written = file.set_len(0).and_then(|()| file.write_all(who.as_bytes()));
                    written.map_err(|error| Failure::file("write", &path, &error))?;
                    return Ok(Hold { _file: file });
                }
                Err(TryLockError::Error(error)) => return Err(Failure::file("lock", &path, &error)),
                Err(TryLockError::WouldBlock) => {}
            }
            let who = holder(&mut file);
            if patience == Patience::None {
                return Err(Failure::new(
                    Kind::Infrastructure,
                    format!("stack `{}` is being changed by {who}", self.name),
                )
                .hint("without `--no-wait` this command waits for it"));
            }
            if !told {
                tell(&format!("stack `{}` is being changed by {who}; waiting for it", self.name));
                told = true;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn gone(&self) -> Failure {
        Failure::usage(format!("no stack `{}`: it was removed meanwhile", self.name))
            .hint("kmt-run stack list")
    }
}

/// Who has the lock, as it says itself.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.take(200).read_to_string(&mut text));
    match text.trim() {
        who if read.is_ok() && !who.is_empty() => who.escape_debug().to_string(),
        _ => "another kmt-run".to_owned(),
    }
}

/// This command, without its options.
fn command() -> String {
    let words =
        std::env::args().skip(1).filter(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == '-'));
    let words: Vec<String> = words.take_while(|word| !word.starts_with('-')).take(2).collect();
    format!("kmt-run {}", words.join(" "))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Mutex;

    use super::*;
    use crate::settings::Home;

    #[tokio::test]
    async fn one_at_a_time_and_a_lock_ends_with_its_holder() {
        let temp = tempfile::tempdir().unwrap();
        let stack = Stack::open_or_create(&Home::at(temp.path()), "s", Path::new("/r")).unwrap();
        let told = Mutex::new(Vec::new());
        let tell = |line: &str| told.lock().unwrap().push(line.to_owned());
        let first = stack.hold(Patience::None, &tell).await.unwrap();
        let refused = stack.hold(Patience::None, &tell).await.unwrap_err();
        assert!(refused.message.contains(&format!("by process {}", std::process::id())), "{refused:?}");
        let waiting = stack.hold(Patience::Wait, &tell);
        tokio::pin!(waiting);
        let early = tokio::time::timeout(LOOK * 3, &mut waiting).await;
        assert!(early.is_err(), "the lock was given twice");
        assert_eq!(told.lock().unwrap().len(), 1, "said once");
        drop(first);
        let second = waiting.await.unwrap();
        std::fs::remove_dir_all(&stack.folder).unwrap();
        drop(second);
        let gone = stack.hold(Patience::Wait, &tell).await.unwrap_err();
        assert!(gone.message.contains("removed meanwhile"), "{gone:?}");
    }
}
