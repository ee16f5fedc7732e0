//! Who a machine is: keys, name and id, put into its initial RAM file system and nowhere else.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::error::{Failure, Result};
use crate::image::identity_cpio;
use crate::stack::{Keys, MachineRecord};

/// Writes the machine's initrd: that of its image, at `base`, followed by an archive of its identity.
pub(super) fn initrd(
    folder: &Path,
    base: &Path,
    record: &MachineRecord,
    login: &Keys,
    host_key: &Keys,
) -> Result<PathBuf> {
    let read = |path: &Path| std::fs::read(path).map_err(|error| Failure::file("read", path, &error));
    let line = |text: &str| format!("{text}\n").into_bytes();
    let name = record.id.replace(['_', '@', '+'], "-");
    let archive = identity_cpio(&[
        ("/etc/ssh/ssh_host_ed25519_key", 0o600, &read(&host_key.private)?),
        ("/etc/ssh/ssh_host_ed25519_key.pub", 0o644, &line(&host_key.public)),
        ("/root/.ssh/authorized_keys", 0o600, &line(&login.public)),
        ("/etc/hostname", 0o644, &line(&name)),
        ("/etc/machine-id", 0o444, &line(&record.uuid.simple().to_string())),
    ]);
    let path = folder.join("initrd");
    let _ = std::fs::remove_file(&path);
    let written = (|| {
        use std::os::unix::fs::OpenOptionsExt;
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let mut base = std::fs::read(base)?;
        base.resize(base.len().next_multiple_of(4), 0);
        file.write_all(&base)?;
        file.write_all(&archive)
    })();
    written.map_err(|error| Failure::file("write", &path, &error))?;
    Ok(path)
}
