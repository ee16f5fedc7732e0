//! The door to published files: images, their sums and their manifests.
//!
//! Owns how bytes come from a server, from the middle of a file where it lets us. Does not repeat, does not know what
//! the bytes should be (`image`). To add a kind of server, implement [`Store`] and name it in `world.rs`.

pub mod fake;
pub mod http;

use async_trait::async_trait;

use super::Result;

/// From where on a file is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rest {
    /// Bytes that are here already.
    pub from: u64,
    /// The mark of the file they are of, as its server gave it; without one nothing can be gone on with.
    pub validator: Option<String>,
}

/// What a server says before the bytes come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    /// Where they begin: at 0 where the server has no ranges, or where the file is another one by now.
    pub from: u64,
    /// Size of the whole file, bytes.
    pub total: Option<u64>,
    /// The mark of this very file, for the next [`Rest`].
    pub validator: Option<String>,
}

/// What comes of a file: once its head, then its bytes.
#[derive(Debug)]
pub enum Piece<'a> {
    /// Before the bytes.
    Head(&'a Head),
    /// The next bytes.
    Bytes(&'a [u8]),
}

/// Takes what comes; an error ends the transfer.
pub type Take<'a> = &'a mut (dyn FnMut(Piece<'_>) -> std::io::Result<()> + Send);

/// Where published files are.
#[async_trait]
pub trait Store: Send + Sync {
    /// The whole of a small text, at most [`TEXT`] bytes.
    async fn text(&self, url: &str) -> Result<String>;

    /// Size of a file, where the server says it. Shows that it is there.
    async fn size(&self, url: &str) -> Result<Option<u64>>;

    /// The bytes of a file, from `rest` on where that is possible. `Unreachable` where they end too early.
    async fn fetch(&self, url: &str, rest: &Rest, take: Take<'_>) -> Result<()>;
}

/// Largest text, bytes.
pub const TEXT: usize = 1 << 20;
