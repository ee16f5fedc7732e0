//! Renting on a stage: what is refused, fails or is cut off, and that nothing is left.

use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use super::*;
use crate::cloud::gone;
use crate::cloud::kinds::alternatives;
use crate::external;
use crate::external::cloud::fake::FakeCloud;
use crate::external::hypervisor::Hypervisor;
use crate::external::hypervisor::fake::FakeHypervisor;
use crate::external::remote::{Checked, Gate, Way};
use crate::external::scripted::{Script, Stage};
use crate::settings::Home;

/// A gate whose host refuses the first logins.
struct Door(Arc<Stage>, Mutex<u32>);

#[async_trait]
impl Gate for Door {
    fn open(&self, _: &RemoteHost, _: &Way) -> Arc<dyn Hypervisor> {
        Arc::new(FakeHypervisor::new(self.0.clone()))
    }

    async fn close(&self, _: &Way) {}

    async fn check(&self, host: &RemoteHost, _: &Way) -> external::Result<Checked> {
        let mut refuses = self.1.lock().unwrap();
        if *refuses == 0 {
            return Ok(Checked { free_mib: None });
        }
        *refuses -= 1;
        Err(Error::new("ssh", "log in to", &host.name, Class::Unreachable, "connection refused"))
    }
}

/// What was told.
#[derive(Default)]
struct Heard(Mutex<Vec<Event>>);

