//! The store on tools that make small files.

use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;
use std::time::Duration;

use super::*;
use crate::external::Class;
use crate::external::debian::{FakeDebian, Trouble};
use crate::external::store::fake::FakeStore;
use crate::image::objects::tests::Folder;
use crate::matrix::catalogue::Catalogue;

struct World {
    folder: Folder,
    tools: Arc<FakeDebian>,
    store: ImageStore,
    told: Arc<Mutex<Vec<ImageProgress>>>,
}

impl World {
    fn new() -> World {
        let (folder, tools) = (Folder::new(), Arc::new(FakeDebian::new()));
        let store = ImageStore::new(
            folder.0.join("images"),
            folder.0.join("cache"),
            tools.clone(),
            Arc::new(FakeStore::default()),
        );
        World { folder, tools, store, told: Arc::default() }
    }

    async fn ensure(&self, request: &ImageRequest) -> Result<LocalImage, ImageError> {
        self.store.ensure(request, &|progress| self.told.lock().unwrap().push(progress)).await
    }

    fn told(&self, wanted: impl Fn(&ImageProgress) -> bool) -> usize {
        self.told.lock().unwrap().iter().filter(|progress| wanted(progress)).count()
    }

    /// Everything below the store but locks.
    fn left(&self) -> Vec<PathBuf> {
        let mut all = Vec::new();
        let mut folders = vec![self.folder.0.join("images")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_none_or(|ending| ending != "lock") {
                    all.push(path);
                }
            }
        }
        all
    }
}

fn bookworm() -> ImageRequest {
    let catalogue = Catalogue::embedded().unwrap();
    ImageRequest::platform(catalogue.platform("bookworm").unwrap(), Arch::X86_64)
}

fn custom() -> ImageRequest {
    let catalogue = Catalogue::embedded().unwrap();
    let platform = catalogue.platform("bookworm").unwrap();
    ImageRequest::custom(catalogue.custom("6.12").unwrap(), platform, Arch::X86_64)
}

#[tokio::test]
async fn an_image_is_built_once_and_then_only_looked_at() {
    let world = World::new();
    assert_eq!(world.store.available(&bookworm()), Availability::Buildable);
    let image = world.ensure(&bookworm()).await.unwrap();
    assert_eq!(image.kernel_release, "6.1.0-fake");
    let direct = image.direct.clone().unwrap();
    for file in [&image.rootfs, &direct.kernel, &direct.initrd, image.modules.as_ref().unwrap()] {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o444);
    }
    assert!(image.rootfs.to_str().unwrap().contains(&image.rootfs_digest));
    assert_eq!(world.store.available(&bookworm()), Availability::Present);
    let calls = world.tools.calls().len();
    assert_eq!(world.ensure(&bookworm()).await.unwrap(), image);
    assert_eq!(world.tools.calls().len(), calls);
}

#[tokio::test]
async fn the_record_says_from_what_it_was_built() {
    let world = World::new();
    world.ensure(&bookworm()).await.unwrap();
    let listed = world.store.list().unwrap();
    assert_eq!(listed.len(), 2);
    let (kernel, rootfs) = (&listed[0], &listed[1]);
    assert_eq!(kernel.packages[0].name, "linux-image-cloud-amd64");
    assert!(rootfs.packages.iter().any(|p| p.name == "openssh-server" && p.version == "1.0-1"));
    assert_eq!(rootfs.inputs["suite"], "bookworm");
    world.store.verify(rootfs, Hashing::All).await.unwrap();
}

#[tokio::test]
async fn a_custom_kernel_takes_the_root_filesystem_that_is_there() {
    let world = World::new();
    let plain = world.ensure(&bookworm()).await.unwrap();
    let custom = world.ensure(&custom()).await.unwrap();
    assert_eq!(plain.rootfs, custom.rootfs);
    assert_ne!(plain.direct, custom.direct);
    assert_eq!(world.tools.calls().iter().filter(|call| call.starts_with("bootstrap")).count(), 1);
}

#[tokio::test]
async fn a_damaged_file_is_told_and_built_again() {
    let world = World::new();
    let image = world.ensure(&bookworm()).await.unwrap();
    let whole = fs::read(&image.rootfs).unwrap();
    fs::set_permissions(&image.rootfs, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&image.rootfs, &whole[..100]).unwrap();
    let listed = world.store.list().unwrap();
    assert!(world.store.verify(&listed[1], Hashing::All).await.is_err());
    let again = world.ensure(&bookworm()).await.unwrap();
    assert_eq!(fs::read(&again.rootfs).unwrap(), whole);
    let warned =
        |p: &ImageProgress| matches!(p, ImageProgress::Warned { text, .. } if text.contains("damaged"));
    assert_eq!(world.told(warned), 1);
    assert_eq!(world.tools.calls().iter().filter(|call| call.starts_with("unpack")).count(), 2);
}

