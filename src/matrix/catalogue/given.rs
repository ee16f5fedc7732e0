//! Kernels that somebody brings: a row of a matrix, or a word on the command line.

use std::path::{Path, PathBuf};

use kmt_reporters::event::Arch;

use super::check::{check_debian, check_word};
use super::{Catalogue, CustomKernel, DebianSource, Source};

/// A kernel on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenKernel {
    /// Where it is.
    pub path: PathBuf,
    /// What it is.
    pub form: Form,
}

/// What a kernel comes as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A package of Debian: `linux-image-….deb`.
    Deb,
    /// A tree in which it was built.
    Tree,
    /// An archive of a `bzImage` and packages: `….pkg.tar.gz`.
    Archive,
}

impl Form {
    /// By the end of its name.
    fn of(text: &str) -> Form {
        match text {
            text if text.ends_with(".deb") => Form::Deb,
            text if text.ends_with(".tar.gz") || text.ends_with(".tgz") => Form::Archive,
            _ => Form::Tree,
        }
    }
}

impl Catalogue {
    /// Adds a custom kernel, or puts it in the place of the one of that version. `from` is a `.deb`, an archive
    /// (`.pkg.tar.gz`), a built kernel tree (with a `/` in it), each relative to `folder`; or the name of a package of
    /// the userland's suite, such as `linux-image-6.12.*-cloud-amd64`.
    ///
    /// # Errors
    /// A userland that is none or cannot be built here, a name with strange characters.
    pub fn add_custom(
        &mut self,
        version: &str,
        from: &str,
        userland: Option<&str>,
        folder: &Path,
        arch: Arch,
    ) -> Result<(), String> {
        check_word("kernel version", version)?;
        if !version.split('.').all(|number| !number.is_empty() && number.chars().all(|c| c.is_ascii_digit()))
        {
            return Err(format!(
                "`{version}` is not made of numbers and dots, as a version in a machine's name is"
            ));
        }
        let userland = userland.unwrap_or(USERLAND);
        let platform =
            self.platform(userland).ok_or_else(|| format!("userland `{userland}` is no platform"))?;
        let suite = platform.variants.get(&arch).and_then(|v| v.sources.iter().find_map(Source::debian));
        let suite = suite.ok_or_else(|| {
            format!("userland `{userland}` cannot be built for {arch}: custom kernels need one that can")
        })?;
        let source = if from.contains('/') || from.ends_with(".deb") || from.ends_with(".tar.gz") {
            Source::Given(GivenKernel { path: folder.join(from), form: Form::of(from) })
        } else {
            let kernel = [(arch, from.to_owned())].into();
            let suite = DebianSource { kernel, ..suite.clone() };
            check_debian(&format!("custom {version}"), &suite)?;
            Source::Debian(suite)
        };
        let userland = platform.id.clone();
        match self.customs.iter_mut().find(|row| row.version == version) {
            Some(row) => {
                row.userland = userland;
                row.variants.insert(arch, vec![source]);
            }
            None => self.customs.push(CustomKernel {
                version: version.to_owned(),
                userland,
                variants: [(arch, vec![source])].into(),
            }),
        }
        Ok(())
    }
}

/// The userland of a custom kernel that names none.
const USERLAND: &str = "debian_12";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_what_its_name_says() {
        let mut catalogue = Catalogue::embedded().unwrap();
        let folder = Path::new("/m");
        let mut add = |version: &str, from: &str| {
            catalogue.add_custom(version, from, None, folder, Arch::X86_64)?;
            let row = catalogue.custom(version).unwrap();
            Ok::<_, String>((row.userland.clone(), row.variants[&Arch::X86_64].clone()))
        };
        let given = |path: &str, form| vec![Source::Given(GivenKernel { path: path.into(), form })];
        assert_eq!(add("6.19", "k.deb").unwrap().1, given("/m/k.deb", Form::Deb));
        assert_eq!(add("6.19.1", "/a/k.pkg.tar.gz").unwrap().1, given("/a/k.pkg.tar.gz", Form::Archive));
        assert_eq!(add("6.20", "../linux/").unwrap().1, given("/m/../linux/", Form::Tree));
        // In the place of the catalogue's own.
        assert_eq!(add("6.12", "k.deb").unwrap(), ("debian_12".to_owned(), given("/m/k.deb", Form::Deb)));
        let (_, packaged) = add("6.1.9", "linux-image-6.1.*-cloud-amd64").unwrap();
        assert_eq!(packaged[0].debian().unwrap().kernel[&Arch::X86_64], "linux-image-6.1.*-cloud-amd64");
        assert!(add("mine", "k.deb").unwrap_err().contains("numbers and dots"));
        assert!(add("6.1", "linux image").unwrap_err().contains("plain word"));
        let other = catalogue.add_custom("6.1", "k.deb", Some("jammy"), folder, Arch::X86_64);
        assert!(other.unwrap_err().contains("cannot be built"));
    }
}
