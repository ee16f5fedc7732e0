//! The peer virtme-ng (PyPI) with virtiofsd (crates.io), its faster way to the host's files: both are installed at first.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kmt_run::image::LocalImage;

use crate::machine::run;

/// Places of distributions that have virtiofsd; none is in `PATH`.
const DISTRIBUTED: [&str; 2] = ["/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd"];

/// virtme-ng, and the kernel of an image laid out as it wants one.
pub(crate) struct Virtme {
    path: std::ffi::OsString,
    kernel: PathBuf,
}

impl Virtme {
    /// Installs what is missing, and takes the kernel with its modules from the image.
    pub(crate) fn new(folder: &Path, image: &LocalImage) -> Virtme {
        let root = folder.join("virtme");
        let modules = root.join("lib/modules").join(&image.kernel_release);
        fs::create_dir_all(&modules).unwrap();
        fs::create_dir_all(root.join("boot")).unwrap();
        let kernel = root.join("boot").join(format!("vmlinuz-{}", image.kernel_release));
        fs::copy(&image.direct.as_ref().unwrap().kernel, &kernel).unwrap();
        let out = format!("rdump / {}", modules.display());
        run(Command::new("debugfs")
            .args(["-R", &out])
            .arg(image.modules.as_ref().unwrap())
            .stderr(Stdio::null()));
        let tools = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let mut path = vec![python(&tools.join("virtme-ng")), PathBuf::from("/usr/sbin")];
        path.extend(virtiofsd(&tools.join("virtiofsd")));
        path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap()));
        Virtme { path: std::env::join_paths(path).unwrap(), kernel }
    }

    /// How long its whole run of `true` takes.
    pub(crate) fn whole_run(&self) -> Duration {
        let begun = Instant::now();
        let output = Command::new("vng")
            .env("PATH", &self.path)
            .args(["--disable-kvm", "--cpus", "1", "--memory", "1G", "--run"])
            .arg(&self.kernel)
            .args(["--", "true"])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        begun.elapsed()
    }
}

fn python(folder: &Path) -> PathBuf {
    if !folder.join("bin/vng").is_file() {
        run(Command::new("python3").args(["-m", "venv"]).arg(folder));
        let pip = ["install", "--quiet", "--disable-pip-version-check", "virtme-ng"];
        run(Command::new(folder.join("bin/pip")).args(pip));
    }
    folder.join("bin")
}

/// The folder of the virtiofsd that was built here, where the distribution has none.
fn virtiofsd(folder: &Path) -> Option<PathBuf> {
    if DISTRIBUTED.iter().any(|file| Path::new(file).is_file()) {
        return None;
    }
    if !folder.join("bin/virtiofsd").is_file() {
        let install = ["install", "--quiet", "--locked", "virtiofsd", "--root"];
        run(Command::new(env!("CARGO")).args(install).arg(folder));
    }
    Some(folder.join("bin"))
}
