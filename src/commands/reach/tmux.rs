//! `stack tmux`: a session with one window a host and one pane a machine.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;

use kmt_reporters::text::plural;

use super::super::say;
use super::{of_stack, unreachable};
use crate::error::{Failure, Kind, Result};
use crate::external::process::Child;
use crate::external::transport::Terminal;
use crate::external::{self, Class};
use crate::machine::Parts;
use crate::settings::Settings;
use crate::stack::alias::{Named, place};
use crate::world::World;

/// What a pane runs: the words that follow, and after a failure a line that can be read.
const PANE: &str =
    r#""$@" || { printf '\n[ended with status %s; Enter closes this pane]\n' "$?"; read -r _; }"#;

/// A pane to be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pane {
    label: String,
    words: Vec<String>,
}

/// Makes the session anew, and attaches to it where there is a terminal.
///
/// # Errors
/// No such stack, no machine that runs, or no tmux.
pub(super) async fn tmux(
    settings: &Settings,
    world: &World,
    stack: Option<&str>,
    detach: bool,
) -> Result<u8> {
    let (stack, machines) = of_stack(settings, stack).await?;
    let windows = windows(world, &machines).await?;
    let Some(session) =
        machines.first().map(|named| session_name(&named.word)).filter(|_| !windows.is_empty())
    else {
        let failure = format!("no machine of stack `{}` runs", stack.name);
        return Err(Failure::new(Kind::NothingSelected, failure)
            .hint("`kmt-run run --vms debian_12-local-distro` boots one"));
    };
    let id = make(&session, &windows).await?;
    let panes = windows.values().map(Vec::len).sum::<usize>();
    say(&format!("{:>12} tmux session {session}: {}", "Made", plural(panes as u64, "machine")));
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    if detach || !terminal {
        say(&format!("{:>12} attach to it: tmux attach-session -t ={session}", "next:"));
        return Ok(0);
    }
    let inside = std::env::var_os("TMUX").is_some_and(|value| !value.is_empty());
    let verb = if inside { "switch-client" } else { "attach-session" };
    Err(Failure::outside(Kind::Infrastructure, &Child::new("tmux").args([verb, "-t", &id]).take_over()))
}

/// The panes of each window, by the name of the window. Machines that do not run are named and left out.
async fn windows(world: &World, machines: &[Named]) -> Result<BTreeMap<&'static str, Vec<Pane>>> {
    let mut windows: BTreeMap<&'static str, Vec<Pane>> = BTreeMap::new();
    for named in machines {
        if let Some(failure) = unreachable(world, named).await {
            say(&format!("{:>12} {}", "Left out", failure.message));
            continue;
        }
        let route = Parts::route_of(&named.stack, &named.machine);
        let words = world.transport.program(&route, None, Terminal::Wanted).await?.words();
        windows.entry(place(&named.machine.cell)).or_default().push(Pane { label: named.label(), words });
    }
    Ok(windows)
}

/// The name of a session: what has a meaning in tmux's targets becomes `_`.
fn session_name(word: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' };
    format!("kmt-{}", word.chars().map(safe).collect::<String>())
}

/// Makes the session, in place of one of its name; its id.
async fn make(session: &str, windows: &BTreeMap<&'static str, Vec<Pane>>) -> Result<String> {
    // There may be none of that name, or no server at all: the next call says what is wrong, if anything is.
    let target = format!("={session}");
    let ended = Child::new("tmux").args(["kill-session", "-t", &target]).output().await;
    ended.map_err(without_tmux)?;
    let mut id = String::new();
    for (name, panes) in windows {
        let mut window = String::new();
        for pane in panes {
            let format = "#{session_id} #{window_id} #{pane_id}";
            let made = match (id.as_str(), window.as_str()) {
                // Room for many panes; it takes the size of the terminal that attaches.
                ("", _) => ask(&["new-session", "-d", "-s", session, "-n", name, "-x", "400", "-y", "200"]),
                (id, "") => ask(&["new-window", "-d", "-t", &format!("{id}:"), "-n", name]),
                (_, window) => ask(&["split-window", "-d", "-t", window]),
            };
            let made = made.args(["-P", "-F", format, "--", "sh", "-c", PANE, "kmt-pane"]).args(&pane.words);
            let ids = run(made).await?;
            let mut ids = ids.split_whitespace().map(str::to_owned);
            let (of_session, of_window, of_pane) = (ids.next(), ids.next(), ids.next().unwrap_or_default());
            id = of_session.unwrap_or(id);
            window = of_window.unwrap_or(window);
            run(ask(&["set-option", "-p", "-t", &of_pane, "@machine", &pane.label])).await?;
            run(ask(&["select-layout", "-t", &window, "tiled"])).await?;
        }
        for (option, value) in [
            ("pane-border-status", "top"),
            ("pane-border-format", " #{@machine} "),
            ("automatic-rename", "off"),
        ] {
            run(ask(&["set-option", "-w", "-t", &window, option, value])).await?;
        }
    }
    Ok(id)
}

fn ask(words: &[&str]) -> Child {
    Child::new("tmux").args(words)
}

async fn run(child: Child) -> Result<String> {
    Ok(child.success().await.map_err(without_tmux)?.text())
}

fn without_tmux(error: external::Error) -> external::Error {
    if error.class == Class::NotFound { error.hint("apt-get install tmux") } else { error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_has_a_name_that_tmux_takes_as_it_is() {
        assert_eq!(session_name("main"), "kmt-main");
        assert_eq!(session_name("v1.2+x:y"), "kmt-v1_2_x_y");
    }
}