#[tokio::test]
async fn a_refused_step_leaves_nothing_and_says_what_helps() {
    for step in ["refresh", "bootstrap", "unpack", "depmod", "ext4"] {
        let world = World::new();
        world.tools.trouble(step, Trouble::Refused(Class::Unreachable));
        let error = world.ensure(&bookworm()).await.unwrap_err();
        assert!(matches!(&error, ImageError::Build { .. }), "{step}: {error}");
        assert_eq!(error.hints(), ["`mend`"], "{step}");
        assert!(world.store.list().unwrap().iter().all(|manifest| !manifest.files.is_empty()));
        let stray =
            world.left().into_iter().find(|path| path.starts_with(world.folder.0.join("images/work")));
        assert_eq!(stray, None, "{step}");
        world.tools.mend();
        world.ensure(&bookworm()).await.unwrap();
    }
}

#[tokio::test]
async fn an_interrupted_build_looks_unfinished_and_the_next_one_clears_it_away() {
    let world = World::new();
    world.tools.trouble("bootstrap", Trouble::Hangs);
    let interrupted = tokio::time::timeout(Duration::from_millis(100), world.ensure(&bookworm())).await;
    assert!(interrupted.is_err());
    assert!(world.left().iter().any(|path| path.ends_with("rootfs.tar")));
    assert_eq!(world.store.available(&bookworm()), Availability::Buildable);
    world.tools.mend();
    world.ensure(&bookworm()).await.unwrap();
    assert!(!world.left().iter().any(|path| path.ends_with("rootfs.tar")));
    // What the interruption found in a blocking step let go by now.
    world.store.sweep().await.unwrap();
    assert!(!world.left().iter().any(|path| path.starts_with(world.folder.0.join("images/work"))));
}

#[tokio::test]
async fn leftovers_of_another_image_are_swept_unless_somebody_builds_there() {
    let world = World::new();
    let work = world.folder.0.join("images/work");
    fs::create_dir_all(work.join("rootfs-dead/tree")).unwrap();
    fs::create_dir_all(work.join("rootfs-alive/tree")).unwrap();
    let lock = fs::File::create(work.join("rootfs-alive.lock")).unwrap();
    lock.lock().unwrap();
    world.store.sweep().await.unwrap();
    assert!(!work.join("rootfs-dead").exists());
    assert!(work.join("rootfs-alive/tree").exists());
}

#[tokio::test]
async fn who_comes_second_waits_says_so_and_takes_what_the_first_built() {
    let world = World::new();
    let [rootfs, _] = bookworm().parts().unwrap();
    let work = world.folder.0.join("images/work");
    fs::create_dir_all(&work).unwrap();
    let lock = fs::File::create(work.join(format!("{}.lock", rootfs.slug()))).unwrap();
    lock.lock().unwrap();
    let waiting = |p: &ImageProgress| matches!(p, ImageProgress::Waiting { part } if *part == rootfs.slug());
    let first = async {
        while world.told(waiting) == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        lock.unlock().unwrap();
    };
    let request = bookworm();
    let (second, ()) = tokio::join!(world.ensure(&request), first);
    second.unwrap();
    assert_eq!(world.told(waiting), 1);
    // Two at once: one builds, the other takes it.
    let world = World::new();
    let (a, b) = tokio::join!(world.ensure(&request), world.ensure(&request));
    assert_eq!(a.unwrap(), b.unwrap());
    assert_eq!(world.tools.calls().iter().filter(|call| call.starts_with("bootstrap")).count(), 1);
}

#[tokio::test]
async fn what_cannot_be_had_is_said_before_anything_starts() {
    let world = World::new();
    let catalogue = Catalogue::embedded().unwrap();
    let mut platform = catalogue.platform("bookworm").unwrap().clone();
    platform.variants.remove(&Arch::Arm64);
    let request = ImageRequest::platform(&platform, Arch::Arm64);
    assert!(matches!(world.store.available(&request), Availability::Unavailable { .. }));
    assert!(world.ensure(&request).await.unwrap_err().to_string().contains("not have it for arm64"));
    world.tools.trouble("ready", Trouble::Refused(Class::NotFound));
    let error = world.ensure(&bookworm()).await.unwrap_err();
    assert_eq!(error.hints(), ["`sudo apt-get install mmdebstrap`"]);
    assert!(world.left().is_empty() && world.tools.calls().is_empty());
}

#[tokio::test]
async fn an_archive_past_its_date_is_taken_only_where_the_entry_says_so() {
    let world = World::new();
    world.tools.expire();
    assert!(world.ensure(&bookworm()).await.is_err());
    let catalogue = Catalogue::embedded().unwrap();
    let sid = ImageRequest::platform(catalogue.platform("sid").unwrap(), Arch::X86_64);
    world.ensure(&sid).await.unwrap();
    let warned =
        |p: &ImageProgress| matches!(p, ImageProgress::Warned { text, .. } if text.contains("past its date"));
    assert_eq!(world.told(warned), 2);
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_built_again_with_a_warning() {
    let world = World::new();
    let image = world.ensure(&bookworm()).await.unwrap();
    let [rootfs, _] = bookworm().parts().unwrap();
    let file = world.folder.0.join("images").join(format!("{}.json", rootfs.slug()));
    fs::write(&file, "{\"schema\": 1").unwrap();
    assert_eq!(world.ensure(&bookworm()).await.unwrap(), image);
    assert_eq!(world.told(|p| matches!(p, ImageProgress::Warned { .. })), 1);
    assert!(Manifest::read(&file).unwrap().is_some());
}
