//! The facts: asked from the doors and read from this home.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::leftover::{self, Leftover};
use super::{Facts, OwnHost, Remedy, checks};
use crate::error::{Failure, Kind, Result};
use crate::external::host::Host;
use crate::hosts::Hosts;
use crate::image::{Hashing, ImageStore};
use crate::settings::Settings;
use crate::settings::user::SshKey;
use crate::stack::Stack;

/// The doors a doctor looks through.
pub struct Doors<'a> {
    /// This machine.
    pub host: &'a dyn Host,
    /// The hypervisors.
    pub hosts: &'a Hosts,
    /// Images.
    pub images: &'a ImageStore,
    /// Where control sockets lie.
    pub sockets: &'a Path,
    /// What the user's own hosts show.
    pub own_hosts: Vec<OwnHost>,
    /// What the cloud says, where it is configured.
    pub rentable: Option<Result<String>>,
}

/// Looks at everything. Images that changed are hashed, or all of them: seconds.
///
/// # Errors
/// The stacks of this home cannot be listed.
pub async fn look(settings: &Settings, doors: &Doors<'_>, hashing: Hashing) -> Result<Facts> {
    let programs = checks::PROGRAMS.iter().chain(checks::NAT_PROGRAMS);
    let programs: Vec<&str> = programs.map(|(program, _)| *program).collect();
    let host = doors.host.look(&settings.home.root.value, &programs).await;
    // libvirt is not asked where its daemons do not listen: it would wait for them.
    let hypervisor = if host.deaf.is_empty() {
        doors.hosts.here().facts().await.map_err(Failure::from)
    } else {
        Err(Failure::new(Kind::Infrastructure, "libvirt cannot answer while its daemons do not run"))
    };
    let domains = match &hypervisor {
        Ok(_) => doors.hosts.here().owned().await.ok(),
        Err(_) => None,
    };
    let networks = match &hypervisor {
        Ok(_) => doors.hosts.here().networks().await.ok(),
        Err(_) => None,
    };
    let lans = match &hypervisor {
        Ok(_) => doors.hosts.here().owned_networks().await.unwrap_or_default(),
        Err(_) => Vec::new(),
    };
    let mut leftovers: Vec<Leftover> = leftover::find(&settings.home, domains.as_deref(), doors.sockets)?;
    leftovers.extend(leftover::of_networks(&settings.home, &lans)?);
    Ok(Facts {
        host,
        networks,
        uri: settings.libvirt_uri.value.clone(),
        home: settings.home.root.value.clone(),
        hypervisor,
        images: images(doors.images, hashing).await?,
        keys: keys(settings)?,
        user_key: settings.ssh_key.as_ref().map(|key| user_key(&key.value)),
        own_hosts: doors.own_hosts.clone(),
        rentable: doors.rentable.clone(),
        leftovers,
    })
}

async fn images(store: &ImageStore, hashing: Hashing) -> Result<Vec<(String, Option<String>)>> {
    let mut seen = Vec::new();
    for manifest in store.list()? {
        let trouble =
            store.verify(&manifest, hashing).await.err().map(|error| Failure::from(error).one_line());
        // `debian_12-x86_64` is asked for as `debian_12`.
        let name = manifest.name.rsplit_once('-').map_or(manifest.name.as_str(), |(name, _)| name);
        seen.push((name.to_owned(), trouble));
    }
    Ok(seen)
}

/// The user's key in words, and whether it is there. What an agent keeps is not asked for here.
fn user_key(key: &SshKey) -> (String, bool) {
    match &key.path {
        Some(path) => (path.display().to_string(), path.is_file()),
        None => (format!("{}, kept by an agent", key.name), true),
    }
}

/// The login keys of all stacks that have made one.
fn keys(settings: &Settings) -> Result<Vec<(PathBuf, Option<u32>)>> {
    let mut keys = Vec::new();
    for stack in Stack::all(&settings.home)? {
        let made = stack.record()?.machines.values().any(|machine| machine.host_key.is_some());
        let key = stack.login_key();
        let mode = std::fs::metadata(&key).ok().map(|seen| seen.permissions().mode());
        if made || mode.is_some() {
            keys.push((key, mode));
        }
    }
    Ok(keys)
}

/// Does what `--fix` can do.
///
/// # Errors
/// It was refused.
pub async fn mend(remedy: &Remedy, settings: &Settings, doors: &Doors<'_>) -> Result<()> {
    match remedy {
        Remedy::StartDaemons => Ok(doors.host.start_daemons().await?),
        Remedy::OpenKvm => Ok(doors.host.open_kvm().await?),
        Remedy::Remove(leftover) => leftover::remove(leftover, &settings.home, doors.hosts).await,
        Remedy::CloseKey(key) => {
            let closed = std::fs::set_permissions(key, std::fs::Permissions::from_mode(0o600));
            closed.map_err(|error| Failure::file("close", key, &error))
        }
    }
}
