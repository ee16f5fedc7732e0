//! The composition root: the only file that names an adapter.

use std::path::Path;
use std::sync::Arc;

use crate::cloud::Pace;
use crate::external::Class;
use crate::external::builder::Builder;
use crate::external::builder::command::Commands;
use crate::external::builder::fake::FakeBuilder;
use crate::external::builder::go::Go;
use crate::external::builder::prebuilt::Prebuilt;
use crate::external::ci::Ci;
use crate::external::ci::gitlab::Gitlab;
use crate::external::cloud::Cloud;
use crate::external::cloud::ec2::Ec2;
use crate::external::cloud::fake::FakeCloud;
use crate::external::debian::{DebianHost, DebianTools, FakeDebian, Trouble};
use crate::external::host::Host;
use crate::external::host::fake::FakeHost;
use crate::external::host::real::ThisHost;
use crate::external::hypervisor::fake::FakeHypervisor;
use crate::external::hypervisor::libvirt::Libvirt;
use crate::external::remote::fake::FakeGate;
use crate::external::remote::ssh::SshGate;
use crate::external::scripted::{Script, Stage};
use crate::external::store::Store;
use crate::external::store::fake::FakeStore;
use crate::external::store::http::Http;
use crate::external::transport::Transport;
use crate::external::transport::fake::FakeTransport;
use crate::external::transport::ssh::Ssh;
use crate::hosts::Hosts;
use crate::machine::Deadlines;
use crate::settings::ci::Access;
use crate::settings::{BuilderKind, Settings, Warmth};

/// The doors, open.
pub struct World {
    /// Run machines, here and elsewhere.
    pub hosts: Hosts,
    /// Reaches them.
    pub transport: Arc<dyn Transport>,
    /// Debian's tools.
    pub debian: Arc<dyn DebianTools>,
    /// Published images.
    pub store: Arc<dyn Store>,
    /// Go.
    pub go: Arc<dyn Builder>,
    /// Commands of the repository.
    pub command: Arc<dyn Builder>,
    /// Folders of finished binaries.
    pub prebuilt: Arc<dyn Builder>,
    /// The machine this runs on.
    pub host: Arc<dyn Host>,
    /// Rents hosts.
    pub cloud: Arc<dyn Cloud>,
    /// How fast it is asked.
    pub pace: Pace,
    /// How long things may take in it.
    pub deadlines: Deadlines,
    /// Whether machines start from templates in it.
    pub warmth: Warmth,
}

/// The door to a CI server. Scripted worlds use it too: their server is a stand-in on loopback.
///
/// # Errors
/// The address or the token is none.
pub fn ci(access: &Access) -> crate::external::Result<Arc<dyn Ci>> {
    Ok(Arc::new(Gitlab::new(access)?))
}

impl World {
    /// The real one.
    pub fn real(settings: &Settings) -> World {
        World {
            hosts: Hosts::new(
                Arc::new(Libvirt::new(settings.libvirt_uri.value.clone(), settings.home.cache())),
                Arc::new(SshGate),
                &settings.home,
            ),
            transport: Arc::new(Ssh),
            debian: Arc::new(DebianHost::new(
                settings.home.cache(),
                std::env::var("KMT_DEBIAN_MIRROR").ok().filter(|mirror| !mirror.is_empty()),
            )),
            store: Arc::new(Http::new(
                std::env::var("KMT_IMAGE_MIRROR").ok().filter(|mirror| !mirror.is_empty()),
            )),
            go: Arc::new(Go::default()),
            command: Arc::new(Commands),
            prebuilt: Arc::new(Prebuilt),
            host: Arc::new(ThisHost),
            cloud: Arc::new(Ec2::default()),
            pace: Pace::default(),
            deadlines: Deadlines::default(),
            warmth: settings.warm.value,
        }
    }

    /// One that follows a script, on the stage in `folder`.
    ///
    /// # Errors
    /// A deadline in the script that is none.
    pub fn scripted(script: Script, folder: &Path, settings: &Settings) -> Result<World, String> {
        let root = &settings.root.value;
        let deadlines = script.deadlines()?;
        let units = script.package.iter().map(|package| package.unit(root)).collect();
        let builder = script.package.iter().fold(FakeBuilder::new(units), |builder, package| {
            let builder =
                builder.text(&package.name, &package.binary()).takes(&package.name, package.compile);
            match &package.broken {
                Some(words) => builder.broken(&package.name, words),
                None => builder,
            }
        });
        let debian = FakeDebian::new();
        if let Some(step) = script.debian_step() {
            debian.trouble(step, Trouble::Refused(Class::Unreachable));
        }
        let warmth = if script.warm { Warmth::Auto } else { Warmth::Off };
        let builder = Arc::new(builder);
        let published = script.published.clone();
        let stage = Arc::new(Stage::open(script, folder));
        let steps = stage.clone();
        crate::stack::hear_of_writes(Box::new(move |when| steps.step(when, "write", "stack.json")));
        let steps = stage.clone();
        crate::image::published::hear_of_changes(Box::new(move |when, what| steps.step(when, "keep", what)));
        Ok(World {
            hosts: Hosts::new(
                Arc::new(FakeHypervisor::new(stage.clone())),
                Arc::new(FakeGate::new(stage.clone())),
                &settings.home,
            ),
            transport: Arc::new(FakeTransport::new(stage.clone())),
            store: Arc::new(FakeStore::new(published, Some(stage.clone()))),
            host: Arc::new(FakeHost::new(stage.clone())),
            cloud: Arc::new(FakeCloud::new(stage)),
            pace: Pace::quick(),
            debian: Arc::new(debian),
            go: builder.clone(),
            command: Arc::new(Commands),
            prebuilt: builder,
            deadlines,
            warmth,
        })
    }

    /// The builder of that kind.
    pub fn builder(&self, kind: BuilderKind) -> Arc<dyn Builder> {
        match kind {
            BuilderKind::Go => self.go.clone(),
            BuilderKind::Command => self.command.clone(),
            BuilderKind::Prebuilt => self.prebuilt.clone(),
        }
    }
}
