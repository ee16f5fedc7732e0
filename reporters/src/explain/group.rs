//! The same cause once.

use super::{Cause, Place, Reason};

/// Joins causes of one signature; those with most places first, and what lies deeper before what follows from it.
pub fn grouped(causes: Vec<Cause>) -> Vec<Cause> {
    let mut joined: Vec<Cause> = Vec::new();
    for cause in causes {
        let same = |known: &&mut Cause| known.reason == cause.reason && known.signature == cause.signature;
        match joined.iter_mut().find(same) {
            Some(known) => {
                for place in cause.places {
                    if !known.places.contains(&place) {
                        known.places.push(place);
                    }
                }
            }
            None => joined.push(cause),
        }
    }
    for cause in &mut joined {
        cause.places.sort();
    }
    // Stable: within a rank the order of discovery stays where the counts are equal.
    joined.sort_by_key(|cause| (rank(&cause.reason), std::cmp::Reverse(cause.places.len())));
    joined
}

fn rank(reason: &Reason) -> u8 {
    match reason {
        Reason::Infra | Reason::Server(_) => 0,
        Reason::Build => 1,
        Reason::Boot => 2,
        Reason::Timeout => 3,
        Reason::Test => 4,
        Reason::Unknown => 5,
    }
}

/// Where things fail, if one statement over architecture and platform holds for every place in which they do and for
/// none in which they pass.
pub fn boundary(bad: &[&Place], good: &[&Place]) -> Option<String> {
    let first = bad.first()?;
    if good.is_empty() {
        return (bad.len() > 1).then(|| "wherever it ran".to_owned());
    }
    let parts = |holds: &dyn Fn(&Place) -> bool| {
        bad.iter().all(|place| holds(place)) && !good.iter().any(|place| holds(place))
    };
    if bad.len() > 1 && parts(&|place| place.arch == first.arch) {
        return Some(format!("on all {}", first.arch));
    }
    if bad.len() > 1 && parts(&|place| place.platform == first.platform) {
        return Some(format!("on {}, whatever the architecture", first.platform));
    }
    let distro = first.platform.split('_').next().unwrap_or_default();
    if bad.len() > 1 && parts(&|place| place.platform.split('_').next() == Some(distro)) {
        return Some(format!("on all {distro}"));
    }
    parts(&|place| place == *first).then(|| format!("on {first} only"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Arch;

    fn places(names: &[(&str, Arch)]) -> Vec<Place> {
        names.iter().map(|(platform, arch)| Place { platform: (*platform).to_owned(), arch: *arch }).collect()
    }

    #[test]
    fn a_boundary_holds_for_all_that_fail_and_none_that_pass() {
        use Arch::{Arm64, X86_64};
        let say = |bad: &[(&str, Arch)], good: &[(&str, Arch)]| {
            let (bad, good) = (places(bad), places(good));
            boundary(&bad.iter().collect::<Vec<_>>(), &good.iter().collect::<Vec<_>>())
        };
        let arm = [("debian_11", Arm64), ("ubuntu_22.04", Arm64)];
        assert_eq!(say(&arm, &[("debian_11", X86_64)]).as_deref(), Some("on all arm64"));
        assert_eq!(say(&arm, &[("fedora_38", Arm64)]), None);
        let debian = [("debian_11", Arm64), ("debian_12", X86_64)];
        assert_eq!(
            say(&debian, &[("fedora_38", Arm64), ("fedora_38", X86_64)]).as_deref(),
            Some("on all debian")
        );
        assert_eq!(say(&debian[..1], &[("debian_11", X86_64)]).as_deref(), Some("on debian_11 arm64 only"));
        assert_eq!(say(&[], &[]), None);
    }

    #[test]
    fn the_same_cause_is_told_once() {
        let cause = |signature: &str, place: &str| Cause {
            reason: Reason::Boot,
            id: "x".to_owned(),
            says: "y".to_owned(),
            advice: String::new(),
            evidence: Vec::new(),
            places: vec![place.to_owned()],
            signature: signature.to_owned(),
        };
        let joined = grouped(vec![cause("a", "1"), cause("b", "3"), cause("b", "2"), cause("b", "2")]);
        assert_eq!(joined.iter().map(|cause| cause.places.len()).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(joined[0].places, ["2", "3"]);
    }
}
