use super::*;

const TINY: &str = r#"
mirror = "http://deb.debian.org"
[[distro]]
id = "debian"
name = "Debian GNU/Linux"
[[platform]]
id = "debian_12"
aliases = ["bookworm"]
distro = "debian"
version = "12"
kernel = "6.1"
[platform.source]
suite = "bookworm"
archives = [{ path = "debian", suite = "bookworm", components = ["main"] }]
kernel = { x86_64 = "linux-image-cloud-amd64" }
"#;

/// The platforms whose images are published. The kernels of Debian 11 and 12 are those that are built here.
const PUBLISHED: [(&str, Arch, &str); 53] = [
    ("fedora_37", Arch::X86_64, "6.0.7-301.fc37"),
    ("fedora_37", Arch::Arm64, "6.0.7-301.fc37"),
    ("fedora_38", Arch::X86_64, "6.2.9-300.fc38"),
    ("fedora_38", Arch::Arm64, "6.2.9-300.fc38"),
    ("fedora_40", Arch::X86_64, "6.8.5-301.fc40"),
    ("fedora_40", Arch::Arm64, "6.8.5-301.fc40"),
    ("amazon_4.14", Arch::X86_64, "4.14.314-237.533.amzn2"),
    ("amazon_4.14", Arch::Arm64, "4.14.314-237.533.amzn2"),
    ("amazon_5.4", Arch::X86_64, "5.4.284-196.380.amzn2"),
    ("amazon_5.4", Arch::Arm64, "5.4.284-196.380.amzn2"),
    ("amazon_5.10", Arch::X86_64, "5.10.226-214.879.amzn2"),
    ("amazon_5.10", Arch::Arm64, "5.10.226-214.879.amzn2"),
    ("amazon_2023", Arch::X86_64, "6.1.77-99.164.amzn2023"),
    ("amazon_2023", Arch::Arm64, "6.1.77-99.164.amzn2023"),
    ("centos_7.9", Arch::X86_64, "3.10.0-1160.80.1.el7"),
    ("centos_7.9", Arch::Arm64, "4.18.0-348.20.1.el7"),
    ("centos_8", Arch::X86_64, "4.18.0-552.3.1.el8"),
    ("centos_8", Arch::Arm64, "4.18.0-552.3.1.el8"),
    ("debian_9", Arch::X86_64, "4.9.0-19"),
    ("debian_10", Arch::X86_64, "4.19.0-27"),
    ("debian_10", Arch::Arm64, "4.19.0-27"),
    ("debian_11", Arch::X86_64, "5.10"),
    ("debian_11", Arch::Arm64, "5.10"),
    ("debian_12", Arch::X86_64, "6.1"),
    ("debian_12", Arch::Arm64, "6.1"),
    ("oracle_7.9", Arch::X86_64, "3.10.0-1160.105.1.0.1.el7"),
    ("oracle_8.9", Arch::X86_64, "5.15.0-200.131.27.el8uek"),
    ("oracle_8.9", Arch::Arm64, "5.15.0-200.131.27.el8uek"),
    ("oracle_9.3", Arch::X86_64, "5.15.0-200.131.27.el9uek"),
    ("oracle_9.3", Arch::Arm64, "5.15.0-200.131.27.el9uek"),
    ("rocky_8.5", Arch::X86_64, "4.18.0-348.el8.0.2"),
    ("rocky_8.5", Arch::Arm64, "4.18.0-348.el8.0.2"),
    ("rocky_9.3", Arch::X86_64, "5.14.0-362.8.1.el9_3"),
    ("rocky_9.3", Arch::Arm64, "5.14.0-362.8.1.el9_3"),
    ("ubuntu_16.04", Arch::X86_64, "4.4.0-210-generic"),
    ("ubuntu_18.04", Arch::X86_64, "4.18.0-25-generic"),
    ("ubuntu_18.04", Arch::Arm64, "4.18.0-25-generic"),
    ("ubuntu_20.04", Arch::X86_64, "5.4.0-167-generic"),
    ("ubuntu_20.04", Arch::Arm64, "5.4.0-167-generic"),
    ("ubuntu_22.04", Arch::X86_64, "5.15.0-91-generic"),
    ("ubuntu_22.04", Arch::Arm64, "5.15.0-91-generic"),
    ("ubuntu_23.10", Arch::X86_64, "6.5.0-44-generic"),
    ("ubuntu_23.10", Arch::Arm64, "6.5.0-44-generic"),
    ("ubuntu_24.04", Arch::X86_64, "6.8.0-31-generic"),
    ("ubuntu_24.04", Arch::Arm64, "6.8.0-31-generic"),
    ("ubuntu_24.10", Arch::X86_64, "6.11.0-8-generic"),
    ("ubuntu_24.10", Arch::Arm64, "6.11.0-8-generic"),
    ("opensuse_15.3", Arch::X86_64, "5.3.18-150300.59.106.1"),
    ("opensuse_15.3", Arch::Arm64, "5.3.18-150300.59.106.1"),
    ("opensuse_15.5", Arch::X86_64, "5.14.21-150500.55.80.2"),
    ("opensuse_15.5", Arch::Arm64, "5.14.21-150500.55.80.2"),
    ("suse_12.5", Arch::X86_64, "4.12.14-122.228.1"),
    ("suse_12.5", Arch::Arm64, "4.12.14-122.228.1"),
];

