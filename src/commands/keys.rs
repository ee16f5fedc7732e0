//! What goes on, on request: by keys where the board is on a terminal, by SIGUSR1 everywhere.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use kmt_reporters::escape_line;
use kmt_reporters::terminal::Ask;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::signals::Cancel;
use crate::record::{Record, tail};
use crate::stack::Stack;

/// What the keys do.
const HELP: &str =
    "        Keys Enter: what runs   t: with its last lines   c: a machine's console   q: cancel\n";
/// For so long nobody needs to be told again.
const HELPED: Duration = Duration::from_secs(2);
/// Lines of a console that are shown, and bytes in which they are looked for.
const CONSOLE: (usize, u64) = (12, 8192);
/// How long a key may wait before somebody looks whether the terminal is still ours.
const GLANCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// Listens for SIGUSR1, and for keys where a person watches the board; what it returns gives the terminal back.
pub(super) fn listen(record: &Arc<Record>, stack: &Stack, cancel: Cancel, watched: bool) -> Keyboard {
    let (pressed, mut keys) = mpsc::unbounded_channel();
    if watched && std::io::stdin().is_terminal() {
        std::thread::spawn(move || read_keys(&pressed));
    }
    let (record, consoles) = (Arc::clone(record), Consoles { stack: stack.clone(), next: 0 });
    tokio::spawn(async move {
        let mut consoles = consoles;
        let mut helped: Option<Instant> = None;
        // A process that may not listen dies by the signal, as if it had not asked.
        let Ok(mut asked) = signal(SignalKind::user_defined1()) else { return };
        loop {
            tokio::select! {
                Some(()) = asked.recv() => record.show_now(Ask::Tests),
                Some(key) = keys.recv() => match key {
                    b'\n' | b'\r' => record.show_now(Ask::Brief),
                    b't' => record.show_now(Ask::Tests),
                    b'c' => record.say(&consoles.turn()),
                    b'q' => cancel.request("q"),
                    // What is pasted is many keys.
                    _ if helped.is_some_and(|last| last.elapsed() < HELPED) => {}
                    _ => {
                        helped = Some(Instant::now());
                        record.say(HELP);
                    }
                },
                else => return,
            }
        }
    });
    Keyboard
}

/// The consoles of the stack's machines, one after the other.
struct Consoles {
    stack: Stack,
    next: usize,
}

impl Consoles {
    /// The end of the next one.
    fn turn(&mut self) -> String {
        let machines: Vec<String> =
            self.stack.record().map(|record| record.machines.into_keys().collect()).unwrap_or_default();
        let Some(machine) = machines.get(self.next % machines.len().max(1)) else {
            return "     Console no machine is there yet\n".to_owned();
        };
        let turn = self.next % machines.len() + 1;
        self.next += 1;
        let mut text = format!("     Console {} ({turn} of {})\n", escape_line(machine), machines.len());
        let file: PathBuf = self.stack.machine_folder(machine).join("console.log");
        let (lines, bytes) = CONSOLE;
        let content = tail(&file, bytes).unwrap_or_default();
        let said: Vec<String> =
            content.lines().map(escape_line).filter(|line| !line.trim().is_empty()).collect();
        for line in &said[said.len().saturating_sub(lines)..] {
            let _ = writeln!(text, "             {line}");
        }
        text
    }
}

/// How the terminal was before keys were read one by one.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Gives the terminal back when it goes.
#[derive(Debug)]
pub(super) struct Keyboard;

impl Drop for Keyboard {
    fn drop(&mut self) {
        give_back();
    }
}

/// Puts the terminal as it was.
pub(super) fn give_back() {
    if let Some(before) = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take() {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &before);
    }
}

/// Reads keys while we are in the foreground: in the background reading would stop the process.
fn read_keys(pressed: &mpsc::UnboundedSender<u8>) {
    let ours = || tcgetpgrp(std::io::stdin()).is_ok_and(|group| group == rustix::process::getpgrp());
    loop {
        if pressed.is_closed() {
            return;
        }
        if !ours() {
            std::thread::sleep(Duration::from_millis(500));
            continue;
        }
        if key_by_key().is_none() {
            return;
        }
        let stdin = std::io::stdin();
        let mut waits = [PollFd::new(&stdin, PollFlags::IN)];
        match poll(&mut waits, Some(&GLANCE)) {
            Ok(1..) if ours() => {}
            Ok(_) | Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return,
        }
        let mut key = [0];
        // Not by a buffer: what waits there would not wake us.
        match rustix::io::read(&stdin, &mut key) {
            Ok(1) => drop(pressed.send(key[0])),
            Err(rustix::io::Errno::INTR) => {}
            Ok(_) | Err(_) => return,
        }
    }
}

/// Has the terminal give keys at once, without showing them; Ctrl-C and Ctrl-Z stay what they are.
fn key_by_key() -> Option<()> {
    let mut mode = tcgetattr(std::io::stdin()).ok()?;
    if !mode.local_modes.contains(LocalModes::ICANON) {
        return Some(());
    }
    BEFORE.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| mode.clone());
    mode.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
    tcsetattr(std::io::stdin(), OptionalActions::Now, &mode).ok()
}
