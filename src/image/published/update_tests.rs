//! Updates from servers that do things wrong: the old set stays in use.

use std::sync::{Arc, Mutex};

use kmt_reporters::event::Arch;

use super::super::super::objects::tests::Folder;
use super::*;
use crate::external::debian::FakeDebian;
use crate::external::store::Store as _;
use crate::external::store::fake::{FakeStore, Published as File, Wrong};

const NAME: &str = "suite-1-x86_64.qcow2.xz";

fn wanted() -> Published {
    Published {
        name: "suite_1-x86_64".to_owned(),
        url: format!("http://images.test/1/{NAME}"),
        sum: format!("http://images.test/1/{NAME}.sum"),
        manifest: Some("http://images.test/1/suite-1-x86_64.manifest".to_owned()),
        arch: Arch::X86_64,
    }
}

/// A text that does not pack well.
fn content(seed: u32) -> String {
    (0..20_000u32)
        .map(|n| char::from(b'a' + (n.wrapping_mul(seed).wrapping_mul(2_654_435_761) >> 27) as u8 % 26))
        .collect()
}

struct Site {
    folder: Folder,
    told: Mutex<Vec<String>>,
}

impl Site {
    fn new() -> Site {
        Site { folder: Folder::new(), told: Mutex::default() }
    }

    fn images(&self, fault: Wrong) -> ImageStore {
        let manifest = "ID=\"suite\"\nARCH=\"x86_64\"\nKERNEL_VERSION=\"5.15.0-1\"\n".to_owned();
        let content = vec![content(7), content(11)];
        let file = File { name: NAME.to_owned(), content, fault, manifest };
        self.at(FakeStore::new(vec![file], None))
    }

    fn at(&self, server: FakeStore) -> ImageStore {
        let (images, cache) = (self.folder.0.join("images"), self.folder.0.join("cache"));
        ImageStore::new(images, cache, Arc::new(FakeDebian::new()), Arc::new(server))
    }

    async fn update(&self, images: &ImageStore) -> Result<Updated, ImageError> {
        let tell = |progress: ImageProgress| self.told.lock().unwrap().push(progress.line());
        images.update(&[wanted()], &tell).await
    }

    fn text(&self, images: &ImageStore) -> String {
        let entry = images.generation().unwrap().unwrap().images["suite_1-x86_64"].clone();
        fs::read_to_string(Objects::new(images.folder()).path(&entry.file)).unwrap()
    }
}

#[tokio::test]
async fn an_update_fetches_what_changed_and_revert_switches_back() {
    let site = Site::new();
    let images = site.images(Wrong::Nothing);
    let first = site.update(&images).await.unwrap();
    assert_eq!((first.generation, first.changed.as_slice()), (1, &["suite_1-x86_64".to_owned()][..]));
    assert_eq!(site.text(&images), content(7));
    let entry = images.generation().unwrap().unwrap().images["suite_1-x86_64"].clone();
    assert_eq!(entry.facts.kernel(), Some("5.15.0-1"));
    // Nothing new: nothing is fetched.
    let same = site.update(&images).await.unwrap();
    assert_eq!((same.generation, same.same.len(), same.changed.len()), (1, 1, 0));
    let newer = File {
        name: NAME.to_owned(),
        content: vec![content(11)],
        fault: Wrong::Nothing,
        manifest: String::new(),
    };
    let images = site.at(FakeStore::new(vec![newer], None));
    assert_eq!(site.update(&images).await.unwrap().generation, 2);
    assert_eq!(site.text(&images), content(11));
    images.revert().await.unwrap();
    assert_eq!(site.text(&images), content(7));
    assert!(images.revert().await.is_err());
    // And forward again, without a byte fetched twice.
    assert_eq!(site.update(&images).await.unwrap().generation, 3);
    assert_eq!(site.text(&images), content(11));
    assert_eq!(fs::read_dir(site.folder.0.join("images/work")).unwrap().count(), 0);
}