/// Platform, and its published image for x86_64 and arm64 below the place of all.
const IMAGES: [(&str, &str, &str); 28] = [
    (
        "fedora_37",
        "20241003_a9a46356/Fedora-Cloud-Base-37.x86_64.qcow2.xz",
        "20241003_a9a46356/Fedora-Cloud-Base-37.arm64.qcow2.xz",
    ),
    (
        "fedora_38",
        "20241003_a9a46356/Fedora-Cloud-Base-38.x86_64.qcow2.xz",
        "20241003_a9a46356/Fedora-Cloud-Base-38.arm64.qcow2.xz",
    ),
    (
        "fedora_40",
        "20241003_a9a46356/Fedora-Cloud-Base-40.x86_64.qcow2.xz",
        "20241003_a9a46356/Fedora-Cloud-Base-40.arm64.qcow2.xz",
    ),
    (
        "amazon_4.14",
        "20241003_a9a46356/amzn2-x86_64-4.14.qcow2.xz",
        "20241003_a9a46356/amzn2-arm64-4.14.qcow2.xz",
    ),
    (
        "amazon_5.4",
        "20241003_a9a46356/amzn2-x86_64-5.4.qcow2.xz",
        "20241003_a9a46356/amzn2-arm64-5.4.qcow2.xz",
    ),
    (
        "amazon_5.10",
        "20241003_a9a46356/amzn2-x86_64-5.10.qcow2.xz",
        "20241003_a9a46356/amzn2-arm64-5.10.qcow2.xz",
    ),
    (
        "amazon_2023",
        "20241003_a9a46356/amzn2023-amd64-2023.qcow2.xz",
        "20241003_a9a46356/amzn2023-arm64-2023.qcow2.xz",
    ),
    (
        "centos_7.9",
        "20241003_a9a46356/centos-7.9-x86_64.qcow2.xz",
        "20241003_a9a46356/centos-7.9-arm64.qcow2.xz",
    ),
    ("centos_8", "20241003_a9a46356/centos-8-x86_64.qcow2.xz", "20241003_a9a46356/centos-8-arm64.qcow2.xz"),
    ("debian_9", "20241003_a9a46356/debian-9-generic-x86_64.qcow2.xz", ""),
    (
        "debian_10",
        "20241003_a9a46356/debian-10-generic-x86_64.qcow2.xz",
        "20241003_a9a46356/debian-10-generic-arm64.qcow2.xz",
    ),
    (
        "debian_11",
        "20241003_a9a46356/debian-11-generic-x86_64.qcow2.xz",
        "20241003_a9a46356/debian-11-generic-arm64.qcow2.xz",
    ),
    (
        "debian_12",
        "20241003_a9a46356/debian-12-generic-x86_64.qcow2.xz",
        "20241003_a9a46356/debian-12-generic-arm64.qcow2.xz",
    ),
    ("oracle_7.9", "20241003_a9a46356/oracle-7.9-x86_64.qcow.xz", ""),
    (
        "oracle_8.9",
        "20241003_a9a46356/oracle-8.9-x86_64.qcow.xz",
        "20241003_a9a46356/oracle-8.9-arm64.qcow.xz",
    ),
    (
        "oracle_9.3",
        "20241003_a9a46356/oracle-9.3-x86_64.qcow.xz",
        "20241003_a9a46356/oracle-9.3-arm64.qcow.xz",
    ),
    (
        "rocky_8.5",
        "20241003_a9a46356/rocky-8.5-x86_64.qcow2.xz",
        "20241003_a9a46356/rocky-8.5-arm64.qcow2.xz",
    ),
    (
        "rocky_9.3",
        "20241003_a9a46356/rocky-9.3-x86_64.qcow2.xz",
        "20241003_a9a46356/rocky-9.3-arm64.qcow2.xz",
    ),
    ("ubuntu_16.04", "20241003_a9a46356/ubuntu-16.04-x86_64.qcow2.xz", ""),
    (
        "ubuntu_18.04",
        "20241003_a9a46356/ubuntu-18.04-x86_64.qcow2.xz",
        "20241003_a9a46356/ubuntu-18.04-arm64.qcow2.xz",
    ),
    (
        "ubuntu_20.04",
        "20241003_a9a46356/ubuntu-20.04-x86_64.qcow2.xz",
        "20241003_a9a46356/ubuntu-20.04-arm64.qcow2.xz",
    ),
    (
        "ubuntu_22.04",
        "20241003_a9a46356/ubuntu-22.04-x86_64.qcow2.xz",
        "20241003_a9a46356/ubuntu-22.04-arm64.qcow2.xz",
    ),
    (
        "ubuntu_23.10",
        "20241003_a9a46356/ubuntu-23.10-x86_64.qcow2.xz",
        "20241003_a9a46356/ubuntu-23.10-arm64.qcow2.xz",
    ),
    (
        "ubuntu_24.04",
        "20241003_a9a46356/ubuntu-24.04-x86_64.qcow2.xz",
        "20241003_a9a46356/ubuntu-24.04-arm64.qcow2.xz",
    ),
    (
        "ubuntu_24.10",
        "20241028_31340374/ubuntu-24.10-x86_64.qcow2.xz",
        "20241028_31340374/ubuntu-24.10-arm64.qcow2.xz",
    ),
    (
        "opensuse_15.3",
        "20241003_a9a46356/opensuse-15.3-x86_64.qcow2.xz",
        "20241003_a9a46356/opensuse-15.3-arm64.qcow2.xz",
    ),
    (
        "opensuse_15.5",
        "20241003_a9a46356/opensuse-15.5-x86_64.qcow2.xz",
        "20241003_a9a46356/opensuse-15.5-arm64.qcow2.xz",
    ),
    (
        "suse_12.5",
        "20241003_a9a46356/suse-12.5-x86_64.qcow2.xz",
        "20241003_a9a46356/suse-12.5-arm64.qcow2.xz",
    ),
];