impl EventSink for Heard {
    fn emit(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

/// A stack, a cloud, and what is configured.
struct Scene {
    stage: Arc<Stage>,
    home: Home,
    stack: Stack,
    ec2: Ec2,
    heard: Heard,
    temp: tempfile::TempDir,
}

impl Scene {
    fn new(script: &str, ec2: &str) -> Scene {
        let temp = tempfile::tempdir().unwrap();
        let script = Script::parse(script).unwrap();
        let stage = Arc::new(Stage::open(script, &temp.path().join("stage")));
        let home = Home::at(&temp.path().join("home"));
        let stack = Stack::open_or_create(&home, "main", Path::new("/repo")).unwrap();
        let ec2: Ec2 = toml::from_str(ec2).unwrap();
        Scene { stage, home, stack, ec2, heard: Heard::default(), temp }
    }

    async fn rent_refused(&self, refuses: u32) -> Result<(RemoteHost, Lease)> {
        let cloud = FakeCloud::new(self.stage.clone());
        let gate = Arc::new(Door(self.stage.clone(), Mutex::new(refuses)));
        let hosts = Hosts::new(Arc::new(FakeHypervisor::new(self.stage.clone())), gate, &self.home);
        let ask = Ask {
            cloud: &cloud,
            ec2: &self.ec2,
            region: "eu-west-1".to_owned(),
            key_name: Some("mine".to_owned()),
            key: None,
            pace: Pace::quick(),
        };
        let asker = Asker { owner: "me@desk".to_owned(), ..Asker::default() };
        let desk = Desk { ask: &ask, stack: &self.stack, asker: &asker, sink: &self.heard };
        let kinds = alternatives(Some(&self.ec2), Arch::X86_64).unwrap();
        ask.rehearse(&kinds).await?;
        desk.rent(&kinds, Owner::Run, &hosts).await
    }

    async fn rent(&self) -> Result<(RemoteHost, Lease)> {
        self.rent_refused(0).await
    }

    /// Types and subnets that were asked for, and hosts that were ended.
    fn calls(&self) -> Vec<String> {
        self.stage.calls()
    }

    fn alive(&self) -> usize {
        self.stage.rented().iter().filter(|host| host.instance.state != InstanceState::Ended).count()
    }

    /// Nothing is written down and nothing lives.
    fn nothing_left(&self) {
        assert_eq!(self.alive(), 0);
        let record = self.stack.record().unwrap();
        assert!(record.rentals.is_empty() && record.hosts.is_empty(), "{record:?}");
        assert_eq!(self.stage.violations(), Vec::<String>::new());
    }

    async fn sweep(&self) -> (Vec<gone::Ended>, Vec<Failure>) {
        let cloud = FakeCloud::new(self.stage.clone());
        gone::sweep(&self.home, &cloud, Pace::quick()).await.unwrap()
    }
}

fn refusal(call: &str, from: u32, times: u32, class: &str, words: &str) -> String {
    format!(
        "[[refusal]]\ncall = '{call}'\nfrom = {from}\ntimes = {times}\nclass = '{class}'\nwords = '{words}'\n"
    )
}

#[tokio::test]
async fn capacity_is_looked_for_in_other_zones_and_types() {
    let none = refusal("rent", 1, 2, "busy", "InsufficientInstanceCapacity: none left");
    let scene = Scene::new(&none, "");
    let (host, lease) = scene.rent().await.unwrap();
    assert_eq!(
        scene.calls(),
        ["rent m5d.metal subnet-1", "rent m5d.metal subnet-2", "rent m5.metal subnet-1"]
    );
    assert_eq!(
        (host.name.as_str(), host.address.as_str(), host.user.as_str()),
        ("i-00000000000000001", "10.77.0.1", "admin")
    );
    let record = scene.stack.record().unwrap();
    let rented = record.rentals["ec2-x86_64"].instance.clone().unwrap();
    assert_eq!((rented.zone.as_str(), rented.usd_per_hour), ("eu-west-1a", Some(4.608)));
    assert!(record.hosts.contains_key(&host.name));
    assert!(scene.sweep().await.0.is_empty(), "it is in use");
    drop(lease);
    let (ended, failures) = scene.sweep().await;
    assert_eq!((ended.len(), failures.len()), (1, 0));
    scene.nothing_left();
}

#[tokio::test]
async fn what_is_throttled_is_asked_again_with_the_same_token() {
    let busy = refusal("rent", 1, 3, "busy", "RequestLimitExceeded: slower");
    let scene = Scene::new(&busy, "subnets = ['subnet-2']");
    let (_, lease) = scene.rent().await.unwrap();
    assert_eq!(scene.calls(), ["rent m5d.metal subnet-2"; 4]);
    assert_eq!(scene.stage.rented().len(), 1);
    drop(lease);
    scene.sweep().await;
    scene.nothing_left();
}

#[tokio::test]
async fn a_refusal_that_no_other_attempt_mends_ends_it_at_once() {
    for (class, words, told) in [
        ("denied", "UnauthorizedOperation: not you", "these credentials may not"),
        ("denied", "ExpiredToken: over", "no credentials of AWS that hold now"),
        ("not-found", "InvalidAMIID.NotFound: none", "`ami`"),
    ] {
        let scene = Scene::new(&refusal("rent", 1, 1, class, words), "");
        let failure = scene.rent().await.unwrap_err();
        assert!(failure.kind == ErrorKind::Remote && failure.one_line().contains(told), "{failure:?}");
        assert_eq!(scene.calls().len(), 1);
        scene.nothing_left();
        let scene = Scene::new(&refusal("rehearse", 1, 1, class, words), "");
        assert_eq!(scene.rent().await.unwrap_err().kind, ErrorKind::Remote);
        assert!(scene.calls().is_empty(), "a rehearsal comes first");
    }
    let scene = Scene::new(
        &refusal("rent", 1, 2, "rejected", "VcpuLimitExceeded: 0"),
        "types = { x86_64 = ['m5.metal'] }",
    );
    assert!(scene.rent().await.unwrap_err().one_line().contains("service-quotas"));
    scene.nothing_left();
}

#[tokio::test]
async fn credentials_that_end_in_the_middle_leave_it_written_down() {
    let over = refusal("list-hosts", 2, 100, "denied", "ExpiredToken: over");
    let scene = Scene::new(&over, "");
    let failure = scene.rent().await.unwrap_err();
    assert!(failure.one_line().contains("aws sso login"), "{}", failure.one_line());
    assert_eq!((scene.alive(), scene.stack.record().unwrap().rentals.len()), (1, 1), "it could not be ended");
    // Another process, with new credentials.
    let stage = Stage::open(Script::default(), &scene.temp.path().join("stage"));
    let cloud = FakeCloud::new(Arc::new(stage));
    let (ended, failures) = gone::sweep(&scene.home, &cloud, Pace::quick()).await.unwrap();
    assert_eq!((ended.len(), failures.len()), (1, 0));
    scene.nothing_left();
}

#[tokio::test]
async fn a_host_that_does_not_come_up_is_ended_and_another_asked_for() {
    for fault in ["never-passes", "never-runs", "impaired", "ends", "setup-fails"] {
        let scene = Scene::new(&format!("[cloud]\nhosts = ['{fault}']\n"), "");
        let (host, lease) = scene.rent().await.unwrap();
        assert_eq!(host.name, "i-00000000000000002", "{fault}");
        assert_eq!(scene.alive(), 1, "{fault}");
        drop(lease);
        scene.sweep().await;
        scene.nothing_left();
        let scene = Scene::new(&format!("[cloud]\nhosts = ['{fault}', '{fault}']\n"), "");
        assert_eq!(scene.rent().await.unwrap_err().kind, ErrorKind::Infrastructure, "{fault}");
        scene.nothing_left();
    }
}

#[tokio::test]
async fn a_login_that_is_refused_for_a_while_is_waited_for() {
    let scene = Scene::new("", "");
    let (host, lease) = scene.rent_refused(5).await.unwrap();
    assert_eq!(scene.stage.rented().len(), 1);
    drop(lease);
    // Whoever comes next takes the one that is there.
    let (again, _lease) = scene.rent().await.unwrap();
    assert_eq!(again, host);
    let told = scene.heard.0.lock().unwrap();
    assert_eq!(told.iter().filter(|event| matches!(event, Event::HostRented { .. })).count(), 1);
}

#[tokio::test]
async fn a_lost_answer_is_found_again_by_its_tags() {
    let scene = Scene::new("", "");
    let (_, lease) = scene.rent().await.unwrap();
    drop(lease);
    // As if the process had died before the answer came.
    scene
        .stack
        .change(|record| {
            record.hosts.clear();
            record.rentals.values_mut().for_each(|rental| rental.instance = None);
        })
        .unwrap();
    assert_eq!(scene.sweep().await.0.len(), 1);
    scene.nothing_left();
}
