//! Images: from a row of the catalogue to files a machine can boot, each verified before it is used.
//!
//! Owns the image store: what an image is made of, building it from a distribution's packages, where its files
//! lie and whether they are still what was built. Does not own overlays, machines or keys (`stack`,
//! `machine`): an image holds no key and is never written. To add a way of getting images: a variant of the
//! catalogue's `Source`, and a file beside `rootfs.rs` that makes the same artefacts of it.
//!
//! An image is two artefacts that know nothing of each other, so that every kernel boots on every userland:
//! a **root filesystem** (ext4 without a kernel) and a **kernel** (`vmlinuz`, a small initrd of our own, and
//! `/lib/modules/<release>` as a read-only ext4). Nothing is pruned from the modules: the `cloud` kernels that
//! the catalogue names have already left out what a machine never has.

mod build;
mod cpio;
mod error;
mod ext4;
mod garbage;
mod given;
mod kernel;
mod manifest;
mod modules;
mod objects;
mod overlay;
pub mod published;
mod recipe;
mod request;
mod rootfs;
mod shared;
mod store;
mod vmlinux;

pub use cpio::{identity_cpio, newc};
pub use error::ImageError;
pub use garbage::{Garbage, overlay_base};
pub use manifest::{FileRecord, Manifest};
pub use recipe::SSH_UNIT;
pub use request::ImageRequest;
pub use shared::SharedImages;
pub use store::{Availability, DirectBoot, Hashing, ImageProgress, ImageStore, LocalImage};
