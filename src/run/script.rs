//! The one script that runs a package in a guest, and the one that ends it.
//!
//! Fixed POSIX text; everything that varies arrives on standard input, one value a line, escaped for
//! `printf %b`: no value is ever part of a command. What the script says itself stands behind a record
//! separator and a nonce that a test cannot know. What a binary leaves behind is found by its process group, and
//! by a variable in its environment where it made a session of its own.

use super::container::NAME;
use crate::settings::component::Engine;

/// What is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardOrder {
    /// Random text that marks the script's own lines.
    pub nonce: String,
    /// File in the guest that gets the process group of the binary.
    pub pidfile: String,
    /// Working folder in the guest.
    pub folder: String,
    /// The test binary in the guest.
    pub binary: String,
    /// Who runs the container that it runs in; nobody where it runs in the guest itself.
    pub container: Option<Engine>,
    /// Whether the binary is to list its tests first, or do nothing else.
    pub list: Listing,
    /// Environment.
    pub env: Vec<(String, String)>,
    /// Arguments of the binary.
    pub args: Vec<String>,
}

/// What is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listing {
    /// Nothing: it is known what there is.
    No,
    /// What this argument of `-test.list` matches, before the tests run.
    First(String),
    /// The same, and no test runs.
    Only(String),
}

/// Reads an order from standard input and carries it out.
pub const RUN: &str = r#"
next() {
  IFS= read -r value || exit 97
  case $value in *\\*) value=$(printf '%bx' "$value"); value=${value%x} ;; esac
}
next; nonce=$value
say() { printf '\n\036kmt %s %s\n' "$nonce" "$*"; }
next; pidfile=$value
next; folder=$value
next; binary=$value
next; engine=$value
next; container=$value
next; list=$value
next; pattern=$value
next; count=$value
names=
while [ "$count" -gt 0 ]; do next; export "$value"; names="$names --env ${value%%=*}"; count=$((count - 1)); done
next; count=$value
set --
while [ "$count" -gt 0 ]; do next; set -- "$@" "$value"; count=$((count - 1)); done
mkdir -p "${pidfile%/*}" 2>/dev/null
cd "$folder" || { say refused folder; exit 0; }
[ -x "$binary" ] || { say refused binary; exit 0; }
exec 2>&1
if [ "$list" != no ]; then
  if [ -z "$engine" ]; then
    "$binary" -test.list "$pattern" </dev/null
  else
    "$engine" exec --workdir "$folder" $names "$container" "$binary" -test.list "$pattern" </dev/null
  fi
  say listed $?
  [ "$list" = first ] || exit 0
fi
IFS= read -r mark </proc/sys/kernel/random/uuid
mark=KMT_SHARD=$mark
if [ -z "$engine" ]; then
  setsid env "$mark" sh -c 'echo $$ >"$1"; shift; exec "$@"' sh "$pidfile" "$binary" "$@" </dev/null
  status=$?
else
  # Engines make a session of what they start; here it has another number than in the container.
  (
    until found=$(grep -lsF "$mark" /proc/[0-9]*/environ); do sleep 0.1; done
    found=${found%%/environ*}
    echo "${found#/proc/}" >"$pidfile"
  ) &
  finder=$!
  "$engine" exec --workdir "$folder" $names --env "$mark" "$container" "$binary" "$@" </dev/null
  status=$?
  kill "$finder" 2>/dev/null
fi
group=none
[ ! -s "$pidfile" ] || IFS= read -r group <"$pidfile"
leaked=0
if kill -0 "-$group" 2>/dev/null; then leaked=1; kill -KILL "-$group" 2>/dev/null; fi
for found in $(grep -lsF "$mark" /proc/[0-9]*/environ); do
  process=${found%/environ}
  if kill -KILL "${process#/proc/}" 2>/dev/null; then leaked=1; fi
done
rm -f "$pidfile"
say exited "$status" "$leaked"
"#;

/// `sh -c END sh SIGNAL PIDFILE`: signals the process group of a binary.
pub const END: &str = r#"[ -r "$2" ] && kill "-$1" "-$(cat "$2")""#;

/// `sh -c ASK_KERNEL sh FILE`: SysRq for blocked tasks (`w`) and memory (`m`), where the kernel has it.
pub const ASK_KERNEL: &str = r#"[ -w "$1" ] && for key in w m; do echo "$key" >"$1"; done"#;

/// A value as one line for `printf %b`.
fn line(value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 1);
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            c => out.push(c),
        }
    }
    out.push('\n');
    out
}

