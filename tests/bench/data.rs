//! What benchmarks of shipping share: the folder `data` of a repository as the set that is shipped.

use std::path::Path;

use kmt_reporters::event::{Arch, Event, EventSink};
use kmt_run::artifact::{self, ArtifactSet, Log};
use kmt_run::external::builder::BuildRequest;
use kmt_run::external::builder::fake::FakeBuilder;
use kmt_run::settings::component::Artifact;

struct Nobody;

impl EventSink for Nobody {
    fn emit(&self, _: Event) {}
}

pub(crate) async fn built(root: &Path, cache: &Path) -> ArtifactSet {
    let mut request = BuildRequest::new(root, Arch::host());
    request.artifacts = vec![Artifact::Same("data".to_owned())];
    let builder = FakeBuilder::default();
    artifact::build(&request, &[], &builder, cache, &Nobody, &Log::nowhere()).await.unwrap()
}
