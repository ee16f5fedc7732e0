//! What a host is and has, by one look; and how guests run on it, by really running one.

use kmt_reporters::event::Arch;

use super::RemoteHost;
use super::libvirt::arch_of;
use super::shell::Shell;
use crate::external::hypervisor::Acceleration;
use crate::external::hypervisor::probe::{self, Tried};
use crate::external::{Class, Error, Result};

/// One line a fact. libvirt's daemons may be one or several, each with its socket.
const LOOK: &str = r#"
echo "machine $(uname -m)"; echo "cores $(nproc)"
sed -n 's/^MemAvailable: *\([0-9]*\) kB/memory \1/p' /proc/meminfo
for s in /run/libvirt/libvirt-sock /run/libvirt/virtqemud-sock /var/run/libvirt/libvirt-sock; do
  if [ -S "$s" ]; then [ -w "$s" ] && echo "socket $s" || echo "closed $s"; fi
done
command -v qemu-img >/dev/null || echo "missing qemu-img"
command -v qemu-system-"$1" >/dev/null || echo "missing qemu-system-$1"
mkdir -p "$2" 2>/dev/null; [ -w "$2" ] || echo "unwritable $2"
echo "free $(df -Pk "$2" 2>/dev/null | awk 'NR == 2 { print int($4 / 1024) }')"
echo "key $(cat /proc/sys/kernel/random/boot_id) $(stat -Lc %i.%s.%Y "$(command -v qemu-system-"$1")" 2>/dev/null) $(stat -c %a.%g /dev/kvm 2>/dev/null)""#;
/// Runs a firmware, which is its standard input, as file `rom`: `$1` its seconds, then QEMU and its arguments.
const TRY: &str = r#"
d=$(mktemp -d) || exit; trap 'rm -rf "$d"' EXIT; cat >"$d/rom"
s=$1; shift; cd "$d" || exit; timeout "$s" "$@" </dev/null >/dev/null; r=$?; echo "ran $r""#;

/// What a look at a host shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    /// Architecture.
    pub(super) arch: Arch,
    /// Processors.
    pub(super) cores: u32,
    /// Memory that could be given to guests now, MiB.
    pub(super) memory_mib: u64,
    /// Room on the disk where images and machines lie, MiB, where it says.
    pub(super) free_mib: Option<u64>,
    /// Socket of libvirt's daemon.
    pub(super) socket: String,
    /// What the acceleration depends on.
    pub(super) key: String,
}

/// Looks at a host.
pub(super) async fn facts(shell: &Shell, host: &RemoteHost) -> Result<Facts> {
    let folder = host.folder.display().to_string();
    let seen = shell.must("look at", LOOK, &[probe::qemu_arch(host.arch), &folder], Vec::new()).await?;
    read(&seen.text(), host)
}

fn read(text: &str, host: &RemoteHost) -> Result<Facts> {
    let lacks = |class, words: String, hint: String| {
        Err(Error::new("the host", "give machines", &host.name, class, words).hint(hint))
    };
    let one = |key: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        lines.find(|(name, _)| *name == key).map(|(_, value)| value.trim().to_owned())
    };
    let (Some(arch), Some(cores), Some(memory)) = (
        one("machine").and_then(|machine| arch_of(&machine)),
        one("cores").and_then(|cores| cores.parse().ok()),
        one("memory").and_then(|kib| kib.parse::<u64>().ok()),
    ) else {
        return Err(Error::new(
            "the host",
            "look at",
            &host.name,
            Class::Unintelligible,
            "it does not say what it is",
        ));
    };
    let install = "as root there: apt-get install qemu-system qemu-utils libvirt-daemon-system";
    if let Some(program) = one("missing") {
        return lacks(Class::NotFound, format!("it has no `{program}`"), install.to_owned());
    }
    if let Some(folder) = one("unwritable") {
        let hint = format!(
            "as root there: install -d -m 711 -o {} {folder}; or `folder = …` of its `[[host]]`",
            host.user
        );
        return lacks(Class::Denied, format!("`{}` cannot write `{folder}` there", host.user), hint);
    }
    match (one("socket"), one("closed")) {
        (Some(socket), _) => Ok(Facts {
            arch,
            cores,
            memory_mib: memory / 1024,
            free_mib: one("free").and_then(|free| free.parse().ok()),
            socket,
            key: one("key").unwrap_or_default(),
        }),
        (None, Some(socket)) => lacks(
            Class::Denied,
            format!("libvirt is there, and `{}` may not use `{socket}`", host.user),
            format!("as root there: usermod -aG libvirt {}", host.user),
        ),
        (None, None) => lacks(Class::NotFound, "no libvirt listens on it".to_owned(), install.to_owned()),
    }
}