impl ShardOrder {
    /// The order as standard input of [`RUN`].
    pub fn stdin(&self) -> Vec<u8> {
        let mut text = String::new();
        let mut put = |value: &str| text.push_str(&line(value));
        put(&self.nonce);
        put(&self.pidfile);
        put(&self.folder);
        put(&self.binary);
        put(self.container.map_or("", Engine::program));
        put(NAME);
        let (list, pattern) = match &self.list {
            Listing::No => ("no", ""),
            Listing::First(pattern) => ("first", pattern.as_str()),
            Listing::Only(pattern) => ("only", pattern.as_str()),
        };
        put(list);
        put(pattern);
        put(&self.env.len().to_string());
        for (name, value) in &self.env {
            put(&format!("{name}={value}"));
        }
        put(&self.args.len().to_string());
        for arg in &self.args {
            put(arg);
        }
        text.into_bytes()
    }
}

/// What the script said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// The list of tests is complete; status of the listing.
    Listed(i32),
    /// The binary ended: status as a shell sees it, and whether it left processes behind.
    Exited(i32, bool),
    /// It could not be started: what was missing.
    Refused(String),
}

/// Parts the script's own lines from the output of the binary. Bytes go in, runs of output and sayings come
/// out in order.
#[derive(Debug)]
pub struct Splitter {
    marker: Vec<u8>,
    held: Vec<u8>,
    /// Whether a newline was let go that may have been the beginning of a line of the script.
    lent: bool,
}

/// A piece of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Output of the binary.
    Output(Vec<u8>),
    /// A line of the script.
    Said(Said),
}

impl Splitter {
    /// Knows the script's lines by `nonce`.
    pub fn new(nonce: &str) -> Splitter {
        Splitter { marker: format!("\n\x1ekmt {nonce} ").into_bytes(), held: Vec::new(), lent: false }
    }

    /// Whether a newline is held back that may be the beginning of a line of the script, and nothing else.
    pub fn lingers(&self) -> bool {
        self.held == b"\n" && !self.lent
    }

    /// Lets a newline go that nothing has followed for a while: what it ends must not wait for more.
    pub fn linger(&mut self) -> Option<Vec<u8>> {
        self.lingers().then(|| {
            self.lent = true;
            std::mem::take(&mut self.held)
        })
    }

    /// Takes bytes; holds back only what may be the beginning of a line of the script.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Piece> {
        let mut pieces = Vec::new();
        if self.lent && self.held.is_empty() && !bytes.is_empty() {
            // It counts for the script's line, and not twice for the output.
            self.lent = bytes[0] == 0x1e;
            if self.lent {
                self.held.push(b'\n');
            }
        }
        self.held.extend_from_slice(bytes);
        loop {
            let Some(at) = find(&self.held, &self.marker) else {
                let keep = partial(&self.held, &self.marker);
                let ready = self.held.len() - keep;
                self.give(ready, &mut pieces);
                return pieces;
            };
            let from = at + self.marker.len();
            let Some(end) = self.held[from..].iter().position(|b| *b == b'\n') else {
                self.give(at, &mut pieces);
                return pieces;
            };
            let words = String::from_utf8_lossy(&self.held[from..from + end]).into_owned();
            self.give(at, &mut pieces);
            self.lent = false;
            self.held.drain(..from - at + end + 1);
            match said(&words) {
                Some(saying) => pieces.push(Piece::Said(saying)),
                None => pieces.push(Piece::Output(words.into_bytes())),
            }
        }
    }

    fn give(&mut self, count: usize, pieces: &mut Vec<Piece>) {
        let mut output: Vec<u8> = self.held.drain(..count).collect();
        if count > 0 && std::mem::take(&mut self.lent) {
            output.remove(0);
        }
        if !output.is_empty() {
            pieces.push(Piece::Output(output));
        }
    }

    /// What was held back when the stream ended.
    pub fn rest(&mut self) -> Vec<u8> {
        let from = usize::from(std::mem::take(&mut self.lent) && !self.held.is_empty());
        std::mem::take(&mut self.held).split_off(from)
    }
}