fn refused(text: &str) -> String {
    Catalogue::parse(&[("c.toml", text)]).unwrap_err().to_string()
}

#[test]
fn every_published_platform_is_known_with_its_kernel_and_image() {
    let catalogue = Catalogue::embedded().unwrap();
    for (id, arch, kernel) in PUBLISHED {
        let platform = catalogue.platform(id).unwrap();
        assert_eq!((platform.id.as_str(), platform.kernel(arch)), (id, Some(kernel)), "{arch}");
        let images: Vec<&str> = platform.variants[&arch].sources.iter().filter_map(Source::url).collect();
        let [url] = images[..] else { panic!("{id} {arch}: {images:?}") };
        assert!(url.starts_with("https://") && url.contains("/20241") && url.ends_with(".xz"), "{url}");
    }
    let published = |row: &&Platform, arch| {
        row.variants.get(&arch).is_some_and(|variant| variant.sources.iter().any(|s| s.url().is_some()))
    };
    for (arch, count) in [(Arch::X86_64, 28), (Arch::Arm64, 25)] {
        assert_eq!(catalogue.platforms().iter().filter(|row| published(row, arch)).count(), count);
    }
    let image = PublishedImage { url: "https://x/y.qcow2.xz".to_owned(), version: "1".to_owned() };
    assert_eq!(image.checksum(), "https://x/y.qcow2.xz.sum");
}

#[test]
fn every_published_image_has_its_url_and_checksum() {
    let catalogue = Catalogue::embedded().unwrap();
    let base = "https://dd-agent-omnibus.s3.amazonaws.com/kernel-version-testing/rootfs";
    for (id, x86, arm) in IMAGES {
        for (arch, file) in
            [(Arch::X86_64, x86), (Arch::Arm64, arm)].into_iter().filter(|(_, file)| !file.is_empty())
        {
            let sources = &catalogue.platform(id).unwrap().variants[&arch].sources;
            let published = sources.iter().find_map(|source| match source {
                Source::Published(image) => Some(image),
                _ => None,
            });
            let image = published.unwrap();
            assert_eq!(image.url, format!("{base}/{file}"), "{id} {arch}");
            assert_eq!(image.checksum(), format!("{base}/{file}.sum"), "{id} {arch}");
            assert!(file.starts_with(&image.version), "{id} {arch}");
        }
    }
}

#[test]
fn every_later_platform_is_known_by_name() {
    let catalogue = Catalogue::embedded().unwrap();
    for id in ["rocky_8.4", "rocky_9.4", "ubuntu_25.04", "ubuntu_25.10", "ubuntu_26.04", "amazon_6.12"] {
        assert!(catalogue.platform(id).is_some(), "{id}");
    }
}

