//! By way of the guest's host: the stream is brought there as a parcel, once for all guests that lack the same.

use std::io;
use std::path::PathBuf;

use tempfile::TempPath;
use tokio::time::Instant;

use super::{Parcel, ShipReport, Store, Uploaded, parcel, published, take};
use crate::artifact::ArtifactSet;
use crate::external::remote::{Depot, Login};
use crate::external::transport::Connection;
use crate::external::{Error, Result};

/// The way by a guest's host.
pub struct Through<'a> {
    /// The store of the host.
    pub depot: &'a dyn Depot,
    /// How the host logs in to the guest.
    pub login: Login,
    /// Folder here for a parcel until it is brought.
    pub scratch: PathBuf,
}

/// [`super::ship`], by way of the guest's host. An error of the guest itself says so by its system, `the guest`.
pub async fn ship_through(
    set: &ArtifactSet,
    connection: &dyn Connection,
    store: &Store,
    through: &Through<'_>,
) -> Result<ShipReport> {
    let Some((parcel, tree)) = parcel(set, connection, store).await? else {
        return Ok(ShipReport::default());
    };
    let (files, unpack, name) = (parcel.files(), parcel.coding.unpack(), parcel.name());
    let begun = Instant::now();
    let making = Box::pin(pack(parcel, through.scratch.clone()));
    let brought = through.depot.bring(&name, making).await?;
    let uploaded = Uploaded { bytes: brought.sent, took: begun.elapsed() };
    let output = through.depot.feed(&name, &through.login, &take(store, &tree, unpack)).await?;
    published(&output, store)?;
    Ok(ShipReport { bytes: brought.size, files, uploaded: Some(uploaded) })
}

/// A parcel as a file that goes with whoever has it.
async fn pack(parcel: Parcel, scratch: PathBuf) -> Result<TempPath> {
    let place = scratch.display().to_string();
    let packing = tokio::task::spawn_blocking(move || {
        let mut file = tempfile::Builder::new().prefix(".parcel-").tempfile_in(&scratch)?;
        parcel.write(&mut file)?;
        Ok::<_, io::Error>(file.into_temp_path())
    });
    let packed = packing.await.map_err(io::Error::other).and_then(|packed| packed);
    packed.map_err(|error| Error::io("this machine", "pack", place, &error))
}
