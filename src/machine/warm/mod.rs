//! Warm starts: a machine goes on from the memory of one that has booted, as somebody else.
//!
//! Owns templates (what they are of, where they lie, when one is made, when it is garbage) and the start from one. Does
//! not own how a hypervisor keeps memory (`external::hypervisor`) nor which machines there should be.
//!
//! **What a template is.** The memory and the disk of a guest that has booted with the same image, kernel, command line,
//! hardware, QEMU and libvirt ([`Key`]) up to the moment before it knows who it is: in its `ssh.service` stands a script
//! before sshd (`guest/wait.sh`) that waits for the rest of the machine, then for words on a port. No host key, no login
//! key and no machine id that anybody uses has ever been in it.
//!
//! **How identity gets in before sshd answers.** A machine that starts from it gets a disk over the template's and a copy
//! of its memory with its own description in front. Then a script is written to its port (`identity.rs`, from the same
//! files that a cold machine finds in its initrd): first the seed, 256 bits of the host's randomness that are credited
//! to the kernel's pool, which reseeds at once; then the time; keys, machine id, name; the address of its card. Only when
//! that script has ended does systemd start sshd. What two machines of one template still have in common is what a kernel
//! decides once: where it lies in memory (KASLR), its boot id, and when it booted.
//!
//! **When one is made.** Beside the work of a run or a launch, for machines that booted cold, while memory is free that
//! nobody waits for and a processor has nothing to do ([`Capacity::spare`](super::capacity::Capacity)). A command that ends
//! before it is made leaves the guest to itself: the next one that needs it finds it waiting and takes it up; where nobody
//! comes for 15 minutes, it powers itself off. Its folder is called `.making` until all of it is there.
//!
//! **What does not start warm** boots as before, and an event says why: no template yet, memory that is not to be had or
//! not to be restored, a guest that does not answer in time, machines with a gdb stub, with disks of their own, or with an
//! address in their stack's network. A template that failed a machine is removed.
//!
//! To add something that machines differ in: into [`key`] where a template must differ too, else into the script.

mod making;
mod start;
mod template;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kmt_reporters::event::Arch;

pub use making::Unbegun;
pub use template::{Template, key, sweep};

use crate::image::LocalImage;
use crate::settings::{Home, Warmth};
use crate::stack::MachineRecord;

/// What a template is of: a digest of everything that its guest could tell apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(String);

impl Key {
    /// Its text: 16 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A machine that booted cold, for whose like there should be a template.
#[derive(Debug, Clone)]
struct Wish {
    record: MachineRecord,
    image: LocalImage,
}

/// The templates of a home, and those that are wished for.
#[derive(Debug)]
pub struct Templates {
    folder: PathBuf,
    warmth: Warmth,
    wishes: Mutex<BTreeMap<Key, Wish>>,
}

impl Templates {
    /// Those of `home`.
    pub fn of(home: &Home, warmth: Warmth) -> Templates {
        Templates { folder: home.templates(), warmth, wishes: Mutex::default() }
    }

    fn wishes(&self) -> MutexGuard<'_, BTreeMap<Key, Wish>> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether machines such as this one start from templates at all; why not, otherwise. `None` where nobody asks.
    fn suits(&self, record: &MachineRecord, image: &LocalImage) -> Option<Result<(), &'static str>> {
        match self.warmth {
            Warmth::Off => None,
            Warmth::Auto if record.host.is_some() => Some(Err("it is on another host")),
            Warmth::Auto if image.direct.is_none() => Some(Err("its disk boots by itself")),
            Warmth::Auto if record.gdb.is_some() => {
                Some(Err("its kernel can be debugged from its first instruction"))
            }
            Warmth::Auto if record.address.is_some() => Some(Err("it has an address in its stack's network")),
            Warmth::Auto if !record.extras.disks.is_empty() => Some(Err("it has disks of its own")),
            Warmth::Auto => Some(Ok(())),
        }
    }

    /// Asks for a template for the like of a machine that booted.
    pub(super) fn wish(&self, key: Key, record: &MachineRecord, image: &LocalImage) {
        self.wishes().entry(key).or_insert_with(|| Wish { record: record.clone(), image: image.clone() });
    }
}

/// The program that credits randomness to a guest's kernel, for its processor.
fn seed_program(arch: Arch) -> &'static [u8] {
    match arch {
        Arch::X86_64 => include_bytes!("guest/seed-x86_64.bin"),
        Arch::Arm64 => include_bytes!("guest/seed-arm64.bin"),
    }
}