#[test]
fn platforms_answer_to_ids_and_aliases() {
    let catalogue = Catalogue::embedded().unwrap();
    for (name, id) in [
        ("stretch", "debian_9"),
        ("buster", "debian_10"),
        ("bullseye", "debian_11"),
        ("bookworm", "debian_12"),
        ("debian12", "debian_12"),
        ("trixie", "debian_13"),
        ("sid", "debian_sid"),
        ("xenial", "ubuntu_16.04"),
        ("bionic", "ubuntu_18.04"),
        ("focal", "ubuntu_20.04"),
        ("jammy", "ubuntu_22.04"),
        ("mantic", "ubuntu_23.10"),
        ("noble", "ubuntu_24.04"),
        ("ubuntu_2204", "ubuntu_22.04"),
        ("oracular", "ubuntu_24.10"),
        ("resolute", "ubuntu_26.04"),
    ] {
        assert_eq!(catalogue.platform(name).unwrap().id, id, "{name}");
    }
    assert!(catalogue.platform("debian_14").is_none());
    assert_eq!(catalogue.distro("amzn").unwrap().name, "Amazon Linux");
}

#[test]
fn custom_kernels_go_from_4_4_to_the_newest() {
    let catalogue = Catalogue::embedded().unwrap();
    for minor in 4..=20 {
        let kernel = catalogue.custom(&format!("4.{minor}")).unwrap();
        assert_eq!(kernel.variants.contains_key(&Arch::Arm64), minor > 14, "4.{minor}");
    }
    for minor in 0..=19 {
        assert_eq!(catalogue.custom(&format!("5.{minor}")).unwrap().variants.len(), 2, "5.{minor}");
    }
    let built =
        |version: &str| catalogue.custom(version).unwrap().variants[&Arch::X86_64][0].debian().is_some();
    assert!(built("5.10") && built("6.1") && built("6.12") && built("6.18") && !built("5.9"));
    assert_eq!(catalogue.custom("6.12").unwrap().userland, "debian_12");
    assert!(catalogue.custom("6.2").is_none());
}

#[test]
fn only_suites_past_their_support_or_without_releases_may_be_expired() {
    let catalogue = Catalogue::embedded().unwrap();
    let expired = |name: &str| {
        let variant = &catalogue.platform(name).unwrap().variants[&Arch::X86_64];
        variant.sources[0].debian().unwrap().accept_expired_release
    };
    assert!(expired("debian_11") && expired("debian_sid"));
    assert!(!expired("debian_12") && !expired("debian_13"));
}

#[test]
fn bad_rows_are_refused_where_they_stand() {
    assert!(Catalogue::parse(&[("c.toml", TINY)]).is_ok());
    let unknown = refused(&TINY.replace("distro =", "color = 1\ndistro ="));
    assert!(
        unknown.contains("c.toml") && unknown.contains("line 9") && unknown.contains("color"),
        "{unknown}"
    );
    let arch = refused(&TINY.replace("{ x86_64 =", "{ vax ="));
    assert!(arch.contains("line 15") && arch.contains("vax"), "{arch}");
    let none = refused(&TINY.replace("kernel = \"6.1\"", "kernel = { arm64 = \"6.1\" }"));
    assert!(none.contains("names no kernel for x86_64"), "{none}");
}

#[test]
fn rows_that_contradict_each_other_are_refused() {
    let rest = TINY.split_once("[[platform]]").unwrap().1;
    let twice = refused(&format!("{TINY}[[platform]]{rest}"));
    assert!(twice.contains("names both"), "{twice}");
    let custom = "\n[[custom-kernel]]\nversions = [\"6.12\"]\nuserland = \"nix\"\n\
         [custom-kernel.source]\nsuite = \"s\"\nkernel = { x86_64 = \"k\" }\n\
         archives = [{ path = \"d\", suite = \"s\", components = [\"main\"] }]\n";
    assert!(refused(&format!("{TINY}{custom}")).contains("no platform id"));
    let arm = custom.replace("nix", "debian_12").replace("x86_64", "arm64");
    assert!(refused(&format!("{TINY}{arm}")).contains("lists arm64, which its userland"));
    assert!(refused(&TINY.replace("distro = \"debian\"", "distro = \"nix\"")).contains("no row describes"));
    assert!(refused(&TINY.replace("id = \"debian_12\"", "id = \"nix_1\"")).contains("begin with"));
}

#[test]
fn what_apt_would_read_as_something_else_is_refused() {
    assert!(refused(&TINY.replace("suite = \"bookworm\"\n", "suite = \"a b\"\n")).contains("plain word"));
    assert!(refused(&TINY.replace("linux-image-cloud-amd64", "-oDir=x")).contains("plain word"));
    assert!(refused(&TINY.replace("http://deb.debian.org", "copy:/x")).contains("mirror"));
    assert!(refused(&TINY.replace("\"debian_12\"", "\"../x\"")).contains("platform id"));
}