fn said(words: &str) -> Option<Said> {
    let mut words = words.split(' ');
    match words.next()? {
        "listed" => Some(Said::Listed(words.next()?.parse().ok()?)),
        "exited" => Some(Said::Exited(words.next()?.parse().ok()?, words.next()? == "1")),
        "refused" => Some(Said::Refused(words.next()?.to_owned())),
        _ => None,
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// Length of the longest end of `text` that `marker` begins with.
fn partial(text: &[u8], marker: &[u8]) -> usize {
    (1..marker.len().min(text.len() + 1)).rev().find(|n| text.ends_with(&marker[..*n])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::Stdio;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "the script is tried on a real shell")]
    fn carry_out(order: &ShardOrder) -> Vec<Piece> {
        let mut child = std::process::Command::new("sh")
            .args(["-c", RUN])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&order.stdin()).unwrap();
        let output = child.wait_with_output().unwrap();
        let mut splitter = Splitter::new(&order.nonce);
        output.stdout.chunks(3).flat_map(|chunk| splitter.feed(chunk)).collect()
    }

    fn order(binary: &str, args: &[&str]) -> ShardOrder {
        ShardOrder {
            nonce: "n0".to_owned(),
            pidfile: format!("/tmp/kmt-script-{}-{binary}.pid", std::process::id()).replace("/bin/", ""),
            folder: "/".to_owned(),
            binary: binary.to_owned(),
            container: None,
            list: Listing::No,
            env: vec![("TRICKY".to_owned(), "a\nb $(touch /tmp/no) \\n 'c\n".to_owned())],
            args: args.iter().map(|a| (*a).to_owned()).collect(),
        }
    }

    fn text(pieces: &[Piece]) -> String {
        let bytes: Vec<u8> = pieces
            .iter()
            .flat_map(|p| if let Piece::Output(b) = p { b.clone() } else { Vec::new() })
            .collect();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn values_reach_the_binary_as_they_are() {
        let pieces = carry_out(&order(
            "/bin/sh",
            &["-c", "printf '%s|%s' \"$TRICKY\" \"$1\"; exit 3", "sh", "$HOME `x`"],
        ));
        assert_eq!(text(&pieces), "a\nb $(touch /tmp/no) \\n 'c\n|$HOME `x`");
        assert_eq!(pieces.last(), Some(&Piece::Said(Said::Exited(3, false))));
    }

    #[test]
    fn a_process_left_behind_is_seen_and_ended() {
        for left in ["sleep 600 & echo left", "setsid sleep 600 & echo left"] {
            let pieces = carry_out(&order("/bin/sh", &["-c", left]));
            assert_eq!(text(&pieces), "left\n");
            assert_eq!(pieces.last(), Some(&Piece::Said(Said::Exited(0, true))), "{left}");
        }
    }

    #[test]
    fn a_signal_and_a_missing_binary_are_told_apart() {
        let pieces = carry_out(&order("/bin/sh", &["-c", "kill -9 $$"]));
        assert_eq!(pieces.last(), Some(&Piece::Said(Said::Exited(137, false))));
        let pieces = carry_out(&order("/bin/no-such-binary", &[]));
        assert_eq!(pieces, [Piece::Said(Said::Refused("binary".to_owned()))]);
    }

    #[test]
    fn a_newline_that_lingers_is_let_go_once() {
        for (after, output, said) in [
            (&b"\x1ekmt n0 exited 0 0\n"[..], "one\n", 1),
            (b"two", "one\ntwo", 0),
            (b"\x1enot ours\n\n\x1ekmt n0 exited 0 0\n", "one\n\x1enot ours\n", 1),
            (b"", "one\n", 0),
        ] {
            let mut splitter = Splitter::new("n0");
            let mut pieces = splitter.feed(b"one\n");
            assert_eq!(text(&pieces), "one");
            pieces.extend(splitter.linger().map(Piece::Output));
            assert_eq!((text(&pieces).as_str(), splitter.linger()), ("one\n", None));
            pieces.extend(after.chunks(1).flat_map(|byte| splitter.feed(byte)));
            pieces.push(Piece::Output(splitter.rest()));
            assert_eq!(text(&pieces), output);
            assert_eq!(pieces.iter().filter(|piece| matches!(piece, Piece::Said(_))).count(), said);
        }
    }

    #[test]
    fn a_stream_parts_the_same_way_however_it_is_cut() {
        let stream = b"one\n\n\x1ekmt other 1\n\x1ekmt n0 listed 0\ntwo\n\n\x1ekmt n0 exited 137 1\nlate";
        let whole = |size: usize| {
            let mut splitter = Splitter::new("n0");
            let mut pieces: Vec<Piece> = stream.chunks(size).flat_map(|c| splitter.feed(c)).collect();
            pieces.push(Piece::Output(splitter.rest()));
            let said: Vec<Piece> = pieces.iter().filter(|p| matches!(p, Piece::Said(_))).cloned().collect();
            (text(&pieces), said)
        };
        for size in 1..stream.len() {
            assert_eq!(whole(size), whole(stream.len()), "{size}");
        }
        assert_eq!(whole(1).0, "one\n\n\x1ekmt other 1two\nlate");
    }
}
