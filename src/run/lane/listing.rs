//! Which tests a package has, asked before any of them runs: where they are to be split, or a part of them chosen.

use kmt_reporters::event::{Event, EventSink as _};
use tokio::time::timeout;

use super::Lane;
use crate::artifact::TestPackage;
use crate::run::script::{Listing, Piece, RUN, Said, ShardOrder, Splitter};

/// What asking came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Listed {
    /// Top-level tests that are chosen, in the order of the list.
    Tests(Vec<String>),
    /// The binary does not list them.
    Refused,
    /// The machine did not answer.
    Unanswered,
}

impl Lane<'_> {
    /// Asks the binary of a package for its tests.
    pub async fn list(&self, package: &TestPackage) -> Listed {
        if !package.speech.is_go() {
            return Listed::Refused;
        }
        let nonce = uuid::Uuid::new_v4().simple().to_string();
        let order = ShardOrder {
            pidfile: format!("{}/run/kmt/{nonce}.pid", self.guest.connection.prefix()),
            folder: format!("{}/{}", self.root, package.workdir),
            binary: format!("{}/{}", self.root, package.binary),
            container: self.container,
            list: Listing::Only(self.filters_of(package).run.list_pattern().to_owned()),
            env: self.words.of(self.cell(), &package.name).env_below(&self.root, self.cell().arch),
            args: Vec::new(),
            nonce,
        };
        let asked = self.guest.connection.run(&["sh", "-c", RUN], order.stdin());
        let mut cancelled = self.cancelled.clone();
        let answer = tokio::select! {
            answer = timeout(self.deadlines.ready, asked) => answer,
            _ = cancelled.wait_for(|stop| *stop) => return Listed::Unanswered,
        };
        let Ok(Ok(output)) = answer else { return Listed::Unanswered };
        let mut splitter = Splitter::new(&order.nonce);
        let mut text = Vec::new();
        let mut status = None;
        for piece in splitter.feed(&output.stdout) {
            match piece {
                Piece::Output(bytes) => text.extend_from_slice(&bytes),
                Piece::Said(Said::Listed(said)) => status = Some(said),
                Piece::Said(_) => {}
            }
        }
        match status {
            Some(0) => Listed::Tests(self.chosen_of(package, &text)),
            Some(_) => Listed::Refused,
            None if output.stdout.is_empty() => Listed::Unanswered,
            None => Listed::Refused,
        }
    }

    /// Of a list, the top-level tests that the filters choose.
    pub(super) fn chosen_of(&self, package: &TestPackage, listing: &[u8]) -> Vec<String> {
        let text = String::from_utf8_lossy(listing);
        let named =
            |name: &&str| name.starts_with("Test") || name.starts_with("Example") || name.starts_with("Fuzz");
        let filters = self.filters_of(package);
        let chosen = |name: &&str| {
            let dropped = filters.skip.as_ref().is_some_and(|skip| skip.drops_top_level(name));
            filters.run.selects_top_level(name) && !dropped
        };
        text.lines().map(str::trim).filter(named).filter(chosen).map(str::to_owned).collect()
    }

    /// Says which tests of a package are to run.
    pub fn tell_tests(&self, package: &str, tests: Vec<String>) {
        self.record.emit(Event::TestsListed {
            cell: self.cell().clone(),
            package: package.to_owned(),
            tests,
        });
    }
}