#[tokio::test]
async fn whatever_a_server_does_wrong_is_named_and_the_old_set_stays() {
    let cases = [
        (Wrong::Missing, "404"),
        (Wrong::Forbidden, "403"),
        (Wrong::Page, "web page"),
        (Wrong::WrongSum, "sha256"),
        (Wrong::NoSum, "64 hexadecimal digits"),
        (Wrong::Truncated, "sha256"),
        (Wrong::DiskFull, "keep"),
    ];
    for (fault, words) in cases {
        let site = Site::new();
        site.update(&site.images(Wrong::Nothing)).await.unwrap();
        let content = vec![content(13)];
        let file = File { name: NAME.to_owned(), content, fault, manifest: String::new() };
        let images = site.at(FakeStore::new(vec![file], None));
        let error = site.update(&images).await.unwrap_err();
        let said = crate::error::Failure::from(error).one_line();
        assert!(said.contains(words), "{fault:?}: {said}");
        assert_eq!(site.text(&images), super::tests::content(7), "{fault:?}");
        assert_eq!(images.generation().unwrap().unwrap().number, 1);
        // Once the server is mended, the same update works.
        assert_eq!(site.update(&site.images(Wrong::Nothing)).await.unwrap().changed.len(), 0);
    }
}

#[tokio::test]
async fn a_connection_that_breaks_is_gone_on_with_where_the_server_can() {
    for (fault, resumed) in [(Wrong::Breaks, true), (Wrong::BreaksWithoutRanges, true)] {
        let site = Site::new();
        let file = File { name: NAME.to_owned(), content: vec![content(7)], fault, manifest: String::new() };
        let server = Arc::new(FakeStore::new(vec![file], None));
        let (home, cache) = (site.folder.0.join("images"), site.folder.0.join("cache"));
        let images = ImageStore::new(home, cache, Arc::new(FakeDebian::new()), server.clone());
        site.update(&images).await.unwrap();
        assert_eq!(site.text(&images), content(7));
        let asked = server.calls().iter().any(|call| call.starts_with("fetch the rest of"));
        assert_eq!(asked, resumed, "{:?}", server.calls());
    }
}

#[tokio::test]
async fn parts_that_an_earlier_process_left_wrong_are_fetched_anew() {
    let site = Site::new();
    let file = File {
        name: NAME.to_owned(),
        content: vec![content(7)],
        fault: Wrong::Nothing,
        manifest: String::new(),
    };
    let server = FakeStore::new(vec![file], None);
    let sum = crate::image::published::sum::parse(&server.text(&wanted().sum).await.unwrap(), NAME).unwrap();
    let mut mark = None;
    server
        .fetch(&wanted().url, &crate::external::store::Rest::default(), &mut |piece| {
            if let crate::external::store::Piece::Head(head) = piece {
                mark.clone_from(&head.validator);
            }
            Ok(())
        })
        .await
        .unwrap();
    let downloads = site.folder.0.join("cache/downloads");
    fs::create_dir_all(&downloads).unwrap();
    fs::write(downloads.join(format!("{sum}.part")), b"something else").unwrap();
    let text = serde_json::json!({ "validator": mark }).to_string();
    fs::write(downloads.join(format!("{sum}.part.json")), text).unwrap();
    let images = site.at(server);
    site.update(&images).await.unwrap();
    assert_eq!(site.text(&images), content(7));
}

#[tokio::test]
async fn an_image_of_another_architecture_is_refused() {
    let site = Site::new();
    let manifest = "ARCH=\"aarch64\"\n".to_owned();
    let file = File { name: NAME.to_owned(), content: vec![content(7)], fault: Wrong::Nothing, manifest };
    let error = site.update(&site.at(FakeStore::new(vec![file], None))).await.unwrap_err();
    assert!(error.to_string().contains("for `aarch64`"), "{error}");
}
