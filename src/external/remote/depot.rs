//! Parcels for guests on a host: brought there once, then fed to each guest by the host's own OpenSSH client.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use flate2::Compression;
use futures_util::future::BoxFuture;
use tempfile::TempPath;
use tokio::sync::Mutex;

use super::files;
use super::shell::Shell;
use super::{Brought, Depot, Login};
use crate::external::process::{Output, shell_quoted};
use crate::external::{Class, Error, Result};

/// Says whether a parcel is there, and how large. `$1` folder of parcels, `$2` its name. Those that nobody wanted for a
/// day go.
const HAVE: &str = r#"
mkdir -p "$1" && chmod 700 "$1" || exit
find "$1" -type f -mmin +1440 -exec rm -f {} + 2>/dev/null
if [ -f "$1/$2" ]; then touch "$1/$2"; stat -c "have %s" "$1/$2"; else echo none; fi"#;
/// Gives what follows an agent that lives as long as it does.
const WITH_AGENT: &str = r#"exec ssh-agent sh -c "$@""#;
/// Feeds a parcel to a command in a guest. Standard input is the private key; `$1` the parcel, `$2` and `$3` address and
/// port, `$4` the guest's host key, `$5` the command. Its status is the command's; 254 where there was no connection.
const FEED: &str = r#"
ssh-add -q - 2>/dev/null || { echo "no agent takes the key" >&2; exit 253; }
d=$(mktemp -d) || exit 253; trap 'rm -rf "$d"' EXIT
printf 'kmt-guest %s\n' "$4" >"$d/known"
ssh -F /dev/null -T -p "$3" -o BatchMode=yes -o ControlPath=none -o LogLevel=ERROR -o ConnectTimeout=40 \
  -o ServerAliveInterval=15 -o StrictHostKeyChecking=yes -o HostKeyAlias=kmt-guest -o HostKeyAlgorithms=ssh-ed25519 \
  -o UserKnownHostsFile="$d/known" -o GlobalKnownHostsFile=/dev/null -o KexAlgorithms=curve25519-sha256 \
  -o Ciphers=aes128-gcm@openssh.com -o PreferredAuthentications=publickey root@"$2" -- "$5" <"$1"
r=$?; [ "$r" = 255 ] && r=254; exit "$r""#;
/// Status of [`FEED`] where the host could not begin.
const UNREADY: i32 = 253;
/// Where the guest did not let it in.
const UNCONNECTED: i32 = 254;

/// The parcels of one host.
#[derive(Debug)]
pub(super) struct Parcels {
    shell: Arc<Shell>,
    folder: PathBuf,
    /// Held while one is brought.
    turn: Mutex<()>,
}

impl Parcels {
    pub(super) fn new(shell: Arc<Shell>, folder: &Path) -> Parcels {
        Parcels { shell, folder: folder.join("parcels"), turn: Mutex::default() }
    }

    fn at(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }
}

#[async_trait]
impl Depot for Parcels {
    async fn bring(&self, name: &str, make: BoxFuture<'_, Result<TempPath>>) -> Result<Brought> {
        let _turn = self.turn.lock().await;
        let folder = self.folder.display().to_string();
        let asked = self.shell.must("look at files of", HAVE, &[&folder, name], Vec::new()).await?;
        if let Some(size) = asked.text().trim().strip_prefix("have ").and_then(|size| size.parse().ok()) {
            return Ok(Brought { sent: 0, size });
        }
        let file = make.await?;
        let size = std::fs::metadata(&file).map_err(|error| files::unreadable(&file, &error))?.len();
        let digest = files::hashed(&file).await?;
        // It is compressed already, where its guests can undo that.
        let packing = Compression::none();
        let sent = files::send(&self.shell, &file, &self.at(name), &digest, "0600", packing).await?;
        Ok(Brought { sent, size })
    }

    async fn feed(&self, name: &str, guest: &Login, argv: &[&str]) -> Result<Output> {
        let line: Vec<String> = argv.iter().map(|word| shell_quoted(word)).collect();
        let (parcel, line) = (self.at(name), line.join(" "));
        let (address, port) = (guest.address.to_string(), guest.port.to_string());
        let key = std::fs::read(&guest.key).map_err(|error| files::unreadable(&guest.key, &error))?;
        let args = [FEED, "kmt", &parcel, &address, &port, guest.host_key.trim(), &line];
        let output = self.shell.run(WITH_AGENT, &args, key).await?;
        let words = || String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let place = || format!("{address}:{port} behind {}", self.shell.way().alias);
        match output.status {
            Some(UNCONNECTED) => {
                Err(Error::new("the host", "log in to", place(), Class::Unreachable, words()))
            }
            Some(UNREADY | 127) => {
                Err(Error::new("the host", "log in to", place(), Class::NotFound, words())
                    .hint("as root there: apt-get install openssh-client"))
            }
            _ => Ok(output),
        }
    }
}