/// How guests run on the host, remembered until QEMU, the device or its boot changes.
pub(super) async fn acceleration(shell: &Shell, facts: &Facts) -> Result<Acceleration> {
    let cache = &shell.way().cache;
    if let Some(known) = probe::remembered(cache, facts.arch, &facts.key) {
        return Ok(known);
    }
    let found = probe::climb(facts.arch, probe::Native::Yes, |tried: Tried| {
        let arch = facts.arch;
        async move {
            let seconds = tried.patience.as_secs().to_string();
            let words = tried.words(arch, "rom");
            let args: Vec<&str> =
                std::iter::once(seconds.as_str()).chain(words.iter().map(String::as_str)).collect();
            let output = shell.must("run a guest on", TRY, &args, probe::firmware(arch)).await?;
            let text = output.text();
            let status = text.trim().strip_prefix("ran ").and_then(|status| status.parse().ok());
            Ok((status.filter(|status| *status != 124), output.stderr))
        }
    });
    let found = found.await?;
    probe::remember(cache, facts.arch, &facts.key, &found);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::Provider;
    use super::*;

    const GOOD: &str = "machine aarch64\ncores 8\nmemory 16384000\nfree 5000\nclosed /run/libvirt/libvirt-sock\nsocket \
                        /run/libvirt/virtqemud-sock\nkey a b c\n";

    fn host() -> RemoteHost {
        RemoteHost {
            name: "lab".to_owned(),
            arch: Arch::Arm64,
            address: "10.0.0.5".to_owned(),
            port: 22,
            user: "ubuntu".to_owned(),
            key: None,
            host_key: None,
            folder: PathBuf::from("/srv/kmt"),
            memory_mib: None,
            cores: None,
            provider: Provider::Own,
        }
    }

    #[test]
    fn the_socket_that_may_be_used_is_taken() {
        let facts = read(GOOD, &host()).unwrap();
        assert_eq!((facts.arch, facts.cores, facts.memory_mib), (Arch::Arm64, 8, 16000));
        assert_eq!(facts.free_mib, Some(5000));
        assert_eq!(read(&GOOD.replace("free 5000", "free "), &host()).unwrap().free_mib, None);
        assert_eq!((facts.socket.as_str(), facts.key.as_str()), ("/run/libvirt/virtqemud-sock", "a b c"));
    }

    #[test]
    fn what_is_missing_is_named_with_what_helps() {
        let refused = |text: &str| {
            let error = read(text, &host()).unwrap_err();
            (error.class, format!("{error} {}", error.hint.clone().unwrap_or_default()))
        };
        let (class, words) = refused(&GOOD.replace("socket", "closed"));
        assert!(class == Class::Denied && words.contains("usermod -aG libvirt ubuntu"), "{words}");
        let (class, words) = refused("machine x86_64\ncores 1\nmemory 1024\n");
        assert!(class == Class::NotFound && words.contains("no libvirt listens"), "{words}");
        let (class, words) = refused(&format!("{GOOD}missing qemu-img\n"));
        assert!(class == Class::NotFound && words.contains("apt-get install"), "{words}");
        let (class, words) = refused(&format!("{GOOD}unwritable /srv/kmt\n"));
        assert!(class == Class::Denied && words.contains("/srv/kmt"), "{words}");
        assert_eq!(refused("Welcome to the lab!\n").0, Class::Unintelligible);
    }
}
